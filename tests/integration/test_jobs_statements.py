# SPDX-License-Identifier: BSD-3-Clause
"""Statements about backup jobs and groups that QEMU's users rely on, by their
labels. The others are elsewhere: T1 to T9 in tests/unit/job/, T18 in
test_jobs_bitmaps.py and test_backup_top.py, T23 in test_fleecing.py, T24 in
test_jobs_hung.py. Disks are raw here; T10 and T22 with qcow2 are in
test_backup_qcow2.py and test_backup_top.py, T20 with a snapshot in
test_snapshot.py."""
import shutil

import pytest

from support.disks import (add_bitmap, add_disk, backup_action, failing_node,
                           new_disk, new_target)
from support.images import (KIB, MIB, assert_same, first_difference, qemu_io,
                            random_image, read_at, run, sparse_image, write_at)

SIZE = 8 * MIB


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


def write(daemon, disk, *commands):
    qemu_io(daemon.nbd_uri(disk), *commands)


def add_copy(daemon, name, path):
    """A target that begins as a copy of an image."""
    copy = daemon.folder / f"{name}.raw"
    shutil.copy(path, copy)
    return add_disk(daemon, name, copy, export=False)


def run_jobs(daemon, *actions, grouped=False):
    """Runs them in one transaction; the last event of each, by job."""
    daemon.qmp.transaction(*actions, grouped=grouped)
    return {job: daemon.qmp.wait_job_gone(job)
            for job in (data["job-id"] for _, data in actions)}


def assert_all_completed(ends):
    for end in ends.values():
        assert end["event"] == "BLOCK_JOB_COMPLETED"
        assert "error" not in end["data"]
        assert end["data"]["offset"] == end["data"]["len"]


ROUNDS = [("write -P 0x11 0 64k", "write -P 0x12 1M 100k"),
          ("write -P 0x21 32k 64k", "write -P 0x22 5M 1M"),
          ("write -P 0x31 1000000 1", "write -z 5M 512k", "discard 7M 1M")]


@pytest.mark.parametrize("granularity", [32 * KIB, 64 * KIB, 128 * KIB])
def test_t10_a_chain_of_increments(daemon, granularity):
    "T10: three rounds; each increment equals a full backup made then."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    add_bitmap(daemon, "disk", granularity=granularity)
    last = new_target(daemon, "full0", SIZE)
    run_jobs(daemon, backup_action("disk", "full0", job="full"))
    for index, commands in enumerate(ROUNDS, 1):
        write(daemon, "disk", *commands)
        increment = add_copy(daemon, f"inc{index}", last)
        reference = new_target(daemon, f"full{index}", SIZE)
        assert_all_completed(run_jobs(
            daemon, backup_action("disk", f"full{index}", job="full"),
            backup_action("disk", f"inc{index}", job="inc",
                          sync="incremental", bitmap="b0")))
        assert_same(increment, reference)
        last = increment
    assert_same(disk, last)


def test_t11_two_bitmaps_cleared_with_a_full_backup(daemon):
    "T11: increments through either bitmap are right."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    add_bitmap(daemon, "disk", "b0")
    write(daemon, "disk", *ROUNDS[0])
    add_bitmap(daemon, "disk", "b1")
    write(daemon, "disk", *ROUNDS[1])
    full = new_target(daemon, "full", SIZE)
    daemon.qmp.transaction(
        *(("block-dirty-bitmap-clear", {"node": "disk", "name": name})
          for name in ("b0", "b1")),
        backup_action("disk", "full", job="full"))
    daemon.qmp.wait_job_gone("full")
    write(daemon, "disk", *ROUNDS[2])
    for name in ("b0", "b1"):
        image = add_copy(daemon, f"inc-{name}", full)
        assert_all_completed(run_jobs(daemon, backup_action(
            "disk", f"inc-{name}", job="inc", sync="incremental",
            bitmap=name)))
        assert_same(disk, image)


def add_disk_that_fails_once(daemon, name):
    """Its first read fails, writes never do."""
    path = random_image(daemon.folder / f"{name}.raw", SIZE, 2)
    daemon.qmp.command("blockdev-add", failing_node(name, SIZE, "read",
                                                    once=True, path=path))
    daemon.qmp.command("block-export-add", type="nbd", id=f"export-{name}",
                       node_name=name, name=name, writable=True)
    return path


def group_that_fails_once(daemon, dirty_a):
    """Runs T12 or T13: returns when the repeated command has succeeded."""
    disks = [new_disk(daemon, "drive0", SIZE, seed=1),
             add_disk_that_fails_once(daemon, "drive1")]
    bases = []
    for index, disk in enumerate(disks):
        bases.append(daemon.folder / f"base{index}.raw")
        shutil.copy(disk, bases[-1])
        add_bitmap(daemon, f"drive{index}")
    if dirty_a:
        write(daemon, "drive0", *ROUNDS[0])
    write(daemon, "drive1", "write -P 9 3M 64k")

    def attempt(number):
        images = [add_copy(daemon, f"target{index}-{number}", base)
                  for index, base in enumerate(bases)]
        return images, [
            backup_action(f"drive{index}", f"target{index}-{number}",
                          sync="incremental", bitmap="b0")
            for index in range(2)]

    daemon.qmp.events_now()
    _, actions = attempt(1)
    ends = run_jobs(daemon, *actions, grouped=True)
    assert ends["job-drive0"]["event"] == "BLOCK_JOB_CANCELLED"
    assert ends["job-drive1"]["event"] == "BLOCK_JOB_COMPLETED"
    assert "error" in ends["job-drive1"]["data"]
    others = [event for event in daemon.qmp.events_now()
              if event["event"] != "JOB_STATUS_CHANGE"]
    assert [(event["event"], event["data"]) for event in others] == [
        ("BLOCK_JOB_ERROR", {"device": "job-drive1", "operation": "read",
                             "action": "report"})]
    assert daemon.qmp.command("query-block-jobs") == []
    for index in range(2):
        daemon.qmp.command("blockdev-del", node_name=f"target{index}-1")

    images, actions = attempt(2)
    assert_all_completed(run_jobs(daemon, *actions, grouped=True))
    for disk, image in zip(disks, images):
        assert_same(disk, image)


def test_t12_a_failed_group_can_be_repeated(daemon):
    "T12: one read fails; both end, one error is told; then all is well."
    group_that_fails_once(daemon, dirty_a=True)


def test_t13_a_member_without_work_is_cancelled_too(daemon):
    "T13: as T12, but drive0 has nothing dirty and is done at once."
    group_that_fails_once(daemon, dirty_a=False)


def test_t14_nothing_is_lost_by_a_failure(daemon):
    "T14: after a failed increment and more writes the next one has both."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    base = daemon.folder / "base.raw"
    shutil.copy(disk, base)
    add_bitmap(daemon, "disk")
    write(daemon, "disk", *ROUNDS[0])
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    ends = run_jobs(daemon, backup_action("disk", "bad", sync="incremental",
                                          bitmap="b0"))
    assert "error" in ends["job-disk"]["data"]
    write(daemon, "disk", *ROUNDS[1])
    image = add_copy(daemon, "target", base)
    assert_all_completed(run_jobs(daemon, backup_action(
        "disk", "target", sync="incremental", bitmap="b0")))
    assert_same(disk, image)


def test_t15_a_stopped_increment_keeps_its_bitmap_busy(daemon):
    "T15: stopped by an error, the count stays; resumed, all is consumed."
    add_disk_that_fails_once(daemon, "disk")
    add_bitmap(daemon, "disk")
    write(daemon, "disk", "write 0 256k", "write 2M 192k")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="incremental",
                                      bitmap="b0", on_source_error="stop"))
    event = daemon.qmp.wait_event("BLOCK_JOB_ERROR", device="job-disk")
    assert (event["data"]["operation"], event["data"]["action"]) == \
        ("read", "stop")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-disk", status="paused")
    info = daemon.qmp.bitmap("disk", "b0")
    assert (info["busy"], info["count"]) == (True, 458752)
    daemon.qmp.command("job-resume", id="job-disk")
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    info = daemon.qmp.bitmap("disk", "b0")
    assert (info["busy"], info["count"]) == (False, 0)


@pytest.mark.parametrize("members", [{}, {"bitmap": "unknown"}])
def test_t16_an_increment_needs_its_bitmap(daemon, members):
    "T16: no bitmap, or one that is not there: GenericError."
    new_disk(daemon, "disk", SIZE)
    new_target(daemon, "target", SIZE)
    kind, data = backup_action("disk", "target", sync="incremental")
    assert daemon.qmp.error(kind, {**data, **members}).error_class == \
        "GenericError"
    error = daemon.qmp.error("block-dirty-bitmap-add", node="disk", name="b0",
                             granularity=64000)
    assert error.error_class == "GenericError"


def test_t17_a_disk_that_has_grown(daemon):
    "T17: what is written past the old end is in the next increment."
    disk = new_disk(daemon, "disk", SIZE, seed=1, export=False)
    base = daemon.folder / "base.raw"
    shutil.copy(disk, base)
    add_bitmap(daemon, "disk")
    daemon.qmp.command("block_resize", node_name="disk", size=SIZE + MIB)
    daemon.qmp.command("block-export-add", type="nbd", id="export",
                       node_name="disk", name="disk", writable=True)
    write(daemon, "disk", f"write -P 5 {SIZE} 512k", "write -P 6 100k 1")
    run("truncate", "-s", SIZE + MIB, base)
    image = add_copy(daemon, "target", base)
    assert_all_completed(run_jobs(daemon, backup_action(
        "disk", "target", sync="incremental", bitmap="b0")))
    assert_same(disk, image)


def test_t19_two_disks_on_two_iothreads(cohortd):
    "T19: bitmaps and full backups in one transaction, then increments in one."
    daemon = cohortd("--object", "iothread,id=i0", "--object",
                     "iothread,id=i1", nbd=True)
    disks = []
    for index in range(2):
        disks.append(new_disk(daemon, f"d{index}", SIZE, seed=index))
        new_target(daemon, f"t{index}", SIZE)
    fulls = [backup_action(f"d{index}", f"t{index}") for index in range(2)]
    adds = [("block-dirty-bitmap-add", {"node": f"d{index}", "name": "b0"})
            for index in range(2)]
    daemon.qmp.transaction(adds[0], fulls[0], adds[1], fulls[1])
    for index in range(2):
        assert "error" not in daemon.qmp.wait_job_gone(f"job-d{index}")["data"]
        write(daemon, f"d{index}", *ROUNDS[index])
    assert_all_completed(run_jobs(daemon, *(
        backup_action(f"d{index}", f"t{index}", sync="incremental",
                      bitmap="b0") for index in range(2))))
    for index in range(2):
        assert_same(disks[index], daemon.folder / f"t{index}.raw")


def test_t20_bitmaps_move_and_copy_in_one_transaction(daemon):
    "T20: add on another node, merge there, remove here, in one step."
    for disk in ("old", "new"):
        new_disk(daemon, disk, SIZE)
    for name in ("moved", "copied"):
        add_bitmap(daemon, "old", name)
    write(daemon, "old", "write 0 128k")
    actions = []
    for name in ("moved", "copied"):
        actions += [
            ("block-dirty-bitmap-add", {"node": "new", "name": name}),
            ("block-dirty-bitmap-merge", {
                "node": "new", "target": name,
                "bitmaps": [{"node": "old", "name": name}]})]
    daemon.qmp.transaction(*actions, ("block-dirty-bitmap-remove",
                                      {"node": "old", "name": "moved"}))
    found = {disk: {entry["name"]: entry["count"]
                    for entry in daemon.qmp.node(disk)["dirty-bitmaps"]}
             for disk in ("old", "new")}
    assert found == {"old": {"copied": 128 * KIB},
                     "new": {"moved": 128 * KIB, "copied": 128 * KIB}}


@pytest.fixture(params=["alone", "in a transaction"])
def start(request, daemon):
    """Starts a backup as its own command or as an action."""
    new_disk(daemon, "disk", SIZE, seed=1)
    new_disk(daemon, "other", SIZE, seed=2)
    new_target(daemon, "target", SIZE)
    new_target(daemon, "other-target", SIZE)

    def begin(kind, data):
        if request.param == "alone":
            daemon.qmp.command(kind, data)
        else:
            daemon.qmp.transaction(
                backup_action("other", "other-target", job="other", speed=1),
                (kind, data))
    return begin


def test_t21_cancel_pause_resume_and_speed(daemon, start):
    "T21: a paused job stands still; speed is shown and changed; cancel ends."
    def info():
        return next(info for info in daemon.qmp.command("query-block-jobs")
                    if info["device"] == "job-disk")
    start(*backup_action("disk", "target", speed=4096))
    assert info()["speed"] == 4096
    daemon.qmp.command("job-pause", id="job-disk")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-disk", status="paused")
    # What was under way may still end; nothing new begins.
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert info()["speed"] == 0 and info()["offset"] <= MIB
    assert daemon.qmp.error("block-job-set-speed", device="job-disk",
                            speed=-1).error_class == "GenericError"
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=1)
    daemon.qmp.command("job-resume", id="job-disk")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"


@pytest.mark.parametrize("kind, members", [
    ("blockdev-backup", {"device": "nowhere"}),
    ("blockdev-backup", {"target": "nowhere"}),
    ("blockdev-backup", {"target": "disk"}),
    ("blockdev-backup", {"speed": -1}),
    ("drive-backup", {"device": "nowhere"}),
    ("drive-backup", {"mode": "existing", "target": "/nowhere/at-all"}),
    ("drive-backup", {"format": "spaghetti"}),
    ("drive-backup", {"speed": -1}),
])
def test_t21_bad_backups_leave_no_job(daemon, start, kind, members):
    "T21: refused with GenericError, and the other action's job is gone."
    _, data = backup_action("disk", "target")
    if kind == "drive-backup":
        data["target"] = str(daemon.folder / "new.raw")
    with pytest.raises(Exception, match="GenericError"):
        start(kind, {**data, **members})
    assert daemon.qmp.command("query-jobs") == []


def test_t22_overlapping_writes_do_not_touch_what_was_saved(daemon):
    "T22: a slow backup holds the old data of ranges written twice."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    before = daemon.folder / "before"
    shutil.copy(disk, before)
    target = new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", speed=1))
    write(daemon, "disk", "write -P 1 5M 64k", "write -P 2 5100k 100k",
          "write -P 3 5M 1M", "write -P 4 0 64k", "write -P 5 8323072 64k")
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(before, target)
    assert first_difference(disk, target) == 0


def test_t22_none_saves_only_what_is_overwritten(daemon):
    "T22: sync=none copies old data when a guest overwrites it, nothing else."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    expected = sparse_image(daemon.folder / "expected", SIZE)
    for offset in (0, 5 * MIB):
        write_at(expected, offset, read_at(disk, offset, 128 * KIB))
    target = new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="none"))
    write(daemon, "disk", "write -P 1 0 128k", "write -P 2 5M 70k",
          "write -P 3 0 1k", "write -z 5M 128k")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"
    assert_same(expected, target)


def test_t22_dismissing(daemon):
    "T22: concluded until dismissed, the id taken; a paused job is left alone."
    new_disk(daemon, "disk", SIZE, seed=1)
    new_target(daemon, "target", SIZE)
    error = daemon.qmp.error("block-job-dismiss", id="job-disk")
    assert error.error_class == "DeviceNotActive"
    daemon.qmp.command(*backup_action("disk", "target", auto_dismiss=False,
                                      speed=1))
    daemon.qmp.command("job-pause", id="job-disk")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-disk", status="paused")
    daemon.qmp.error("block-job-dismiss", id="job-disk")
    assert daemon.qmp.command("query-jobs")[0]["status"] == "paused"
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    daemon.qmp.command("job-resume", id="job-disk")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-disk",
                          status="concluded")
    kind, data = backup_action("disk", "target")
    assert "'job-disk'" in daemon.qmp.error(kind, data).desc
    daemon.qmp.command("block-job-dismiss", id="job-disk")
    assert daemon.qmp.command("query-jobs") == []
    run_jobs(daemon, (kind, data))
