# SPDX-License-Identifier: BSD-3-Clause
"""Broken and hostile qcow2 images: refused with a sentence, or read as far as
they are sound. The daemon lives, and its memory stays bounded.

Each image is one of qemu-img's, changed in a few bytes.
"""
import errno
import os
import struct
import zlib

import nbd
import pytest
from support.images import GIB, KIB, MIB, qemu_img, random_image
from support.qcow2_images import blockdev, child, create

CLUSTER = 64 * KIB
COMPRESSED, COPIED = 1 << 62, 1 << 63
# Where the fields of the header are.
BACKING_OFFSET, BACKING_BYTES, DISK_SIZE = 8, 16, 24
L1_COUNT, L1_OFFSET, SNAPSHOT_COUNT, SNAPSHOTS_OFFSET = 36, 40, 60, 64


class Image:
    """An image with data in its first clusters, and its parts by name."""

    def __init__(self, path, **options):
        self.path = create(path, 4 * MIB, **options)
        random_image(f"{path}.raw", MIB)
        qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", f"{path}.raw",
                 path)
        self.l1 = self.load(L1_OFFSET)
        self.l2 = self.load(self.l1) & ~COPIED

    def load(self, offset, form=">Q"):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return struct.unpack(form, file.read(struct.calcsize(form)))[0]

    def store(self, offset, value, form=">Q"):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(struct.pack(form, value))

    def write(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def size(self):
        return os.path.getsize(self.path)


@pytest.fixture
def image(folder):
    return Image(folder / "disk.qcow2")


@pytest.fixture
def serve(cohortd, nbd_client):
    """Opens the image and gives a client of its export."""
    def start(path, **members):
        daemon = cohortd(*blockdev(path, **members), "--export",
                         "nbd,id=e,node-name=disk", nbd=True)
        client = nbd_client(daemon.nbd_uri("disk"))
        client.daemon = daemon
        return client
    return start


@pytest.fixture
def refusal(cohortd):
    """The sentence with which opening is refused; the daemon lives on."""
    def get(path, **members):
        daemon = cohortd()
        error = daemon.qmp.error("blockdev-add", {
            "driver": "qcow2", "node-name": "disk", "read-only": True,
            "file": child(path), **members})
        assert daemon.qmp.command("query-named-block-nodes") == []
        return error.desc
    return get


def fails(client, length, offset):
    with pytest.raises(nbd.Error) as caught:
        client.pread(length, offset)
    assert caught.value.errnum == errno.EIO


# What an L2 entry of a standard cluster may not be.
BAD_ENTRIES = {
    "not a cluster's offset": 0x50200,
    "reserved bit 1": 0x50000 | 2,
    "reserved bit 58": 0x50000 | 1 << 58,
    "behind the end": 1 << 40,
    "far behind the end": 0x00ffffffffff0000,
    "compressed, in the header": COMPRESSED | 0x100,
    "compressed, behind the end": COMPRESSED | 1 << 40,
}


@pytest.mark.parametrize("entry", BAD_ENTRIES)
def test_a_bad_l2_entry_fails_what_needs_it(image, serve, entry):
    """And nothing else: other clusters read on. It is said once."""
    image.store(image.l2 + 8, BAD_ENTRIES[entry])
    client = serve(image.path)
    for _ in range(3):
        fails(client, 512, CLUSTER)
        fails(client, 2 * CLUSTER, 0)
    with open(image.path + ".raw", "rb") as file:
        assert client.pread(CLUSTER, 0) == file.read(CLUSTER)
    said = client.daemon.stderr()
    assert said.count("corrupt") == 1 and "65536" in said


@pytest.mark.parametrize("entry", [0x200, 1 << 56 | CLUSTER, 1 | CLUSTER,
                                   1 << 40, 0x00fffffffffff000])
def test_a_bad_l1_entry_fails_what_needs_it(image, serve, refusal, entry):
    """The image can be read elsewhere, and is not opened for writing."""
    image.store(image.l1, entry)
    fails(serve(image.path), 512, 0)
    said = refusal(image.path, **{"read-only": False})
    assert "L1 entry 0" in said or "read-only" in said


def test_a_zero_flag_in_version_2_is_corruption(folder, serve):
    """That version has no such flag."""
    image = Image(folder / "disk.qcow2", compat="0.10")
    image.store(image.l2, 1)
    fails(serve(image.path), 512, 0)


def test_bad_subclusters_fail(folder, serve):
    """Allocated and zero at once; allocated without a cluster."""
    image = Image(folder / "disk.qcow2", extended_l2="on")
    image.store(image.l2 + 8, 1 << 32 | 1)
    image.store(image.l2 + 16, 0)
    image.store(image.l2 + 24, 1)
    client = serve(image.path)
    fails(client, 512, 0)
    fails(client, 512, CLUSTER)


def test_tables_that_are_one_another_do_no_harm(image, serve):
    """An L2 table that is its own data, an L1 table as an L2 table."""
    image.store(image.l2, image.l2 | COPIED)
    client = serve(image.path)
    assert client.pread(8, 0) == struct.pack(">Q", image.l2 | COPIED)
    image.store(image.l1, image.l1 | COPIED)
    client = serve(image.path)
    assert client.pread(8, 0) == image_bytes(image, image.l1, 8)


def image_bytes(image, offset, length):
    with open(image.path, "rb") as file:
        file.seek(offset)
        return file.read(length)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("stream", ["garbage", "short", "empty", "endless"])
def test_broken_streams_fail(folder, serve, kind, stream):
    """A compressed cluster is whole or an error, never something else."""
    raw = folder / "text"
    raw.write_bytes(b"some text, " * (MIB // 11))
    path = folder / "disk.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}",
             raw, path)
    image = Image.__new__(Image)
    image.path = str(path)
    image.l2 = image.load(image.load(L1_OFFSET)) & ~COPIED
    entry = image.load(image.l2)
    offset = entry & ((1 << 54) - 1)
    content = {"garbage": os.urandom(64), "empty": b"",
               "short": zlib.compress(b"too little", wbits=-12),
               # A zstd frame that asks for a window of 2 GiB and goes on.
               "endless": bytes.fromhex("28b52ffd00a8") + b"\x02\0\0" * 20}
    image.write(offset, content[stream].ljust(64, b"\0"))
    client = serve(path)
    fails(client, 4096, 0)
    assert client.daemon.status("VmRSS") < 256 * MIB


def test_a_stream_that_would_expand_without_end_gives_one_cluster(folder,
                                                                  serve):
    """What follows the cluster is not even made."""
    image = Image(folder / "disk.qcow2")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -12)
    data = bomb.compress(b"B" * (16 * MIB)) + bomb.flush()
    offset = (image.size() + CLUSTER - 1) // CLUSTER * CLUSTER
    image.write(offset, data)
    sectors = (len(data) - 1) // 512
    assert sectors < 256
    image.store(image.l2, COMPRESSED | sectors << 54 | offset)
    assert serve(image.path).pread(CLUSTER, 0) == b"B" * CLUSTER


def test_a_stream_that_ends_with_the_file_is_read(folder, serve):
    """The last sector need not be whole; a stream that is cut off fails."""
    image = Image(folder / "disk.qcow2")
    packed = zlib.compressobj(9, zlib.DEFLATED, -12)
    data = packed.compress(os.urandom(1000).ljust(CLUSTER, b"x"))
    data += packed.flush()
    offset = (image.size() + CLUSTER - 1) // CLUSTER * CLUSTER
    image.write(offset, data)
    image.store(image.l2, COMPRESSED | 200 << 54 | offset)
    assert serve(image.path).pread(10, CLUSTER - 10) == b"x" * 10
    os.truncate(image.path, offset + 100)
    fails(serve(image.path), 10, CLUSTER - 10)


HEADERS = {
    "an L1 table of 4 GiB entries": (L1_COUNT, 2**32 - 1, ">I", "L1 table"),
    "an L1 table behind the end": (L1_OFFSET, 1 << 40, ">Q", "behind the end"),
    "an L1 table over the header": (L1_OFFSET, 0, ">Q", "L1 table"),
    "a disk larger than its L1 table": (DISK_SIZE, GIB, ">Q", "L1 table"),
    "a disk of 16 EiB": (DISK_SIZE, 2**64 - 1, ">Q", "too large"),
    "4 Gi snapshots": (SNAPSHOT_COUNT, 2**32 - 1, ">I", "snapshots"),
    "65536 snapshots that are not there":
        (SNAPSHOT_COUNT, 65536, ">I", "snapshot table"),
    "a backing name in the tables": (BACKING_OFFSET, 1 << 20, ">Q", "name"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_headers_that_ask_too_much_are_refused(image, refusal, what):
    """Before memory is taken for them, and by name."""
    offset, value, form, why = HEADERS[what]
    image.store(offset, value, form)
    image.store(BACKING_BYTES, 8, ">I")
    said = refusal(image.path)
    assert why in said and image.path in said, said


def test_snapshots_that_are_nonsense_are_refused(image, refusal):
    """A table of zeroes behind the end; one with endless extra data."""
    table = (image.size() + CLUSTER - 1) // CLUSTER * CLUSTER
    image.store(SNAPSHOT_COUNT, 1000, ">I")
    image.store(SNAPSHOTS_OFFSET, table)
    assert "snapshot table" in refusal(image.path)
    image.write(table, b"\0" * CLUSTER)
    image.store(table + 36, 2**32 - 1, ">I")
    assert "extra data" in refusal(image.path)


def test_the_l1_table_of_a_shown_snapshot_is_checked(image, serve, refusal):
    """It is not read before; the active state is not its victim."""
    qemu_img("snapshot", "-c", "s", image.path)
    table = image.load(SNAPSHOTS_OFFSET)
    for offset, form, value in ((0, ">Q", 0), (0, ">Q", 0x10200),
                                (0, ">Q", 1 << 40), (8, ">I", 0),
                                (8, ">I", 2**32 - 1), (48, ">Q", 2**63)):
        kept = image.load(table + offset, form)
        image.store(table + offset, value, form)
        said = refusal(image.path, **{"x-cohort-snapshot": "s"})
        assert image.path in said
        serve(image.path).pread(512, 0)
        image.store(table + offset, kept, form)
    assert len(serve(image.path, **{"x-cohort-snapshot": "1"}).pread(9, 0)) == 9
    assert "no snapshot" in refusal(image.path, **{"x-cohort-snapshot": "2"})


def test_files_cut_off_anywhere_are_refused_or_fail(image, cohortd):
    """Header, tables, data: never zeroes in place of what was there."""
    daemon = cohortd(nbd=True)
    whole = image_bytes(image, 0, image.size())
    with open(image.path + ".raw", "rb") as file:
        expected = file.read()
    for length in [0, 3, 50, 103, 4096, CLUSTER, 2 * CLUSTER + 7, image.l1,
                   image.l1 + 4, image.l2, image.l2 + CLUSTER,
                   len(whole) - 2 * CLUSTER]:
        with open(image.path, "wb") as file:
            file.write(whole[:length])
        options = {"driver": "qcow2", "node-name": "disk", "read-only": True,
                   "file": child(image.path)}
        if length <= image.l1 + 4:
            assert image.path in daemon.qmp.error("blockdev-add",
                                                  options).desc
            continue
        daemon.qmp.command("blockdev-add", options)
        daemon.qmp.command("block-export-add", {
            "type": "nbd", "id": "e", "node-name": "disk"})
        client = nbd.NBD()
        client.connect_uri(daemon.nbd_uri("disk"))
        good = 0
        for offset in range(0, MIB, CLUSTER):
            try:
                assert client.pread(CLUSTER, offset) == \
                    expected[offset:offset + CLUSTER]
                good += 1
            except nbd.Error as error:
                assert error.errnum == errno.EIO
        assert good == max(0, (length - image.l2) // CLUSTER - 1)
        client.shutdown()
        daemon.qmp.command("block-export-del", id="e", mode="hard")
        daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
        daemon.qmp.command("blockdev-del", node_name="disk")


def test_chains_that_lead_back_are_refused(folder, refusal):
    """An image on itself, two on each other, by a plain or json: name."""
    own = create(folder / "own.qcow2", MIB)
    qemu_img("rebase", "-u", "-b", "own.qcow2", "-F", "qcow2", own)
    assert "own.qcow2" in refusal(own)
    for name in ("a", "b"):
        create(folder / name, MIB)
    qemu_img("rebase", "-u", "-b", "b", "-F", "qcow2", folder / "a")
    qemu_img("rebase", "-u", "-b",
             'json:{"driver":"qcow2","file":{"driver":"file","filename":"%s"}}'
             % (folder / "a"), "-F", "qcow2", folder / "b")
    assert "no end" in refusal(folder / "a")


def test_a_data_file_that_is_the_image_is_refused(folder, refusal):
    """Its own data would lie over its tables."""
    path = create(folder / "disk.qcow2", MIB, data_file=folder / "data.qcow2")
    with open(path, "r+b") as file:
        head = file.read(CLUSTER).replace(b"data.qcow2", b"disk.qcow2")
        file.seek(0)
        file.write(head)
    assert "disk.qcow2" in refusal(path)


def test_a_raw_data_file_and_a_backing_node_exclude_each_other(folder,
                                                               cohortd):
    """Given as an option, or by a snapshot: what reads the data file alone would
    not see what lies below."""
    create(folder / "base.qcow2", MIB)
    path = create(folder / "disk.qcow2", MIB, data_file=folder / "data",
                  data_file_raw="on")
    daemon = cohortd()
    qmp = daemon.qmp
    qmp.command("blockdev-add", {"driver": "qcow2", "node-name": "base",
                                 "file": child(folder / "base.qcow2")})
    disk = {"driver": "qcow2", "node-name": "disk", "file": child(path)}
    said = qmp.error("blockdev-add", {**disk, "backing": "base"}).desc
    assert "whole disk" in said
    qmp.command("blockdev-add", {**disk, "backing": None})
    said = qmp.error("blockdev-snapshot", node="base", overlay="disk").desc
    assert "whole disk" in said


def test_a_cluster_elsewhere_in_a_data_file_fails(folder, serve):
    """With an external data file each cluster has one place only."""
    path = folder / "disk.qcow2"
    create(path, 4 * MIB, data_file=folder / "data")
    random_image(folder / "raw", MIB)
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", folder / "raw", path)
    image = Image.__new__(Image)
    image.path = str(path)
    image.l2 = image.load(image.load(L1_OFFSET)) & ~COPIED
    image.store(image.l2 + 8, 5 * CLUSTER | COPIED)
    image.store(image.l2 + 16, COMPRESSED | CLUSTER)
    client = serve(path)
    assert len(client.pread(512, 0)) == 512
    fails(client, 512, CLUSTER)
    fails(client, 512, 2 * CLUSTER)
