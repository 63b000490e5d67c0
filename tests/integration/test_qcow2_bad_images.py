# SPDX-License-Identifier: BSD-3-Clause
"""Hostile and broken qcow2 images (tests/corpus/qcow2, made by
tests/support/qcow2_corpus.py): each is refused with a sentence, or its
requests fail; no crash, no hang, no memory beyond a bound."""
import os
import shutil

import nbd
import pytest

from support.daemon import ROOT, cohort_binary
from support.images import KIB, MIB, run
from support.qcow2_corpus import IMAGES, all_images
from support.qcow2_images import child
from support.qmp import QmpError

CORPUS = ROOT / "tests/corpus/qcow2"
# Of address space; the sanitizers of another build need terabytes.
LIMIT_BYTES = 1536 * MIB
# Of memory that is used, over what a good image takes.
MEMORY_BYTES = 192 * MIB
# A disk is read in full up to this size, else its two ends.
READ_BYTES = 4 * MIB
PIECE = 64 * KIB


def limited():
    if "COHORT" in os.environ or "COHORTD" in os.environ:
        return ()
    return ("prlimit", f"--as={LIMIT_BYTES}")


@pytest.fixture
def images(folder):
    """A copy of all, as they name each other."""
    copy = folder / "images"
    shutil.copytree(CORPUS, copy)
    return copy


def test_the_corpus_is_what_its_generator_makes():
    """python3 tests/support/qcow2_corpus.py tests/corpus/qcow2"""
    made = all_images()
    assert made == {path.name: path.read_bytes()
                    for path in CORPUS.iterdir()}
    assert all(function.__doc__ for function in IMAGES.values())


@pytest.mark.parametrize("repair", [None, "leaks", "all"])
def test_checking_a_bad_image_ends_well(images, repair):
    """With a verdict or a sentence, and once more after a repair."""
    words = [f"--repair={repair}"] if repair else []
    for path in sorted(images.iterdir()):
        for options in (words, []):
            result = run(*limited(), cohort_binary(), "check", *options,
                         path, check=False, timeout=30)
            said = result.stdout + result.stderr
            assert result.returncode in (0, 1, 4, 9), (path, said)
            assert said.strip(), path
            assert "CRITICAL" not in said and "Sanitizer" not in said, said


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_a_repair_is_complete_or_says_what_is_left(images, cohort, name):
    """A second repair finds nothing that the first should have mended."""
    path = images / f"{name}.qcow2"
    first = cohort("check", "--repair=all", path)
    data = path.read_bytes()
    second = cohort("check", "--repair=all", path)
    assert second.returncode == first.returncode
    assert path.read_bytes() == data


def pieces(size):
    """Offsets and lengths that cover a small disk, or the ends of a large."""
    spans = [(0, size)] if size <= READ_BYTES else \
        [(0, READ_BYTES // 2), (size - READ_BYTES // 2, size)]
    for start, end in spans:
        while start < end:
            yield start, min(PIECE, end - start)
            start += PIECE


def read_all(handle):
    """Reads and asks for extents; errors are answers."""
    size = handle.get_size()
    for offset, length in pieces(size):
        try:
            handle.pread(length, offset)
        except nbd.Error as error:
            assert error.errnum is not None
        try:
            handle.block_status(length, offset, lambda *_: 0)
        except nbd.Error:
            pass


def write_some(handle):
    """In the midst of all kinds of clusters; what was written is read."""
    size = handle.get_size()
    for offset in (0, 700, 1024, 1536, 33 * KIB, size - 3):
        data = bytes([offset % 251]) * 3
        if offset < 0 or offset + 3 > size:
            continue
        try:
            handle.pwrite(data, offset)
        except nbd.Error:
            continue
        assert handle.pread(3, offset) == data
    for action in (lambda: handle.zero(700, 300), lambda: handle.trim(512, 0),
                   handle.flush):
        try:
            action()
        except nbd.Error:
            pass


def add(daemon, path, read_only):
    """None, or the sentence that refuses it."""
    try:
        daemon.qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": "bad", "read-only": read_only,
            "file": {"driver": "file", "filename": str(path)}})
    except QmpError as error:
        return str(error)
    return None


def use(daemon, path, read_only, nbd_client):
    """Opens, exports, reads, writes, closes."""
    refusal = add(daemon, path, read_only)
    if refusal is not None:
        assert len(refusal) > 10
        return refusal
    daemon.qmp.command("block-export-add", {
        "type": "nbd", "id": "e", "node-name": "bad",
        "writable": not read_only})
    handle = nbd_client(daemon.nbd_uri("bad"), ["base:allocation"])
    read_all(handle)
    if not read_only:
        write_some(handle)
    handle.shutdown()
    daemon.qmp.command("query-named-block-nodes")
    daemon.qmp.command("block-export-del", {"id": "e", "mode": "hard"})
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    daemon.qmp.command("blockdev-del", {"node-name": "bad"})
    return None


@pytest.mark.parametrize("read_only", [True, False])
def test_serving_a_bad_image_ends_well(images, cohortd, nbd_client,
                                       read_only):
    """One daemon opens them all, reads and writes; it is alive afterwards,
    and has not grown."""
    daemon = cohortd(nbd=True, wrapper=limited())
    assert use(daemon, images / "good.qcow2", read_only, nbd_client) is None
    memory = daemon.status("VmHWM")
    refused = set()
    for path in sorted(images.iterdir()):
        if use(daemon, path, read_only, nbd_client) is not None:
            refused.add(path.stem)
        assert daemon.is_alive(), path
    assert not any(name.startswith("good") for name in refused)
    assert daemon.status("VmHWM") < memory + MEMORY_BYTES


def test_a_loop_of_backing_files_is_refused(images, cohortd):
    """However it names itself: by its name, by way of another, in json:."""
    daemon = cohortd(wrapper=("env", "-C", str(images)))
    for name in ("backing_itself", "backing_loop_a", "backing_loop_json"):
        assert add(daemon, images / f"{name}.qcow2", True) is not None, name


def test_bitmaps_of_bad_images_are_refused_or_can_be_removed(images, cohortd):
    """Opened for writing, each bitmap removed, a good one added, closed: the
    daemon goes on, whatever the image says."""
    daemon = cohortd()
    for path in sorted(images.iterdir()):
        if not path.name.startswith(("bitmap", "stamp", "good", "gap")):
            continue
        try:
            daemon.qmp.command("blockdev-add", driver="qcow2",
                               node_name="disk", file=child(path))
        except QmpError as error:
            assert error.desc
            continue
        found = daemon.qmp.node("disk").get("dirty-bitmaps", [])
        for words in [("remove", bitmap["name"], {}) for bitmap in found] + \
                [("add", "new", {"persistent": True})]:
            try:
                daemon.qmp.command(f"block-dirty-bitmap-{words[0]}",
                                   node="disk", name=words[1], **words[2])
            except QmpError as error:
                assert error.desc
        try:
            daemon.qmp.command("blockdev-del", node_name="disk")
        except QmpError as error:
            assert "stays open" in error.desc
            daemon.qmp.command("block-dirty-bitmap-remove", node="disk",
                               name="new")
            daemon.qmp.command("blockdev-del", node_name="disk")
