# SPDX-License-Identifier: BSD-3-Clause
"""Every verb in every state, in cohortd and in qemu-storage-daemon: the same
verbs are allowed, and refusals have the same class."""
import pytest

from support.job_states import ID, STATES, VERBS, add_disks, verb_name
from support.qmp import QmpError
from support.waiting import wait_until


def outcome(daemon, command, arguments):
    try:
        daemon.qmp.command(command, arguments)
    except QmpError as error:
        return error.error_class
    return "success"


def clean_up(daemon):
    def nothing_left():
        jobs = [info["id"] for info in daemon.qmp.command("query-jobs")]
        for job in jobs:
            outcome(daemon, "job-cancel", {"id": job})
            outcome(daemon, "job-dismiss", {"id": job})
        return not jobs
    wait_until(nothing_left, 30, "jobs that end")
    daemon.qmp.events_now()


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_the_same_verbs_are_allowed_as_by_qemu(cohortd, qsd, state):
    "One job after another in this state, each gets one verb."
    found = []
    for daemon in (qsd(nbd=True), cohortd(nbd=True)):
        add_disks(daemon)
        outcomes = {}
        for verb in VERBS:
            command, key, more, _ = verb
            if command == "block-job-change":
                continue  # not in QEMU 7.2
            state(daemon)
            outcomes[verb_name(verb)] = outcome(daemon, command,
                                                {key: ID, **more})
            clean_up(daemon)
        found.append(outcomes)
    theirs, ours = found
    assert ours == theirs
