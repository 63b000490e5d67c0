# SPDX-License-Identifier: BSD-3-Clause
"""query-named-block-nodes of a chain of images, as qemu-storage-daemon tells
it. Normalised: names of nodes that were generated; what only one of the two
has (`children` and `active` are newer than QEMU 7.2); sizes of files, which
QEMU rounds to 512; the depth of the chain where `flat` leaves the chain out,
which QEMU gives as 0."""
import json

import pytest

from support.images import MIB, qemu_img, sparse_image


@pytest.fixture
def chain(folder):
    """top.qcow2 over mid.qcow2 over base.raw, by relative names."""
    sparse_image(folder / "base.raw", MIB)
    for name, below, form in (("mid", "base.raw", "raw"),
                              ("top", "mid.qcow2", "qcow2")):
        qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", form,
                 folder / f"{name}.qcow2")
    return folder / "top.qcow2"


def nodes_of(daemon, image, flat, **more):
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "top", "read-only": True,
        "file": {"driver": "file", "filename": str(image)}, **more})
    nodes = daemon.qmp.command("query-named-block-nodes", flat=flat)
    daemon.qmp.command("blockdev-del", node_name="top")
    return sorted((normal(node, flat) for node in nodes),
                  key=lambda node: (node["file"], node["drv"]))


def normal(node, flat):
    node = {key: value for key, value in node.items()
            if key not in ("children", "active")}
    if node["node-name"].startswith("#"):
        node["node-name"] = "#"
    if flat:
        del node["backing_file_depth"]
    if node["drv"] == "file":
        del node["image"]["virtual-size"]
    return node


@pytest.mark.parametrize("flat", [False, True])
def test_a_chain_is_reported_as_qemu_does(cohortd, qsd, chain, flat):
    "Same nodes, same images, same backing files."
    ours = nodes_of(cohortd(), chain, flat)
    assert ours == nodes_of(qsd(), chain, flat)
    assert len(ours) == 6


def test_what_the_options_give_wins(cohortd, chain):
    "backing=null: no backing node; the image's own word is still told."
    daemon = cohortd()
    nodes = nodes_of(daemon, chain, False, backing=None)
    top, = [node for node in nodes if node["node-name"] == "top"]
    assert "backing_file" not in top
    assert "backing-image" not in top["image"]
    assert top["image"]["backing-filename"] == "mid.qcow2"
    assert len(nodes) == 2


def test_query_block_shows_the_chain_once(cohortd, chain):
    "One disk, and what lies under it as its images."
    daemon = cohortd()
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "top", "read-only": True,
        "file": {"driver": "file", "filename": str(chain)}})
    disk, = daemon.qmp.command("query-block")
    image = disk["inserted"]["image"]
    names = []
    while image is not None:
        names.append(image["filename"].rpartition("/")[2])
        image = image.get("backing-image")
    assert names == ["top.qcow2", "mid.qcow2", "base.raw"]


def test_a_name_in_json_is_opened(cohortd, folder):
    "An image may name its backing file by options."
    base = sparse_image(folder / "base.raw", MIB)
    name = "json:" + json.dumps({"driver": "raw", "file": {
        "driver": "file", "filename": base}})
    qemu_img("create", "-q", "-f", "qcow2", "-b", name, "-F", "raw",
             folder / "top.qcow2")
    nodes = nodes_of(cohortd(), folder / "top.qcow2", True)
    top, = [node for node in nodes if node["node-name"] == "top"]
    assert top["backing_file"] == base


def test_a_chain_without_end_is_refused(cohortd, folder):
    "Two images that name each other: an error that names the file."
    for name, below in (("a", "b"), ("b", "a")):
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b",
                 f"{below}.qcow2", folder / f"{name}.qcow2", str(MIB))
    daemon = cohortd()
    for read_only in (False, True):
        error = daemon.qmp.error("blockdev-add", {
            "driver": "qcow2", "node-name": "top", "read-only": read_only,
            "file": {"driver": "file", "filename": f"{folder}/a.qcow2"}})
        assert "no end" in error.desc and "a.qcow2" in error.desc
        assert daemon.qmp.command("query-named-block-nodes") == []


def test_a_chain_of_sixty_opens_and_reads(cohortd, nbd_client, folder):
    "Deep, but not too deep: the bottom shows at the top."
    with open(folder / "0.raw", "wb") as file:
        file.write(b"x" * MIB)
    below, form = "0.raw", "raw"
    for i in range(1, 61):
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", form, "-b", below,
                 folder / f"{i}.qcow2", str(MIB))
        below, form = f"{i}.qcow2", "qcow2"
    daemon = cohortd(nbd=True)
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "top", "read-only": True,
        "file": {"driver": "file", "filename": f"{folder}/60.qcow2"}})
    daemon.qmp.command("block-export-add", id="top", type="nbd",
                       node_name="top")
    client = nbd_client(daemon.nbd_uri("top"))
    assert client.pread(65536, 131072) == b"x" * 65536
    client.shutdown()
