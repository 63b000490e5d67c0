# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 images that we write are what QEMU's programs read.

Random requests, many at a time, go to a disk over NBD and to a byte array; in
between everything is read back, flushed, closed and opened again, or the daemon
is killed. At the end `qemu-img check` finds nothing (leaks only, after a kill)
and the disk reads the same to it.
"""
import json
import os
import random

import pytest
from support.images import KIB, MIB, patchy_image, qemu_img, qemu_io, run
from support.qcow2_images import child, create, image_json, scribble, to_raw

SIZE = 4 * MIB + 5 * KIB + 512


def options(path, **members):
    return ["--blockdev", json.dumps(
        {"driver": "qcow2", "node-name": "disk", "discard": "unmap",
         "file": {**child(path), "discard": "unmap"}, **members}),
            "--export", "nbd,id=e,node-name=disk,writable=on"]


class Disk:
    """An image under test beside what it must hold."""

    def __init__(self, cohortd, nbd_client, path, content, seed, **members):
        self.cohortd, self.nbd_client = cohortd, nbd_client
        self.path, self.members = path, members
        self.content = bytearray(content)
        self.chance = random.Random(seed)
        self.cluster = image_json(path)["cluster-size"]
        self.daemon = None

    def open(self):
        self.daemon = self.cohortd(*options(self.path, **self.members),
                                   nbd=True)
        self.client = self.nbd_client(self.daemon.nbd_uri("disk"))

    def close(self):
        self.daemon.quit()
        assert self.daemon.wait() == 0

    def kill(self):
        self.daemon.kill()

    def _range(self, taken):
        chance = self.chance
        size = len(self.content)
        unit = chance.choice([1, 512, 4 * KIB, self.cluster, self.cluster])
        length = min(unit * chance.randint(1, 5), size, 300 * KIB)
        offset = chance.randrange(0, size - length + 1) // unit * unit
        if any(offset < end and start < offset + length
               for start, end in taken):
            return None
        taken.append((offset, offset + length))
        return offset, length

    def _send(self, kind, offset, length):
        import nbd
        data = bytes(length)
        if kind == "write":
            data = self.chance.randbytes(length)
            cookie = self.client.aio_pwrite(nbd.Buffer.from_bytearray(data),
                                            offset)
        elif kind == "trim":
            cookie = self.client.aio_trim(length, offset)
        else:
            flags = nbd.CMD_FLAG_NO_HOLE if kind == "zero" else 0
            cookie = self.client.aio_zero(length, offset, flags=flags)
        self.content[offset:offset + length] = data
        return cookie

    def batch(self, count):
        """Requests that do not overlap, all under way at once."""
        taken, trims, cookies = [], [], []
        for _ in range(count):
            place = self._range(taken)
            kind = self.chance.choice(["write"] * 6 + ["zero", "unmap", "trim"])
            if place is not None:
                cookies.append(self._send(kind, *place))
            if place is not None and kind == "trim":
                trims.append(place)
        while self.client.aio_in_flight() > 0:
            self.client.poll(-1)
        for cookie in cookies:
            assert self.client.aio_command_completed(cookie)
        for offset, length in trims:  # what is there now is up to the disk
            self.content[offset:offset + length] = \
                self.client.pread(length, offset)

    def verify(self):
        size, step = len(self.content), MIB
        for offset in range(0, size, step):
            length = min(step, size - offset)
            read = self.client.pread(length, offset)
            if read != self.content[offset:offset + length]:
                at = next(i for i in range(length)
                          if read[i] != self.content[offset + i])
                raise AssertionError(f"differs at {offset + at}")


def check(path, may_leak=False):
    # -U: the kernel may still be taking leave of a daemon that was killed.
    result = run("qemu-img", "check", "-U", "--output=json", path, check=False)
    report = json.loads(result.stdout)
    assert report.get("corruptions", 0) == 0, result.stdout + result.stderr
    assert report.get("check-errors", 0) == 0, result.stdout
    if not may_leak:
        assert report.get("leaks", 0) == 0, result.stdout + result.stderr


def check_content(disk, folder):
    raw = to_raw(disk.path, folder / "final.raw")
    with open(raw, "rb") as file:
        assert file.read() == disk.content


VARIANTS = {
    "v2": {"compat": "0.10"},
    **{f"cluster-{bits}": {"cluster_size": 1 << bits}
       for bits in range(9, 22)},
    **{f"refcount-{bits}": {"refcount_bits": bits}
       for bits in (1, 2, 4, 8, 32, 64)},
    "refcount-64-cluster-9": {"refcount_bits": 64, "cluster_size": 512},
    "extended-16k": {"extended_l2": "on", "cluster_size": 16 * KIB},
    "extended-64k": {"extended_l2": "on"},
    "extended-2m": {"extended_l2": "on", "cluster_size": 2 * MIB},
    "lazy": {"lazy_refcounts": "on"},
    "preallocated-metadata": {"preallocation": "metadata"},
    "preallocated-full": {"preallocation": "full"},
    "extended-preallocated": {"extended_l2": "on",
                              "preallocation": "metadata"},
}


def exercise(disk, rounds=3, batches=12):
    for _ in range(rounds):
        disk.open()
        for index in range(batches):
            disk.batch(16)
            if index % 4 == 1:
                disk.client.flush()
            if index % 4 == 3:
                disk.verify()
        disk.close()
        check(disk.path)


@pytest.mark.parametrize("backing", [False, True], ids=["alone", "backing"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_disk_holds_what_was_written(cohortd, nbd_client, folder, variant,
                                       backing):
    """To us, and to qemu-img after each close."""
    members = dict(VARIANTS[variant])
    content = bytes(SIZE)
    base = None
    if backing:
        if "preallocation" in members:
            members.pop("preallocation")
        base = patchy_image(folder / "base.raw", SIZE - 300 * KIB, seed=variant)
        with open(base, "rb") as file:
            content = file.read() + bytes(300 * KIB)
    path = create(folder / "disk.qcow2", SIZE, base, "raw" if base else None,
                  **members)
    disk = Disk(cohortd, nbd_client, path, content, variant)
    exercise(disk)
    check_content(disk, folder)


@pytest.mark.parametrize("members", [
    {}, {"cluster_size": 512}, {"cluster_size": 4 * KIB},
    {"compression_type": "zstd"}, {"extended_l2": "on"},
    {"cluster_size": 2 * MIB}, {"refcount_bits": 2, "cluster_size": 4 * KIB},
], ids=str)
def test_compressed_clusters_are_overwritten(cohortd, nbd_client, folder,
                                             members):
    """They move to places of their own, and what they shared is freed."""
    path = create(folder / "disk.qcow2", SIZE, **members)
    scribble(path, seed=str(members), compress=True)
    raw = to_raw(path, folder / "start.raw")
    with open(raw, "rb") as file:
        content = file.read()
    disk = Disk(cohortd, nbd_client, path, content, str(members))
    exercise(disk)
    check_content(disk, folder)


@pytest.mark.parametrize("members", [
    {}, {"cluster_size": 512}, {"cluster_size": 4 * KIB}, {"compat": "0.10"},
    {"extended_l2": "on"}, {"refcount_bits": 64},
], ids=str)
def test_internal_snapshots_keep_their_content(cohortd, nbd_client, folder,
                                               members):
    """Writing after a snapshot leaves it alone."""
    path = create(folder / "disk.qcow2", SIZE, **members)
    scribble(path, seed=str(members))
    qemu_img("snapshot", "-c", "one", path)
    before = to_raw(path, folder / "one.raw")
    with open(before, "rb") as file:
        content = file.read()
    disk = Disk(cohortd, nbd_client, path, content, str(members))
    exercise(disk, rounds=1)
    qemu_img("snapshot", "-c", "two", path)
    two = bytes(disk.content)
    exercise(disk, rounds=2)
    check_content(disk, folder)
    for name, expected in (("one", content), ("two", two)):
        raw = to_raw(path, folder / "snapshot.raw", "-l",
                     f"snapshot.name={name}")
        with open(raw, "rb") as file:
            assert file.read() == expected, name
    qemu_img("snapshot", "-d", "one", path)
    qemu_img("snapshot", "-d", "two", path)
    check(path)


@pytest.mark.parametrize("members", [
    {}, {"data_file_raw": "on"}, {"extended_l2": "on"},
    {"data_file_raw": "on", "cluster_size": 4 * KIB},
], ids=str)
def test_an_external_data_file_holds_the_data(cohortd, nbd_client, folder,
                                              members):
    """And by itself all of it, where it is said to be raw."""
    data = folder / "disk.data"
    path = create(folder / "disk.qcow2", SIZE, data_file=data, **members)
    disk = Disk(cohortd, nbd_client, path, bytes(SIZE), str(members))
    exercise(disk)
    check_content(disk, folder)
    if "data_file_raw" in members:
        with open(data, "rb") as file:
            assert file.read(SIZE) == disk.content


@pytest.mark.parametrize("members", [
    {}, {"cluster_size": 512}, {"cluster_size": 2 * MIB},
    {"extended_l2": "on"}, {"compat": "0.10"},
], ids=str)
@pytest.mark.parametrize("backing", [False, True], ids=["alone", "backing"])
def test_a_disk_grows_and_shrinks(cohortd, nbd_client, folder, members,
                                  backing):
    """What is new reads as zeroes, also where a backing file reaches further
    and where the disk reached before."""
    base = None
    content = bytes(SIZE)
    if backing:
        base = patchy_image(folder / "base.raw", SIZE * 3, seed=1)
        with open(base, "rb") as file:
            content = file.read(SIZE)
    path = create(folder / "disk.qcow2", SIZE, base, "raw" if base else None,
                  **members)
    disk = Disk(cohortd, nbd_client, path, content, str(members))
    for size in (SIZE * 2, SIZE * 40, SIZE, SIZE // 512 // 3 * 512, SIZE * 2):
        disk.open()
        disk.batch(16)
        disk.close()
        daemon = cohortd(*options(path)[:2])
        daemon.qmp.command("block_resize", {"node-name": "disk", "size": size})
        daemon.quit()
        assert daemon.wait() == 0
        disk.content = disk.content[:size] + \
            bytes(max(0, size - len(disk.content)))
        check(path)
    check_content(disk, folder)


@pytest.mark.parametrize("members", [
    {}, {"cluster_size": 512}, {"extended_l2": "on"}, {"lazy_refcounts": "on"},
    {"refcount_bits": 1, "cluster_size": 4 * KIB},
], ids=str)
def test_a_kill_leaks_clusters_at_most(cohortd, nbd_client, folder, members):
    """What was flushed is there; the image needs no repair to be used."""
    path = create(folder / "disk.qcow2", SIZE, **members)
    disk = Disk(cohortd, nbd_client, path, bytes(SIZE), str(members))
    for _ in range(6):
        disk.open()
        for _ in range(4):
            disk.batch(16)
        disk.client.flush()
        flushed = bytes(disk.content)
        disk.kill()
        check(path, may_leak=True)
        disk.open()
        disk.verify()
        disk.batch(16)
        disk.kill()
        check(path, may_leak=True)
        with open(to_raw(path, folder / "now.raw"), "rb") as file:
            now = file.read()
        for offset in range(0, SIZE, 512):
            old = flushed[offset:offset + 512]
            new = disk.content[offset:offset + 512]
            piece = now[offset:offset + 512]
            # A write that is torn may leave some bytes of each.
            assert piece in (old, new) or all(
                byte in both for byte, both in zip(piece, zip(old, new))), \
                offset
        disk.content = bytearray(now)
    check_content(disk, folder)


def test_a_cluster_at_the_end_of_the_file_is_filled(cohortd, folder):
    """The file may end within its last cluster. What is written there in place
    is there after closing."""
    path = create(folder / "disk.qcow2", 2 * MIB, cluster_size=MIB)
    qemu_io(path, "write -P 1 0 100k", image_format="qcow2")
    os.truncate(path, os.stat(path).st_size - MIB + 100 * KIB)
    daemon = cohortd(*options(path), nbd=True)
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 500k 1k", "write -P 8 600k 1k",
            "write -P 9 1023k 1k")
    daemon.quit()
    qemu_io(path, "read -P 7 500k 1k", "read -P 8 600k 1k",
            "read -P 9 1023k 1k", "read -P 0 501k 99k", image_format="qcow2")
    check(path)


def grow(daemon, size):
    daemon.qmp.command("block-export-del", id="e", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED", id="e")
    daemon.qmp.command("block_resize", {"node-name": "disk", "size": size})
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="disk", writable=True)


@pytest.mark.parametrize("extended", ["off", "on"])
@pytest.mark.parametrize("before", ["grown", "zeroed"])
def test_a_raw_data_file_shows_the_disk_after_a_kill(
        cohortd, nbd_client, folder, before, extended):
    """Whoever reads the data file and whoever reads the image see the same,
    also where the image knew of no data yet."""
    data = folder / "disk.data"
    path = create(folder / "disk.qcow2", MIB, data_file=data,
                  data_file_raw="on", extended_l2=extended)
    qemu_io(path, "write -P 5 0 1M", "write -z -u 0 1M", image_format="qcow2")
    daemon = cohortd(*options(path), nbd=True)
    offset = 100 * KIB
    if before == "grown":
        grow(daemon, 2 * MIB)
        offset += MIB
    nbd_client(daemon.nbd_uri("disk")).pwrite(b"x" * 70000, offset)
    daemon.kill()
    with open(to_raw(path, folder / "now.raw"), "rb") as file:
        assert file.read() == data.read_bytes()
