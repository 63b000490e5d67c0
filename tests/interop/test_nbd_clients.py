# SPDX-License-Identifier: BSD-3-Clause
"""The programs people use over NBD, against cohortd."""
import json
import os
import subprocess

import pytest
from support.images import (MIB, patchy_image, random_image, run,
                            sparse_image)
from support.waiting import wait_until


def same(a, b):
    run("cmp", a, b)


@pytest.fixture
def disk(cohortd, folder):
    """An image of 64 MiB, its export, and its URI for two kinds of client."""
    class Disk:
        path = patchy_image(folder / "disk", 64 * MIB)
        daemon = cohortd(
            "--blockdev", f"file,node-name=disk,filename={path},discard=unmap",
            "--export", "nbd,id=e,node-name=disk,writable=on", nbd=True)
        uri = daemon.nbd_uri("disk")
        qemu = f"nbd:unix:{daemon.nbd_path}:exportname=disk"
    return Disk


def test_nbdinfo_tells_what_is_there(disk):
    """nbdinfo finds the export, its size and what it can do."""
    info = json.loads(run("nbdinfo", "--json", disk.uri).stdout)
    export = info["exports"][0]
    assert export["export-size"] == 64 * MIB
    assert export["contexts"] == ["base:allocation"]
    for ability in ("df", "fua", "flush", "trim", "zero", "fast_zero",
                    "multi_conn", "cache"):
        assert export[f"can_{ability}"], ability
    assert not export["is_read_only"]
    assert export["block_size_maximum"] == 32 * MIB
    listed = json.loads(run("nbdinfo", "--json", "--list",
                            disk.daemon.nbd_uri()).stdout)
    assert [e["export-name"] for e in listed["exports"]] == ["disk"]
    assert run("nbdinfo", "--can", "multi-conn", disk.uri).returncode == 0


def test_nbdinfo_maps_holes_as_qemu_img_does(disk):
    """Both see the same data and holes through the export as in the file."""
    def zeroes(*words):
        return [(e["start"], e["length"]) for e in json.loads(
            run("qemu-img", "map", "-f", "raw", "--output=json",
                *words).stdout) if e["zero"]]
    seen = zeroes(disk.qemu)
    assert seen == zeroes(disk.path) and len(seen) > 10
    mapped = json.loads(run("nbdinfo", "--map", "--json", disk.uri).stdout)
    assert [(e["offset"], e["length"]) for e in mapped
            if e["type"] == 3] == seen


def test_nbdcopy_out_and_in_again(disk, folder):
    """Several connections at once, both ways, equal to the byte."""
    copy = folder / "copy"
    run("nbdcopy", disk.uri, copy)
    same(copy, disk.path)
    other = random_image(folder / "other", 64 * MIB, seed=2)
    run("nbdcopy", "--flush", other, disk.uri)
    same(other, disk.path)


def test_qemu_img_converts_out_and_in_again(disk, folder):
    """qemu-img reads, writes and compares the export."""
    copy = folder / "copy"
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", disk.qemu, copy)
    same(copy, disk.path)
    other = patchy_image(folder / "other", 64 * MIB, seed=2)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", other,
        disk.qemu)
    same(other, disk.path)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", other, disk.qemu)
    info = json.loads(run("qemu-img", "info", "--output=json",
                          disk.qemu).stdout)
    assert info["virtual-size"] == 64 * MIB


def test_qemu_io_reads_what_it_wrote(disk):
    """Unaligned writes, zeroing, discarding, FUA and flush, each checked."""
    run("qemu-io", "-f", "raw", "-c", "write -P 90 1001 70001",
        "-c", "read -P 90 1001 70001", "-c", "write -f -P 7 0 512",
        "-c", "read -P 7 0 512", "-c", "write -z 1M 2M",
        "-c", "read -P 0 1M 2M", "-c", "write -z -u 8M 1M",
        "-c", "read -P 0 8M 1M", "-c", "discard 4M 1M", "-c", "flush",
        "-c", "aio_write -P 3 16M 8M", "-c", "aio_flush",
        "-c", "read -P 3 16M 8M", disk.qemu)


def test_fio_verifies_what_it_wrote(disk):
    """fio's own check of random writes at depth 32 finds no fault."""
    run("fio", "--name=verify", "--ioengine=nbd", f"--uri={disk.uri}",
        "--rw=randwrite", "--bsrange=512-128k", "--iodepth=32", "--size=32M",
        "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
        "--verify_state_save=0")


def test_nbdfuse_shows_the_disk_as_a_file(disk, folder, background):
    """What is written to nbdfuse's file is in the image."""
    mount = folder / "mount"
    mount.mkdir()
    process = background("nbdfuse", mount / "nbd", disk.uri)
    try:
        wait_until(lambda: os.path.exists(mount / "nbd"), 10,
                   "nbdfuse mounted it")
        assert os.stat(mount / "nbd").st_size == 64 * MIB
        with open(mount / "nbd", "r+b") as file:
            file.seek(12345)
            file.write(b"through the file system")
            file.flush()
            os.fsync(file.fileno())
        with open(disk.path, "rb") as file:
            file.seek(12345)
            assert file.read(23) == b"through the file system"
    finally:
        subprocess.run(["fusermount3", "-u", str(mount)], check=False)
        process.wait(10)


def test_nbdkit_passes_an_export_on(disk, folder, background):
    """nbdkit's nbd plugin is a client, too."""
    sock = folder / "kit"
    background("nbdkit", "-f", "-U", sock, "nbd", disk.uri)
    wait_until(sock.exists, 10, "nbdkit listens")
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", disk.path,
        f"nbd+unix:///?socket={sock}")


def test_qemu_is_a_client_as_a_block_node(disk, qsd, folder):
    """A storage daemon of QEMU's, on top of ours."""
    other = qsd("--blockdev", "nbd,node-name=n,export=disk,server.type=unix,"
                f"server.path={disk.daemon.nbd_path}",
                "--export", "nbd,id=e,node-name=n,writable=on", nbd=True)
    copy = random_image(folder / "other", 64 * MIB, seed=3)
    run("nbdcopy", "--flush", copy, other.nbd_uri("n"))
    same(copy, disk.path)


def test_a_large_disk_is_no_trouble(cohortd, folder):
    """8 TiB: sizes and offsets beyond 32 bits arrive."""
    path = sparse_image(folder / "big", 8 << 40)
    daemon = cohortd("--blockdev", f"file,node-name=big,filename={path}",
                     "--export", "nbd,id=e,node-name=big,writable=on",
                     nbd=True)
    uri = daemon.nbd_uri("big")
    assert int(run("nbdinfo", "--size", uri).stdout) == 8 << 40
    run("qemu-io", "-f", "raw", "-c", "write -P 9 8191G 1M",
        "-c", "read -P 9 8191G 1M", "-c", "read -P 0 4095G 1M", uri)
