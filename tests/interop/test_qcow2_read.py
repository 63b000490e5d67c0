# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 images that QEMU's programs wrote read the same here.

Each is served by cohortd and read over NBD twice: as a whole, and in small
pieces in random order, so that the fast way, the slow way and the borders
between clusters of different kinds are all met.
"""
import json
import os
import random
import shutil

import nbd
import pytest
from support.images import (KIB, MIB, assert_same, patchy_image, qemu_img,
                            qemu_io, random_image, run)
from support.qcow2_images import (blockdev, child, create, image_json,
                                  leave_dirty, scribble, to_raw)

SIZE = 8 * MIB + 5 * KIB + 512


@pytest.fixture
def reads_same(cohortd, folder, nbd_client):
    """Checks that cohortd shows the disk that the file `raw` holds."""
    def check(words, raw):
        daemon = cohortd(*words, "--export", "nbd,id=e,node-name=disk",
                         nbd=True)
        copied = folder / "copied.raw"
        run("nbdcopy", daemon.nbd_uri("disk"), copied)
        assert_same(copied, raw)
        client = nbd_client(daemon.nbd_uri("disk"))
        with open(raw, "rb") as file:
            expected = file.read()
        chance = random.Random(4)
        for _ in range(400):
            length = chance.choice([1, 512, 4096, 4096, 100000])
            length = min(length, len(expected))
            offset = chance.randrange(0, len(expected) - length + 1)
            assert client.pread(length, offset) == \
                expected[offset:offset + length], (offset, length)
        return daemon
    return check


def check_image(reads_same, folder, path):
    return reads_same(blockdev(path), to_raw(path, folder / "expected.raw"))


VARIANTS = {
    "v2": {"compat": "0.10"},
    "v3": {"compat": "1.1"},
    **{f"cluster-{bits}": {"cluster_size": 1 << bits}
       for bits in (9, 10, 12, 14, 18, 21)},
    **{f"refcount-{bits}": {"refcount_bits": bits}
       for bits in (1, 2, 4, 8, 32, 64)},
    "extended-16k": {"extended_l2": "on", "cluster_size": 16 * KIB},
    "extended-64k": {"extended_l2": "on"},
    "extended-2m": {"extended_l2": "on", "cluster_size": 2 * MIB},
    "lazy": {"lazy_refcounts": "on"},
    **{f"preallocated-{mode}": {"preallocation": mode}
       for mode in ("metadata", "falloc", "full")},
    "extended-preallocated": {"extended_l2": "on",
                              "preallocation": "metadata"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_reads_as_qemu_img_reads_it(reads_same, folder, variant):
    """Of each layout, after writes, zeroes and discards of all sizes."""
    path = create(folder / "disk.qcow2", SIZE, **VARIANTS[variant])
    scribble(path, seed=variant)
    check_image(reads_same, folder, path)


@pytest.mark.parametrize("variant", [
    {}, {"cluster_size": 512}, {"cluster_size": 4 * KIB},
    {"cluster_size": 2 * MIB}, {"compression_type": "zstd"},
    {"compression_type": "zstd", "cluster_size": 2 * MIB},
    {"compression_type": "zstd", "cluster_size": 4 * KIB},
    {"extended_l2": "on"}, {"compat": "0.10"},
], ids=str)
def test_compressed_clusters_read_the_same(reads_same, folder, variant):
    """Between others, and a whole image of real content, compressed."""
    path = create(folder / "disk.qcow2", SIZE, **variant)
    scribble(path, seed=5, compress=True)
    check_image(reads_same, folder, path)
    source = folder / "source.raw"
    with open(source, "wb") as file:
        words = b" ".join(name.encode() for name in os.listdir("/usr/bin"))
        file.write((words * (SIZE // len(words) + 1))[:SIZE])
    # Some of it cannot be compressed.
    with open(source, "r+b") as file:
        file.seek(3 * MIB)
        file.write(random.Random(2).randbytes(MIB))
    whole = folder / "whole.qcow2"
    options = ",".join(f"{name}={value}" for name, value in variant.items())
    qemu_img("convert", "-c", "-O", "qcow2",
             *(["-o", options] if options else []), source, whole)
    reads_same(blockdev(whole), source)


@pytest.mark.parametrize("base_size", [SIZE, 3 * MIB + 512, 12 * MIB])
@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_what_is_not_there_comes_from_the_backing_file(
        reads_same, folder, base_format, base_size, extended):
    """Be it raw or qcow2, shorter or longer than the overlay."""
    base = folder / "base"
    if base_format == "raw":
        patchy_image(base, base_size)
    else:
        create(base, base_size, cluster_size=4096)
        scribble(base, seed=1)
    path = create(folder / "top.qcow2", SIZE, "base", base_format,
                  extended_l2=extended)
    scribble(path, seed=2, count=30)
    check_image(reads_same, folder, path)


def test_a_chain_of_many_is_followed(reads_same, folder):
    """Twenty overlays, each relative to the one before."""
    random_image(folder / "0", MIB)
    for number in range(1, 21):
        path = create(folder / f"{number}", MIB + number * 512,
                      f"{number - 1}", "raw" if number == 1 else "qcow2",
                      cluster_size=4096 if number % 2 else 65536)
        scribble(path, seed=number, count=5)
    check_image(reads_same, folder, path)


def test_backing_names_are_relative_absolute_or_json(reads_same, folder):
    """Relative to the image that gives them, wherever the daemon runs."""
    below = folder / "below"
    below.mkdir()
    random_image(below / "base.raw", MIB)
    names = ["below/base.raw", str(below / "base.raw"),
             "json:" + json.dumps({"driver": "raw",
                                   "file": child(below / "base.raw")})]
    for number, name in enumerate(names):
        path = create(folder / f"{number}.qcow2", MIB, name, "raw")
        scribble(path, seed=number, count=3)
        check_image(reads_same, folder, path)


def test_the_option_backing_wins_over_the_header(reads_same, folder):
    """As does null: what the image does not hold is zero then."""
    random_image(folder / "one", MIB, seed=1)
    random_image(folder / "two", MIB, seed=2)
    path = create(folder / "disk.qcow2", MIB, "one", "raw")
    other = {"driver": "raw", "file": child(folder / "two")}
    reads_same(blockdev(path, backing=other), folder / "two")
    with open(folder / "zero", "wb") as file:
        file.truncate(MIB)
    reads_same(blockdev(path, backing=None), folder / "zero")


@pytest.mark.parametrize("raw", ["off", "on"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_an_external_data_file_is_read(reads_same, folder, raw, extended):
    """By its name in the image, relative to the image."""
    path = create(folder / "disk.qcow2", SIZE, data_file=folder / "data",
                  data_file_raw=raw, extended_l2=extended)
    scribble(path, seed=3)
    check_image(reads_same, folder, path)
    # ... or as the options say.
    shutil.move(folder / "data", folder / "moved")
    reads_same(blockdev(path, **{"data-file": child(folder / "moved")}),
               folder / "expected.raw")


def test_a_dirty_image_is_read_as_it_is(reads_same, folder):
    """Lazy refcounts left behind do no harm to who only reads."""
    path = create(folder / "disk.qcow2", SIZE, lazy_refcounts="on")
    leave_dirty(path)
    daemon = check_image(reads_same, folder, path)
    assert daemon.qmp.node("disk")["image"]["dirty-flag"] is True


def test_an_image_with_snapshots_shows_the_active_state(reads_same, folder):
    """And with x-cohort-snapshot, each of its snapshots, by id or name."""
    path = create(folder / "disk.qcow2", 4 * MIB)
    states = []
    for number in range(1, 4):
        scribble(path, seed=number, count=20)
        states.append(to_raw(path, folder / f"state{number}"))
        qemu_img("snapshot", "-c", f"name{number}", path)
        if number == 2:
            qemu_img("resize", path, str(6 * MIB))
    scribble(path, seed=9, count=20)
    check_image(reads_same, folder, path)
    for number, state in enumerate(states, start=1):
        for word in (f"{number}", f"name{number}"):
            reads_same(blockdev(path, **{"x-cohort-snapshot": word}), state)


def test_several_readers_read_at_once(cohortd, folder):
    """The same compressed clusters, asked for by many at a time."""
    source = patchy_image(folder / "source", 16 * MIB, share=0.8)
    path = folder / "disk.qcow2"
    qemu_img("convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd",
             source, path)
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk", nbd=True)
    run("fio", "--name=read", "--ioengine=nbd",
        f"--uri={daemon.nbd_uri('disk')}", "--rw=randread", "--bs=4k",
        "--iodepth=32", "--io_size=8M", "--size=16M")
    copied = folder / "copied"
    run("nbdcopy", "--requests=32", daemon.nbd_uri("disk"), copied)
    assert_same(copied, source)


def test_a_cache_of_a_few_slices_is_enough(reads_same, folder):
    """Small caches make it slow, not wrong."""
    path = create(folder / "disk.qcow2", SIZE, cluster_size=512)
    scribble(path, seed=8)
    reads_same(blockdev(path, **{"l2-cache-size": 512,
                                 "l2-cache-entry-size": 512}),
               to_raw(path, folder / "expected.raw"))


def zero_bytes(extents, size):
    """One flag a sector: is it said to be zero?"""
    flags = bytearray(size // 512)
    for start, length in extents:
        assert start % 512 == 0 and length % 512 == 0
        flags[start // 512:(start + length) // 512] = b"\1" * (length // 512)
    return flags


@pytest.mark.parametrize("variant", ["v3", "cluster-9", "extended-64k",
                                     "cluster-21", "preallocated-falloc"])
def test_holes_and_zeroes_are_told(cohortd, folder, variant):
    """Over NBD all is zero that qemu-img map shows as zero, and nothing is
    that has data."""
    create(folder / "base.qcow2", SIZE // 2 // 512 * 512)
    scribble(folder / "base.qcow2", seed=7, count=10)
    backing = () if variant.startswith("pre") else ("base.qcow2", "qcow2")
    path = create(folder / "disk.qcow2", SIZE, *backing, **VARIANTS[variant])
    scribble(path, seed=variant, count=30)
    raw = to_raw(path, folder / "expected.raw")
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk", nbd=True)
    ours = zero_bytes([(e["offset"], e["length"]) for e in json.loads(run(
        "nbdinfo", "--map", "--json", daemon.nbd_uri("disk")).stdout)
        if e["type"] & 2], SIZE)
    theirs = zero_bytes([(e["start"], e["length"]) for e in json.loads(
        qemu_img("map", "-U", "--output=json", path)) if e["zero"]], SIZE)
    with open(raw, "rb") as file:
        content = file.read()
    assert any(ours)
    for sector, (our, their) in enumerate(zip(ours, theirs)):
        assert our or not their, sector
        if our:
            assert not any(content[sector * 512:sector * 512 + 512]), sector


def image_info(daemon, name="disk"):
    return daemon.qmp.node(name)["image"]


def same_info(ours, theirs):
    """Where qemu-storage-daemon has a member, we have the same."""
    for key, value in theirs.items():
        if key == "backing-image":
            same_info(ours[key], value)
        elif key != "actual-size":  # of sparse files it may change
            assert ours.get(key) == value, key


@pytest.mark.parametrize("options", [
    {}, {"compat": "0.10"}, {"extended_l2": "on"},
    {"compression_type": "zstd"}, {"refcount_bits": 64},
    {"lazy_refcounts": "on"}, {"data_file": "data"},
    {"data_file": "data", "data_file_raw": "on"}, {"cluster_size": 2 * MIB},
    {"backing": "base"},
], ids=str)
def test_query_tells_of_an_image_what_qemu_tells(cohortd, qsd, folder,
                                                 options):
    """ImageInfo equals that of qemu-storage-daemon."""
    options = dict(options)
    if "data_file" in options:
        options["data_file"] = folder / options["data_file"]
    if options.pop("backing", None):
        random_image(folder / "base", MIB)
        options.update(backing="base", backing_format="raw")
    path = create(folder / "disk.qcow2", SIZE, **options)
    if "data_file" not in options:
        qemu_img("snapshot", "-c", "before", path)
    if options.get("compat") != "0.10":
        qemu_img("bitmap", "--add", "-g", "32k", path, "one")
        qemu_img("bitmap", "--add", "--disable", path, "two")
    words = blockdev(path)
    same_info(image_info(cohortd(*words)), image_info(qsd(*words)))


@pytest.mark.parametrize("method", ["AES", "LUKS"])
def test_encryption_is_refused_by_name(cohortd, folder, method):
    """An encrypted image is not opened, and the reason is said."""
    path = create(folder / "disk.qcow2", MIB)
    with open(path, "r+b") as file:
        file.seek(32)  # qemu-img would measure the processor for long
        file.write({"AES": 1, "LUKS": 2}[method].to_bytes(4, "big"))
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "a", "read-only": True,
        "file": child(path)})
    assert method in error.desc and str(path) in error.desc
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "a", "file": child(path),
        "encrypt": {"format": "luks", "key-secret": "s"}})
    assert "encrypt" in error.desc


def test_an_unknown_incompatible_feature_is_refused_by_name(cohortd, folder):
    """By the number of its bit, if the image does not name it."""
    path = create(folder / "disk.qcow2", MIB)
    with open(path, "r+b") as file:
        file.seek(72)
        file.write((1 << 40).to_bytes(8, "big"))
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "a", "read-only": True,
        "file": child(path)})
    assert "bit 40" in error.desc


def test_an_image_marked_corrupt_is_only_read(cohortd, reads_same, folder):
    """Nobody writes to it before it is repaired."""
    path = create(folder / "disk.qcow2", SIZE)
    scribble(path, seed=1)
    raw = to_raw(path, folder / "expected.raw")
    with open(path, "r+b") as file:
        file.seek(72)
        file.write((2).to_bytes(8, "big"))
    daemon = reads_same(blockdev(path), raw)
    assert image_info(daemon)["format-specific"]["data"]["corrupt"] is True
    error = daemon.qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "a", "file": {
            "driver": "file", "filename": path, "locking": "off"}})
    assert "marked corrupt" in error.desc


def test_a_data_file_is_asked_for_when_the_image_names_none(cohortd, folder):
    """With a sentence that tells what to give."""
    path = create(folder / "disk.qcow2", MIB, data_file=folder / "data")
    with open(path, "r+b") as file:
        head = bytearray(file.read(65536))
        at = head.index(b"DATA")
        head[at:at + 4] = b"\x00\x00\x12\x34"
        file.seek(0)
        file.write(head)
    error = cohortd().qmp.error("blockdev-add", {
        "driver": "qcow2", "node-name": "a", "read-only": True,
        "file": child(path)})
    assert "data-file" in error.desc
    assert image_json(path)["format"] == "qcow2"


def test_qemu_io_reads_beside_us(cohortd, folder):
    """A reader here does not shut out other readers."""
    path = create(folder / "disk.qcow2", MIB)
    qemu_io(path, "write -P 7 0 64k", image_format="qcow2")
    cohortd(*blockdev(path))
    output = run("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 0 64k",
                 path).stdout
    assert "verification failed" not in output


def test_one_bad_piece_fails_a_long_read_and_no_later_one(cohortd, folder,
                                                          nbd_client):
    """Its pieces lie apart in the file, and are read side by side."""
    clusters = [bytes([number]) * (64 * KIB) for number in range(1, 17)]
    path = create(folder / "disk.qcow2", MIB)
    qemu_io(path, *(f"write -P {number + 1} {number * 64}k 64k"
                    for number in reversed(range(16))), image_format="qcow2")
    mapped = json.loads(qemu_img("map", "--output=json", path))
    bad = [extent["offset"] for extent in mapped
           if extent["start"] == 9 * 64 * KIB]
    daemon = cohortd(nbd=True)
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "disk", "file": {
            "driver": "blkdebug",
            "image": {"driver": "file", "filename": str(path)},
            "inject-error": [{"event": "none", "iotype": "read", "errno": 5,
                              "once": True, "sector": bad[0] // 512}]}})
    daemon.qmp.command("block-export-add", id="e", type="nbd",
                       node_name="disk")
    client = nbd_client(daemon.nbd_uri("disk"))
    with pytest.raises(nbd.Error):
        client.pread(MIB, 0)
    assert client.pread(MIB, 0) == b"".join(clusters)
