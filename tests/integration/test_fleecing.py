# SPDX-License-Identifier: BSD-3-Clause
"""A client reads a disk as it was at one instant, while the guest goes on
(T23): by a backup into an overlay of the disk, by a copy-before-write node
into an overlay, and by snapshot-access."""
import pathlib
import time

import nbd
import pytest

from support.disks import add_bitmap, raw_options
from support.images import (KIB, MIB, qemu_img, qemu_io, random_image, run,
                            sparse_image)

SIZE = 4 * MIB

# What the disk holds at the instant, and what guests overwrite: wholly, partly
# left and right, and next to it.
PATTERNS = [(0x5d, 0, 64 * KIB), (0xd5, MIB, 64 * KIB),
            (0xdc, 2 * MIB, 64 * KIB), (0xcd, 0x3be0000, 64 * KIB)]
PATTERNS = [(byte, min(offset, SIZE - 64 * KIB), size)
            for byte, offset, size in PATTERNS]
OVERWRITES = [(0xab, 0, 64 * KIB), (0xad, MIB - 32 * KIB, 64 * KIB),
              (0x1d, 2 * MIB + 32 * KIB, 64 * KIB),
              (0xea, SIZE - 128 * KIB, 64 * KIB)]


def words(verb, patterns):
    return [f"{verb} -P {byte} {offset} {size}"
            for byte, offset, size in patterns]


def export(daemon, node, name, writable=False):
    daemon.qmp.command("block-export-add", type="nbd", id=f"export-{name}",
                       node_name=node, name=name, writable=writable)


@pytest.fixture
def daemon(cohortd):
    daemon = cohortd(nbd=True)
    disk = sparse_image(daemon.folder / "disk.raw", SIZE)
    qemu_io(disk, *words("write", PATTERNS))
    daemon.qmp.command("blockdev-add", raw_options("disk", disk))
    return daemon


def add_overlay(daemon):
    path = daemon.folder / "temp.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "temp", "backing": "disk",
        "file": {"driver": "file", "filename": str(path)}})


def cbw(daemon, target, **more):
    daemon.qmp.command("blockdev-add", {
        "driver": "copy-before-write", "node-name": "cbw", "file": "disk",
        "target": target, **{key.replace("_", "-"): value
                             for key, value in more.items()}})


def by_backup(daemon):
    add_overlay(daemon)
    export(daemon, "disk", "guest", writable=True)
    daemon.qmp.command("blockdev-backup", job_id="fleece", device="disk",
                       target="temp", sync="none")
    export(daemon, "temp", "instant")


def by_filter(daemon):
    add_overlay(daemon)
    cbw(daemon, "temp")
    export(daemon, "cbw", "guest", writable=True)
    export(daemon, "temp", "instant")


def snapshot_access(daemon, options=(), **more):
    cbw(daemon, "temp", **dict(options))
    daemon.qmp.command("blockdev-add", driver="snapshot-access",
                       node_name="access", file="cbw", **more)
    export(daemon, "cbw", "guest", writable=True)
    export(daemon, "access", "instant")


def by_snapshot_access(daemon):
    path = sparse_image(daemon.folder / "temp.raw", SIZE)
    daemon.qmp.command("blockdev-add", raw_options("temp", path))
    snapshot_access(daemon)


def ends(client, cookie, timeout_s):
    "Does the request end in time?"
    deadline = time.monotonic() + timeout_s
    while not client.aio_command_completed(cookie):
        if time.monotonic() > deadline:
            return False
        client.poll(100)
    return True


@pytest.mark.parametrize("graph", [by_backup, by_filter, by_snapshot_access])
def test_the_instant_stays_readable(daemon, graph):
    "Before and after guests overwrite it; and the disk has the new data."
    before = daemon.folder / "before"
    run("cp", daemon.folder / "disk.raw", before)
    graph(daemon)
    instant, guest = daemon.nbd_uri("instant"), daemon.nbd_uri("guest")
    qemu_io(instant, *words("read", PATTERNS), read_only=True)
    qemu_io(guest, *words("write", OVERWRITES), "write -z 3M 64k")
    qemu_io(instant, *words("read", PATTERNS), read_only=True)
    qemu_io(guest, *words("read", OVERWRITES), read_only=True)
    qemu_img("compare", "-f", "raw", "-F", "raw", instant, before)


@pytest.mark.parametrize("graph", [by_backup, by_filter, by_snapshot_access])
def test_the_instant_holds_under_load(daemon, nbd_client, graph, background):
    "Readers that race with writers see nothing of what is written."
    random_image(daemon.folder / "disk.raw", SIZE, 7)
    before = daemon.folder / "before"
    run("cp", daemon.folder / "disk.raw", before)
    graph(daemon)
    background("fio", "--name=w", "--ioengine=nbd", "--rw=randwrite",
               "--uri=" + daemon.nbd_uri("guest"), "--bs=4k", "--iodepth=16",
               f"--size={SIZE}", "--time_based", "--runtime=2")
    for _ in range(20):
        qemu_img("compare", "-f", "raw", "-F", "raw",
                 daemon.nbd_uri("instant"), before)


def test_zeroes_are_kept_though_the_overlay_has_none(daemon):
    "A hole of the disk is saved as zeroes when it gets data."
    by_backup(daemon)
    qemu_io(daemon.nbd_uri("guest"), "write -P 1 3M 64k")
    qemu_io(daemon.nbd_uri("instant"), "read -P 0 3M 64k", read_only=True)


def test_a_broken_backup_makes_its_overlay_unreadable(daemon):
    "No word of what guests have written since comes out as the instant."
    path = daemon.folder / "temp.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": "file",
        "image": {"driver": "file", "filename": str(path)}})
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "temp", "backing": "disk",
        "file": {"driver": "blkdebug", "node-name": "bad",
                 "image": {"driver": "file", "filename": str(path),
                           "locking": "off"},
                 "inject-error": [{"event": "none", "iotype": "write",
                                   "errno": 5}]}})
    export(daemon, "disk", "guest", writable=True)
    daemon.qmp.command("blockdev-backup", job_id="fleece", device="disk",
                       target="temp", sync="none")
    export(daemon, "temp", "instant")
    qemu_io(daemon.nbd_uri("guest"), "write -P 1 0 64k")
    daemon.qmp.wait_job_gone("fleece")
    said = qemu_io(daemon.nbd_uri("instant"), "read 0 64k", read_only=True,
                   check=False)
    assert "error" in said


@pytest.fixture
def hung_target(cohortd, hanging_disk, request):
    "A daemon with `disk`, and `temp` which can hang."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    disk = random_image(daemon.folder / "disk.raw", MIB, 1)
    daemon.qmp.command("blockdev-add", raw_options("disk", disk))
    daemon.qmp.command("blockdev-add", raw_options(
        "temp", hanging_disk.path, cache={"direct": True}))
    return daemon


def test_a_guest_does_not_wait_for_readers_of_what_is_saved(
        hung_target, nbd_client, hanging_disk):
    "The target hangs under a reader; what it reads is overwritten once more."
    disk = hung_target.folder / "disk.raw"
    old = disk.read_bytes()[:4 * KIB]
    snapshot_access(hung_target)
    guest = nbd_client(hung_target.nbd_uri("guest"))
    instant = nbd_client(hung_target.nbd_uri("instant"))
    guest.pwrite(b"a" * 512, 0)
    hanging_disk.hang()
    content = nbd.Buffer(4 * KIB)
    reading = instant.aio_pread(content, 0)
    hanging_disk.wait_for_hung("Read")
    writing = guest.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(512)), 0)
    assert ends(guest, writing, 20)
    assert not instant.aio_command_completed(reading)
    hanging_disk.go_on()
    assert ends(instant, reading, 20)
    assert content.to_bytearray() == old


def test_who_read_before_the_guest_wrote_sees_the_disk(
        cohortd, nbd_client, hanging_disk, request):
    "Two readers hold a cluster when a guest's write claims it."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    old = b"o" * (64 * KIB)
    daemon.qmp.command("blockdev-add", raw_options(
        "disk", hanging_disk.path, cache={"direct": True}))
    export(daemon, "disk", "first", writable=True)
    nbd_client(daemon.nbd_uri("first")).pwrite(old, 0)
    daemon.qmp.command("block-export-del", id="export-first", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    temp = sparse_image(daemon.folder / "temp.raw", MIB)
    daemon.qmp.command("blockdev-add", raw_options("temp", temp))
    snapshot_access(daemon)
    guest = nbd_client(daemon.nbd_uri("guest"))
    instant = nbd_client(daemon.nbd_uri("instant"))
    hanging_disk.hang()
    contents = [nbd.Buffer(64 * KIB) for _ in range(4)]
    readings = [instant.aio_pread(content, 0) for content in contents]
    hanging_disk.wait_for_hung("Read")
    writing = guest.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(512)), 0)
    hanging_disk.go_on()
    for reading in readings:
        assert ends(instant, reading, 20)
    assert ends(guest, writing, 20)
    assert [content.to_bytearray() == old for content in contents] == [True] * 4


def test_a_guest_whose_save_takes_too_long_fails(hung_target, nbd_client,
                                                 hanging_disk):
    "cbw-timeout: so do others at the same cluster; the snapshot stays right."
    old = (hung_target.folder / "disk.raw").read_bytes()[:4 * KIB]
    snapshot_access(hung_target, {"cbw_timeout": 1})
    guest = nbd_client(hung_target.nbd_uri("guest"))
    hanging_disk.hang()
    for offset in (0, 512):
        with pytest.raises(nbd.Error):
            guest.pwrite(b"a" * 512, offset)
    hanging_disk.go_on()
    guest.pwrite(b"b" * 512, 0)
    assert guest.pread(1024, 0) == b"b" * 512 + old[512:1024]
    assert nbd_client(hung_target.nbd_uri("instant")).pread(4 * KIB, 0) == old


def test_a_save_that_takes_too_long_breaks_the_snapshot(
        hung_target, nbd_client, hanging_disk):
    "cbw-timeout with on-cbw-error=break-snapshot: the guest goes on."
    snapshot_access(hung_target, {"cbw_timeout": 1,
                                  "on_cbw_error": "break-snapshot"})
    guest = nbd_client(hung_target.nbd_uri("guest"))
    hanging_disk.hang()
    guest.pwrite(b"a" * 512, 0)
    assert guest.pread(512, 0) == b"a" * 512
    with pytest.raises(nbd.Error):
        nbd_client(hung_target.nbd_uri("instant")).pread(512, 512 * KIB)


def test_what_lies_on_the_target_from_now_on_is_written(daemon):
    "After a snapshot of the target it keeps still, as any backing file."
    for name in ("temp", "above"):
        path = daemon.folder / f"{name}.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
        daemon.qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": name, "backing": None,
            "file": {"driver": "file", "filename": str(path)}})
    snapshot_access(daemon)
    guest, instant = daemon.nbd_uri("guest"), daemon.nbd_uri("instant")
    qemu_io(guest, "write -P 1 0 64k")
    daemon.qmp.command("blockdev-snapshot", node="temp", overlay="above")
    qemu_io(guest, "write -P 1 1M 64k")
    export(daemon, "temp", "below")
    qemu_io(daemon.nbd_uri("below"), "read -P 0x5d 0 64k", "read -P 0 1M 64k",
            read_only=True)
    qemu_io(instant, *words("read", PATTERNS), read_only=True)


def test_only_what_is_dirty_can_be_read(daemon):
    "With a bitmap snapshot-access keeps that part of the disk alone."
    add_bitmap(daemon, "disk")
    export(daemon, "disk", "first", writable=True)
    qemu_io(daemon.nbd_uri("first"), "write -P 3 0 64k")
    daemon.qmp.command("block-export-del", id="export-first", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    path = sparse_image(daemon.folder / "temp.raw", SIZE)
    daemon.qmp.command("blockdev-add", raw_options("temp", path))
    cbw(daemon, "temp", bitmap={"node": "disk", "name": "b0"})
    daemon.qmp.command("blockdev-add", driver="snapshot-access",
                       node_name="access", file="cbw")
    export(daemon, "cbw", "guest", writable=True)
    export(daemon, "access", "instant")
    qemu_io(daemon.nbd_uri("guest"), "write -P 4 0 2M")
    qemu_io(daemon.nbd_uri("instant"), "read -P 3 0 64k", read_only=True)
    said = qemu_io(daemon.nbd_uri("instant"), "read 1M 64k",
                   read_only=True, check=False)
    assert "not permitted" in said


def test_a_backup_from_snapshot_access_frees_what_it_has_copied(daemon):
    "discard-source: the target of the node is empty then, and nobody reads it."
    before = daemon.folder / "before"
    run("cp", daemon.folder / "disk.raw", before)
    temp = pathlib.Path(sparse_image(daemon.folder / "temp.raw", SIZE))
    daemon.qmp.command("blockdev-add", raw_options("temp", temp))
    snapshot_access(daemon, discard="unmap")
    qemu_io(daemon.nbd_uri("guest"), *words("write", OVERWRITES))
    assert temp.stat().st_blocks > 0
    daemon.qmp.command("block-export-del", id="export-instant", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    target = sparse_image(daemon.folder / "target.raw", SIZE)
    daemon.qmp.command("blockdev-add", raw_options("target", target))
    daemon.qmp.command("blockdev-backup", job_id="j", device="access",
                       target="target", sync="full", discard_source=True)
    assert "error" not in daemon.qmp.wait_job_gone("j")["data"]
    run("cmp", before, target)
    assert temp.stat().st_blocks == 0
    qemu_io(daemon.nbd_uri("guest"), *words("read", OVERWRITES))
    export(daemon, "access", "instant")
    said = qemu_io(daemon.nbd_uri("instant"), "read 0 64k", read_only=True,
                   check=False)
    assert "not permitted" in said


@pytest.mark.parametrize("command", ["write 0 64k", "write -z 0 64k"])
def test_a_snapshot_cannot_be_written(daemon, command):
    "Though a job may discard of it what it has copied."
    by_snapshot_access(daemon)
    for name in ("export-instant", "export-guest"):
        daemon.qmp.command("block-export-del", id=name, mode="hard")
        daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    export(daemon, "access", "instant", writable=True)
    said = qemu_io(daemon.nbd_uri("instant"), command, check=False)
    assert "not permitted" in said
    qemu_io(daemon.nbd_uri("instant"), *words("read", PATTERNS),
            read_only=True)


@pytest.mark.parametrize("options, word", [
    ({"driver": "snapshot-access", "file": "disk"}, "no copy-before-write"),
    ({"driver": "copy-before-write", "file": "disk", "target": "small"},
     "1048576"),
    ({"driver": "copy-before-write", "file": "disk", "target": "other",
      "bitmap": {"node": "disk", "name": "nope"}}, "nope"),
    ({"driver": "copy-before-write", "file": "disk", "target": "other",
      "min-cluster-size": 65537}, "min-cluster-size"),
    ({"driver": "copy-before-write", "file": "disk", "target": "disk"},
     "disk"),
])
def test_what_cannot_be_is_refused(daemon, options, word):
    "A clear error, and no node."
    for name, size in (("small", MIB), ("other", SIZE)):
        path = sparse_image(daemon.folder / f"{name}.raw", size)
        daemon.qmp.command("blockdev-add", raw_options(name, path))
    error = daemon.qmp.error("blockdev-add", {"node-name": "n", **options})
    assert word in error.desc


def test_a_bitmap_of_what_an_image_lies_on_is_refused(cohortd):
    "Its bits tell of the file's bytes, which are not where the disk's are."
    daemon = cohortd()
    image = daemon.folder / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "disk",
        "file": {"driver": "file", "node-name": "below",
                 "filename": str(image)}})
    add_bitmap(daemon, "below")
    target = sparse_image(daemon.folder / "target.raw", SIZE)
    daemon.qmp.command("blockdev-add", raw_options("target", target))
    error = daemon.qmp.error("blockdev-add", {
        "driver": "copy-before-write", "node-name": "cbw", "file": "disk",
        "target": "target", "bitmap": {"node": "below", "name": "b0"}})
    assert "'below'" in error.desc


def test_break_guest_write_fails_the_guest_and_keeps_the_snapshot(daemon):
    "The default of the node, unlike that of the job."
    daemon.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": "temp",
        "image": {"driver": "null-co", "size": SIZE},
        "inject-error": [{"event": "none", "iotype": "write", "errno": 5}]})
    cbw(daemon, "temp")
    daemon.qmp.command("blockdev-add", driver="snapshot-access",
                       node_name="access", file="cbw")
    export(daemon, "cbw", "guest", writable=True)
    export(daemon, "access", "instant")
    said = qemu_io(daemon.nbd_uri("guest"), "write -P 1 0 64k", check=False)
    assert "error" in said
    qemu_io(daemon.nbd_uri("instant"), "read -P 0x5d 0 64k", read_only=True)


def test_break_snapshot_lets_the_guest_go_on(daemon):
    "The snapshot cannot be read any more."
    daemon.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": "temp",
        "image": {"driver": "null-co", "size": SIZE},
        "inject-error": [{"event": "none", "iotype": "write", "errno": 5}]})
    cbw(daemon, "temp", on_cbw_error="break-snapshot")
    daemon.qmp.command("blockdev-add", driver="snapshot-access",
                       node_name="access", file="cbw")
    export(daemon, "cbw", "guest", writable=True)
    export(daemon, "access", "instant")
    qemu_io(daemon.nbd_uri("guest"), "write -P 1 0 64k", "read -P 1 0 64k")
    said = qemu_io(daemon.nbd_uri("instant"), "read 1M 64k",
                   read_only=True, check=False)
    assert "not permitted" in said
