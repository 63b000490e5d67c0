# SPDX-License-Identifier: BSD-3-Clause
"""Spin proves the models in models/, and finds each mistake planted in them.

A model is searched whole: "errors: 0" says that in no order of steps an
assertion fails or a process is left waiting.
"""
import re

import pytest

from support.daemon import ROOT
from support.images import run

JOB_TXN = ROOT / "models/job_txn.pml"
MISTAKES = sorted(set(re.findall(r"BREAK_\w+", JOB_TXN.read_text()))
                  - {"BREAK_"})


def search(folder, model, **macros):
    """The report of Spin's search."""
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    run("spin", *defines, "-a", model, cwd=folder)
    run("gcc", "-w", "-O2", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c",
        cwd=folder, timeout=300)
    report = run("./pan", "-m1000000", cwd=folder, timeout=900).stdout
    assert "max search depth too small" not in report, report
    return report


def errors(report):
    return int(re.search(r"errors: (\d+)", report)[1])


@pytest.mark.parametrize("cancellers, pausers", [(1, 1), (2, 0)])
def test_the_job_transaction_is_sound(folder, cancellers, pausers):
    "All end alike, none hangs, bitmaps never split, nobody is told early."
    report = search(folder, JOB_TXN, CANCELLERS=cancellers, PAUSERS=pausers)
    assert errors(report) == 0, report
    assert "Search not completed" not in report
    # Nothing is proved by accident: every statement was reached.
    whole = set(re.findall(r"unreached in proctype (\w+)\n\t\(0 of", report))
    pausing = {"Job", "Pauser"} if pausers else set()
    assert {"Group", "Canceller", "Finalizer"} | pausing <= whole, report


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_job_transaction_is_found(folder, mistake):
    "The model with one mistake in it has an error."
    report = search(folder, JOB_TXN, CANCELLERS=1, PAUSERS=1, **{mistake: 1})
    assert errors(report) > 0, report


def test_mistakes_are_planted():
    "The list is not empty by a slip of the expression that finds it."
    assert len(MISTAKES) >= 8
