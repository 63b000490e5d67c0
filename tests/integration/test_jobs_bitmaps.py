# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of a bitmap, for each sync, bitmap-mode and outcome, of a job
alone and of one in a group, with guest writes while the job is there.

The disk has 64 clusters of 64 KiB. P, what the bitmap holds before, are clusters
0, 1 and 63; the guest writes clusters 0 and 48 (W) while the job is there. A
job that fails does so on cluster 63, its last. U is what it has not copied.
"""
import shutil

import pytest

from support.disks import (add_bitmap, backup_action, dirty_bytes,
                           failing_node, new_disk, new_target)
from support.images import KIB, MIB, assert_same, qemu_io, random_image
from support.waiting import wait_until

CLUSTER = 64 * KIB
SIZE = 64 * CLUSTER
P = {0, 1, 63}
W = {0, 48}
# Not copied of a full backup after its first MiB, when 48 was saved for the
# guest's write; and when the last piece has failed.
FULL_AFTER_ONE_STEP = set(range(16, 64)) - W
FULL_LAST_PIECE = set(range(49, 64))

MODES = [("bitmap", "never"), ("bitmap", "on-success"), ("bitmap", "always"),
         ("full", "on-success"), ("full", "always")]


class Place:
    """A disk with bitmap b0, a copy of it from when b0 was clean, and a
    target that begins as that copy."""

    def __init__(self, daemon, granularity=CLUSTER, read_fails=False):
        self.daemon = daemon
        self.qmp = daemon.qmp
        self.disk = self.add_failing_disk() if read_fails else \
            new_disk(daemon, "disk", SIZE, seed=1)
        self.base = daemon.folder / "base.raw"
        shutil.copy(self.disk, self.base)
        self.target = daemon.folder / "target.raw"
        shutil.copy(self.disk, self.target)
        add_bitmap(daemon, "disk", granularity=granularity)
        new_disk(daemon, "reference", SIZE)
        add_bitmap(daemon, "reference", granularity=granularity)
        new_disk(daemon, "peer", SIZE, seed=2)
        new_target(daemon, "peer-target", SIZE)
        self.write(P, 0x11)

    def add_failing_disk(self):
        """As the plain one, but the first read of cluster 63 fails."""
        path = random_image(self.daemon.folder / "disk.raw", SIZE, 1)
        self.qmp.command("blockdev-add", failing_node(
            "disk", SIZE, "read", once=True, path=path, at=SIZE - 512))
        self.qmp.command("block-export-add", type="nbd", id="export-disk",
                         node_name="disk", name="disk", writable=True)
        return path

    def add_target(self, fails):
        last = {"event": "none", "iotype": "write", "errno": 5,
                "sector": SIZE // 512 - 1}
        self.qmp.command("blockdev-add", {
            "driver": "blkdebug", "node-name": "target",
            "image": {"driver": "file", "filename": str(self.target)},
            "inject-error": [last] if fails else []})

    def write(self, clusters, pattern, disk="disk"):
        qemu_io(self.daemon.nbd_uri(disk),
                *(f"write -P {pattern} {cluster * CLUSTER} {CLUSTER}"
                  for cluster in sorted(clusters)))

    def job(self, sync, mode, **more):
        return backup_action("disk", "target", job="job", sync=sync,
                             bitmap="b0", bitmap_mode=mode, **more)

    def offset(self):
        return next(info["offset"] for info in
                    self.qmp.command("query-block-jobs")
                    if info["device"] == "job")

    def wait_for_first_step(self, sync):
        """What a job at speed 1 copies before it waits."""
        first = 2 * CLUSTER if sync == "bitmap" else MIB
        wait_until(lambda: self.offset() >= first, 30, "the first step")
        assert self.offset() == first

    def sha256(self, disk):
        return self.qmp.command("x-debug-block-dirty-bitmap-sha256",
                                node=disk, name="b0")["sha256"]

    def assert_dirty(self, clusters):
        """The bitmap holds these clusters and nothing else."""
        if clusters:
            self.write(clusters, 1, "reference")
        assert dirty_bytes(self.daemon, "disk") == \
            dirty_bytes(self.daemon, "reference")
        assert self.sha256("disk") == self.sha256("reference")
        info = self.qmp.bitmap("disk", "b0")
        assert (info["busy"], info["recording"]) == (False, True)
        assert len(self.qmp.node("disk")["dirty-bitmaps"]) == 1

    def assert_next_backup_is_right(self, image):
        """An increment from the bitmap onto the image makes it the disk."""
        self.qmp.command("blockdev-del", node_name="target")
        self.qmp.command("blockdev-add", driver="file", node_name="next",
                         filename=str(image))
        self.qmp.command(*backup_action("disk", "next", job="next",
                                        sync="incremental", bitmap="b0"))
        assert "error" not in self.qmp.wait_job_gone("next")["data"]
        assert_same(self.disk, image)

    def usable(self, mode, succeeded):
        """The image that goes with the bitmap now."""
        return self.target if succeeded or mode == "always" else self.base


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


@pytest.fixture
def place(daemon):
    return Place(daemon)


def expected(mode, succeeded, uncopied):
    """Table 5.3 of the protocol's rules, with S = W."""
    if mode == "never":
        return P | W
    if mode == "on-success":
        return W if succeeded else P | W
    return W if succeeded else W | uncopied


@pytest.mark.parametrize("sync, mode", MODES)
def test_t18_success_with_writes_in_pending(place, sync, mode):
    "T18: finalized by hand, after the guest has written."
    place.add_target(fails=False)
    place.qmp.command(*place.job(sync, mode, auto_finalize=False))
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    place.write(W, 0x22)
    place.qmp.command("job-finalize", id="job")
    assert place.qmp.wait_job_gone("job")["event"] == "BLOCK_JOB_COMPLETED"
    place.assert_dirty(expected(mode, True, set()))
    place.assert_next_backup_is_right(place.usable(mode, True))


@pytest.mark.parametrize("sync, mode", MODES)
def test_t18_cancel_in_pending_with_writes(place, sync, mode):
    "T18: with `always` all was copied, so only what was written stays."
    place.add_target(fails=False)
    place.qmp.command(*place.job(sync, mode, auto_finalize=False))
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    place.write(W, 0x22)
    place.qmp.command("job-cancel", id="job")
    assert place.qmp.wait_job_gone("job")["event"] == "BLOCK_JOB_CANCELLED"
    place.assert_dirty(expected(mode, False, set()))
    place.assert_next_backup_is_right(place.usable(mode, False))


@pytest.mark.parametrize("sync, mode", MODES)
def test_t18_cancel_while_running_with_writes(place, sync, mode):
    "T18: with `always` what was copied is consumed, the rest stays."
    place.add_target(fails=False)
    place.qmp.command(*place.job(sync, mode, speed=1))
    place.wait_for_first_step(sync)
    place.write(W, 0x22)
    place.qmp.command("job-cancel", id="job")
    assert place.qmp.wait_job_gone("job")["event"] == "BLOCK_JOB_CANCELLED"
    uncopied = {63} if sync == "bitmap" else FULL_AFTER_ONE_STEP
    place.assert_dirty(expected(mode, False, uncopied))
    place.assert_next_backup_is_right(place.usable(mode, False))


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("sync, mode", MODES)
def test_t18_failure_with_writes(daemon, sync, mode, side):
    "T18: EIO after part was copied; `always` keeps what failed."
    place = Place(daemon, read_fails=side == "source")
    place.add_target(fails=side == "target")
    place.qmp.command(*place.job(sync, mode, speed=1,
                                 x_perf={"max-workers": 1}))
    place.wait_for_first_step(sync)
    place.write(W, 0x22)
    place.qmp.command("block-job-set-speed", device="job", speed=0)
    assert "error" in place.qmp.wait_job_gone("job")["data"]
    uncopied = {63} if sync == "bitmap" else FULL_LAST_PIECE
    place.assert_dirty(expected(mode, False, uncopied))
    place.assert_next_backup_is_right(place.usable(mode, False))


# In a group, where the job under test has copied everything and waits.

def start_group(place, sync, mode, peer_target="peer-target", **more):
    place.add_target(fails=False)
    place.qmp.transaction(
        place.job(sync, mode),
        backup_action("peer", peer_target, job="peer", **more), grouped=True)


@pytest.mark.parametrize("sync, mode", MODES)
def test_group_success(place, sync, mode):
    "Both are there: as alone."
    start_group(place, sync, mode, auto_finalize=False)
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="peer")
    place.write(W, 0x22)
    place.qmp.command("job-finalize", id="job")
    for job in ("job", "peer"):
        assert place.qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_COMPLETED"
    place.assert_dirty(expected(mode, True, set()))
    place.assert_next_backup_is_right(place.usable(mode, True))


@pytest.mark.parametrize("sync, mode", MODES)
def test_group_cancelled_in_pending(place, sync, mode):
    "A peer is cancelled while all are pending."
    start_group(place, sync, mode, auto_finalize=False)
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="peer")
    place.write(W, 0x22)
    place.qmp.command("job-cancel", id="peer")
    for job in ("job", "peer"):
        assert place.qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_CANCELLED"
    place.assert_dirty(expected(mode, False, set()))
    place.assert_next_backup_is_right(place.usable(mode, False))


@pytest.mark.parametrize("sync, mode", MODES)
def test_group_cancelled_while_one_waits(place, sync, mode):
    "A peer at work is cancelled; the one that waits has copied all."
    start_group(place, sync, mode, speed=1)
    place.qmp.wait_event("JOB_STATUS_CHANGE", id="job", status="waiting")
    place.write(W, 0x22)
    place.qmp.command("job-cancel", id="peer")
    for job in ("job", "peer"):
        assert place.qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_CANCELLED"
    place.assert_dirty(expected(mode, False, set()))
    place.assert_next_backup_is_right(place.usable(mode, False))


@pytest.mark.parametrize("sync, mode", MODES)
def test_group_peer_fails_while_one_waits(place, sync, mode):
    "The seed's promise: who has copied all keeps its bitmap nevertheless."
    place.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": "bad",
        "image": {"driver": "null-co", "size": SIZE},
        "inject-error": [{"event": "none", "iotype": "write", "errno": 5,
                          "sector": SIZE // 512 - 1}]})
    start_group(place, sync, mode, peer_target="bad", speed=1)
    place.qmp.wait_event("JOB_STATUS_CHANGE", id="job", status="waiting")
    place.write(W, 0x22)
    place.qmp.command("block-job-set-speed", device="peer", speed=0)
    assert place.qmp.wait_job_gone("job")["event"] == "BLOCK_JOB_CANCELLED"
    assert "error" in place.qmp.wait_job_gone("peer")["data"]
    place.assert_dirty(expected(mode, False, set()))
    place.assert_next_backup_is_right(place.usable(mode, False))


@pytest.mark.parametrize("sync, mode", MODES)
def test_group_failing_member(place, sync, mode):
    "The one that fails itself, in a group: as alone."
    place.add_target(fails=True)
    place.qmp.transaction(
        place.job(sync, mode, speed=1),
        backup_action("peer", "peer-target", job="peer"), grouped=True)
    place.wait_for_first_step(sync)
    place.write(W, 0x22)
    place.qmp.command("block-job-set-speed", device="job", speed=0)
    assert "error" in place.qmp.wait_job_gone("job")["data"]
    assert place.qmp.wait_job_gone("peer")["event"] == "BLOCK_JOB_CANCELLED"
    uncopied = {63} if sync == "bitmap" else FULL_LAST_PIECE
    place.assert_dirty(expected(mode, False, uncopied))
    place.assert_next_backup_is_right(place.usable(mode, False))


# What is seen meanwhile, and other granularities.

def test_a_frozen_bitmap_shows_its_successor(place):
    "The bitmap is busy, its count stays; a second entry has no name."
    place.add_target(fails=False)
    place.qmp.command(*place.job("bitmap", "on-success", auto_finalize=False))
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    place.write(W, 0x22)
    entries = place.qmp.node("disk")["dirty-bitmaps"]
    named = [entry for entry in entries if entry.get("name") == "b0"]
    unnamed = [entry for entry in entries if "name" not in entry]
    assert [entry["count"] for entry in named] == [len(P) * CLUSTER]
    assert [entry["count"] for entry in unnamed] == [len(W) * CLUSTER]
    assert named[0]["busy"] and named[0]["recording"]
    place.qmp.command("job-finalize", id="job")
    place.qmp.wait_job_gone("job")


@pytest.mark.parametrize("granularity", [4 * KIB, CLUSTER, MIB])
def test_uncopied_clusters_fit_any_granularity(daemon, granularity):
    "After a failed `always` the bitmap covers each uncopied cluster whole."
    place = Place(daemon, granularity)
    qemu_io(place.daemon.nbd_uri("disk"), f"write {62 * CLUSTER} 512")
    place.add_target(fails=True)
    place.qmp.command(*place.job("bitmap", "always"))
    assert "error" in place.qmp.wait_job_gone("job")["data"]
    left = dirty_bytes(daemon, "disk")
    assert left >= 2 * CLUSTER
    place.assert_next_backup_is_right(place.target)


def test_a_disabled_bitmap_stays_disabled(place):
    "Its successor records nothing either, whichever way the job ends."
    for finish in ("job-finalize", "job-cancel"):
        place.qmp.command("block-dirty-bitmap-disable", node="disk",
                          name="b0")
        new_target(place.daemon, f"{finish}-target", SIZE)
        place.qmp.command(*backup_action(
            "disk", f"{finish}-target", job="job", sync="bitmap", bitmap="b0",
            bitmap_mode="never", auto_finalize=False))
        place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
        place.write(W, 0x22)
        place.qmp.command(finish, id="job")
        place.qmp.wait_job_gone("job")
        info = place.qmp.bitmap("disk", "b0")
        assert (info["recording"], info["count"]) == (False, 3 * CLUSTER)
