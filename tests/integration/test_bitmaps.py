# SPDX-License-Identifier: BSD-3-Clause
"""Dirty bitmaps over QMP, written to by real NBD clients."""
import pytest

from support.disks import add_bitmap, dirty_bytes, new_disk
from support.images import KIB, MIB, qemu_io

SIZE = 8 * MIB


@pytest.fixture
def daemon(cohortd):
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", SIZE)
    return daemon


def write(daemon, *commands):
    qemu_io(daemon.nbd_uri("disk"), *commands)


def test_a_new_bitmap_is_clean_and_records(daemon):
    "block-dirty-bitmap-add makes an empty, recording, transient bitmap."
    add_bitmap(daemon, "disk")
    assert daemon.qmp.bitmap("disk", "b0") == {
        "name": "b0", "count": 0, "granularity": 64 * KIB, "recording": True,
        "busy": False, "persistent": False}


@pytest.mark.parametrize("command, segments", [
    ("write -P 1 0 1", 1),
    ("write -P 1 65535 2", 2),
    ("write -z 128k 64k", 1),
    ("write -z -u 128k 65k", 2),
    ("discard 1M 128k", 2),
    ("write -P 1 8388607 1", 1),
])
def test_every_kind_of_change_sets_its_segments(daemon, command, segments):
    "Writes, zeroes and discards dirty each segment that they touch."
    add_bitmap(daemon, "disk")
    write(daemon, command)
    assert dirty_bytes(daemon, "disk") == segments * 64 * KIB


def test_reading_dirties_nothing(daemon):
    "Reads and flushes leave a bitmap clean."
    add_bitmap(daemon, "disk")
    write(daemon, "read 0 1M", "flush")
    assert dirty_bytes(daemon, "disk") == 0


def test_default_granularity_is_64k(daemon):
    "A node without clusters gets bits of 64 KiB."
    daemon.qmp.command("block-dirty-bitmap-add", node="disk", name="b0")
    assert daemon.qmp.bitmap("disk", "b0")["granularity"] == 64 * KIB


def test_clear_makes_clean(daemon):
    "block-dirty-bitmap-clear drops every bit and goes on recording."
    add_bitmap(daemon, "disk")
    write(daemon, "write 0 1M")
    daemon.qmp.command("block-dirty-bitmap-clear", node="disk", name="b0")
    assert dirty_bytes(daemon, "disk") == 0
    write(daemon, "write 0 64k")
    assert dirty_bytes(daemon, "disk") == 64 * KIB


def test_a_disabled_bitmap_misses_writes_until_enabled(daemon):
    "disable stops recording and keeps the bits, enable starts it again."
    add_bitmap(daemon, "disk", disabled=True)
    write(daemon, "write 0 64k")
    assert dirty_bytes(daemon, "disk") == 0
    daemon.qmp.command("block-dirty-bitmap-enable", node="disk", name="b0")
    write(daemon, "write 1M 64k")
    daemon.qmp.command("block-dirty-bitmap-disable", node="disk", name="b0")
    write(daemon, "write 2M 64k")
    found = daemon.qmp.bitmap("disk", "b0")
    assert (found["count"], found["recording"]) == (64 * KIB, False)


def test_merge_adds_the_bits_of_all_sources(daemon):
    "The target holds the union, whatever it held before; sources keep theirs."
    for name, command in (("a", "write 0 64k"), ("b", "write 1M 64k"),
                          ("c", "write 2M 64k")):
        add_bitmap(daemon, "disk", name)
        write(daemon, command)
        daemon.qmp.command("block-dirty-bitmap-disable", node="disk",
                           name=name)
    daemon.qmp.command("block-dirty-bitmap-merge", node="disk", target="c",
                       bitmaps=["a", {"node": "disk", "name": "b"}])
    assert dirty_bytes(daemon, "disk", "c") == 3 * 64 * KIB
    assert dirty_bytes(daemon, "disk", "a") == 64 * KIB


def test_a_failed_merge_changes_nothing(daemon):
    "One missing source, and the target stays as it was."
    add_bitmap(daemon, "disk", "a")
    write(daemon, "write 0 64k")
    add_bitmap(daemon, "disk", "b")
    error = daemon.qmp.error("block-dirty-bitmap-merge", node="disk",
                             target="b", bitmaps=["a", "nowhere"])
    assert error.error_class == "GenericError" and "nowhere" in error.desc
    assert dirty_bytes(daemon, "disk", "b") == 0


def test_merge_over_nodes_of_other_size_is_refused(daemon):
    "Bits of a larger disk do not fit."
    new_disk(daemon, "large", 2 * SIZE)
    add_bitmap(daemon, "large", "a")
    add_bitmap(daemon, "disk", "b")
    error = daemon.qmp.error("block-dirty-bitmap-merge", node="disk",
                             target="b",
                             bitmaps=[{"node": "large", "name": "a"}])
    assert "size" in error.desc


def test_remove_frees_the_name(daemon):
    "A removed bitmap is gone, and its name can be used again."
    add_bitmap(daemon, "disk")
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    with pytest.raises(KeyError):
        daemon.qmp.bitmap("disk", "b0")
    add_bitmap(daemon, "disk")


def test_equal_bits_have_equal_hashes(daemon):
    "x-debug-block-dirty-bitmap-sha256 tells bitmaps apart by their bits."
    def sha256(name):
        return daemon.qmp.command("x-debug-block-dirty-bitmap-sha256",
                                  node="disk", name=name)["sha256"]
    add_bitmap(daemon, "disk", "a")
    add_bitmap(daemon, "disk", "b")
    assert sha256("a") == sha256("b")
    write(daemon, "write 1M 64k")
    assert sha256("a") == sha256("b")
    daemon.qmp.command("block-dirty-bitmap-clear", node="disk", name="a")
    assert sha256("a") != sha256("b")


@pytest.mark.parametrize("verb", ["remove", "clear", "enable", "disable"])
def test_verbs_on_nothing_are_refused(daemon, verb):
    "The error names the bitmap, or the node, that is not there."
    error = daemon.qmp.error(f"block-dirty-bitmap-{verb}", node="disk",
                             name="nobody")
    assert error.error_class == "GenericError" and "nobody" in error.desc
    error = daemon.qmp.error(f"block-dirty-bitmap-{verb}", node="nowhere",
                             name="b0")
    assert error.error_class == "GenericError" and "nowhere" in error.desc


@pytest.mark.parametrize("members, word", [
    ({"name": ""}, "name"),
    ({"name": "x" * 1024}, "1023"),
    ({"name": "b", "granularity": 256}, "granularity"),
    ({"name": "b", "granularity": 64000}, "granularity"),
    ({"name": "b", "granularity": 0}, "granularity"),
    ({"name": "b", "granularity": -1}, "granularity"),
])
def test_bad_bitmaps_are_refused(daemon, members, word):
    "Names and granularities out of bounds make a clear error and no bitmap."
    error = daemon.qmp.error("block-dirty-bitmap-add",
                             {"node": "disk", **members})
    assert error.error_class == "GenericError"
    assert word in error.desc.lower()
    assert "dirty-bitmaps" not in daemon.qmp.node("disk")


def test_a_name_is_taken_once(daemon):
    "The same name on one node is refused, on another it is fine."
    add_bitmap(daemon, "disk")
    assert "b0" in daemon.qmp.error("block-dirty-bitmap-add", node="disk",
                                    name="b0").desc
    new_disk(daemon, "other", SIZE)
    add_bitmap(daemon, "other")


def test_a_bitmap_below_sees_the_writes_above(cohortd):
    "A bitmap on a child node records what reaches it from its parent."
    daemon = cohortd(nbd=True)
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="below",
                       size=SIZE)
    daemon.qmp.command("blockdev-add", driver="raw", node_name="above",
                       file="below")
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="above", name="disk", writable=True)
    add_bitmap(daemon, "below")
    write(daemon, "write 0 64k")
    assert dirty_bytes(daemon, "below") == 64 * KIB
