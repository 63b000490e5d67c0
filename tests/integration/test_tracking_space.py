# SPDX-License-Identifier: BSD-3-Clause
"""Persistent bitmaps on a file system that is full: what needs space is refused,
all else goes on."""
import os

import nbd
import pytest

from support.disks import add_bitmap, raw_options
from support.filesystem import Filesystem
from support.images import MIB, run

SIZE = 4 * MIB
GROWN = 4096 * MIB  # sparse; its bitmaps take more than is there
GRANULARITY = 4096


@pytest.fixture(params=["ext4", "tmpfs"])
def place(request, folder):
    "A file system of 8 MiB."
    if request.param == "ext4":
        filesystem = Filesystem(folder / "fs", size=8 * MIB,
                                make=("-O", "^has_journal"))
        yield filesystem.path
        filesystem.close()
        return
    path = folder / "tmpfs"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={8 * MIB}", "none", path)
    yield path
    run("umount", "--lazy", path)


def fill(place):
    "Takes all space that there is."
    file = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
    for piece in (MIB, 4096):
        try:
            while os.write(file, bytes(piece)) == piece:
                pass
        except OSError:
            pass
    os.close(file)


def start(cohortd, folder, image, exported=True):
    daemon = cohortd("--state-dir", folder / "state", nbd=True)
    daemon.qmp.command("blockdev-add", raw_options("disk", image))
    if exported:
        export(daemon)
    return daemon


def export(daemon):
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)


@pytest.fixture
def image(place):
    "Its data has its space."
    path = place / "disk.raw"
    path.write_bytes(bytes(SIZE))
    return path


def write(daemon, offset):
    handle = nbd.NBD()
    handle.connect_uri(daemon.nbd_uri("disk"))
    handle.pwrite(b"\1" * 512, offset)
    handle.flush()
    handle.shutdown()


def check_recorded(cohortd, folder, image, daemon, offset):
    "Now, and after a kill."
    write(daemon, offset)
    assert daemon.qmp.bitmap("disk", "b0")["count"] == GRANULARITY
    daemon.kill()
    found = start(cohortd, folder, image).qmp.bitmap("disk", "b0")
    assert not found.get("inconsistent", False), found
    assert found["count"] >= GRANULARITY


def add(daemon, name):
    return daemon.qmp.error("block-dirty-bitmap-add", node="disk", name=name,
                            persistent=True, granularity=512)


def test_a_bitmap_that_finds_no_space_is_refused(cohortd, folder, place,
                                                 image):
    "With the reason; the one that is there records on, and nothing is left over."
    daemon = start(cohortd, folder, image)
    add_bitmap(daemon, "disk", persistent=True, granularity=GRANULARITY)
    fill(place)
    assert "No space left" in str(add(daemon, "b1"))
    assert not (place / "disk.raw.cbt.new").exists()
    check_recorded(cohortd, folder, image, daemon, MIB)


def test_it_can_be_added_when_there_is_space_again(cohortd, folder, place,
                                                   image):
    "The first one: there is no tracking file before, and none after the refusal."
    daemon = start(cohortd, folder, image)
    fill(place)
    assert "No space left" in str(add(daemon, "b0"))
    assert not (place / "disk.raw.cbt").exists()
    write(daemon, 0)
    (place / "filler").unlink()
    add_bitmap(daemon, "disk", persistent=True, granularity=GRANULARITY)
    check_recorded(cohortd, folder, image, daemon, MIB)


def test_growing_without_space_is_refused(cohortd, folder, place, image):
    "The size stays, bitmaps record on."
    daemon = start(cohortd, folder, image, exported=False)
    add_bitmap(daemon, "disk", persistent=True, granularity=GRANULARITY)
    fill(place)
    error = daemon.qmp.error("block_resize", node_name="disk", size=GROWN)
    assert "No space left" in str(error)
    assert image.stat().st_size == SIZE
    export(daemon)
    check_recorded(cohortd, folder, image, daemon, MIB)


def test_a_full_file_system_stops_nothing_that_needs_no_space(
        cohortd, folder, place, image):
    "Verbs, writes all over the disk, a clean end: pure overwrites."
    daemon = start(cohortd, folder, image)
    add_bitmap(daemon, "disk", persistent=True, granularity=GRANULARITY)
    fill(place)
    for offset in range(0, SIZE, MIB):
        write(daemon, offset)
    for verb in ("disable", "enable", "clear"):
        daemon.qmp.command(f"block-dirty-bitmap-{verb}", node="disk",
                           name="b0")
    write(daemon, 2 * MIB)
    daemon.quit()
    found = start(cohortd, folder, image).qmp.bitmap("disk", "b0")
    assert found["count"] == GRANULARITY
    assert not found.get("inconsistent", False), found
