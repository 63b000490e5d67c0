# SPDX-License-Identifier: BSD-3-Clause
"""Spin proves the models of surviving crashes, and finds what is planted there.

Searches are started together, as many at a time as there are processors; each
test waits for its own.
"""
import concurrent.futures
import os
import re

import pytest

from searches import NAMES, bounds, errors, mistakes, search, text_of

SOUND = [(model, i) for model in NAMES
         for i in range(len(bounds(model, "sound")))]
PLANTED = [(model, name) for model in NAMES for name in mistakes(model)]


def begin(pool, model, what):
    "Starts the search of a sound model, or of one with a mistake in it."
    if isinstance(what, int):
        return pool.submit(search, model, bounds(model, "sound")[what])
    return pool.submit(search, model, mistakes(model)[what])


@pytest.fixture(scope="module")
def searches(request):
    "By what is searched: its report, to come. Only what was selected."
    chosen = [tuple(item.callspec.params.values())
              for item in request.session.items
              if "searches" in getattr(item, "fixturenames", ())]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = {key: begin(pool, *key) for key in chosen}
        yield begun
        for future in begun.values():
            future.cancel()


@pytest.mark.parametrize("model, i", SOUND)
def test_the_protocol_survives_every_crash(searches, model, i):
    "No order of steps, crashes and failures breaks what must hold."
    report = searches[model, i].result()
    assert errors(report) == 0, report


@pytest.mark.parametrize("model, mistake", PLANTED)
def test_a_mistake_in_the_protocol_is_found(searches, model, mistake):
    "The model with one rule left out has an error."
    report = searches[model, mistake].result()
    assert errors(report) > 0, report


@pytest.mark.parametrize("model", NAMES)
def test_bounds_are_of_mistakes_that_exist(model):
    "No mistake lost its bounds, or its place in the model, by a slip."
    found = mistakes(model)
    assert len(found) >= 5
    head = text_of(model).split("*/")[1]
    assert set(re.findall(r"BREAK_\w+", head)) <= set(found)
