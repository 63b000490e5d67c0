# SPDX-License-Identifier: BSD-3-Clause
"""--tracking and x-cohort-tracking: how persistent bitmaps are kept."""
import subprocess

import pytest

from support.boot import another_boot
from support.daemon import cohortd_binary
from support.disks import add_bitmap, add_disk, dirty_bytes, raw_options
from support.filesystem import Filesystem
from support.images import KIB, MIB, qemu_io, sparse_image
from support.trace_lines import events, wait_event

SIZE = 64 * MIB


@pytest.fixture
def disk(folder):
    path = folder / "disk.raw"
    sparse_image(path, SIZE)
    return path


def start(cohortd, path, tracking=None, options=(), **keywords):
    "A daemon with the image as an exported disk, tracked as the dict says."
    daemon = cohortd("--trace", "tracking_*", *options, nbd=True, **keywords)
    more = {} if tracking is None else {"x-cohort-tracking": tracking}
    daemon.qmp.command("blockdev-add", raw_options("disk", path, **more))
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)
    return daemon


def write(daemon, *commands):
    qemu_io(daemon.nbd_uri("disk"), *commands)


# Durability.

PROCESS = [({"durability": "process"}, ()),
           (None, ("--tracking", "durability=process"))]
HOW = pytest.mark.parametrize("tracking,options", PROCESS,
                              ids=["of-the-node", "of-the-daemon"])


@HOW
def test_process_outlives_a_kill(cohortd, disk, tracking, options):
    "On the same boot nothing is lost."
    daemon = start(cohortd, disk, tracking, options)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    other = start(cohortd, disk, tracking, options)
    assert "inconsistent" not in other.qmp.bitmap("disk", "b0")
    assert dirty_bytes(other, "disk") >= 64 * KIB


@HOW
def test_process_is_not_believed_after_the_machine_stopped(
        cohortd, folder, disk, tracking, options):
    "Unclean, and another boot: inconsistent, and it says why."
    daemon = start(cohortd, disk, tracking, options)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    other = start(cohortd, disk, tracking, options,
                  wrapper=another_boot(folder))
    found = other.qmp.bitmap("disk", "b0")
    assert found["inconsistent"]
    assert "durability=process" in found["x-cohort-reason"]
    assert "restarted" in found["x-cohort-reason"]


def test_process_is_believed_after_a_clean_end(cohortd, folder, disk):
    "A clean end is durable, whatever boot comes next."
    tracking = {"durability": "process"}
    daemon = start(cohortd, disk, tracking)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.quit()
    other = start(cohortd, disk, tracking, wrapper=another_boot(folder))
    assert dirty_bytes(other, "disk") == 64 * KIB


def test_power_is_believed_on_another_boot(cohortd, folder, disk):
    "The default: a kill, and the machine has been restarted since."
    daemon = start(cohortd, disk)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    other = start(cohortd, disk, wrapper=another_boot(folder))
    assert dirty_bytes(other, "disk") >= 64 * KIB


def test_what_was_kept_for_the_process_can_be_kept_for_power(cohortd, folder,
                                                             disk):
    "Opened with power after a kill: from then on it survives the machine."
    daemon = start(cohortd, disk, {"durability": "process"})
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    start(cohortd, disk, {"durability": "power"}).kill()
    other = start(cohortd, disk, wrapper=another_boot(folder))
    assert dirty_bytes(other, "disk") >= 64 * KIB


@pytest.fixture
def filesystem(folder):
    place = Filesystem(folder / "fs", options="commit=3600")
    yield place
    place.close()


@pytest.mark.parametrize("durability,waits", [("power", True),
                                              ("process", False)])
def test_only_power_waits_for_the_disk(cohortd, filesystem, durability, waits):
    "First touches make the device flush, or they do not."
    path = filesystem.path / "disk.raw"
    sparse_image(path, SIZE)
    daemon = start(cohortd, path, {"durability": durability})
    add_bitmap(daemon, "disk", persistent=True)
    before = filesystem.flushes()
    handle = connect(daemon)
    for region in range(8):
        handle.pwrite(bytes(512), region * MIB)
    assert len(events(daemon, "tracking_intents")) >= 8
    assert (filesystem.flushes() - before >= 8) == waits
    assert waits or filesystem.flushes() == before
    handle.shutdown()
    daemon.quit()


def connect(daemon):
    import nbd
    handle = nbd.NBD()
    handle.connect_uri(daemon.nbd_uri("disk"))
    return handle


def test_a_process_daemon_keeps_its_log_where_it_likes(cohortd, folder, disk):
    "A state directory in memory is refused with power only."
    mount = folder / "memory"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", mount], check=True)
    try:
        words = ("--state-dir", str(mount / "state"))
        daemon = start(cohortd, disk, options=words)
        error = daemon.qmp.error("block-dirty-bitmap-add", node="disk",
                                 name="b0", persistent=True)
        assert "durability=process" in str(error)
        daemon.quit()
        daemon = start(cohortd, disk, options=(
            *words, "--tracking", "durability=process"))
        add_bitmap(daemon, "disk", persistent=True)
        daemon.quit()
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


# Checkpoints.

def test_over_marking_bounds_what_a_crash_marks(cohortd, disk):
    "A checkpoint comes before it is reached, long before its time."
    tracking = {"over-marking": 16 * MIB, "checkpoint-interval": 3600000}
    daemon = start(cohortd, disk, tracking)
    add_bitmap(daemon, "disk", persistent=True)
    cleared = len(events(daemon, "tracking_cleared"))
    write(daemon, *(f"write {n}M 4k" for n in range(10)))
    wait_event(daemon, "tracking_cleared", cleared + 1)
    daemon.kill()
    other = start(cohortd, disk, tracking)
    assert other.qmp.bitmap("disk", "b0")["x-cohort-recovered"]["bytes"] < \
        16 * MIB
    assert dirty_bytes(other, "disk") >= 10 * 64 * KIB


def test_no_checkpoint_before_its_time(cohortd, disk):
    "With nothing else to bring it on, all regions are marked after a crash."
    daemon = start(cohortd, disk, {"checkpoint-interval": 3600000})
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, *(f"write {n}M 4k" for n in range(10)))
    daemon.kill()
    other = start(cohortd, disk)
    assert dirty_bytes(other, "disk") == 10 * MIB


def test_a_checkpoint_in_its_time(cohortd, disk):
    "Ten milliseconds after a write its bits are on their way."
    daemon = start(cohortd, disk, {"checkpoint-interval": 10})
    add_bitmap(daemon, "disk", persistent=True)
    count = len(events(daemon, "tracking_checkpoint"))
    write(daemon, "write 1M 64k")
    wait_event(daemon, "tracking_checkpoint", count + 1)


# Location.

def test_the_tracking_file_can_be_in_the_state_directory(cohortd, folder, disk):
    "Nothing is beside the image, and a kill loses nothing."
    tracking = {"location": "state-dir"}
    daemon = start(cohortd, disk, tracking)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    assert not disk.with_name("disk.raw.cbt").exists()
    assert len(list((folder / "state").glob("disk-*.cbt"))) == 1
    other = start(cohortd, disk, tracking)
    assert dirty_bytes(other, "disk") >= 64 * KIB


@pytest.mark.parametrize("first,then", [("beside", "state-dir"),
                                        ("state-dir", "beside")])
def test_a_tracking_file_is_used_where_it_is(cohortd, disk, first, then):
    "Another location says where new ones go; none is left to grow stale."
    daemon = start(cohortd, disk, {"location": first})
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    other = start(cohortd, disk, {"location": then})
    assert dirty_bytes(other, "disk") >= 64 * KIB


def test_two_tracking_files_of_one_image_are_refused(cohortd, folder, disk):
    "Which of them is right nobody knows; it is told what to do."
    daemon = start(cohortd, disk, {"location": "state-dir"})
    add_bitmap(daemon, "disk", persistent=True)
    daemon.quit()
    kept, = (folder / "state").glob("disk-*.cbt")
    aside = folder / "aside"
    kept.rename(aside)
    daemon = start(cohortd, disk)
    add_bitmap(daemon, "disk", persistent=True)
    daemon.quit()
    aside.rename(kept)
    daemon = cohortd()
    error = daemon.qmp.error("blockdev-add", raw_options("disk", disk))
    assert "two tracking files" in str(error) and "remove" in str(error)


# Refusals.

@pytest.mark.parametrize("tracking,word", [
    ({"durability": "memory"}, "durability"),
    ({"over-marking": 1 * MIB}, "16M"),
    ({"checkpoint-interval": 1}, "checkpoint-interval"),
    ({"location": "/tmp"}, "location"),
    ({"on-tracking-error": "ignore"}, "on-tracking-error"),
    ({"speed": 9}, "speed"),
])
def test_what_cannot_be_is_refused(cohortd, disk, tracking, word):
    "In QMP and on the command line alike, with the option's name."
    daemon = cohortd()
    error = daemon.qmp.error("blockdev-add", raw_options(
        "disk", disk, **{"x-cohort-tracking": tracking}))
    assert word in str(error)
    (key, value), = tracking.items()
    result = subprocess.run([cohortd_binary(), "--tracking", f"{key}={value}"],
                            capture_output=True, text=True, timeout=60,
                            check=False)
    assert result.returncode == 1
    assert "--tracking" in result.stderr and word in result.stderr


def test_power_is_refused_where_the_log_is_not_kept_so(cohortd, disk):
    "A daemon's default of process cannot be undone for one node."
    daemon = cohortd("--tracking", "process")
    error = daemon.qmp.error("blockdev-add", raw_options(
        "disk", disk, **{"x-cohort-tracking": {"durability": "power"}}))
    assert "log of transactions" in str(error)


@pytest.mark.parametrize("why,options", [
    ("read-only", lambda path: raw_options("n", path, **{"read-only": True})),
    ("cannot store", lambda path: {"driver": "null-co", "node-name": "n",
                                   "size": MIB}),
])
def test_tracking_is_refused_where_there_can_be_none(cohortd, disk, why,
                                                     options):
    "An option without effect is an error."
    daemon = cohortd()
    error = daemon.qmp.error("blockdev-add", {
        **options(disk), "x-cohort-tracking": {"durability": "process"}})
    assert "x-cohort-tracking" in str(error) and why in str(error)


def test_tracking_is_refused_for_a_nested_child(cohortd, disk):
    "It belongs to the node that has the bitmaps."
    daemon = cohortd()
    error = daemon.qmp.error("blockdev-add", {
        "driver": "raw", "node-name": "n", "file": {
            "driver": "file", "filename": str(disk),
            "x-cohort-tracking": {"durability": "process"}}})
    assert "opened for another node" in str(error)


def test_an_overlay_is_tracked_as_the_disk_was(cohortd, folder, disk):
    "blockdev-snapshot-sync: the new top has the same options."
    daemon = start(cohortd, disk, {"durability": "process"})
    daemon.qmp.command("blockdev-snapshot-sync", {
        "node-name": "disk", "snapshot-file": str(folder / "top.qcow2"),
        "snapshot-node-name": "top", "format": "qcow2"})
    add_bitmap(daemon, "top", persistent=True)
    write(daemon, "write 1M 64k")
    daemon.kill()
    other = cohortd(wrapper=another_boot(folder))
    add_disk(other, "disk", disk, export=False)
    other.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "top", "file": {
            "driver": "file", "filename": str(folder / "top.qcow2")},
        "backing": "disk"})
    found = other.qmp.bitmap("top", "b0")
    assert "durability=process" in found["x-cohort-reason"]


@pytest.mark.parametrize("place", ["node", "child"])
def test_a_disk_that_is_never_flushed_is_not_tracked(cohortd, disk, place):
    "cache.no-flush=on: no persistent bitmap; one that is there is not opened so."
    options = raw_options("disk", disk)
    (options if place == "node" else options["file"])["cache"] = {
        "no-flush": True}
    daemon = cohortd()
    daemon.qmp.command("blockdev-add", options)
    error = daemon.qmp.error("block-dirty-bitmap-add", node="disk", name="b0",
                             persistent=True)
    assert "no-flush" in str(error)
    add_bitmap(daemon, "disk")
    daemon.quit()
    daemon = start(cohortd, disk)
    add_bitmap(daemon, "disk", persistent=True)
    daemon.quit()
    error = cohortd().qmp.error("blockdev-add", options)
    assert "no-flush" in str(error) and f"{disk}.cbt" in str(error)
