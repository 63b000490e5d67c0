# SPDX-License-Identifier: BSD-3-Clause
"""Writes to hostile qcow2 images: what an image says of itself never makes a write
land on its tables. Such an image gets its corrupt bit, and is not written to any
more; what can be read of it is read on."""
import errno

import nbd
import pytest
from support.images import MIB, allocated_bytes, run
from support.qcow2_images import blockdev, child
from support.qmp import QmpError
from test_qcow2_hostile_images import CLUSTER, COMPRESSED, COPIED, Image

INCOMPATIBLE, REFCOUNT_TABLE, REFCOUNT_CLUSTERS = 72, 48, 56
CORRUPT = 2


@pytest.fixture
def image(folder):
    return Image(folder / "disk.qcow2")


@pytest.fixture
def writable(cohortd, nbd_client):
    """Opens the image for writing and gives a client of its export."""
    def start(path):
        daemon = cohortd(*blockdev(path, **{"read-only": False}), "--export",
                         "nbd,id=e,node-name=disk,writable=on", nbd=True)
        client = nbd_client(daemon.nbd_uri("disk"))
        client.daemon = daemon
        return client
    return start


def write_fails(client, offset, length=512):
    with pytest.raises(nbd.Error) as caught:
        client.pwrite(b"x" * length, offset)
        client.flush()
    assert caught.value.errnum == errno.EIO


def original(image):
    with open(image.path + ".raw", "rb") as file:
        return file.read()


def assert_marked(image, client, cohortd):
    """In the file, for everyone; said once; no more writes, also after a restart."""
    assert image.load(INCOMPATIBLE) & CORRUPT
    write_fails(client, 3 * MIB)
    assert client.pread(CLUSTER, 8 * CLUSTER) == \
        original(image)[8 * CLUSTER:9 * CLUSTER]
    daemon = client.daemon
    assert daemon.stderr().count("the image is corrupt") == 1
    daemon.quit()
    assert daemon.wait() == 0
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "disk", "file": child(image.path)})
    assert "marked corrupt" in error.desc
    found = run("qemu-io", "-f", "qcow2", "-c", "write 0 512", image.path,
                check=False)
    assert found.returncode != 0


# What the entry of cluster 1 says, which a guest then writes to.
def entries(image):
    table = image.load(REFCOUNT_TABLE)
    return {
        "the L1 table": COPIED | image.l1,
        "its own L2 table": COPIED | image.l2,
        "the refcount table": COPIED | table,
        "a refcount block": COPIED | image.load(table),
        "behind the end": COPIED | 1 << 40,
        "not a cluster's offset": COPIED | 0x50200,
        "compressed, behind the end": COMPRESSED | 1 << 40,
    }


@pytest.mark.parametrize("what", [
    "the L1 table", "its own L2 table", "the refcount table",
    "a refcount block", "behind the end", "not a cluster's offset",
    "compressed, behind the end"])
def test_a_write_through_a_bad_entry_marks_the_image_corrupt(image, writable,
                                                             cohortd, what):
    """Tables out of range, and overlapping: nothing of them is overwritten."""
    image.store(image.l2 + 8, entries(image)[what])
    with open(image.path, "rb") as file:
        before = file.read()
    client = writable(image.path)
    write_fails(client, CLUSTER)
    with open(image.path, "rb") as file:
        after = file.read()
    assert after[80:image.l2 + CLUSTER] == before[80:image.l2 + CLUSTER]
    assert_marked(image, client, cohortd)


def test_clusters_that_overlap_do_not_share_a_write(image, writable):
    """Two entries own one cluster: the count says that only one can."""
    shared = image.load(image.l2 + 8)
    image.store(image.l2 + 16, shared)
    client = writable(image.path)
    client.pwrite(b"x" * 512, CLUSTER)
    assert client.pread(512, CLUSTER) == b"x" * 512
    # What qemu-img check calls a corruption; no table is harmed.
    assert client.pread(512, 2 * CLUSTER) in (
        b"x" * 512, original(image)[CLUSTER:CLUSTER + 512])
    assert client.pread(CLUSTER, 3 * CLUSTER) == \
        original(image)[3 * CLUSTER:4 * CLUSTER]


def bomb_table_size(image):
    image.store(REFCOUNT_CLUSTERS, 2**32 - 1, ">I")
    return "refcount table"


def bomb_table_behind_end(image):
    image.store(REFCOUNT_TABLE, 1 << 45)
    return "refcount table"


def bomb_table_unaligned(image):
    image.store(REFCOUNT_TABLE, image.load(REFCOUNT_TABLE) + 512)
    return "refcount table"


def bomb_width(image):
    image.store(96, 7, ">I")
    return "refcount"


@pytest.mark.parametrize("bomb", [bomb_table_size, bomb_table_behind_end,
                                  bomb_table_unaligned, bomb_width])
def test_refcount_bombs_in_the_header_are_refused(image, cohortd, bomb):
    """By name, before any memory is taken for them."""
    part = bomb(image)
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "disk", "file": child(image.path)})
    assert part in error.desc


def fill(image, value):
    """All refcounts of the first block."""
    block = image.load(image.load(REFCOUNT_TABLE))
    image.write(block, value.to_bytes(2, "big") * (CLUSTER // 2))


def block_elsewhere(offset):
    def change(image):
        image.store(image.load(REFCOUNT_TABLE), offset)
    return change


def blocks_equal(image):
    table = image.load(REFCOUNT_TABLE)
    block = image.load(table)
    for number in range(CLUSTER // 8):
        image.store(table + 8 * number, block)


@pytest.mark.parametrize("bomb", [
    lambda image: fill(image, 0), lambda image: fill(image, 0xffff),
    block_elsewhere(1 << 50), block_elsewhere(0x200), block_elsewhere(0),
    block_elsewhere(CLUSTER), blocks_equal,
    lambda image: block_elsewhere(image.l2)(image)], ids=[
        "all zero", "all largest", "block behind the end",
        "block not at a cluster", "no block", "block is the table",
        "all blocks equal", "block is an L2 table"])
def test_refcount_bombs_never_lead_a_write_into_a_table(image, cohortd, bomb,
                                                        nbd_client):
    """New clusters are never those that hold the header, a table, or what can be
    read: the write fails, or it has a place of its own."""
    bomb(image)
    expected = original(image)
    daemon = cohortd(nbd=True)
    try:
        daemon.qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": "disk", "file": child(image.path)})
    except QmpError as refused:
        assert "is corrupt" in refused.desc
        return
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="disk", writable=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    for number in range(20, 60):
        try:
            client.pwrite(b"y" * CLUSTER, number * CLUSTER)
            client.flush()
        except nbd.Error as error:
            assert error.errnum in (errno.EIO, errno.ENOSPC)
    for number in range(MIB // CLUSTER):
        assert client.pread(CLUSTER, number * CLUSTER) == \
            expected[number * CLUSTER:(number + 1) * CLUSTER], number
    client.shutdown()
    assert image.load(0, ">I") == 0x514649fb
    assert allocated_bytes(image.path) < 16 * MIB
