# SPDX-License-Identifier: BSD-3-Clause
"""A power cut of a kind that the campaigns seldom meet."""
import pathlib
import sys

import pytest

from support.disks import add_bitmap, add_disk
from support.images import MIB, qemu_io, random_image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from machine import Machine, run  # noqa: E402


@pytest.fixture
def machine(folder):
    machine = Machine(folder, 1)
    yield machine
    machine.off()


def test_an_image_that_was_overwritten_in_place_is_the_same_one(machine, folder,
                                                                cohortd):
    "Its times may be lost, though its data was flushed: bitmaps are believed."
    path = random_image(f"{machine.root}/disk.raw", 4 * MIB)
    run("sync", "-f", path)
    state = ("--state-dir", f"{machine.root}/state")
    daemon = cohortd(*state, nbd=True)
    add_disk(daemon, "disk", path)
    add_bitmap(daemon, "disk", persistent=True)
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 1M 64k", "flush")
    daemon.qmp.command("block-dirty-bitmap-clear", node="disk", name="b0")
    machine.freeze()
    daemon.kill()
    machine.cut()
    machine.clear()
    machine.on()
    other = cohortd(*state, nbd=True)
    add_disk(other, "disk", path)
    found = other.qmp.bitmap("disk", "b0")
    assert "inconsistent" not in found, found
    assert found["recording"]
    assert found["count"] <= 4 * MIB
    qemu_io(other.nbd_uri("disk"), "read -P 7 1M 64k")
    other.quit()
