# SPDX-License-Identifier: BSD-3-Clause
"""`cohort backup` when a disk's record of changes is not to be believed: that disk
alone goes full, with the reason, and increments go on after it."""
import resource
import subprocess

import pytest

from support.boot import another_boot
from support.images import MIB, qemu_io
from test_cli_backup import Rig, change
from test_cli_crash import BOTH, disks_of


class TrackedRig(Rig):
    wrapper = ()

    def start_daemon(self):
        new = self.new_daemon
        self.new_daemon = lambda *words, **more: new(
            *words, wrapper=self.wrapper, **more)
        super().start_daemon()
        self.new_daemon = new


@pytest.fixture
def rig(folder, cohortd, cohort):
    return TrackedRig(folder, cohortd, cohort)


def goes_full_alone(rig, name, words):
    "... and what comes after is an increment again."
    change(rig, 8)
    rig.backup()
    assert rig.kinds() == {**BOTH, name: "full"}
    assert words in disks_of(rig)[name]["reason"]
    change(rig, 9)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()
    rig.check_nothing_left()


def test_a_disk_that_qemu_wrote_to_between_goes_full(rig):
    "While no daemon ran; the others have their increments."
    rig.backup()
    rig.daemon.quit()
    qemu_io(rig.images["disk-b"], "write -P 77 2M 64k")
    rig.start_daemon()
    goes_full_alone(rig, "disk-b", "someone else has written to the image")


def copy_of(rig, name):
    "The image and its tracking file, with their times."
    image = rig.images[name]
    clone = image.with_name("clone.raw")
    for end in ("", ".cbt"):
        subprocess.run(["cp", "-p", f"{image}{end}", f"{clone}{end}"],
                       check=True)
    return clone


def test_a_clone_used_in_its_origins_place_goes_full(rig):
    "A backup of the origin came after it: its base is an older point's."
    rig.backup()
    rig.daemon.quit()
    clone = copy_of(rig, "disk-a")
    rig.start_daemon()
    change(rig, 1)
    rig.backup()
    rig.daemon.quit()
    rig.images["disk-a"] = clone
    rig.start_daemon()
    goes_full_alone(rig, "disk-a", "relative to another backup than point")


def test_an_origin_goes_full_after_its_clone_was_backed_up(rig):
    """The clone is the same difference to the same point: an increment, and right.
    After it the origin is the one that is out of date."""
    rig.backup()
    rig.daemon.quit()
    origin, clone = rig.images["disk-a"], copy_of(rig, "disk-a")
    rig.images["disk-a"] = clone
    rig.start_daemon()
    change(rig, 1)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.daemon.quit()
    rig.images["disk-a"] = origin
    rig.start_daemon()
    goes_full_alone(rig, "disk-a", "relative to another backup than point")


def test_with_process_another_boot_means_full(rig, folder):
    "kill -9, and the machine was restarted: all disks, and it says why."
    rig.daemon.quit()
    rig.state_options = ("--tracking", "durability=process")
    rig.start_daemon()
    rig.backup()
    change(rig, 1)
    rig.daemon.kill()
    rig.start_daemon()
    rig.backup()
    assert rig.kinds() == BOTH
    change(rig, 2)
    rig.daemon.kill()
    rig.wrapper = another_boot(folder)
    rig.start_daemon()
    rig.backup()
    assert set(rig.kinds().values()) == {"full"}
    for disk in disks_of(rig).values():
        assert "durability=process" in disk["reason"]
    change(rig, 3)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()


def test_a_disk_whose_tracking_failed_goes_full(rig, folder):
    """Its tracking file could not be written: told with the reason, and full, each
    time until it is opened again; then increments."""
    rig.daemon.quit()
    rig.wrapper = ("env", "--ignore-signal=XFSZ")
    rig.start_daemon()
    rig.backup()
    change(rig, 1)
    limit(rig, 4096)
    rig.daemon.qmp.error("block-dirty-bitmap-add", node="disk-a", name="theirs",
                         persistent=True)
    # A verb that must be stored finds out.
    rig.daemon.qmp.error("block-dirty-bitmap-disable", node="disk-a",
                         name=disks_of(rig)["disk-a"]["bitmap"])
    limit(rig, resource.RLIM_INFINITY)
    result = rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "incremental"}
    assert "could not be" in disks_of(rig)["disk-a"]["reason"] or \
        "cannot be" in disks_of(rig)["disk-a"]["reason"]
    assert "memory" in result.stderr
    rig.daemon.quit()
    rig.start_daemon()
    rig.backup()
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()


def limit(rig, size):
    resource.prlimit(rig.daemon.pid, resource.RLIMIT_FSIZE,
                     (size, resource.RLIM_INFINITY))


def test_a_disk_that_shrank_and_grew_has_all_in_its_increment(rig):
    "Shrink then grow then kill: the reader of its point gets zeroes there."
    rig.backup()
    rig.daemon.qmp.command("block-export-del", id="export-disk-a")
    rig.daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    size = rig.images["disk-a"].stat().st_size
    for new in (MIB, size):
        rig.daemon.qmp.command("block_resize", node_name="disk-a", size=new)
    rig.daemon.kill()
    rig.start_daemon()
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()
