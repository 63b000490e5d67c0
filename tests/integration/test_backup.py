# SPDX-License-Identifier: BSD-3-Clause
"""Single backup jobs: what they copy, what becomes of the bitmap."""
import pytest

from support.disks import (add_bitmap, backup_action, dirty_bytes,
                           failing_node, new_disk, new_target)
from support.images import (KIB, MIB, allocated_bytes, assert_same,
                            first_difference, patchy_image, qemu_io, run,
                            sparse_image)

SIZE = 16 * MIB


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


def backup(daemon, disk, target, **more):
    kind, data = backup_action(disk, target, **more)
    daemon.qmp.command(kind, data)
    return daemon.qmp.wait_job_gone(data["job-id"])


def test_full_backup_equals_the_disk(daemon):
    "sync=full copies every byte, and says so in its last event."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    target = new_target(daemon, "target", SIZE)
    end = backup(daemon, "disk", "target")
    assert end["event"] == "BLOCK_JOB_COMPLETED"
    assert "error" not in end["data"]
    assert end["data"]["offset"] == end["data"]["len"] == SIZE
    assert_same(disk, target)


def test_events_of_a_job_come_in_order(daemon):
    "created, running, waiting, pending, completed, concluded, null."
    new_disk(daemon, "disk", SIZE, seed=1)
    new_target(daemon, "target", SIZE)
    backup(daemon, "disk", "target")
    seen = [event["data"].get("status", event["event"])
            for event in daemon.qmp.event_log]
    assert seen == ["created", "running", "waiting", "pending",
                    "BLOCK_JOB_COMPLETED", "concluded", "null"]


def test_odd_sizes_are_copied_to_the_last_byte(daemon):
    "A disk that ends within a cluster and a sector is copied whole."
    disk = new_disk(daemon, "disk", SIZE + 512 * 3 + 17, seed=2)
    target = new_target(daemon, "target", SIZE + 512 * 3 + 17)
    backup(daemon, "disk", "target")
    assert_same(disk, target)


def test_holes_stay_holes(daemon):
    "A sparse disk makes a sparse target, also over old data."
    path = patchy_image(daemon.folder / "disk.raw", SIZE)
    daemon.qmp.command("blockdev-add", driver="file", node_name="disk",
                       filename=path)
    target = new_disk(daemon, "target", SIZE, export=False, seed=7)
    backup(daemon, "disk", "target")
    assert_same(path, target)


def test_zero_skipping_does_not_allocate(daemon):
    "An empty disk of 1 TiB takes no space on a new target, however opened."
    new_disk(daemon, "disk", 1 << 40)
    target = sparse_image(daemon.folder / "target", 1 << 40)
    daemon.qmp.command("blockdev-add", driver="file", node_name="target",
                       filename=target)
    backup(daemon, "disk", "target")
    assert allocated_bytes(target) < MIB


def test_incremental_copies_what_the_bitmap_says(daemon):
    "Dirty clusters and nothing else; then the bitmap starts anew."
    new_disk(daemon, "disk", SIZE, seed=1)
    add_bitmap(daemon, "disk")
    qemu_io(daemon.nbd_uri("disk"), "write -P 0x11 1M 64k",
            "write -P 0x22 15M 1M")
    target = new_target(daemon, "target", SIZE)
    end = backup(daemon, "disk", "target", sync="incremental", bitmap="b0")
    assert end["data"]["len"] == 64 * KIB + MIB
    expected = sparse_image(daemon.folder / "expected", SIZE)
    qemu_io(expected, "write -P 0x11 1M 64k", "write -P 0x22 15M 1M")
    assert_same(expected, target)
    assert dirty_bytes(daemon, "disk") == 0


def test_a_chain_of_increments_equals_the_disk(daemon):
    "Full plus three increments, applied in order, is the disk."
    disk = new_disk(daemon, "disk", SIZE, seed=3)
    add_bitmap(daemon, "disk")
    target = new_target(daemon, "target", SIZE)
    backup(daemon, "disk", "target", bitmap="b0", bitmap_mode="on-success")
    for step in range(3):
        qemu_io(daemon.nbd_uri("disk"),
                f"write -P {step + 1} {step * 777777} 300000")
        backup(daemon, "disk", "target", sync="incremental", bitmap="b0")
        assert_same(disk, target)


def test_guests_overwriting_do_not_change_the_backup(daemon):
    "The backup is the disk at its start, however the guest goes on."
    disk = new_disk(daemon, "disk", SIZE, seed=4)
    before = daemon.folder / "before"
    run("cp", disk, before)
    target = new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", speed=MIB))
    qemu_io(daemon.nbd_uri("disk"), "write -P 0xaa 0 16M")
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    daemon.qmp.wait_job_gone("job-disk")
    assert_same(before, target)
    assert first_difference(disk, target) == 0


def test_unaligned_overwrites_and_discards_are_saved_too(daemon):
    "Old content is saved before writes of any size, zeroes and discards."
    disk = new_disk(daemon, "disk", SIZE, seed=5)
    before = daemon.folder / "before"
    run("cp", disk, before)
    target = new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", speed=64 * KIB))
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 100001 33", "write -z 1M 1M",
            "discard 3M 1M", "write -z -u 5000001 77777",
            "write -P 2 16777215 1")
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    daemon.qmp.wait_job_gone("job-disk")
    assert_same(before, target)


@pytest.mark.parametrize("mode, left", [("on-success", 0),
                                        ("never", 128 * KIB), ("always", 0)])
def test_success_and_the_bitmap(daemon, mode, left):
    "on-success and always consume the bitmap, never keeps it."
    new_disk(daemon, "disk", SIZE)
    add_bitmap(daemon, "disk")
    qemu_io(daemon.nbd_uri("disk"), "write 0 128k")
    new_target(daemon, "target", SIZE)
    backup(daemon, "disk", "target", sync="bitmap", bitmap="b0",
           bitmap_mode=mode)
    assert dirty_bytes(daemon, "disk") == left


@pytest.mark.parametrize("mode", ["on-success", "never", "always"])
def test_failure_loses_nothing(daemon, mode):
    "After a failed job the bitmap still holds what was not copied."
    new_disk(daemon, "disk", SIZE)
    add_bitmap(daemon, "disk")
    qemu_io(daemon.nbd_uri("disk"), "write 0 128k")
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    end = backup(daemon, "disk", "bad", sync="bitmap", bitmap="b0",
                 bitmap_mode=mode)
    assert "bad" in end["data"]["error"]
    assert dirty_bytes(daemon, "disk") == 128 * KIB
    assert not daemon.qmp.bitmap("disk", "b0")["busy"]
    report = daemon.qmp.wait_event("BLOCK_JOB_ERROR")
    assert report["data"] == {"device": "job-disk", "operation": "write",
                              "action": "report"}


def test_a_failed_read_names_the_source(daemon):
    "An unreadable source fails the job with operation read."
    daemon.qmp.command("blockdev-add", failing_node("disk", SIZE, "read"))
    new_target(daemon, "target", SIZE)
    end = backup(daemon, "disk", "target")
    assert "disk" in end["data"]["error"]
    assert daemon.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["operation"] \
        == "read"


def test_a_guest_never_pays_for_a_broken_target(daemon):
    "Writes succeed while the backup's target fails; the backup fails."
    disk = new_disk(daemon, "disk", SIZE, seed=6)
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.command(*backup_action("disk", "bad", speed=1))
    qemu_io(daemon.nbd_uri("disk"), "write -P 5 8M 1M")
    end = daemon.qmp.wait_job_gone("job-disk")
    assert "error" in end["data"]
    qemu_io(disk, "read -P 5 8M 1M", read_only=True)


def test_cancel_keeps_the_bitmap(daemon):
    "A cancelled job gives the bitmap back, with later writes added."
    new_disk(daemon, "disk", SIZE)
    add_bitmap(daemon, "disk")
    qemu_io(daemon.nbd_uri("disk"), "write 0 4M")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="incremental",
                                      bitmap="b0", speed=1))
    assert daemon.qmp.bitmap("disk", "b0")["busy"]
    qemu_io(daemon.nbd_uri("disk"), "write 8M 1M")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"
    assert dirty_bytes(daemon, "disk") == 5 * MIB


def test_a_bitmap_in_a_job_is_busy(daemon):
    "While a job reads it, a bitmap can be neither changed nor used again."
    new_disk(daemon, "disk", SIZE, seed=1)
    add_bitmap(daemon, "disk")
    new_target(daemon, "target", SIZE)
    new_target(daemon, "target2", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", bitmap="b0",
                                      bitmap_mode="on-success", speed=1))
    for verb in ("clear", "remove", "enable", "disable"):
        error = daemon.qmp.error(f"block-dirty-bitmap-{verb}", node="disk",
                                 name="b0")
        assert "job-disk" in error.desc
    kind, data = backup_action("disk", "target2", job="j2",
                               sync="incremental", bitmap="b0")
    assert "job-disk" in daemon.qmp.error(kind, data).desc
    unnamed = [entry for entry in daemon.qmp.node("disk")["dirty-bitmaps"]
               if "name" not in entry]
    assert len(unnamed) == 1


def test_manual_finalize_waits_in_pending(daemon):
    "auto-finalize=false: done, but undecided until job-finalize."
    new_disk(daemon, "disk", SIZE, seed=1)
    add_bitmap(daemon, "disk")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", auto_finalize=False,
                                      auto_dismiss=False))
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-disk")
    daemon.qmp.command("job-finalize", id="job-disk")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="job-disk",
                          status="concluded")
    assert daemon.qmp.command("query-jobs")[0]["status"] == "concluded"
    daemon.qmp.command("job-dismiss", id="job-disk")
    assert daemon.qmp.command("query-jobs") == []


def test_pending_jobs_tell_what_they_copied(daemon):
    "x-cohort-query-backup-extents lists the clusters of an increment."
    new_disk(daemon, "disk", SIZE)
    add_bitmap(daemon, "disk", granularity=4096)
    qemu_io(daemon.nbd_uri("disk"), "write 0 4k", "write 100k 4k",
            "write 1M 128k")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="incremental",
                                      bitmap="b0", auto_finalize=False))
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-disk")
    wanted = [{"offset": 0, "length": 128 * KIB},
              {"offset": MIB, "length": 128 * KIB}]
    found = daemon.qmp.command("x-cohort-query-backup-extents", id="job-disk")
    assert found == {"extents": wanted}
    first = daemon.qmp.command("x-cohort-query-backup-extents", id="job-disk",
                               limit=1)
    assert first == {"extents": wanted[:1], "next": MIB}
    rest = daemon.qmp.command("x-cohort-query-backup-extents", id="job-disk",
                              start=first["next"])
    assert rest == {"extents": wanted[1:]}
    daemon.qmp.command("job-finalize", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")


def test_drive_backup_makes_its_file(daemon):
    "drive-backup creates a raw file, and lets go of it at the end."
    disk = new_disk(daemon, "disk", SIZE, seed=8)
    target = daemon.folder / "new.raw"
    daemon.qmp.command("drive-backup", job_id="j", device="disk", sync="full",
                       target=str(target), format="raw")
    daemon.qmp.wait_job_gone("j")
    assert_same(disk, target)
    qemu_io(target, "write 0 64k")
    assert [node["node-name"] for node in
            daemon.qmp.command("query-named-block-nodes")
            if node["file"] == str(target)] == []


def test_drive_backup_uses_an_existing_file(daemon):
    "mode=existing opens what is there, and refuses what is not."
    disk = new_disk(daemon, "disk", SIZE, seed=9)
    target = sparse_image(daemon.folder / "old.raw", SIZE)
    daemon.qmp.command("drive-backup", job_id="j", device="disk", sync="full",
                       target=target, mode="existing", format="raw")
    daemon.qmp.wait_job_gone("j")
    assert_same(disk, target)
    error = daemon.qmp.error("drive-backup", job_id="j", device="disk",
                             sync="full", mode="existing",
                             target=str(daemon.folder / "absent"))
    assert "absent" in error.desc


GRID = [
    # sync, bitmap, bitmap-mode, accepted (qmp-surface: refused triples)
    ("incremental", None, None, False),
    ("incremental", None, "on-success", False),
    ("incremental", "b0", "always", False),
    ("incremental", "b0", "never", False),
    ("incremental", "b0", "on-success", True),
    ("incremental", "b0", None, True),
    ("incremental", "unknown", None, False),
    ("bitmap", None, None, False),
    ("bitmap", None, "always", False),
    ("bitmap", "unknown", "always", False),
    ("bitmap", "b0", None, False),
    ("bitmap", "b0", "on-success", True),
    ("bitmap", "b0", "never", True),
    ("bitmap", "b0", "always", True),
    ("full", None, None, True),
    ("full", None, "on-success", False),
    ("full", "unknown", "on-success", False),
    ("full", "b0", None, False),
    ("full", "b0", "never", False),
    ("full", "b0", "on-success", True),
    ("full", "b0", "always", True),
]


@pytest.mark.parametrize("sync, bitmap, mode, accepted", GRID)
def test_which_combinations_mean_something(daemon, sync, bitmap, mode,
                                           accepted):
    "The grid of sync, bitmap and bitmap-mode that a client may ask for."
    new_disk(daemon, "disk", MIB)
    add_bitmap(daemon, "disk")
    new_target(daemon, "target", MIB)
    more = {"bitmap": bitmap, "bitmap_mode": mode}
    kind, data = backup_action(
        "disk", "target", sync=sync,
        **{key: value for key, value in more.items() if value})
    if accepted:
        daemon.qmp.command(kind, data)
        end = daemon.qmp.wait_job_gone("job-disk")
        assert "error" not in end["data"]
    else:
        assert daemon.qmp.error(kind, data).error_class == "GenericError"
        assert daemon.qmp.command("query-jobs") == []
        assert not daemon.qmp.bitmap("disk", "b0")["busy"]


@pytest.mark.parametrize("members, word", [
    ({"device": "nowhere"}, "nowhere"),
    ({"target": "nowhere"}, "nowhere"),
    ({"target": "disk"}, "itself"),
    ({"target": "small"}, "equal sizes"),
    ({"target": "large"}, "equal sizes"),
    ({"target": "fixed"}, "fixed"),
    ({"job-id": ""}, "job"),
    ({"job-id": "0bad"}, "0bad"),
    ({"speed": -1}, "speed"),
    ({"sync": "sideways"}, "sideways"),
    ({"surprise": 1}, "surprise"),
])
def test_bad_backups_are_refused(daemon, members, word):
    "Each refusal says what is wrong, and leaves no job behind."
    new_disk(daemon, "disk", MIB)
    new_target(daemon, "target", MIB)
    new_target(daemon, "small", MIB - 512)
    new_target(daemon, "large", MIB + 512)
    daemon.qmp.command("blockdev-add", driver="file", node_name="fixed",
                       read_only=True,
                       filename=sparse_image(daemon.folder / "ro", MIB))
    kind, data = backup_action("disk", "target")
    error = daemon.qmp.error(kind, {**data, **members})
    assert word in error.desc
    assert daemon.qmp.command("query-jobs") == []


def test_nodes_of_a_job_cannot_be_deleted(daemon):
    "Source and target are held, and the refusal names the job."
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="disk",
                       size=SIZE)
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", speed=1))
    for node in ("disk", "target"):
        error = daemon.qmp.error("blockdev-del", node_name=node)
        assert "job-disk" in error.desc
    kind, data = backup_action("disk", "target", job="j2")
    assert "job-disk" in daemon.qmp.error(kind, data).desc


def test_a_full_target_disk_fails_the_job_alone(daemon, background):
    "ENOSPC on the target is told; the daemon and the source go on."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    small = daemon.folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
    try:
        target = sparse_image(small / "target", SIZE)
        daemon.qmp.command("blockdev-add", driver="file", node_name="target",
                           filename=target)
        end = backup(daemon, "disk", "target")
        assert "No space left" in end["data"]["error"]
        daemon.qmp.command("blockdev-del", node_name="target")
    finally:
        run("umount", "-l", small)
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 1M")
    qemu_io(disk, "read -P 1 0 1M", read_only=True)


def test_a_read_only_directory_is_no_place_for_a_target(daemon):
    "Neither node nor job comes of it, the error names file and reason."
    new_disk(daemon, "disk", SIZE, seed=1)
    folder = daemon.folder / "read-only"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro,size=4m", "tmpfs", folder)
    try:
        nodes = daemon.qmp.command("query-named-block-nodes")
        error = daemon.qmp.error("drive-backup", device="disk", sync="full",
                                 job_id="j", target=str(folder / "target"),
                                 format="raw")
        assert str(folder / "target") in error.desc
        assert "Read-only file system" in error.desc
        assert daemon.qmp.command("query-jobs") == []
        assert daemon.qmp.command("query-named-block-nodes") == nodes
    finally:
        run("umount", "-l", folder)
