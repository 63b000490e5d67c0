# SPDX-License-Identifier: BSD-3-Clause
"""Persistent bitmaps on raw files: they outlive kill -9 and a clean end."""
import os
import random
import shutil
import threading

import nbd
import pytest

from support.disks import add_bitmap, add_disk, dirty_bytes, new_disk
from support.images import KIB, MIB, qemu_io

SIZE = 64 * MIB


def start(cohortd, tmp_path, **keywords):
    return cohortd("--state-dir", str(tmp_path / "state"), nbd=True,
                   **keywords)


@pytest.fixture
def daemon(cohortd, tmp_path):
    daemon = start(cohortd, tmp_path)
    new_disk(daemon, "disk", SIZE)
    return daemon


def image(daemon):
    return daemon.folder / "disk.raw"


def write(daemon, *commands):
    qemu_io(daemon.nbd_uri("disk"), *commands)


def has_bitmap(daemon, name):
    return any(found.get("name") == name for found in
               daemon.qmp.node("disk").get("dirty-bitmaps", []))


def again(cohortd, tmp_path, daemon):
    "A new daemon with the disk of one that has ended."
    other = start(cohortd, tmp_path)
    add_disk(other, "disk", image(daemon))
    return other


def test_a_bitmap_survives_a_kill_with_all_it_must_have(daemon, cohortd,
                                                        tmp_path):
    "After kill -9 the bitmap is there, and what was written is dirty."
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k", "write 40M 128k", "discard 50M 64k")
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    found = other.qmp.bitmap("disk", "b0")
    assert found["persistent"] and found["recording"]
    assert "inconsistent" not in found
    assert found["count"] >= 256 * KIB
    assert found["x-cohort-recovered"]["regions"] >= 1
    assert found["x-cohort-base"] == []


def test_a_clean_end_keeps_exactly_the_bits(daemon, cohortd, tmp_path):
    "After `quit` the bitmap is what it was, to the segment."
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k", "write 40M 128k")
    sha = daemon.qmp.command("x-debug-block-dirty-bitmap-sha256", node="disk",
                             name="b0")
    daemon.quit()
    other = again(cohortd, tmp_path, daemon)
    assert other.qmp.command("x-debug-block-dirty-bitmap-sha256", node="disk",
                             name="b0") == sha
    assert "x-cohort-recovered" not in other.qmp.bitmap("disk", "b0")


def test_a_bitmap_goes_on_recording_after_a_kill(daemon, cohortd, tmp_path):
    "Writes of the second life are in it too, after a second kill."
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 0 64k")
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    write(other, "write 32M 64k")
    other.kill()
    third = again(cohortd, tmp_path, daemon)
    assert dirty_bytes(third, "disk") >= 128 * KIB


@pytest.mark.parametrize("verb, expected", [
    ("remove", None),
    ("clear", {"count": 0, "recording": True}),
    ("disable", {"count": MIB, "recording": False}),
])
def test_a_verb_is_durable_when_it_is_answered(daemon, cohortd, tmp_path, verb,
                                               expected):
    "A kill right after the reply undoes nothing."
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 0 1M")
    daemon.qmp.command(f"block-dirty-bitmap-{verb}", node="disk", name="b0")
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert has_bitmap(other, "b0") == (expected is not None)
    if expected is not None:
        # A clear may keep what was intended before: more, never less.
        found = other.qmp.bitmap("disk", "b0")
        assert found["recording"] == expected["recording"]
        assert found["count"] >= expected["count"]


def test_merge_is_durable_when_it_is_answered(daemon, cohortd, tmp_path):
    "A kill right after a merge leaves the target with the source's bits."
    add_bitmap(daemon, "disk", "source")
    write(daemon, "write 8M 1M")
    add_bitmap(daemon, "disk", "target", persistent=True)
    daemon.qmp.command("block-dirty-bitmap-merge", node="disk",
                       target="target", bitmaps=["source"])
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert not has_bitmap(other, "source")
    assert other.qmp.bitmap("disk", "target")["count"] == MIB


def test_changes_on_two_disks_are_decided_together(daemon, cohortd, tmp_path):
    "add on one and disable on the other, in one transaction, then a kill."
    new_disk(daemon, "second", SIZE)
    add_bitmap(daemon, "second", "old", persistent=True)
    daemon.qmp.transaction(
        ("block-dirty-bitmap-add", {"node": "disk", "name": "new",
                                    "persistent": True}),
        ("block-dirty-bitmap-disable", {"node": "second", "name": "old"}))
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    add_disk(other, "second", daemon.folder / "second.raw")
    assert other.qmp.bitmap("disk", "new")["recording"] is True
    assert other.qmp.bitmap("second", "old")["recording"] is False


def test_a_stranger_who_wrote_between_is_noticed(daemon, cohortd, tmp_path):
    "qemu-io on the image while nobody tracked: inconsistent, with the reason."
    add_bitmap(daemon, "disk", persistent=True)
    daemon.quit()
    qemu_io(image(daemon), "write 4M 64k")
    other = again(cohortd, tmp_path, daemon)
    found = other.qmp.bitmap("disk", "b0")
    assert found["inconsistent"] and "someone else" in found["x-cohort-reason"]
    other.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    assert not has_bitmap(other, "b0")


def test_a_moved_image_keeps_its_bitmaps(daemon, cohortd, tmp_path):
    "mv of image and tracking file after a clean end."
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.quit()
    moved = tmp_path / "moved.raw"
    shutil.move(image(daemon), moved)
    shutil.move(f"{image(daemon)}.cbt", f"{moved}.cbt")
    other = start(cohortd, tmp_path)
    add_disk(other, "disk", moved)
    assert dirty_bytes(other, "disk") == 64 * KIB


def test_an_image_that_was_rolled_back_is_noticed(daemon, cohortd, tmp_path):
    "An older copy of the image in its place, with an older time."
    add_bitmap(daemon, "disk", persistent=True)
    daemon.quit()
    copy = tmp_path / "copy"
    shutil.copy2(image(daemon), copy)
    other = again(cohortd, tmp_path, daemon)
    write(other, "write 1M 64k")
    other.quit()
    os.replace(copy, image(daemon))
    third = again(cohortd, tmp_path, daemon)
    assert third.qmp.bitmap("disk", "b0")["inconsistent"]


def test_resizing_loses_nothing(cohortd, tmp_path):
    "Shrink, then grow, then a kill: all that was cut off is dirty."
    daemon = start(cohortd, tmp_path)
    new_disk(daemon, "disk", SIZE, export=False)
    add_bitmap(daemon, "disk", persistent=True)
    daemon.qmp.command("block_resize", node_name="disk", size=SIZE // 2)
    daemon.qmp.command("block_resize", node_name="disk", size=SIZE)
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert dirty_bytes(other, "disk") >= SIZE // 2


def test_a_node_that_cannot_store_bitmaps_says_so(cohortd, tmp_path):
    "null-co keeps nothing."
    daemon = start(cohortd, tmp_path)
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="null",
                       size=MIB)
    error = daemon.qmp.error("block-dirty-bitmap-add", node="null",
                             name="b0", persistent=True)
    assert "cannot store dirty bitmaps" in str(error)


class Load:
    """Clients that write at random until the daemon is gone."""

    def __init__(self, daemon, seed):
        self.uri = daemon.nbd_uri("disk")
        self.written = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self.write, args=(seed, n))
                        for n in range(3)]
        for thread in self.threads:
            thread.start()

    def write(self, seed, number):
        rng = random.Random(f"{seed} {number}")
        handle = nbd.NBD()
        try:
            handle.connect_uri(self.uri)
            while True:
                size = rng.choice((512, 4 * KIB, 100 * KIB))
                offset = rng.randrange((SIZE - size) // 512) * 512
                handle.pwrite(rng.randbytes(size), offset)
                self.written.release()
                if rng.randrange(50) == 0:
                    handle.flush()
        except nbd.Error:
            pass  # killed

    def wait_for_writes(self, count):
        for _ in range(count):
            assert self.written.acquire(timeout=30)

    def join(self):
        for thread in self.threads:
            thread.join()


def test_kills_under_load_lose_no_cluster(daemon, cohortd, tmp_path):
    "What a bitmap says after kill -9 brings an old copy up to date, each time."
    disk, base = image(daemon), tmp_path / "base.raw"
    add_bitmap(daemon, "disk", persistent=True)
    shutil.copy(disk, base)
    for count in (1, 20, 100, 500, 1000):
        load = Load(daemon, count)
        load.wait_for_writes(count)
        daemon.kill()
        load.join()
        daemon = start(cohortd, tmp_path)
        add_disk(daemon, "disk", disk)
        add_disk(daemon, "copy", base, export=False)
        daemon.qmp.command("blockdev-backup", job_id="job", device="disk",
                           target="copy", sync="incremental", bitmap="b0")
        assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
        assert base.read_bytes() == disk.read_bytes()
        daemon.qmp.command("blockdev-del", node_name="copy")
