# SPDX-License-Identifier: BSD-3-Clause
"""The same session with jobs in cohortd and in qemu-storage-daemon: the same
events, replies, and answers to queries, after the normaliser of
support/session.py. What differs on purpose is in
docs/internals/differences-from-qemu.md.

Every scenario runs on two disks, a and b, of 4 MiB with their first 3
MiB dirty in bitmap b0: more than one chunk, so that a job at speed 1 stays at
work. The last sector of `a-bad-source` cannot be read, that of `a-bad-target`
not be written: such a job fails, but at speed 1 only when it is let go on.
"""
import pytest

from support.disks import (add_bitmap, backup_action, failing_node, new_disk,
                           new_target)
from support.images import MIB, patchy_image, qemu_io, random_image
from support.session import WHOLE_LIFE, Session, job_of

SIZE = 4 * MIB
LAST_SECTOR = SIZE // 512 - 1
SLOW = {"speed": 1}


def add_failing_disk(daemon, name, iotype):
    """Reads or writes of its last sector fail; `iotype` says which."""
    path = random_image(daemon.folder / f"{name}.raw", SIZE)
    daemon.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": name,
        "image": {"driver": "file", "filename": path},
        "inject-error": [{"event": "none", "iotype": iotype, "errno": 5,
                          "sector": LAST_SECTOR}]})
    add_bitmap(daemon, name)


def prepare(daemon):
    for disk in "ab":
        new_disk(daemon, disk, SIZE, seed=1)
        add_bitmap(daemon, disk)
        qemu_io(daemon.nbd_uri(disk), "write -P 7 0 3M")
        new_target(daemon, f"{disk}-target", SIZE)
        add_failing_disk(daemon, f"{disk}-bad-source", "read")
        add_failing_disk(daemon, f"{disk}-bad-target", "write")
    daemon.qmp.events_now()


def full(disk, source=None, target=None, **more):
    return backup_action(source or disk, target or f"{disk}-target",
                         job=f"job-{disk}", **more)


def incremental(disk, **more):
    return full(disk, sync="incremental", bitmap="b0", **more)


def unreadable(disk, **more):
    return full(disk, source=f"{disk}-bad-source", **more)


def unwritable(disk, **more):
    return full(disk, target=f"{disk}-bad-target", **more)


B0 = [("a", "b0"), ("b", "b0")]


# The scenarios. Alone:

def success(s):
    s.do(*full("a"))
    s.until("job-a:null").look()


def success_incremental(s):
    s.do(*incremental("a"))
    s.until("job-a:null").look(*B0)


def nothing_to_do(s):
    s.do("block-dirty-bitmap-clear", node="a", name="b0")
    s.do(*incremental("a"))
    s.until("job-a:null").look(*B0)


def source_fails(s):
    s.do(*unreadable("a"))
    s.until("job-a:null").look()


def target_fails(s):
    s.do(*unwritable("a"))
    s.until("job-a:null").look()


def every_write_fails(s):
    s.do("blockdev-add", failing_node("dead", SIZE))
    s.do(*full("a", target="dead"))
    s.until("job-a:null").look()


def every_read_fails(s):
    s.do("blockdev-add", failing_node("dead", SIZE, "read"))
    s.do(*full("a", source="dead"))
    s.until("job-a:null").look()


def add_disk_that_fails_once(s, name, iotype, errno=5):
    """One request fails, those after it succeed."""
    path = random_image(s.daemon.folder / f"{name}.raw", SIZE)
    s.do("blockdev-add", {
        "driver": "blkdebug", "node-name": name,
        "image": {"driver": "file", "filename": path},
        "inject-error": [{"event": "none", "iotype": iotype, "errno": errno,
                          "once": True, "sector": LAST_SECTOR}]})


def stop_on_a_source_error(s):
    add_disk_that_fails_once(s, "once", "read")
    s.do(*full("a", source="once", on_source_error="stop"))
    s.until("job-a:ERROR", "job-a:paused").look()
    s.do("job-pause", id="job-a")  # it is paused
    s.do("job-resume", id="job-a")
    s.until("job-a:null").look()


def stop_on_a_target_error(s):
    add_disk_that_fails_once(s, "once", "write")
    s.do(*full("a", target="once", on_target_error="stop"))
    s.until("job-a:ERROR", "job-a:paused").look()
    s.do("block-job-resume", device="job-a")
    s.until("job-a:null").look()


def stop_when_the_target_is_full(s):
    add_disk_that_fails_once(s, "once", "write", errno=28)
    s.do(*full("a", target="once", on_target_error="enospc"))
    s.until("job-a:ERROR", "job-a:paused").look()
    s.do("job-resume", id="job-a")
    s.until("job-a:null").look()


def not_full_but_broken(s):
    add_disk_that_fails_once(s, "once", "write")
    s.do(*full("a", target="once", on_target_error="enospc"))
    s.until("job-a:null").look()


def ignore_a_source_error(s):
    add_disk_that_fails_once(s, "once", "read")
    s.do(*full("a", source="once", on_source_error="ignore"))
    s.until("job-a:null").look()


def cancel_while_stopped(s):
    add_disk_that_fails_once(s, "once", "read")
    s.do(*full("a", source="once", on_source_error="stop"))
    s.until("job-a:ERROR", "job-a:paused").look()
    s.do("block-job-cancel", device="job-a")
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look()


def group_one_stops_on_an_error(s):
    add_disk_that_fails_once(s, "once", "write")
    s.transaction(incremental("a"), full("b", target="once",
                                         on_target_error="stop"))
    s.until("job-a:waiting", "job-b:ERROR", "job-b:paused").look(*B0)
    s.do("job-resume", id="job-b")
    s.until("job-a:null", "job-b:null").look(*B0)


def sync_none(s):
    s.do(*full("a", sync="none"))
    s.until("job-a:running").look()
    s.do("job-pause", id="job-a")
    s.until("job-a:paused").look()
    s.do("job-resume", id="job-a")
    s.until("job-a:running").look()
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look()


def sync_top(s):
    s.do(*full("a", sync="top"))
    s.until("job-a:null").look()


def sync_top_of_a_sparse_disk(s):
    path = patchy_image(s.daemon.folder / "patchy.raw", SIZE)
    s.do("blockdev-add", {"driver": "file", "node-name": "patchy",
                          "filename": path})
    s.do(*full("a", source="patchy", sync="top"))
    s.until("job-a:null").look()


def drive_backup(s):
    path = str(s.daemon.folder / "new.raw")
    s.do("drive-backup", {"job-id": "job-a", "device": "a", "sync": "full",
                          "target": path, "format": "raw"})
    s.until("job-a:null").look()


def refused(s):
    for members in ({"device": "nowhere"}, {"target": "nowhere"},
                    {"target": "a"}, {"job-id": "0a"},
                    {"sync": "incremental"}, {"bitmap": "b0"},
                    {"sync": "incremental", "bitmap": "nobody"}):
        kind, data = full("a")
        s.do(kind, {**data, **members})
    s.look(*B0)


def what_a_job_holds(s):
    s.do(*incremental("a", **SLOW))
    s.until("job-a:running").look(*B0)
    s.do("blockdev-del", node_name="a-target")
    s.do("block_resize", node_name="a-target", size=2 * SIZE)
    s.do("block_resize", node_name="a", size=2 * SIZE)
    for verb in ("clear", "disable", "enable", "remove"):
        s.do(f"block-dirty-bitmap-{verb}", node="a", name="b0")
    s.do(*incremental("b", target="a-target"))
    s.do(*full("a"))  # the id is taken
    s.do(*backup_action("a", "b-target", job="second", sync="incremental",
                        bitmap="b0"))
    s.look(*B0)
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look(*B0)


def two_jobs_on_one_disk(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running")
    s.do(*full("b", source="a"))
    s.until("job-b:null").look()
    s.do("job-cancel", id="job-a")
    s.until("job-a:null")


def cancel_while_running(s):
    s.do(*incremental("a", **SLOW))
    s.until("job-a:running").look(("a", "b0"))
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look(*B0)


def block_job_cancel_while_running(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running")
    s.do("block-job-cancel", device="job-a")
    s.until("job-a:null").look()


def cancel_while_paused(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running").look()
    s.do("job-pause", id="job-a")
    s.until("job-a:paused").look()
    s.do("block-job-cancel", device="job-a")
    s.look()
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look()


def forced_cancel_while_paused(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running").look()
    s.do("job-pause", id="job-a")
    s.until("job-a:paused")
    s.do("block-job-cancel", device="job-a", force=True)
    s.until("job-a:null").look()


def cancel_while_pending(s):
    s.do(*incremental("a", auto_finalize=False))
    s.until("job-a:PENDING").look(("a", "b0"))
    s.do("job-cancel", id="job-a")
    s.until("job-a:null").look(*B0)


def manual_finalize(s):
    s.do(*full("a", auto_finalize=False))
    s.until("job-a:PENDING").look()
    s.do("job-finalize", id="job-a")
    s.until("job-a:null").look()


def block_job_finalize(s):
    s.do(*full("a", auto_finalize=False, auto_dismiss=False))
    s.until("job-a:PENDING").look()
    s.do("block-job-finalize", id="job-a")
    s.until("job-a:concluded").look()
    s.do("block-job-dismiss", id="job-a")
    s.until("job-a:null").look()


def manual_dismiss(s):
    s.do(*full("a", auto_dismiss=False))
    s.until("job-a:concluded").look()
    s.do(*full("a"))  # its id is still taken
    s.do("job-dismiss", id="job-a")
    s.until("job-a:null").look()


def manual_dismiss_after_a_failure(s):
    s.do(*unreadable("a", auto_dismiss=False))
    s.until("job-a:concluded").look()
    s.do("job-cancel", id="job-a")
    s.do("job-dismiss", id="job-a")
    s.until("job-a:null").look()


def manual_dismiss_after_a_cancel(s):
    s.do(*full("a", auto_dismiss=False, **SLOW))
    s.until("job-a:running").look()
    s.do("job-cancel", id="job-a")
    s.until("job-a:concluded").look()
    s.do("job-dismiss", id="job-a")
    s.until("job-a:null").look()


def pause_and_resume(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running").look()
    s.do("job-resume", id="job-a")  # not paused
    s.do("job-pause", id="job-a")
    s.until("job-a:paused").look()
    s.do("job-pause", id="job-a")  # paused already
    s.do("block-job-set-speed", device="job-a", speed=0)
    s.look()
    s.do("job-resume", id="job-a")
    s.until("job-a:null").look()


def block_job_pause_and_resume(s):
    s.do(*full("a", **SLOW))
    s.until("job-a:running").look()
    s.do("block-job-pause", device="job-a")
    s.until("job-a:paused").look()
    s.do("block-job-resume", device="job-a")
    s.until("job-a:running").look()
    s.do("block-job-set-speed", device="job-a", speed=0)
    s.until("job-a:null").look()


# In a group:

def group_success(s):
    s.transaction(incremental("a"), incremental("b"))
    s.until("job-a:null", "job-b:null").look(*B0)


def group_manual_finalize(s):
    s.transaction(incremental("a"), incremental("b", auto_finalize=False))
    s.until("job-a:pending", "job-b:PENDING").look(*B0)
    s.do("job-finalize", id="job-a")
    s.until("job-a:null", "job-b:null").look(*B0)


def group_manual_dismiss(s):
    s.transaction(incremental("a", auto_dismiss=False), incremental("b"))
    s.until("job-a:concluded", "job-b:null").look(*B0)
    s.do("job-dismiss", id="job-a")
    s.until("job-a:null").look()


def group_one_fails_on_its_source(s):
    s.transaction(incremental("a", **SLOW), unreadable("b"))
    s.until("job-a:null", "job-b:null").look(*B0)


def group_one_fails_while_the_other_waits(s):
    s.transaction(incremental("a"), unwritable("b", **SLOW))
    s.until("job-a:waiting", "job-b:running").look(*B0)
    s.do("block-job-set-speed", device="job-b", speed=0)
    s.until("job-a:null", "job-b:null").look(*B0)


def group_cancel_while_running(s):
    s.transaction(incremental("a", **SLOW), incremental("b", **SLOW))
    s.until("job-a:running", "job-b:running").look(*B0)
    s.do("job-cancel", id="job-b")
    s.until("job-a:null", "job-b:null").look(*B0)


def group_cancel_the_one_that_waits(s):
    s.transaction(incremental("a"), incremental("b", **SLOW))
    s.until("job-a:waiting", "job-b:running").look(*B0)
    s.do("job-cancel", id="job-a")
    s.until("job-a:null", "job-b:null").look(*B0)


def group_cancel_the_one_that_runs(s):
    s.transaction(incremental("a", auto_dismiss=False),
                  incremental("b", auto_dismiss=False, **SLOW))
    s.until("job-a:waiting", "job-b:running").look(*B0)
    s.do("job-cancel", id="job-b")
    s.until("job-a:concluded", "job-b:concluded").look(*B0)


def group_cancel_while_one_is_paused(s):
    s.transaction(incremental("a"), incremental("b", **SLOW))
    s.until("job-a:waiting", "job-b:running").look(*B0)
    s.do("job-pause", id="job-b")
    s.until("job-b:paused").look()
    s.do("job-cancel", id="job-a")
    s.until("job-a:null", "job-b:null").look(*B0)


def group_cancel_while_pending(s):
    s.transaction(incremental("a"), incremental("b", auto_finalize=False))
    s.until("job-a:pending", "job-b:PENDING").look(*B0)
    s.do("job-cancel", id="job-a")
    s.until("job-a:null", "job-b:null").look(*B0)


def group_failed_then_repeated(s):
    s.transaction(incremental("a", **SLOW),
                  unwritable("b", auto_dismiss=False))
    s.until("job-a:null", "job-b:concluded").look(*B0)
    s.do("job-dismiss", id="job-b")
    s.transaction(incremental("a"), incremental("b"))
    s.until("job-a:null", "job-b:null").look(*B0)


def individual_one_fails(s):
    s.transaction(incremental("a"), unreadable("b"), grouped=False)
    s.until("job-a:null", "job-b:null").look(*B0)


def refused_in_a_group(s):
    s.transaction(incremental("a"), full("b", target="nowhere"))
    s.until("job-a:null").look(*B0)


def abort_rolls_back(s):
    s.transaction(incremental("a"), incremental("b", auto_dismiss=False),
                  ("abort", {}), grouped=False)
    s.until("job-a:null", "job-b:null").look(*B0)


def a_group_of_one(s):
    s.transaction(incremental("a"))
    s.until("job-a:null").look(*B0)


SCENARIOS = [
    success, success_incremental, nothing_to_do, source_fails, target_fails,
    every_write_fails, every_read_fails, drive_backup, refused, sync_none,
    sync_top, sync_top_of_a_sparse_disk, stop_on_a_source_error, stop_on_a_target_error,
    stop_when_the_target_is_full, not_full_but_broken, ignore_a_source_error,
    cancel_while_stopped, group_one_stops_on_an_error,
    what_a_job_holds, two_jobs_on_one_disk,
    cancel_while_running, block_job_cancel_while_running, cancel_while_paused,
    forced_cancel_while_paused, cancel_while_pending, manual_finalize,
    block_job_finalize, manual_dismiss, manual_dismiss_after_a_failure,
    manual_dismiss_after_a_cancel, pause_and_resume,
    block_job_pause_and_resume, group_success, group_manual_finalize,
    group_manual_dismiss, group_one_fails_on_its_source,
    group_one_fails_while_the_other_waits, group_cancel_while_running,
    group_cancel_the_one_that_waits, group_cancel_the_one_that_runs,
    group_cancel_while_one_is_paused, group_cancel_while_pending,
    group_failed_then_repeated, individual_one_fails, abort_rolls_back,
    a_group_of_one, refused_in_a_group,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_session_is_the_same_as_with_qemu(cohortd, qsd, scenario):
    "Both daemons tell the same story."
    records = []
    for daemon in (qsd(nbd=True), cohortd(nbd=True)):
        prepare(daemon)
        session = Session(daemon)
        scenario(session)
        records.append(session.record())
    theirs, ours = records
    assert ours == theirs


def ends_of(events):
    """For each job, the places of its end: COMPLETED, concluded, null."""
    places = {}
    for index, event in enumerate(events):
        if event["event"] in WHOLE_LIFE or \
                event["data"].get("status") in ("concluded", "null"):
            places.setdefault(job_of(event), []).append(index)
    return places


@pytest.mark.parametrize("scenario", [
    group_success, group_manual_finalize, group_one_fails_on_its_source,
    group_one_fails_while_the_other_waits, group_cancel_while_pending,
], ids=lambda s: s.__name__)
def test_the_ends_of_members_are_told_one_after_another(cohortd, scenario):
    "A member's end is not interleaved with another's, and comes after all \
    fates are sealed."
    daemon = cohortd(nbd=True)
    prepare(daemon)
    session = Session(daemon)
    scenario(session)
    events = session.all_events()
    places = ends_of(events)
    assert len(places) == 2
    for indexes in places.values():
        assert indexes == list(range(indexes[0], indexes[0] + len(indexes)))
    first_end = min(indexes[0] for indexes in places.values())
    fates = [index for index, event in enumerate(events)
             if event["data"].get("status") in ("pending", "aborting")]
    assert max(fates) < first_end
