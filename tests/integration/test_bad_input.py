# SPDX-License-Identifier: BSD-3-Clause
"""What people do by mistake: each is refused with a sentence that names what
and why, nothing is lost, and the daemon goes on.

Mistakes in the protocols themselves are in test_qmp_protocol.py and test_nbd.py.
"""
import os
import pathlib

import pytest

from support.qmp import QmpError

MIB = 1 << 20


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


@pytest.fixture
def image(folder):
    path = folder / "image.raw"
    path.write_bytes(os.urandom(MIB))
    return path


def add_file(daemon, name, path, **options):
    daemon.qmp.command("blockdev-add", driver="file", node_name=name,
                       filename=str(path), **options)


def backup_error(daemon, command="blockdev-backup", **members):
    error = daemon.qmp.error(command, job_id="j", sync="full", **members)
    assert daemon.qmp.command("query-jobs") == []
    return error.desc


def test_a_backup_does_not_empty_the_image_it_reads(daemon, image):
    "drive-backup onto the file of its own read-only source is refused."
    before = image.read_bytes()
    add_file(daemon, "disk", image, read_only=True)
    said = backup_error(daemon, "drive-backup", device="disk",
                        target=str(image))
    assert str(image) in said and "resize" in said
    assert image.read_bytes() == before


def test_a_backup_does_not_empty_what_another_reads(daemon, qsd, image):
    "... and so is one onto a file that another process has open."
    before = image.read_bytes()
    qsd("--blockdev", f"file,node-name=base,filename={image},read-only=on",
        "--nbd-server", f"addr.type=unix,addr.path={image}.sock",
        "--export", "nbd,id=e,node-name=base")
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="disk",
                       size=MIB)
    said = backup_error(daemon, "drive-backup", device="disk",
                        target=str(image))
    assert str(image) in said and "qemu-storage" in said
    assert image.read_bytes() == before


def test_a_file_in_use_is_not_resized(daemon, image):
    "block_resize leaves an image alone that another node reads."
    add_file(daemon, "reader", image, read_only=True)
    add_file(daemon, "writer", image)
    error = daemon.qmp.error("block_resize", node_name="writer", size=4096)
    assert str(image) in error.desc
    assert image.stat().st_size == MIB
    daemon.qmp.command("blockdev-del", node_name="reader")
    daemon.qmp.command("block_resize", node_name="writer", size=4096)
    assert image.stat().st_size == 4096
    add_file(daemon, "reader", image, read_only=True)  # no lock is left


@pytest.mark.parametrize("source, target", [("top", "disk"),
                                            ("disk", "top"),
                                            ("top", "other"),
                                            ("disk", "disk")])
def test_a_backup_needs_two_places(daemon, image, source, target):
    "Source and target that store their data in one node are no backup."
    add_file(daemon, "disk", image)
    for name in ("top", "other"):
        daemon.qmp.command("blockdev-add", driver="raw", node_name=name,
                           file="disk")
    said = backup_error(daemon, device=source, target=target)
    assert "'disk'" in said


def test_two_jobs_do_not_write_to_one_file(daemon, image, folder):
    "Two backups of one transaction onto one file: nothing is started."
    add_file(daemon, "disk", image)
    target = str(folder / "target.raw")
    with pytest.raises(QmpError, match="target.raw"):
        daemon.qmp.transaction(*[
            ("drive-backup", {"job-id": job, "device": "disk",
                              "target": target, "sync": "full"})
            for job in ("j1", "j2")])
    assert daemon.qmp.command("query-jobs") == []
    assert len(daemon.qmp.command("query-named-block-nodes")) == 1


@pytest.mark.parametrize("target, words", [
    ("/nowhere/target.raw", "No such file"),
    ("/proc/target.raw", "/proc/target.raw"),
    ("/dev/null", "/dev/null"),
    ("", "target"),
    ("/" + "x" * 300, "too long"),
])
def test_a_target_that_cannot_be_made_is_named(daemon, image, target, words):
    add_file(daemon, "disk", image)
    assert words in backup_error(daemon, "drive-backup", device="disk",
                                 target=target)


def test_a_target_of_another_kind_is_refused(daemon, image, folder):
    "A directory, a FIFO."
    add_file(daemon, "disk", image)
    os.mkfifo(folder / "fifo")
    for path in (folder, folder / "fifo"):
        assert str(path) in backup_error(daemon, "drive-backup",
                                         device="disk", target=str(path))


def test_a_smaller_target_is_refused(daemon, image):
    add_file(daemon, "disk", image)
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="small",
                       size=MIB - 512)
    said = backup_error(daemon, device="disk", target="small")
    assert str(MIB) in said and str(MIB - 512) in said


def test_a_disk_that_guests_write_is_no_target(daemon, image):
    add_file(daemon, "disk", image)
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="busy",
                       size=MIB)
    daemon.qmp.command("block-export-add", type="nbd", id="guests",
                       node_name="busy", writable=True)
    assert "guests" in backup_error(daemon, device="disk", target="busy")


def test_a_disk_of_no_bytes_is_no_trouble(daemon, nbd_client):
    "It can be exported, tracked and backed up."
    for name in ("disk", "target"):
        daemon.qmp.command("blockdev-add", driver="null-co", node_name=name,
                           size=0)
    daemon.qmp.command("block-dirty-bitmap-add", node="disk", name="b")
    daemon.qmp.command("block-export-add", type="nbd", id="disk",
                       node_name="disk", writable=True)
    assert nbd_client(daemon.nbd_uri("disk")).get_size() == 0
    daemon.qmp.command("blockdev-backup", job_id="j", device="disk",
                       target="target", sync="incremental", bitmap="b")
    assert "error" not in daemon.qmp.wait_job_gone("j")["data"]


def test_a_server_socket_in_use_is_refused(daemon, cohortd):
    "A second daemon leaves the first one's socket alone."
    second = cohortd()
    error = second.qmp.error("nbd-server-start", {
        "addr": {"type": "unix", "data": {"path": daemon.nbd_path}}})
    assert daemon.nbd_path in error.desc
    assert pathlib.Path(daemon.nbd_path).is_socket()
