# SPDX-License-Identifier: BSD-3-Clause
"""block_resize of images with bitmaps, backing files and users."""
import pytest

from support.disks import add_bitmap, dirty_bytes, raw_options
from support.images import KIB, MIB, qemu_img, qemu_io, sparse_image

SIZE = 4 * MIB


@pytest.fixture(params=["raw", "qcow2"])
def daemon(cohortd, request):
    """A disk without an export, which would forbid resizing."""
    daemon = cohortd(nbd=True)
    path = daemon.folder / f"disk.{request.param}"
    if request.param == "raw":
        sparse_image(path, SIZE)
    else:
        qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": request.param, "node-name": "disk",
        "file": {"driver": "file", "filename": str(path)}})
    return daemon


def resize(daemon, size, node="disk"):
    daemon.qmp.command("block_resize", node_name=node, size=size)
    assert daemon.qmp.node(node)["image"]["virtual-size"] == size


def test_what_has_grown_is_dirty(daemon):
    "A disk may hold something there, so the next backup has to look."
    add_bitmap(daemon, "disk")
    resize(daemon, SIZE + MIB)
    assert dirty_bytes(daemon, "disk") == MIB
    daemon.qmp.command("block-dirty-bitmap-clear", node="disk", name="b0")
    resize(daemon, SIZE)
    assert dirty_bytes(daemon, "disk") == 0
    resize(daemon, SIZE + 512)
    assert dirty_bytes(daemon, "disk") == 64 * KIB


def test_resizing_under_an_export_is_refused(daemon):
    "Its clients were told a size."
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="disk", name="e")
    error = daemon.qmp.error("block_resize", node_name="disk", size=SIZE * 2)
    assert "export 'e'" in error.desc


@pytest.mark.parametrize("daemon", ["qcow2"], indirect=True)
def test_a_longer_backing_file_does_not_show_in_what_has_grown(daemon):
    "Zeroes, as of a disk that grows; not what lies below."
    base = sparse_image(daemon.folder / "base", 2 * SIZE)
    qemu_io(base, f"write -P 7 0 {2 * SIZE}")
    path = daemon.folder / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path,
             str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "top",
        "file": {"driver": "file", "filename": str(path)}})
    resize(daemon, 2 * SIZE, "top")
    daemon.qmp.command("block-export-add", type="nbd", id="top",
                       node_name="top")
    qemu_io(daemon.nbd_uri("top"), f"read -P 7 0 {SIZE}",
            f"read -P 0 {SIZE} {SIZE}", read_only=True)


@pytest.mark.parametrize("daemon", ["raw"], indirect=True)
def test_a_backing_node_keeps_its_size_under_a_writer(daemon):
    "The overlay relies on it."
    daemon.qmp.command("blockdev-snapshot-sync", {
        "node-name": "disk", "snapshot-node-name": "top",
        "snapshot-file": str(daemon.folder / "top.qcow2")})
    daemon.qmp.command("block-export-add", type="nbd", id="top",
                       node_name="top", writable=True)
    error = daemon.qmp.error("block_resize", node_name="disk", size=MIB)
    assert "node 'top'" in error.desc
    daemon.qmp.command("blockdev-add", raw_options(
        "other", sparse_image(daemon.folder / "other", SIZE)))
    resize(daemon, 2 * SIZE, "other")
