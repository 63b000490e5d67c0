# SPDX-License-Identifier: BSD-3-Clause
"""Who else wrote to an image while nobody tracked it: moved, copied, put back,
written to by others. What can be told is told; what is believed is exact.

Bitmaps of qcow2 images that QEMU opened are in tests/interop/
test_qcow2_bitmaps.py, too.
"""
import json
import os
import shutil

import pytest

from support.boot import another_boot
from support.disks import (add_bitmap, backup_action, dirty_bytes, new_target,
                           raw_options)
from support.filesystem import Filesystem, LoopDevice
from support.images import (KIB, MIB, qemu_img, qemu_io, random_image, run)

SIZE = 16 * MIB


def options_of(path):
    driver = "host_device" if path.is_block_device() else "file"
    file = {"driver": driver, "filename": str(path)}
    if path.suffix == ".qcow2":
        return {"driver": "qcow2", "node-name": "disk", "file": file}
    return {**raw_options("disk", path), "file": file}


def start(cohortd, path, **keywords):
    daemon = cohortd(nbd=True, **keywords)
    daemon.qmp.command("blockdev-add", options_of(path))
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)
    return daemon


def write(daemon, *commands):
    qemu_io(daemon.nbd_uri("disk"), *commands)


def track(cohortd, path, **keywords):
    "A daemon with a persistent bitmap in which 64 KiB are dirty."
    daemon = start(cohortd, path, **keywords)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k", "flush")
    return daemon


def believed(daemon):
    "Exactly what was written."
    found = daemon.qmp.bitmap("disk", "b0")
    assert "inconsistent" not in found, found["x-cohort-reason"]
    return found["count"] == 64 * KIB


def reason(daemon):
    found = daemon.qmp.bitmap("disk", "b0")
    assert found["inconsistent"]
    return found["x-cohort-reason"]


def has_none(daemon):
    return not daemon.qmp.node("disk").get("dirty-bitmaps")


def tracking_file(path):
    return path.with_name(path.name + ".cbt")


@pytest.fixture
def disk(folder):
    path = folder / "disk.raw"
    random_image(path, SIZE, 1)
    return path


@pytest.fixture
def closed(cohortd, disk):
    "The image after a clean end."
    track(cohortd, disk).quit()
    return disk


@pytest.fixture
def crashed(cohortd, disk):
    "The image after a kill; what was flushed has a time that is durable."
    daemon = track(cohortd, disk)
    # A verb that flushes the image notes its time.
    add_bitmap(daemon, "disk", "other", persistent=True)
    daemon.kill()
    return disk


# After a clean end: the same, moved or copied.

def test_the_same_image_is_believed(closed, cohortd):
    "Nobody has touched it."
    assert believed(start(cohortd, closed))


def test_readers_change_nothing(closed, cohortd):
    "qemu-img, qemu-io and cp have read it."
    qemu_img("convert", "-f", "raw", "-O", "raw", closed, f"{closed}.read")
    qemu_io(closed, "read 0 1M")
    shutil.copy(closed, f"{closed}.copy")
    assert believed(start(cohortd, closed))


def carry(words, closed, place):
    for path in (closed, tracking_file(closed)):
        run(*words, path, place)
    return place / closed.name


def test_a_moved_image_is_believed(closed, cohortd, folder):
    "mv within a file system."
    (folder / "place").mkdir()
    assert believed(start(cohortd, carry(["mv"], closed, folder / "place")))


@pytest.fixture
def other_filesystem(folder):
    place = Filesystem(folder / "fs", "xfs", 384 * MIB)
    yield place.path
    place.close()


def test_an_image_that_was_moved_to_another_disk_is_believed(
        other_filesystem, closed, cohortd):
    "mv across file systems is a copy with all its times."
    moved = carry(["mv"], closed, other_filesystem)
    daemon = start(cohortd, moved)
    assert believed(daemon)
    daemon.quit()


def test_a_clone_on_the_file_system_is_believed(other_filesystem, cohortd):
    "cp --reflink after a clean end: same size, times and samples."
    image = other_filesystem / "disk.raw"
    random_image(image, SIZE, 1)
    track(cohortd, image).quit()
    (other_filesystem / "clone").mkdir()
    clone = carry(["cp", "--reflink=always", "--preserve=all"], image,
                  other_filesystem / "clone")
    daemon = start(cohortd, clone)
    assert believed(daemon)
    daemon.quit()


def test_a_copy_with_its_times_is_believed(closed, cohortd, folder):
    "cp -p of image and tracking file."
    (folder / "place").mkdir()
    assert believed(start(cohortd, carry(["cp", "-p"], closed,
                                         folder / "place")))


def test_a_copy_without_its_times_is_not(closed, cohortd, folder):
    "When it was written, and by whom, nobody knows."
    (folder / "place").mkdir()
    other = start(cohortd, carry(["cp"], closed, folder / "place"))
    assert "someone else" in reason(other)


def test_an_image_without_its_tracking_file_has_no_bitmap(closed, cohortd,
                                                          folder):
    "mv of the image alone."
    moved = folder / "moved.raw"
    run("mv", closed, moved)
    assert has_none(start(cohortd, moved))


# ... or written to.

WRITERS = {
    "qemu-io": lambda path: qemu_io(path, "write 4M 512"),
    "qemu-img-convert": lambda path: (
        random_image(f"{path}.new", SIZE, 2),
        qemu_img("convert", "-n", "-f", "raw", "-O", "raw", f"{path}.new",
                 path)),
    "qemu-img-resize": lambda path: qemu_img("resize", "-f", "raw", path,
                                             "+1M"),
    "cp": lambda path: (random_image(f"{path}.new", SIZE, 2),
                        run("cp", f"{path}.new", path)),
    "dd": lambda path: run("dd", "if=/dev/zero", f"of={path}", "bs=512",
                           "count=1", "seek=99", "conv=notrunc"),
    "truncate": lambda path: os.truncate(path, SIZE // 2),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_is_noticed(closed, cohortd, writer):
    "Inconsistent, with a reason, and removable."
    WRITERS[writer](closed)
    other = start(cohortd, closed)
    assert "image" in reason(other)
    other.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    assert has_none(other)


def test_a_guest_of_qemu_storage_daemon_is_noticed(closed, cohortd, qsd):
    "The image was exported by someone else for a while."
    other = qsd("--blockdev", json.dumps(options_of(closed)),
                "--export", "nbd,id=e,node-name=disk,name=disk,writable=on",
                nbd=True)
    write(other, "write 4M 64k")
    other.quit()
    assert "someone else" in reason(start(cohortd, closed))


def test_a_writer_that_puts_the_time_back_is_noticed(closed, cohortd, folder):
    "Samples of the content differ: the first and the last block are among them."
    stamp = folder / "stamp"
    run("touch", "-r", closed, stamp)
    qemu_io(closed, "write -P 9 0 4k")
    run("touch", "-r", stamp, closed)
    assert "content" in reason(start(cohortd, closed))


def test_a_rolled_back_image_is_noticed(closed, cohortd, folder):
    "cp -p before, a run with writes, mv back."
    copy = folder / "copy"
    run("cp", "-p", closed, copy)
    daemon = start(cohortd, closed)
    write(daemon, "write 4M 64k")
    daemon.quit()
    run("mv", copy, closed)
    assert "image" in reason(start(cohortd, closed))


# After a crash.

def test_after_a_crash_the_same_image_is_believed(crashed, cohortd):
    "All that was written is dirty."
    assert dirty_bytes(start(cohortd, crashed), "disk") >= 64 * KIB


def test_after_a_crash_another_file_is_not(crashed, cohortd, folder):
    "Copied and moved over it: nobody knows from when it is."
    copy = folder / "copy"
    run("cp", "-p", crashed, copy)
    run("mv", copy, crashed)
    assert "replaced" in reason(start(cohortd, crashed))


def test_after_a_crash_a_shorter_image_is_not(crashed, cohortd):
    "Its end has been cut off."
    os.truncate(crashed, SIZE // 2)
    assert "shorter" in reason(start(cohortd, crashed))


def test_after_a_crash_an_older_image_is_not(closed, cohortd, folder):
    "Put back into the same file, with the time of before."
    copy = folder / "copy"
    run("cp", "-p", closed, copy)
    daemon = start(cohortd, closed)
    write(daemon, "write 4M 64k", "flush")
    add_bitmap(daemon, "disk", "other", persistent=True)
    daemon.kill()
    run("cp", "-p", copy, closed)
    assert "rolled back" in reason(start(cohortd, closed))


def test_after_a_crash_a_strangers_write_cannot_be_told(crashed, cohortd):
    "As the guide says: it looks like the last one of the daemon."
    qemu_io(crashed, "write 4M 64k")
    assert "inconsistent" not in start(cohortd, crashed).qmp.bitmap("disk",
                                                                    "b0")


# Block devices.

@pytest.fixture
def device(folder):
    random_image(folder / "device", SIZE, 1)
    loop = LoopDevice(folder / "device")
    yield loop
    loop.close()


def path_of(device):
    import pathlib
    return pathlib.Path(device.path)


def test_a_device_is_believed(device, cohortd, folder):
    "Its tracking file is in the state directory; a kill loses nothing."
    daemon = track(cohortd, path_of(device))
    assert len(list((folder / "state").glob("disk-*.cbt"))) == 1
    daemon.kill()
    daemon = start(cohortd, path_of(device))
    assert dirty_bytes(daemon, "disk") >= 64 * KIB
    count = dirty_bytes(daemon, "disk")
    daemon.quit()
    assert dirty_bytes(start(cohortd, path_of(device)), "disk") == count


def test_a_writer_to_a_device_is_noticed(device, cohortd):
    "Within one boot the kernel's counter tells, wherever the write was."
    track(cohortd, path_of(device)).quit()
    run("dd", "if=/dev/zero", f"of={device.path}", "bs=4k", "count=1",
        "seek=777", "conv=notrunc,fsync")
    assert "someone else" in reason(start(cohortd, path_of(device)))


@pytest.mark.parametrize("block,expected", [(0, "content"), (None, None)])
def test_samples_tell_on_another_boot(device, cohortd, folder, block, expected):
    "Counters begin anew: the content of some blocks is compared."
    # Both in a mount namespace: in a chroot the name of the file behind a loop
    # device depends on that.
    track(cohortd, path_of(device), wrapper=another_boot(folder)).quit()
    if block is not None:
        run("dd", "if=/dev/zero", f"of={device.path}", "bs=4k", "count=1",
            f"seek={block}", "conv=notrunc,fsync")
    other = start(cohortd, path_of(device), wrapper=another_boot(folder))
    if expected is None:
        assert believed(other)
    else:
        assert expected in reason(other)


# qcow2: a stamp in the image.

@pytest.fixture
def qcow2(folder):
    path = folder / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    return path


def back_up(daemon):
    new_target(daemon, "target", SIZE)
    kind, data = backup_action("disk", "target", sync="incremental",
                               bitmap="b0")
    daemon.qmp.command(kind, data)
    daemon.qmp.wait_job_gone("job-disk")


OPENERS = {
    "qemu-io": lambda path: qemu_io(path, "write 4M 64k", image_format="qcow2"),
    "snapshot": lambda path: qemu_img("snapshot", "-c", "one", path),
    "amend": lambda path: qemu_img("amend", "-f", "qcow2", "-o",
                                   "lazy_refcounts=on", path),
    "rebase": lambda path: (
        qemu_img("create", "-q", "-f", "raw", f"{path}.base", SIZE),
        qemu_img("rebase", "-u", "-F", "raw", "-b", f"{path}.base", path)),
    "bitmap": lambda path: qemu_img("bitmap", "--add", path, "theirs"),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_after_qemu_the_image_counts_and_has_no_base(qcow2, cohortd, opener):
    "Its own bitmap, as QEMU kept it, relative to nothing that we know."
    daemon = track(cohortd, qcow2)
    back_up(daemon)
    assert len(daemon.qmp.bitmap("disk", "b0")["x-cohort-base"]) == 1
    write(daemon, "write 1M 64k", "flush")
    daemon.quit()
    OPENERS[opener](qcow2)
    found = start(cohortd, qcow2).qmp.bitmap("disk", "b0")
    assert "inconsistent" not in found and found["x-cohort-base"] == []
    assert found["count"] >= (128 if opener == "qemu-io" else 64) * KIB


def test_qemu_after_a_crash_makes_it_inconsistent(qcow2, cohortd):
    "The stamp is gone, the image's own bitmap was in use."
    track(cohortd, qcow2).kill()
    qemu_io(qcow2, "write 4M 64k", image_format="qcow2")
    assert "inconsistent" in start(cohortd, qcow2).qmp.bitmap("disk", "b0")


def test_a_rolled_back_qcow2_image_is_noticed_after_a_crash(qcow2, cohortd,
                                                            folder):
    "The stamp of before is nobody's any more."
    daemon = track(cohortd, qcow2)
    daemon.quit()
    copy = folder / "copy.qcow2"
    run("cp", "-p", qcow2, copy)
    start(cohortd, qcow2).quit()
    daemon = start(cohortd, qcow2)
    daemon.kill()
    with open(copy, "rb") as old, open(qcow2, "r+b") as new:
        shutil.copyfileobj(old, new)
    assert "put back" in reason(start(cohortd, qcow2))


# Other files of an image.

@pytest.fixture
def chain(folder):
    "An overlay over a qcow2 image over a raw one."
    random_image(folder / "base.raw", SIZE, 1)
    below = folder / "base.raw"
    for name, form in (("middle.qcow2", "raw"), ("disk.qcow2", "qcow2")):
        qemu_img("create", "-q", "-f", "qcow2", "-F", form, "-b", below,
                 folder / name)
        below = folder / name
    return below


@pytest.mark.parametrize("end", ["quit", "kill"])
def test_an_untouched_chain_is_believed(chain, cohortd, end):
    "After a clean end and a kill alike, twice."
    daemon = track(cohortd, chain)
    for _ in range(2):
        getattr(daemon, end)()
        daemon = start(cohortd, chain)
        assert dirty_bytes(daemon, "disk") >= 64 * KIB


@pytest.mark.parametrize("end", ["quit", "kill"])
@pytest.mark.parametrize("name", ["base.raw", "middle.qcow2"])
def test_a_writer_to_a_backing_file_is_noticed(chain, cohortd, folder, end,
                                               name):
    "The overlay shows it, and no bitmap knows."
    getattr(track(cohortd, chain), end)()
    qemu_io(folder / name, "write 4M 64k", image_format=name.split(".")[1])
    assert "below the image" in reason(start(cohortd, chain))


def test_a_disk_that_got_a_snapshot_is_believed(qcow2, cohortd, folder):
    """The disk below is closed after its overlay, and stores bitmaps then: that is
    nobody else's doing."""
    daemon = track(cohortd, qcow2)
    top = folder / "top.qcow2"
    daemon.qmp.command("blockdev-snapshot-sync", {
        "node-name": "disk", "snapshot-file": str(top),
        "snapshot-node-name": "top", "format": "qcow2"})
    add_bitmap(daemon, "top", persistent=True)
    write(daemon, "write 2M 64k")
    daemon.quit()
    daemon = start(cohortd, top)
    assert believed(daemon)
    daemon.kill()
    qemu_io(qcow2, "write 4M 64k", image_format="qcow2")
    assert "below the image" in reason(start(cohortd, top))


def test_another_backing_file_is_noticed(chain, cohortd, folder):
    "Exchanged for one of the same size."
    track(cohortd, chain).quit()
    random_image(folder / "base.raw", SIZE, 2)
    assert "below the image" in reason(start(cohortd, chain))


@pytest.fixture
def with_data_file(folder):
    path = folder / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o",
             f"data_file={folder}/disk.data,data_file_raw=on", path, SIZE)
    return path


def test_a_data_file_is_believed(with_data_file, cohortd):
    "As it was closed."
    track(cohortd, with_data_file).quit()
    assert believed(start(cohortd, with_data_file))


def test_a_writer_to_a_data_file_is_noticed(with_data_file, cohortd, folder):
    "It needs no format to write there."
    track(cohortd, with_data_file).quit()
    qemu_io(folder / "disk.data", "write 4M 64k")
    assert "below the image" in reason(start(cohortd, with_data_file))


# One owner at a time.

def test_two_daemons_do_not_track_one_image(disk, cohortd):
    "Also where the image is not locked, the tracking file is."
    track(cohortd, disk)
    unlocked = raw_options("disk", disk)
    unlocked["file"]["locking"] = "off"
    error = cohortd().qmp.error("blockdev-add", unlocked)
    assert "is in use" in str(error)
