# SPDX-License-Identifier: BSD-3-Clause
"""Every verb on a job in every state that a backup reaches: allowed, or refused
with a sentence that names the job and its state."""
import pytest

from support.disks import (backup_action, failing_node, new_disk,
                           raw_options)
from support.images import MIB
from support.job_states import (ID, SIZE, STATES, VERBS, add_disks, paused,
                                running, status, verb_name)


@pytest.fixture
def daemon(cohortd):
    daemon = cohortd(nbd=True)
    add_disks(daemon)
    return daemon


# Refused for another reason than the state; the sentence says which.
OTHER_REASON = {
    ("job-pause", "paused"): "paused already",
    ("block-job-pause", "paused"): "paused already",
    ("block-job-cancel", "paused"): "while it is paused",
    ("block-job-change", "running"): "a backup job has no such option",
    ("block-job-change", "paused"): "a backup job has no such option",
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("command, key, more, allowed", VERBS, ids=map(
    verb_name, VERBS))
def test_each_verb_in_each_state(daemon, state, command, key, more, allowed):
    "Allowed, or refused with job and state named, and then without effect."
    state(daemon)
    name = state.__name__
    before = daemon.qmp.command("query-block-jobs")
    if name in allowed:
        daemon.qmp.command(command, {key: ID, **more})
        return
    error = daemon.qmp.error(command, {key: ID, **more})
    assert error.error_class == "GenericError"
    assert f"'{ID}'" in error.desc.replace("Job ", "job ")
    assert OTHER_REASON.get((command, name), f"'{name}'") in error.desc or (
        "resume" in command and "not paused" in error.desc)
    after = daemon.qmp.command("query-block-jobs")
    for infos in (before, after):  # a job at work goes on
        for info in infos:
            info.pop("offset"), info.pop("busy")
    assert after == before


@pytest.fixture
def aborting(daemon, hanging_disk):
    "A group whose member job-a has failed while the target of job-m hangs."
    daemon.qmp.command("blockdev-add",
                       raw_options("hung", hanging_disk.path))
    daemon.qmp.command("blockdev-add",
                       failing_node("bad", SIZE, at=SIZE - 512))
    new_disk(daemon, "m", MIB, seed=1)
    hanging_disk.hang()
    daemon.qmp.transaction(backup_action("m", "hung", job="job-m"),
                           backup_action("a", "bad", speed=1), grouped=True)
    hanging_disk.wait_for_hung("Write")
    daemon.qmp.command("block-job-set-speed", device=ID, speed=0)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="aborting")
    return daemon


@pytest.mark.parametrize("command, key, more, allowed", VERBS, ids=map(
    verb_name, VERBS))
def test_no_verb_is_allowed_while_aborting(aborting, command, key, more,
                                           allowed):
    "A job that aborts takes no verb, and says that it aborts."
    error = aborting.qmp.error(command, {key: ID, **more})
    assert error.error_class == "GenericError"
    assert f"'{ID}'" in error.desc
    assert "'aborting'" in error.desc or "not paused" in error.desc


UNKNOWN = [(command, key, more) for command, key, more, _ in VERBS]


@pytest.mark.parametrize("command, key, more", UNKNOWN)
def test_an_unknown_job_has_the_class_of_the_family(daemon, command, key,
                                                    more):
    "DeviceNotActive from block-job-*, GenericError from job-*; both name it."
    error = daemon.qmp.error(command, {key: "nobody", **more})
    wanted = "DeviceNotActive" if command.startswith("block") else \
        "GenericError"
    assert error.error_class == wanted
    assert "'nobody'" in error.desc


def test_a_job_of_another_type_is_not_changed(daemon):
    "block-job-change says which types there are."
    running(daemon)
    error = daemon.qmp.error("block-job-change", id=ID, type="mirror")
    assert error.error_class == "GenericError" and "mirror" in error.desc


def test_a_paused_job_stays_paused_until_resumed_once(daemon):
    "Pauses do not add up; a second resume is refused."
    paused(daemon)
    daemon.qmp.error("job-pause", id=ID)
    daemon.qmp.command("job-resume", id=ID)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="running")
    assert "not paused" in daemon.qmp.error("job-resume", id=ID).desc
    assert status(daemon) == "running"


def test_a_refused_cancel_leaves_a_paused_job_paused(daemon):
    "block-job-cancel without force; with force it is cancelled."
    paused(daemon)
    assert "'force'" in daemon.qmp.error("block-job-cancel", device=ID).desc
    assert status(daemon) == "paused"
    daemon.qmp.command("block-job-cancel", device=ID, force=True)
    assert daemon.qmp.wait_job_gone(ID)["event"] == "BLOCK_JOB_CANCELLED"


def test_pause_and_resume_before_the_job_is_quiet(daemon):
    "Verbs faster than the job: the last one counts, the job ends well."
    running(daemon)
    for _ in range(20):
        daemon.qmp.command("job-pause", id=ID)
        daemon.qmp.command("job-resume", id=ID)
    daemon.qmp.command("block-job-set-speed", device=ID, speed=0)
    assert "error" not in daemon.qmp.wait_job_gone(ID)["data"]


def test_paused_shows_at_once_and_busy_goes(daemon):
    "`paused` is true as soon as it is asked for; `busy` false once quiet."
    running(daemon)
    daemon.qmp.command("job-pause", id=ID)
    assert daemon.qmp.command("query-block-jobs")[0]["paused"]
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="paused")
    info = daemon.qmp.command("query-block-jobs")[0]
    assert (info["paused"], info["busy"]) == (True, False)
