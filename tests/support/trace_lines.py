# SPDX-License-Identifier: BSD-3-Clause
"""Trace events as a daemon under test has written them to its log."""
import re

from support.waiting import wait_until

LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+Z \S+ (\w+)((?: \w+=.*)?)")
FIELD = re.compile(r' (\w+)=("(?:\\.|[^"\\])*"|\S+)')


def events(daemon, name):
    "The fields of each event of that name so far; other lines are left out."
    matches = (LINE.fullmatch(line) for line in daemon.stderr().splitlines())
    return [dict(FIELD.findall(match.group(2))) for match in matches
            if match and match.group(1) == name]


def wait_event(daemon, name, count=1):
    "The fields of the event of that name that makes them `count`."
    wait_until(lambda: len(events(daemon, name)) >= count, 30,
               f"{count} trace events {name}")
    return events(daemon, name)[count - 1]
