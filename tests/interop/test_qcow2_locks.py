# SPDX-License-Identifier: BSD-3-Clause
"""Image locks on a qcow2: the bytes that QEMU locks, and what follows."""
import json
import os
import pathlib

import pytest
from support.images import MIB, qemu_img, run
from support.qcow2_images import blockdev, child, create


@pytest.fixture
def chain(folder):
    create(folder / "base.qcow2", MIB)
    return create(folder / "disk.qcow2", MIB, "base.qcow2", "qcow2")


def writable(path):
    return ["--blockdev", json.dumps({"driver": "qcow2", "node-name": "disk",
                                      "file": child(path)})]


def exported(words):
    """QEMU locks for what is in use only."""
    return [*words, "--export", "nbd,id=e,node-name=disk,writable=on"]


def locked_bytes(daemon, path):
    """The bytes of the file on which the process has OFD locks."""
    inode = os.stat(path).st_ino
    found = set()
    for entry in pathlib.Path(f"/proc/{daemon.pid}/fdinfo").iterdir():
        for line in entry.read_text().splitlines():
            words = line.split()
            if line.startswith("lock:") and "OFDLCK" in words and \
                    int(words[6].split(":")[2]) == inode:
                found |= set(range(int(words[7]), int(words[8]) + 1))
    return found


def test_a_writer_locks_what_qemu_locks(cohortd, qsd, folder, chain):
    """The image itself, and its backing file."""
    base = folder / "base.qcow2"
    daemon = cohortd(*exported(writable(chain)), nbd=True)
    ours = locked_bytes(daemon, chain), locked_bytes(daemon, base)
    assert daemon.quit() == 0
    daemon = qsd(*exported(writable(chain)), nbd=True)
    theirs = locked_bytes(daemon, chain), locked_bytes(daemon, base)
    assert ours == theirs and ours[1] == {100, 201, 203}
    assert ours[0] == {100, 101, 103, 201, 203}


def test_a_writer_here_and_qemu_exclude_each_other(cohortd, chain):
    """Second writers and readers are refused on either side."""
    daemon = cohortd(*writable(chain))
    for words in (["-f", "qcow2"], ["-r", "-f", "qcow2"]):
        result = run("qemu-io", *words, "-c", "read 0 512", chain, check=False)
        assert "lock" in result.stdout + result.stderr
    error = daemon.qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "again", "file": child(chain)})
    assert "in use" in error.desc
    assert qemu_img("info", "-U", chain)


def test_qemu_writing_keeps_us_out(cohortd, qsd, chain):
    """Of writing and of reading, unless by force."""
    qsd(*exported(writable(chain)), nbd=True)
    daemon = cohortd()
    for read_only in (False, True):
        error = daemon.qmp.error("blockdev-add", {
            "driver": "qcow2", "node-name": "disk", "read-only": read_only,
            "file": child(chain)})
        assert "in use" in error.desc
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "disk", "read-only": True,
        "force-share": True, "file": child(chain)})


def test_two_overlays_share_a_backing_file(cohortd, folder, chain):
    """It is only read, here and in QEMU."""
    create(folder / "other.qcow2", MIB, "base.qcow2", "qcow2")
    daemon = cohortd(*writable(chain))
    other = cohortd(*writable(folder / "other.qcow2"))
    assert "4096" in run("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 4096",
                         folder / "base.qcow2").stdout
    error = other.qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "base",
        "file": child(folder / "base.qcow2")})
    assert "resize" in error.desc or "in use" in error.desc
    assert daemon.is_alive()


def test_a_reader_of_the_image_lets_readers_in(cohortd, chain):
    """Two daemons, and qemu-img without force."""
    cohortd(*blockdev(chain))
    cohortd(*blockdev(chain))
    qemu_img("info", chain)
