# SPDX-License-Identifier: BSD-3-Clause
"""No wait holds up the monitor or the guests: groups with a member that hangs,
and transactions that fail after they have made jobs."""
import pytest

from support.disks import (add_bitmap, backup_action, dirty_bytes,
                           failing_node, new_disk, new_target, raw_options)
from support.images import KIB, MIB, qemu_io


@pytest.fixture
def daemon(cohortd, hanging_disk):
    """Disks a and b, dirty; `hung` is a target that does not answer."""
    daemon = cohortd(nbd=True)
    for disk in "ab":
        new_disk(daemon, disk, MIB, seed=1)
        add_bitmap(daemon, disk)
        qemu_io(daemon.nbd_uri(disk), "write 0 128k")
        new_target(daemon, f"{disk}-target", MIB)
    daemon.qmp.command("blockdev-add", raw_options("hung", hanging_disk.path))
    daemon.qmp.command("blockdev-add",
                       failing_node("bad", MIB, at=MIB - 512))
    hanging_disk.hang()
    return daemon


def incremental(disk, target, **more):
    return backup_action(disk, target, sync="incremental", bitmap="b0", **more)


def use_everything_else(daemon):
    """Commands and guests while job-a hangs."""
    for disk in "ab":  # also the disk that is being backed up
        qemu_io(daemon.nbd_uri(disk), "write -P 3 512k 64k", "read 0 1M")
    new_disk(daemon, "c", MIB, seed=3)
    add_bitmap(daemon, "c")
    new_target(daemon, "c-target", MIB)
    daemon.qmp.command(*backup_action("c", "c-target", bitmap="b0",
                                      bitmap_mode="on-success"))
    assert "error" not in daemon.qmp.wait_job_gone("job-c")["data"]
    daemon.qmp.command("query-named-block-nodes")
    with daemon.connect() as other:
        other.command("query-block-jobs")


def statuses(daemon):
    return {info["id"]: info["status"]
            for info in daemon.qmp.command("query-jobs")}


def test_g16_a_group_that_fails_with_a_hung_member(daemon, hanging_disk):
    "G16: the group waits for the hung member, and nobody else does."
    qemu_io(daemon.nbd_uri("b"), f"write {MIB - 64 * KIB} 64k")
    daemon.qmp.transaction(incremental("a", "hung"),
                           incremental("b", "bad", speed=1), grouped=True)
    hanging_disk.wait_for_hung("Write")
    daemon.qmp.command("block-job-set-speed", device="job-b", speed=0)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-b", status="aborting")
    use_everything_else(daemon)
    assert statuses(daemon) == {"job-a": "running", "job-b": "aborting"}
    # Fates are not told before they are sealed.
    assert not [event for event in daemon.qmp.event_log
                if event["event"] == "BLOCK_JOB_COMPLETED"
                and event["data"]["device"] != "job-c"]
    hanging_disk.go_on()
    assert daemon.qmp.wait_job_gone("job-a")["event"] == "BLOCK_JOB_CANCELLED"
    assert "error" in daemon.qmp.wait_job_gone("job-b")["data"]
    assert [dirty_bytes(daemon, disk)
            for disk in "ab"] == [192 * KIB, 256 * KIB]


def test_g16_a_group_that_is_cancelled_with_a_hung_member(daemon,
                                                          hanging_disk):
    "G16: job-cancel of the one that waits returns; the rest as above."
    daemon.qmp.transaction(incremental("a", "hung"),
                           incremental("b", "b-target"), grouped=True)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-b", status="waiting")
    hanging_disk.wait_for_hung("Write")
    daemon.qmp.command("job-cancel", id="job-b")
    use_everything_else(daemon)
    daemon.qmp.command("job-cancel", id="job-b")  # once more: no harm
    for verb in ("pause", "finalize", "dismiss", "complete"):
        error = daemon.qmp.error(f"job-{verb}", id="job-b")
        assert "'job-b'" in error.desc
    hanging_disk.go_on()
    for job in ("job-a", "job-b"):
        assert daemon.qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_CANCELLED"
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [192 * KIB] * 2


def test_g16_verbs_on_the_hung_member_return(daemon, hanging_disk):
    "G16: pause, resume, speed and cancel of a job that hangs do not wait."
    daemon.qmp.command(*incremental("a", "hung"))
    daemon.qmp.command("job-pause", id="job-a")
    daemon.qmp.command("block-job-set-speed", device="job-a", speed=1)
    daemon.qmp.command("job-resume", id="job-a")
    daemon.qmp.command("job-cancel", id="job-a")
    use_everything_else(daemon)
    hanging_disk.go_on()
    assert daemon.qmp.wait_job_gone("job-a")["event"] == "BLOCK_JOB_CANCELLED"


def test_g16_a_flush_that_hangs_at_finalize(daemon, hanging_disk):
    "G16: while a pending group is finalized on a hung target, all else goes on."
    hanging_disk.go_on()
    daemon.qmp.transaction(incremental("a", "hung", auto_finalize=False),
                           incremental("b", "b-target"), grouped=True)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    hanging_disk.hang()
    daemon.qmp.command("job-finalize", id="job-b")
    use_everything_else(daemon)
    hanging_disk.go_on()
    for job in ("job-a", "job-b"):
        assert "error" not in daemon.qmp.wait_job_gone(job)["data"]


LATER = [
    ("abort", {}),
    backup_action("c", "nowhere"),
    backup_action("nowhere", "c-target"),
    backup_action("c", "c-target", job="job-a"),
    backup_action("c", "a-target"),
    backup_action("c", "c-target", sync="incremental", bitmap="nobody"),
    backup_action("c", "small"),
]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("third", LATER, ids=range(len(LATER)))
def test_t24_a_third_action_that_fails_to_prepare(cohortd, third, grouped):
    "T24: two jobs were made; both are undone, at once, and never started."
    if grouped and third[0] == "abort":
        third = ("drive-backup", {"job-id": "j", "device": "c",
                                  "sync": "full", "mode": "existing",
                                  "target": "/nowhere/at-all"})
    daemon = cohortd(nbd=True)
    for disk in "abc":
        new_disk(daemon, disk, MIB, seed=1)
        add_bitmap(daemon, disk)
        new_target(daemon, f"{disk}-target", MIB)
    new_target(daemon, "small", MIB - 512)
    for disk in "ab":
        qemu_io(daemon.nbd_uri(disk), "write 0 128k")
    before = daemon.qmp.command("query-named-block-nodes")
    actions = [incremental("a", "a-target", auto_dismiss=False),
               incremental("b", "b-target", auto_finalize=False)]
    daemon.qmp.events_now()
    with pytest.raises(Exception, match="GenericError"):
        daemon.qmp.transaction(*actions, third, grouped=grouped)
    assert daemon.qmp.command("query-jobs") == []
    assert daemon.qmp.command("query-named-block-nodes") == before
    told = {}
    for event in daemon.qmp.events_now():
        assert event["event"] == "JOB_STATUS_CHANGE"
        told.setdefault(event["data"]["id"], []).append(
            event["data"]["status"])
    for job in ("job-a", "job-b"):
        assert told[job] == ["created", "aborting", "concluded", "null"]
    # And the same again without the third action.
    daemon.qmp.transaction(incremental("a", "a-target"),
                           incremental("b", "b-target"), grouped=True)
    for disk in "ab":
        assert "error" not in daemon.qmp.wait_job_gone(f"job-{disk}")["data"]
        assert dirty_bytes(daemon, disk) == 0
