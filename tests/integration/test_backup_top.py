# SPDX-License-Identifier: BSD-3-Clause
"""T18 where sync=top differs from full: a disk of two layers, of which a backup
of the top one consumes a bitmap, or does not.

The disk has 64 clusters of 64 KiB. The top layer holds clusters 0, 1, 20, 40
and 63 (L) when the job starts; of these 0, 1 and 63 (P) are dirty in the bitmap.
The guest writes 0 and 48 (W) while the job is there. A job that fails does so
on cluster 63; it has copied the rest. At speed 1 it copies 0 and 1, and waits.
"""
import pytest

from support.chains import (add_qcow2, assert_equal_images, assert_sound,
                            close_node, new_layer, qcow2_options)
from support.create import create_qcow2, file_node
from support.disks import add_bitmap, add_disk, backup_action, new_disk
from support.images import KIB, qemu_img, qemu_io, random_image
from support.waiting import wait_until

CLUSTER = 64 * KIB
SIZE = 64 * CLUSTER
LAYER, P, W = {0, 1, 20, 40, 63}, {0, 1, 63}, {0, 48}
MODES = ["on-success", "always"]


def write(daemon, clusters, pattern, disk="disk"):
    qemu_io(daemon.nbd_uri(disk),
            *(f"write -P {pattern} {cluster * CLUSTER} {CLUSTER}"
              for cluster in sorted(clusters)))


class Place:
    def __init__(self, daemon):
        self.daemon = daemon
        self.qmp = daemon.qmp
        self.base = random_image(daemon.folder / "base.raw", SIZE)
        new_layer(daemon, "disk", SIZE, self.base, "raw", export=True)
        write(daemon, LAYER - P, 0x11)
        # What the disk holds when the bitmap is clean.
        self.clean = daemon.folder / "clean.raw"
        qemu_img("convert", "-O", "raw", daemon.nbd_uri("disk"), self.clean)
        add_bitmap(daemon, "disk")
        new_disk(daemon, "reference", SIZE)
        add_bitmap(daemon, "reference")
        write(daemon, P, 0x22)
        self.target = create_qcow2(daemon, daemon.folder / "target.qcow2",
                                   SIZE, backing_file=self.base,
                                   backing_fmt="raw")

    def add_target(self, fails=False):
        """As `target`; if it fails, a write of cluster 63 does."""
        bad = {"event": "none", "iotype": "write", "errno": 5,
               "sector": SIZE // 512 - 1}
        self.qmp.command("blockdev-add", {
            "driver": "blkdebug", "node-name": "target",
            "image": {key: value for key, value in qcow2_options(
                "x", self.target).items() if key != "node-name"},
            "inject-error": [bad] if fails else []})

    def start(self, mode, **more):
        self.qmp.command(*backup_action(
            "disk", "target", job="job", sync="top", bitmap="b0",
            bitmap_mode=mode, x_perf={"max-workers": 1}, **more))

    def offset(self):
        info, = self.qmp.command("query-block-jobs")
        return info["offset"]

    def end(self):
        event = self.qmp.wait_job_gone("job")
        self.qmp.command("blockdev-del", node_name="target")
        assert_sound(self.target)
        return event

    def assert_dirty(self, clusters):
        write(self.daemon, clusters, 1, "reference")
        hashes = [self.qmp.command("x-debug-block-dirty-bitmap-sha256",
                                   node=disk, name="b0")["sha256"]
                  for disk in ("disk", "reference")]
        assert hashes[0] == hashes[1]

    def assert_next_is_right(self, on_target):
        """An increment on what the bitmap is relative to gives the disk."""
        if on_target:
            add_qcow2(self.daemon, "next", self.target, export=False)
        else:
            add_disk(self.daemon, "next", self.clean, export=False)
        self.qmp.command(*backup_action("disk", "next", job="next",
                                        sync="incremental", bitmap="b0"))
        assert "error" not in self.qmp.wait_job_gone("next")["data"]
        close_node(self.daemon, "next")
        want = self.daemon.folder / "now.raw"
        qemu_img("convert", "-O", "raw", self.daemon.nbd_uri("disk"), want)
        if on_target:
            assert_equal_images(self.target, want)
        else:
            said = qemu_img("compare", "-f", "raw", "-F", "raw", self.clean,
                            want)
            assert said.startswith("Images are identical")


@pytest.fixture
def place(cohortd):
    return Place(cohortd(nbd=True))


@pytest.mark.parametrize("mode", MODES)
def test_t18_top_success_with_writes_in_pending(place, mode):
    "What was copied is consumed; the guest's writes stay."
    place.add_target()
    place.start(mode, auto_finalize=False)
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    write(place.daemon, W, 0x33)
    place.qmp.command("job-finalize", id="job")
    assert "error" not in place.end()["data"]
    place.assert_dirty(W)
    place.assert_next_is_right(on_target=True)


@pytest.mark.parametrize("mode", MODES)
def test_t18_top_cancelled_in_pending(place, mode):
    "All was copied: `always` consumes it, `on-success` loses nothing."
    place.add_target()
    place.start(mode, auto_finalize=False)
    place.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    write(place.daemon, W, 0x33)
    place.qmp.command("job-cancel", id="job")
    assert place.end()["event"] == "BLOCK_JOB_CANCELLED"
    place.assert_dirty(W if mode == "always" else P | W)
    place.assert_next_is_right(on_target=mode == "always")


@pytest.mark.parametrize("mode", MODES)
def test_t18_top_failure(place, mode):
    "`always` keeps what was not copied of the layer, and no other cluster."
    place.add_target(fails=True)
    place.start(mode)
    assert "error" in place.end()["data"]
    write(place.daemon, W, 0x33)
    place.assert_dirty(W | {63} if mode == "always" else P | W)
    place.assert_next_is_right(on_target=mode == "always")


@pytest.mark.parametrize("mode", MODES)
def test_t18_top_cancelled_while_running(place, mode):
    "`always` keeps the layer's clusters that were not even looked for yet."
    place.add_target()
    place.start(mode, speed=1)
    wait_until(lambda: place.offset() >= 2 * CLUSTER, 30, "the first step")
    write(place.daemon, W, 0x33)
    assert place.offset() == 2 * CLUSTER
    place.qmp.command("job-cancel", id="job")
    assert place.end()["event"] == "BLOCK_JOB_CANCELLED"
    place.assert_dirty(W | {20, 40, 63} if mode == "always" else P | W)
    place.assert_next_is_right(on_target=mode == "always")


def test_top_of_a_chain_leaves_the_lower_layers(cohortd):
    "T22: of three layers only the top one is copied, whatever its clusters."
    daemon = cohortd(nbd=True)
    base = random_image(daemon.folder / "base.raw", SIZE)
    middle = new_layer(daemon, "middle", SIZE, base, "raw", export=True,
                       cluster_size=4 * KIB)
    write(daemon, {5, 6}, 0x44, "middle")
    daemon.qmp.command("block-export-del", id="export-middle")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED", id="export-middle")
    close_node(daemon, "middle")
    new_layer(daemon, "disk", SIZE, middle, export=True,
              cluster_size=128 * KIB)
    write(daemon, {6, 30}, 0x55)
    target = daemon.folder / "copy"
    daemon.qmp.command("drive-backup", job_id="job", device="disk", sync="top",
                       target=str(target))
    data = daemon.qmp.wait_job_gone("job")["data"]
    assert "error" not in data and data["len"] == 4 * CLUSTER
    want = daemon.folder / "want.raw"
    qemu_img("convert", "-O", "raw", daemon.nbd_uri("disk"), want)
    assert_sound(target)
    assert_equal_images(target, want)
    # Without the layers below there is nothing else in it.
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "alone", "backing": None,
        "read-only": True, "file": file_node(target)})
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="alone", name="alone")
    qemu_io(daemon.nbd_uri("alone"), f"read -P 0 {8 * CLUSTER} {CLUSTER}",
            f"read -P 0 0 {4 * CLUSTER}", f"read -P 0x55 {30 * CLUSTER} 64k")
