# SPDX-License-Identifier: BSD-3-Clause
"""Backup jobs: error policies, who pays for copy-before-write, sync modes."""
import pytest

from support.disks import (add_bitmap, backup_action, dirty_bytes,
                           failing_node, new_disk, new_target)
from support.images import (KIB, MIB, assert_same, patchy_image, qemu_io, run,
                            sparse_image)

SIZE = 4 * MIB


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


def start(daemon, target="target", **more):
    daemon.qmp.command(*backup_action("disk", target, **more))


def block_job(daemon):
    return daemon.qmp.command("query-block-jobs")[0]


def test_stop_pauses_and_resume_tries_again(daemon):
    "on-target-error=stop: nothing is lost, the resumed job copies it all."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    target = sparse_image(daemon.folder / "target", SIZE)
    daemon.qmp.command("blockdev-add",
                       failing_node("target", SIZE, once=True, path=target))
    start(daemon, on_target_error="stop")
    event = daemon.qmp.wait_event("BLOCK_JOB_ERROR")
    assert event["data"] == {"device": "job-disk", "operation": "write",
                             "action": "stop"}
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", status="paused")
    info = block_job(daemon)
    assert (info["io-status"], info["paused"]) == ("failed", True)
    daemon.qmp.command("job-resume", id="job-disk")
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(disk, target)


def test_what_is_retried_is_the_old_content(daemon):
    "A guest overwrites what a stopped job has read but could not write."
    disk = new_disk(daemon, "disk", SIZE, seed=2)
    run("cp", disk, daemon.folder / "before")
    target = sparse_image(daemon.folder / "target", SIZE)
    daemon.qmp.command("blockdev-add",
                       failing_node("target", SIZE, once=True, path=target))
    start(daemon, on_target_error="stop")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", status="paused")
    qemu_io(daemon.nbd_uri("disk"), "write -P 0xee 0 4M")
    daemon.qmp.command("job-resume", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")
    assert_same(daemon.folder / "before", target)


def test_a_failed_read_is_retried_too(daemon):
    "on-source-error=stop on the first read; the rest follows."
    path = patchy_image(daemon.folder / "disk.raw", SIZE)
    daemon.qmp.command("blockdev-add",
                       failing_node("disk", SIZE, "read", once=True, path=path))
    target = new_target(daemon, "target", SIZE)
    start(daemon, on_source_error="stop")
    assert daemon.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["operation"] == \
        "read"
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", status="paused")
    daemon.qmp.command("job-resume", id="job-disk")
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(path, target)


def test_ignore_tries_until_it_works(daemon):
    "on-target-error=ignore: an event for each failure, and success in the end."
    disk = new_disk(daemon, "disk", SIZE, seed=3)
    target = sparse_image(daemon.folder / "target", SIZE)
    daemon.qmp.command("blockdev-add",
                       failing_node("target", SIZE, once=True, path=target))
    start(daemon, on_target_error="ignore")
    assert daemon.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["action"] == \
        "ignore"
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(disk, target)


def test_ignoring_for_ever_leaves_the_daemon_alive(daemon):
    "A target that never works keeps the job busy, and nothing else."
    new_disk(daemon, "disk", SIZE, seed=3)
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    start(daemon, "bad", on_target_error="ignore")
    for _ in range(3):
        daemon.qmp.wait_event("BLOCK_JOB_ERROR")
    qemu_io(daemon.nbd_uri("disk"), "read 0 1M")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"


@pytest.mark.parametrize("policy", ["enospc", "auto"])
def test_enospc_stops_when_space_is_short(daemon, policy):
    "With room made, the job goes on and ends well."
    disk = new_disk(daemon, "disk", 8 * MIB, seed=4)
    small = daemon.folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
    try:
        target = sparse_image(small / "target", 8 * MIB)
        daemon.qmp.command("blockdev-add", driver="file", node_name="target",
                           filename=target)
        start(daemon, on_target_error=policy)
        daemon.qmp.wait_event("JOB_STATUS_CHANGE", status="paused")
        assert block_job(daemon)["io-status"] == "nospace"
        run("mount", "-o", "remount,size=16m", small)
        daemon.qmp.command("job-resume", id="job-disk")
        assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
        assert_same(disk, target)
        daemon.qmp.command("blockdev-del", node_name="target")
    finally:
        run("umount", "-l", small)


def test_enospc_reports_other_errors(daemon):
    "EIO is no lack of space: the job fails."
    new_disk(daemon, "disk", SIZE, seed=4)
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    start(daemon, "bad", on_target_error="enospc")
    assert daemon.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["action"] == \
        "report"
    assert "error" in daemon.qmp.wait_job_gone("job-disk")["data"]


def test_break_guest_write_fails_the_guest_not_the_backup(daemon):
    "on-cbw-error=break-guest-write: the write fails, the disk stays as it was."
    disk = new_disk(daemon, "disk", SIZE, seed=5)
    run("cp", disk, daemon.folder / "before")
    target = sparse_image(daemon.folder / "target", SIZE)
    node = failing_node("target", SIZE, once=True, path=target)
    # Past the background's first piece, where only the guest will write.
    node["inject-error"][0]["sector"] = 3 * MIB // 512
    daemon.qmp.command("blockdev-add", node)
    start(daemon, on_cbw_error="break-guest-write", speed=1)
    output = qemu_io(daemon.nbd_uri("disk"), "write -P 1 3M 4k", check=False)
    assert "Input/output error" in output
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 3M 4k")
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(daemon.folder / "before", target)


def test_sync_none_saves_what_guests_overwrite(daemon):
    "Nothing is copied but old content, until the job is cancelled."
    new_disk(daemon, "disk", SIZE, seed=6)
    before = (daemon.folder / "disk.raw").read_bytes()
    target = new_target(daemon, "target", SIZE)
    start(daemon, sync="none")
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 1M 64k", "write -P 2 1M 64k")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"
    expected = bytearray(SIZE)
    expected[MIB:MIB + 64 * KIB] = before[MIB:MIB + 64 * KIB]
    with open(target, "rb") as file:
        assert file.read() == bytes(expected)


def test_sync_top_copies_the_disk_s_own_layer(daemon):
    "A raw disk has one layer: top is the whole of it."
    disk = patchy_image(daemon.folder / "disk.raw", SIZE)
    daemon.qmp.command("blockdev-add", driver="file", node_name="disk",
                       filename=disk)
    target = new_target(daemon, "target", SIZE)
    start(daemon, sync="top")
    end = daemon.qmp.wait_job_gone("job-disk")
    assert end["data"]["offset"] == end["data"]["len"]
    assert_same(disk, target)


@pytest.mark.parametrize("perf", [
    {"max-workers": 1}, {"max-chunk": 128 * KIB}, {"min-cluster-size": MIB},
    {"max-workers": 3, "max-chunk": 2 * MIB, "min-cluster-size": 128 * KIB},
])
def test_tuning_changes_nothing_of_the_result(daemon, perf):
    "However the copying is done, the copy is equal."
    disk = new_disk(daemon, "disk", SIZE + 1000, seed=7)
    target = new_target(daemon, "target", SIZE + 1000)
    start(daemon, x_perf=perf)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(disk, target)


@pytest.mark.parametrize("members, word", [
    ({"x-perf": {"max-workers": 0}}, "max-workers"),
    ({"x-perf": {"max-chunk": 4096}}, "max-chunk"),
    ({"x-perf": {"max-chunk": -1}}, "max-chunk"),
    ({"x-perf": {"min-cluster-size": 65537}}, "min-cluster-size"),
    ({"compress": True}, "compress"),
    ({"sync": "none", "bitmap": "b0", "bitmap-mode": "on-success"}, "none"),
    ({"sync": "top", "bitmap": "b0", "bitmap-mode": "never"}, "never"),
    ({"on-cbw-error": "panic"}, "panic"),
    ({"on-target-error": "panic"}, "panic"),
])
def test_what_cannot_be_is_refused(daemon, members, word):
    "A clear error, and no job."
    new_disk(daemon, "disk", SIZE)
    add_bitmap(daemon, "disk")
    new_target(daemon, "target", SIZE)
    kind, data = backup_action("disk", "target")
    assert word in daemon.qmp.error(kind, {**data, **members}).desc
    assert daemon.qmp.command("query-jobs") == []


def test_always_keeps_what_was_not_copied(daemon):
    "bitmap-mode=always after a cancel: the rest, and what was written since."
    new_disk(daemon, "disk", SIZE, seed=8)
    add_bitmap(daemon, "disk")
    qemu_io(daemon.nbd_uri("disk"), "write 0 2M")
    new_target(daemon, "target", SIZE)
    start(daemon, sync="bitmap", bitmap="b0", bitmap_mode="always", speed=1,
          x_perf={"max-chunk": 64 * KIB})
    qemu_io(daemon.nbd_uri("disk"), "write 3M 64k")
    daemon.qmp.command("job-cancel", id="job-disk")
    end = daemon.qmp.wait_job_gone("job-disk")
    copied = end["data"]["offset"]
    assert copied >= 64 * KIB
    assert dirty_bytes(daemon, "disk") == 2 * MIB - copied + 64 * KIB
