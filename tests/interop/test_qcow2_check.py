# SPDX-License-Identifier: BSD-3-Clause
"""`cohort check` and `qemu-img check` on the same images, sound and damaged on
purpose: the same findings, and after a repair both find nothing, and the disk
and its snapshot read as before.

Where the two differ is said at the damage, and in
docs/internals/differences-from-qemu.md.
"""
import json
import os
import shutil

import pytest

from support.images import KIB, MIB, qemu_img, qemu_io, run
from support.qcow2_edit import (BITMAPS_EXTENSION, COPIED, CORRUPT, DIRTY,
                                OFFSET_MASK, Qcow2)

SIZE = 16 * MIB
CLUSTER = 4 * KIB
# Exit codes: qemu-img's 0 sound, 1 not checked, 2 corruptions, 3 leaks.
SAME_CODE = {0: 0, 1: 1, 2: 4, 3: 9}
TABLE_OF_BOTH = ("leaks", "corruptions", "check-errors", "image-end-offset",
                 "total-clusters", "allocated-clusters",
                 "fragmented-clusters", "compressed-clusters")


def fill(path, size=SIZE, compressed=True, zeroes=True):
    """Data in several L2 tables, two compressed clusters in one host cluster,
    a preallocated zero cluster."""
    commands = ["write -P 1 0 256k", f"write -P 2 {size // 4} 64k",
                f"write -P 5 {size // 8 * 5} 8k"]
    if compressed:
        commands += [f"write -P 3 -c {size // 2} 64k",
                     f"write -P 4 -c {size // 2 + 64 * KIB} 64k"]
    if zeroes:
        commands.append(f"write -z {size // 8 * 5} 4k")
    qemu_io(path, *commands, image_format="qcow2")


def new_image(path, options=f"cluster_size={CLUSTER}", size=SIZE, **keywords):
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, size)
    fill(path, size, **keywords)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """With a snapshot, and with a persistent bitmap. Not both: qemu-img 7.2
    loses the snapshots when it repairs such an image."""
    folder = tmp_path_factory.mktemp("originals")
    snapshot = new_image(folder / "snapshot.qcow2")
    qemu_img("snapshot", "-c", "one", snapshot)
    bitmap = new_image(folder / "bitmap.qcow2")
    qemu_img("bitmap", "--add", "-g", "512", bitmap, "b0")
    for path in (snapshot, bitmap):
        qemu_io(path, "write -P 9 0 32k", f"write -P 9 {SIZE // 4 * 3} 32k",
                image_format="qcow2")
    return {"snapshot": snapshot, "bitmap": bitmap}


def ours(cohort, path, repair=None):
    words = [f"--repair={repair}"] if repair else []
    result = cohort("check", "--json", *words, path)
    assert result.returncode in (0, 4, 9), result.stderr
    return result.returncode, json.loads(result.stdout)


def theirs(path, repair=None):
    words = ["-r", repair] if repair else []
    result = run("qemu-img", "check", "-f", "qcow2", "--output=json", *words,
                 path, check=False)
    print(result.stderr)    # seen when a test fails
    try:
        found = json.loads(result.stdout)
    except json.JSONDecodeError:
        found = None
    return result.returncode, found


def findings(found):
    return {name: found.get(name, 0) for name in TABLE_OF_BOTH}


def content(path, snapshot=None):
    """What the disk, or its snapshot, reads as."""
    raw = f"{path}.raw"
    words = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    qemu_img("convert", "-U", "-f", "qcow2", "-O", "raw", *words, path, raw)
    with open(raw, "rb") as file:
        data = file.read()
    os.unlink(raw)
    return data


# The damages. `of`: the original. `agrees`: the findings are the same as those
# of qemu-img, number by number. `mends`: a repair of everything leaves nothing
# wrong. `reads`: the disk can be read before, and reads the same afterwards.

DAMAGES = {}


def damage(of="snapshot", agrees=True, mends=True, reads=True):
    def register(function):
        DAMAGES[function.__name__] = (function, of, agrees, mends, reads)
        return function
    return register


@damage()
def refcount_zero(image):
    image.set_refcount(image.host(1025), 0)


@damage()
def refcount_too_high(image):
    image.set_refcount(image.host(0), 3)


@damage()
def refcount_too_low_in_snapshot(image):
    image.set_refcount(image.host(20), 1)


@damage()
def refcount_of_shared_zero(image):
    image.set_refcount(image.host(20), 0)


@damage()
def refcount_of_l2_table_zero(image):
    image.set_refcount(image.l2_offset(0), 0)


@damage()
def refcount_of_l1_table_too_high(image):
    image.set_refcount(image["l1_offset"], 7)


@damage()
def refcount_of_header_zero(image):
    image.set_refcount(0, 0)


@damage()
def refcount_of_compressed_too_low(image):
    image.set_refcount(image.number(image.l2_at(2048)) & (1 << 50) - 1, 1)


@damage()
def leaked_cluster_at_end(image):
    image.set_refcount(image.append(), 1)


@damage()
def leak_behind_end(image):
    image.set_refcount(image.end() + 8 * CLUSTER, 1)


@damage()
def tail_that_nothing_counts(image):
    image.append(b"x")


@damage()
def copied_flag_missing(image):
    image.change(image.l2_at(0), clear=COPIED)


@damage()
def copied_flag_on_shared(image):
    image.change(image.l2_at(20), set_bits=COPIED)


@damage()
def copied_flag_missing_in_l1(image):
    image.change(image.l1_at(0), clear=COPIED)


@damage()
def copied_flag_on_shared_l2_table(image):
    image.change(image.l1_at(2), set_bits=COPIED)


# qemu-img leaves it.
@damage()
def copied_flag_on_compressed(image):
    image.change(image.l2_at(2048), set_bits=COPIED)


@damage(mends=False, reads=False)
def l2_entry_unaligned(image):
    image.change(image.l2_at(2), set_bits=512)


@damage(reads=False)
def l2_entry_of_preallocated_unaligned(image):
    image.change(image.l2_at(2560), set_bits=512)


@damage(mends=False, reads=False)
def l2_entry_behind_end(image):
    image.set_number(image.l2_at(2), COPIED | 1 << 40)


@damage(mends=False, reads=False)
def l2_entry_just_behind_end(image):
    image.set_number(image.l2_at(2), COPIED | image.end())


@damage(mends=False, reads=False)
def l2_entry_reserved_bit(image):
    image.change(image.l2_at(2), set_bits=1 << 57)


@damage(mends=False, reads=False)
def l2_entry_low_reserved_bit(image):
    image.change(image.l2_at(2), set_bits=4)


@damage()
def cluster_used_twice(image):
    image.set_number(image.l2_at(2), image.number(image.l2_at(3)))


@damage(reads=False)
def data_on_an_l2_table(image):
    image.set_number(image.l2_at(2), COPIED | image.l2_offset(0))


@damage(reads=False)
def data_on_the_refcount_table(image):
    image.set_number(image.l2_at(2), COPIED | image["refcount_table_offset"])


@damage(mends=False, reads=False)
def compressed_behind_end(image):
    image.change(image.l2_at(2048), set_bits=1 << 40)


# A table that is not aligned is not followed; qemu-img reads it where it is.
@damage(agrees=False, mends=False, reads=False)
def l1_entry_unaligned(image):
    image.change(image.l1_at(0), set_bits=512)


@damage(mends=False, reads=False)
def l1_entry_behind_end(image):
    image.set_number(image.l1_at(0), COPIED | 1 << 40)


@damage(mends=False, reads=False)
def l1_entry_reserved_bit(image):
    image.change(image.l1_at(0), set_bits=1 << 57)


# qemu-img refuses to repair it, as we do.
@damage(mends=False, reads=False)
def l1_table_is_its_own_l2_table(image):
    image.set_number(image.l1_at(0), COPIED | image["l1_offset"])


@damage(reads=False)
def l2_table_used_twice(image):
    image.set_number(image.l1_at(0), image.number(image.l1_at(2)))


# qemu-img cannot read refcounts any more; we make new ones.
@damage(agrees=False)
def refcount_block_unaligned(image):
    image.change(image.block_at(0), set_bits=512)


@damage()
def refcount_block_missing(image):
    image.set_number(image.block_at(0), 0)


@damage()
def refcount_block_behind_end(image):
    image.set_number(image.block_at(0), 1 << 40)


@damage()
def further_refcount_block_behind_end(image):
    image.set_number(image.block_at(0) + 8, 1 << 40)


@damage()
def refcount_block_used_twice(image):
    image.set_number(image.block_at(0) + 8, image.number(image.block_at(0)))


@damage()
def refcount_block_is_l1_table(image):
    image.set_number(image.block_at(0) + 8, image["l1_offset"])


# qemu-img leaves it.
@damage()
def refcount_block_reserved_bit(image):
    image.change(image.block_at(0), set_bits=4)


# qemu-img counts each refcount it cannot read as an error.
@damage(agrees=False)
def refcount_table_is_l1_table(image):
    image["refcount_table_offset"] = image["l1_offset"]


@damage()
def refcounts_wiped(image):
    image.write(image.number(image.block_at(0)), b"\0" * CLUSTER)


@damage(mends=False)
def snapshot_l1_behind_end(image):
    image.set_number(image.snapshot_at(), 1 << 40)


@damage(mends=False)
def snapshot_l1_unaligned(image):
    image.change(image.snapshot_at(), set_bits=512)


@damage(mends=False)
def snapshot_l1_too_large(image):
    image.set_number(image.snapshot_at() + 8, 1 << 30, ">I")


@damage(mends=False)
def snapshot_l2_entry_unaligned(image):
    l1 = image.number(image.snapshot_at())
    image.change(image.l2_at(2, l1), set_bits=512)


# As l1_entry_unaligned.
@damage(agrees=False, mends=False)
def snapshot_l1_entry_unaligned(image):
    image.change(image.number(image.snapshot_at()), set_bits=512)


# qemu-img gives up.
@damage(agrees=False, mends=False)
def snapshot_extra_data_too_large(image):
    image.set_number(image.snapshot_at() + 36, 1 << 20, ">I")


# qemu-img reads an empty entry behind the end, which it counts, too.
@damage(agrees=False, mends=False)
def snapshot_table_behind_end(image):
    image["snapshots_offset"] = 1 << 40


# qemu-img gives up on these four.
@damage(of="bitmap", agrees=False, mends=False)
def bitmap_directory_behind_end(image):
    image.set_number(image.extension_at(BITMAPS_EXTENSION) + 16, 1 << 40)


@damage(of="bitmap", agrees=False, mends=False)
def bitmap_table_unaligned(image):
    image.change(image.bitmap_directory_at(), set_bits=512)


@damage(of="bitmap", agrees=False, mends=False)
def bitmap_data_unaligned(image):
    image.change(image.bitmap_table_at(), set_bits=512)


@damage(of="bitmap", agrees=False, mends=False)
def bitmap_table_reserved_bit(image):
    image.change(image.bitmap_table_at(), set_bits=2)


@damage(of="bitmap", mends=False)
def bitmap_table_behind_end(image):
    image.set_number(image.bitmap_directory_at(), 1 << 40)


@damage(of="bitmap", mends=False)
def bitmap_data_behind_end(image):
    image.set_number(image.bitmap_table_at(), 1 << 40)


@damage(of="bitmap")
def bitmaps_stale(image):
    image["autoclear"] = 0


@damage()
def dirty_bit(image):
    image["incompatible"] = DIRTY


@damage()
def corrupt_bit(image):
    image["incompatible"] = CORRUPT


@damage()
def corrupt_bit_and_leak(image):
    image["incompatible"] = CORRUPT
    image.set_refcount(image.host(0), 3)


@damage(mends=False, reads=False)
def truncated(image):
    image.file.truncate(image.end() - 6 * CLUSTER)


@pytest.fixture(params=sorted(DAMAGES))
def damaged(request, folder, originals):
    """(path, agrees, mends, reads)"""
    function, of, agrees, mends, reads = DAMAGES[request.param]
    path = folder / "damaged.qcow2"
    shutil.copy(originals[of], path)
    with Qcow2(path) as image:
        function(image)
    return path, agrees, mends, reads


def test_a_damage_is_found_as_qemu_finds_it(damaged, cohort):
    """Number by number, and the image is not touched; where qemu-img gives up
    or counts otherwise, it is a finding all the same."""
    path, agrees, _, _ = damaged
    before = path.read_bytes()
    code, found = ours(cohort, path)
    their_code, their_found = theirs(path)
    assert path.read_bytes() == before
    if agrees:
        assert findings(found) == findings(their_found)
        assert code == SAME_CODE[their_code]
    else:
        assert code in (4, 9) and their_code != 0
        assert found["corruptions"] > 0


def test_a_repair_of_everything_leaves_what_can_be_read(damaged, cohort):
    """What can be mended is; then qemu-img agrees that nothing is wrong, the
    bits are clear, and all reads as before. What cannot is reported."""
    path, _, mends, reads = damaged
    before = content(path) if mends and reads else None
    code, found = ours(cohort, path, repair="all")
    assert ours(cohort, path)[0] == code
    if not mends:
        assert code == 4 and found["corruptions"] > 0
        return
    assert code == 0, found
    assert theirs(path)[0] == 0
    with Qcow2(path) as image:
        assert image["incompatible"] & (DIRTY | CORRUPT) == 0
    if before is not None:
        assert content(path) == before


def test_a_repair_of_leaks_changes_nothing_else(damaged, cohort):
    """No mapping is touched, and corruptions do not grow."""
    path, _, _, _ = damaged
    _, before = ours(cohort, path)
    with Qcow2(path) as image:
        mapping = [image.number(image.l1_at(i)) & OFFSET_MASK
                   for i in range(image["l1_count"])]
    _, after = ours(cohort, path, repair="leaks")
    with Qcow2(path) as image:
        assert mapping == [image.number(image.l1_at(i)) & OFFSET_MASK
                           for i in range(image["l1_count"])]
    assert after.get("corruptions", 0) <= before.get("corruptions", 0)
    assert ours(cohort, path)[1].get("leaks", 0) == after.get("leaks", 0)


def test_a_snapshot_survives_a_repair(folder, originals, cohort):
    """New refcounts know of it."""
    path = folder / "image.qcow2"
    shutil.copy(originals["snapshot"], path)
    before = content(path), content(path, "one")
    with Qcow2(path) as image:
        image.set_number(image.block_at(0), 0)
        image["incompatible"] = DIRTY
    assert ours(cohort, path, repair="all")[0] == 0
    assert theirs(path)[0] == 0
    assert (content(path), content(path, "one")) == before


def test_leaks_stay_while_a_table_cannot_be_followed(folder, originals,
                                                     cohort):
    """What a damaged L1 entry names may be found again by hand. qemu-img gives
    it up as leaked."""
    path = folder / "image.qcow2"
    shutil.copy(originals["snapshot"], path)
    with Qcow2(path) as image:
        entry = image.number(image.l1_at(0))
        image.set_number(image.l1_at(0), COPIED | 1 << 40)
    code, found = ours(cohort, path, repair="all")
    assert code == 4 and found["leaks"] > 0 and "leaks-fixed" not in found
    with Qcow2(path) as image:
        image.set_number(image.l1_at(0), entry)
    assert ours(cohort, path, repair="all")[0] == 0
    assert content(path) == content(originals["snapshot"])


VARIANTS = {
    "v2": "compat=0.10,cluster_size=4k",
    "clusters of 512": "cluster_size=512",
    "clusters of 2M": "cluster_size=2M",
    "1 refcount bit": "cluster_size=4k,refcount_bits=1",
    "4 refcount bits": "cluster_size=4k,refcount_bits=4",
    "64 refcount bits": "cluster_size=4k,refcount_bits=64",
    "lazy refcounts": "cluster_size=4k,lazy_refcounts=on",
    "extended L2": "cluster_size=16k,extended_l2=on",
    "zstd": "cluster_size=4k,compression_type=zstd",
    "preallocated": "cluster_size=4k,preallocation=metadata",
    "external data": "cluster_size=4k,data_file={folder}/data",
    "raw external data":
        "cluster_size=4k,data_file={folder}/data,data_file_raw=on",
}


@pytest.fixture(params=sorted(VARIANTS))
def variant(request, folder):
    name = request.param
    return new_image(folder / "image.qcow2",
                     VARIANTS[name].format(folder=folder), 64 * MIB,
                     compressed="external" not in name and
                     name not in ("1 refcount bit", "preallocated",
                                      "clusters of 2M"),
                     zeroes=name != "v2")


def test_a_sound_image_of_every_kind_is_sound(variant, cohort):
    """With the same figures as of qemu-img."""
    code, found = ours(cohort, variant)
    their_code, their_found = theirs(variant)
    assert code == their_code == 0
    assert findings(found) == findings(their_found)


def test_wrong_refcounts_of_every_width_are_mended(variant, cohort):
    """The L1 table counts none, and a cluster is leaked."""
    before = content(variant)
    with Qcow2(variant) as image:
        image.set_refcount(image["l1_offset"], 0)
        image.set_refcount(image.append(), 1)
    code, found = ours(cohort, variant)
    their_code, their_found = theirs(variant)
    assert findings(found) == findings(their_found)
    assert (code, their_code) == (4, 2)
    assert ours(cohort, variant, repair="all")[0] == 0
    assert theirs(variant)[0] == 0
    assert content(variant) == before


def test_refcounts_of_every_width_are_made_anew(variant, cohort):
    """Without a single refcount block."""
    before = content(variant)
    with Qcow2(variant) as image:
        image.set_number(image.block_at(0), 0)
    assert ours(cohort, variant)[0] == 4
    assert ours(cohort, variant, repair="all")[0] == 0
    assert theirs(variant)[0] == 0
    assert content(variant) == before


@pytest.mark.parametrize("who", ["cohortd", "qsd"])
def test_an_image_in_use_is_refused(folder, originals, cohort, request, who):
    """By whom, is said; with exit code 3, checking and repairing."""
    path = folder / "image.qcow2"
    shutil.copy(originals["snapshot"], path)
    daemon = request.getfixturevalue(who)(
        "--blockdev", f"file,node-name=f,filename={path}",
        "--blockdev", "qcow2,node-name=q,file=f",
        "--export", "nbd,id=e,node-name=q,writable=on", nbd=True)
    for words in ([], ["--repair=all"]):
        result = cohort("check", *words, path)
        assert result.returncode == 3
        assert str(daemon.pid) in result.stderr


def test_a_dirty_image_is_repaired_when_it_is_opened(folder, cohort, cohortd):
    """To write; who only reads leaves it. It was written by a QEMU that kept
    refcounts lazily, and was killed."""
    path = new_image(folder / "image.qcow2",
                     f"cluster_size={CLUSTER},lazy_refcounts=on")
    qemu_io(path, "write -P 6 12M 64k", "abort", image_format="qcow2",
            check=False)
    with Qcow2(path) as image:
        assert image["incompatible"] == DIRTY
    assert ours(cohort, path)[0] == 4
    daemon = cohortd()
    options = {"driver": "qcow2", "node-name": "q",
               "file": {"driver": "file", "filename": str(path)}}
    daemon.qmp.command("blockdev-add", {**options, "read-only": True})
    daemon.qmp.command("blockdev-del", {"node-name": "q"})
    with Qcow2(path) as image:
        assert image["incompatible"] == DIRTY
    daemon.qmp.command("blockdev-add", options)
    daemon.qmp.command("blockdev-del", {"node-name": "q"})
    with Qcow2(path) as image:
        assert image["incompatible"] == 0
    assert ours(cohort, path)[0] == theirs(path)[0] == 0
    qemu_io(path, "read -P 6 12M 64k", image_format="qcow2")


def test_a_raw_image_has_nothing_to_check(folder, cohort):
    """It says so, and that is no error."""
    path = folder / "disk.raw"
    path.write_bytes(b"\0" * MIB)
    result = cohort("check", path, check=True)
    assert "raw" in result.stdout and "nothing to check" in result.stdout
    found = json.loads(cohort("check", "--json", path, check=True).stdout)
    assert found == {"filename": str(path), "format": "raw",
                     "check-errors": 0}


@pytest.mark.parametrize("words, code, part", [
    (["--repair=some", "IMAGE"], 2, "'leaks' or 'all'"),
    ([], 2, "an image is needed"),
    (["IMAGE", "IMAGE"], 2, "one argument too many"),
    (["/no/such/image"], 6, "/no/such/image"),
])
def test_misuse_is_refused(folder, cohort, words, code, part):
    """With the exit code of misuse, or of what is not there."""
    path = new_image(folder / "image.qcow2")
    result = cohort("check", *(str(path) if word == "IMAGE" else word
                               for word in words))
    assert result.returncode == code
    assert part in result.stderr
