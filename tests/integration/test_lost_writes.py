# SPDX-License-Identifier: BSD-3-Clause
"""A disk that loses writes which the page cache goes on to show: what is backed
up after that is what the disk holds."""
import nbd
import pytest

from support.disks import add_bitmap, raw_options
from support.failing import FailingFilesystem
from support.images import MIB, run, sparse_image

SIZE = 8 * MIB
OLD, NEW = b"\1" * 65536, b"\2" * 65536


@pytest.fixture
def disk(folder, background):
    place = FailingFilesystem(folder / "failing", background)
    yield place
    place.close()


def start(cohortd, disk, **options):
    daemon = cohortd(nbd=True)
    daemon.qmp.command("blockdev-add", raw_options(
        "disk", disk.path / "disk.raw",
        **{"x-cohort-tracking": {"location": "state-dir"}, **options}))
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)
    return daemon


def connect(daemon):
    handle = nbd.NBD()
    handle.connect_uri(daemon.nbd_uri("disk"))
    return handle


def back_up(daemon, path, sync):
    "Into a raw file, in place, consuming the bitmap."
    if not path.exists():
        sparse_image(path, SIZE)
    daemon.qmp.command("blockdev-add", raw_options("target", path))
    daemon.qmp.command("blockdev-backup", job_id="job", device="disk",
                       target="target", sync=sync, bitmap="b0",
                       bitmap_mode="on-success")
    assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
    daemon.qmp.command("blockdev-del", node_name="target")


def lose_a_write(disk, guest):
    "It reaches the page cache only, and the guest's flush is told."
    guest.flush()
    disk.fail()
    guest.pwrite(NEW, MIB)
    with pytest.raises(nbd.Error):
        guest.flush()
    disk.mend()
    assert NEW not in disk.content()


def new_disk(disk):
    (disk.path / "disk.raw").write_bytes(OLD * (SIZE // len(OLD)))


@pytest.fixture
def backed_up(disk, cohortd, folder):
    new_disk(disk)
    daemon = start(cohortd, disk)
    add_bitmap(daemon, "disk", persistent=True)
    back_up(daemon, folder / "backup.raw", "full")
    # What the backup has settled becomes durable with the next change of bitmaps,
    # not later, when the disk may fail and the bitmap be lost with a reason.
    add_bitmap(daemon, "disk", "other", persistent=True)
    return daemon


def test_an_increment_after_it_holds_what_the_disk_holds(disk, backed_up,
                                                         cohortd, folder):
    "After a kill the lost write is in the bitmap, and not in the backup."
    lose_a_write(disk, connect(backed_up))
    backed_up.kill()
    daemon = start(cohortd, disk)
    assert daemon.qmp.bitmap("disk", "b0")["count"] >= 65536
    back_up(daemon, folder / "backup.raw", "incremental")
    assert daemon.qmp.bitmap("disk", "b0")["count"] == 0
    assert (folder / "backup.raw").read_bytes() == \
        OLD * (SIZE // len(OLD))
    assert connect(daemon).pread(len(NEW), MIB) == OLD


def test_until_then_no_backup_consumes_the_bitmap(disk, backed_up, folder):
    "The job of the daemon that lost it fails; so does a flush, ever after."
    guest = connect(backed_up)
    lose_a_write(disk, guest)
    sparse_image(folder / "other.raw", SIZE)
    qmp = backed_up.qmp
    qmp.command("blockdev-add", raw_options("target", folder / "other.raw"))
    qmp.command("blockdev-backup", job_id="job", device="disk",
                target="target", sync="incremental", bitmap="b0")
    assert "error" in qmp.wait_job_gone("job")["data"]
    assert qmp.bitmap("disk", "b0")["count"] >= 65536
    with pytest.raises(nbd.Error):
        guest.flush()


def test_a_first_bitmap_does_not_trust_the_cache_either(disk, cohortd, folder):
    "Written to and lost by a daemon that kept no persistent bitmap."
    new_disk(disk)
    daemon = start(cohortd, disk)
    lose_a_write(disk, connect(daemon))
    daemon.kill()
    daemon = start(cohortd, disk)
    add_bitmap(daemon, "disk", persistent=True)
    back_up(daemon, folder / "backup.raw", "full")
    assert (folder / "backup.raw").read_bytes() == OLD * (SIZE // len(OLD))


def test_a_node_that_lost_a_write_gets_no_persistent_bitmap(disk, cohortd):
    "What it shows is not what the disk holds, as long as it is open."
    new_disk(disk)
    daemon = start(cohortd, disk)
    lose_a_write(disk, connect(daemon))
    error = daemon.qmp.error("block-dirty-bitmap-add", node="disk", name="b0",
                             persistent=True)
    assert "may not be on the disk" in str(error)


def test_tables_of_a_qcow2_image_are_read_anew_too(disk, cohortd, folder):
    "A lost write that allocated: the next daemon goes by what the disk holds."
    path = disk.path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, SIZE)
    daemon = start_qcow2(cohortd, path)
    add_bitmap(daemon, "disk", persistent=True)
    guest = connect(daemon)
    guest.pwrite(OLD, 0)
    lose_a_write(disk, guest)
    daemon.kill()
    daemon = start_qcow2(cohortd, path)
    back_up(daemon, folder / "backup.raw", "incremental")
    assert (folder / "backup.raw").read_bytes() == \
        OLD + bytes(SIZE - len(OLD))
    daemon.quit()
    run("qemu-img", "check", path)


def start_qcow2(cohortd, path):
    daemon = cohortd(nbd=True)
    daemon.qmp.command("blockdev-add", {
        **raw_options("disk", path), "driver": "qcow2",
        "x-cohort-tracking": {"location": "state-dir"}})
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)
    return daemon


def cached_bytes(path):
    return int(run("fincore", "--bytes", "--noheadings", "--output", "RES",
                   path).stdout)


def test_a_clean_end_keeps_the_cache_warm(backed_up, cohortd, disk):
    "All was made durable, so nothing is read anew."
    image = disk.path / "disk.raw"
    backed_up.quit()
    assert image.read_bytes() and cached_bytes(image) == SIZE
    daemon = start(cohortd, disk)
    assert cached_bytes(image) == SIZE
    daemon.kill()
    start(cohortd, disk)
    assert cached_bytes(image) < SIZE // 8
