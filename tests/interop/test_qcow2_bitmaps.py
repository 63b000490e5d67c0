# SPDX-License-Identifier: BSD-3-Clause
"""Persistent bitmaps in qcow2 images: what cohortd stores QEMU has, and the
reverse, by name, flags and content.

`x-debug-block-dirty-bitmap-sha256` of both daemons is the measure of content;
`qemu-img check` finds nothing to complain of after each.
"""
import json
import os
import resource

import pytest
from support.disks import add_bitmap
from support.images import KIB, MIB, qemu_img, qemu_io
from support.qcow2_images import child, create, image_json
from support.qmp import QmpError

SIZE = 64 * MIB + 3 * KIB
GRANULARITIES = [1 << bits for bits in range(9, 32)]


def open_in(factory, path, export=True, **members):
    """A daemon, of either kind, with the image as node `disk`."""
    node = {"driver": "qcow2", "node-name": "disk", "file": child(path),
            **members}
    words = ["--blockdev", json.dumps(node)]
    if export:
        words += ["--export", "nbd,id=e,node-name=disk,writable=on"]
    return factory(*words, nbd=True)


def close(daemon):
    daemon.quit()
    assert daemon.wait() == 0


def write(daemon, *commands):
    qemu_io(daemon.nbd_uri("disk"), *commands)


def bitmaps(daemon):
    found = daemon.qmp.node("disk").get("dirty-bitmaps", [])
    return {bitmap["name"]: bitmap for bitmap in found}


def sha256(daemon, name):
    return daemon.qmp.command("x-debug-block-dirty-bitmap-sha256", node="disk",
                              name=name)["sha256"]


def shas(daemon):
    return {name: sha256(daemon, name) for name in bitmaps(daemon)}


def stored(path):
    """{name: (granularity, flags)} as qemu-img sees them."""
    data = image_json(path)["format-specific"]["data"]
    return {bitmap["name"]: (bitmap["granularity"], sorted(bitmap["flags"]))
            for bitmap in data.get("bitmaps", [])}


def assert_sound(path):
    qemu_img("check", str(path))


def kill(daemon):
    daemon.kill()


@pytest.fixture
def path(tmp_path):
    return create(tmp_path / "disk.qcow2", SIZE)


SCATTERED = ("write 0 512", "write 1M 64k", "write 33M 300k",
             f"write {64 * MIB} 3k", "discard 40M 2M", "write -z 5M 1M")


def test_what_is_stored_here_is_what_qemu_loads(cohortd, qsd, path):
    "Every granularity, enabled and not: names, flags and content agree."
    daemon = open_in(cohortd, path)
    for granularity in GRANULARITIES:
        add_bitmap(daemon, "disk", f"g{granularity}", granularity,
                   persistent=True)
    write(daemon, *SCATTERED)
    add_bitmap(daemon, "disk", "off", persistent=True, disabled=True)
    add_bitmap(daemon, "disk", "gone")
    here = shas(daemon)
    del here["gone"]
    assert all("in-use" in flags for _, flags in stored_live(path).values())
    close(daemon)
    assert stored(path) == {
        **{f"g{size}": (size, ["auto"]) for size in GRANULARITIES},
        "off": (64 * KIB, [])}
    assert_sound(path)
    peer = open_in(qsd, path)
    assert shas(peer) == here
    recording = {name: bitmap["recording"]
                 for name, bitmap in bitmaps(peer).items()}
    assert recording == {name: name != "off" for name in here}


def stored_live(path):
    """As stored(), of an image that a daemon has open."""
    info = json.loads(qemu_img("info", "-U", "--output=json", str(path)))
    return {bitmap["name"]: (bitmap["granularity"], sorted(bitmap["flags"]))
            for bitmap in info["format-specific"]["data"].get("bitmaps", [])}


def test_what_qemu_stores_is_what_is_loaded_here(cohortd, qsd, path):
    "Every granularity, enabled and not; and it goes on recording here."
    peer = open_in(qsd, path)
    for granularity in GRANULARITIES:
        add_bitmap(peer, "disk", f"g{granularity}", granularity,
                   persistent=True)
    write(peer, *SCATTERED)
    add_bitmap(peer, "disk", "off", persistent=True, disabled=True)
    there = shas(peer)
    close(peer)
    daemon = open_in(cohortd, path)
    assert shas(daemon) == there
    found = bitmaps(daemon)
    assert all(bitmap["persistent"] and "inconsistent" not in bitmap
               for bitmap in found.values())
    assert not found["off"]["recording"] and found["g512"]["recording"]
    assert found["g512"]["x-cohort-base"] == []
    assert all("in-use" in flags for _, flags in stored_live(path).values())
    write(daemon, "write 20M 64k")
    after = shas(daemon)
    assert after["g512"] != there["g512"] and after["off"] == there["off"]
    close(daemon)
    assert_sound(path)
    assert shas(open_in(qsd, path)) == after


def test_a_bitmap_of_qemu_img_makes_an_incremental(cohortd, qsd, path,
                                                   tmp_path):
    "Added by qemu-img, used for an incremental backup here, then by QEMU."
    qemu_img("bitmap", "--add", "-g", "64k", str(path), "b")
    daemon = open_in(cohortd, path)
    write(daemon, "write -P 7 3M 64k", "write -P 8 9M 64k")
    target = create(tmp_path / "target.qcow2", SIZE)
    daemon.qmp.command("blockdev-add", driver="qcow2", node_name="target",
                       file=child(target))
    daemon.qmp.command("blockdev-backup", job_id="j", device="disk",
                       target="target", sync="incremental", bitmap="b")
    daemon.qmp.wait_event("BLOCK_JOB_COMPLETED")
    daemon.qmp.command("blockdev-del", node_name="target")
    assert bitmaps(daemon)["b"]["count"] == 0
    write(daemon, "write -P 9 30M 64k")
    close(daemon)
    qemu_io(str(target), "read -P 7 3M 64k", "read -P 8 9M 64k",
            "read -P 0 30M 64k", image_format="qcow2")
    peer = open_in(qsd, path)
    assert bitmaps(peer)["b"]["count"] == 64 * KIB
    assert_same_after_close(peer, path)


def assert_same_after_close(daemon, path):
    close(daemon)
    assert_sound(path)


def test_removing_takes_it_out_of_the_image_at_once(cohortd, path):
    "block-dirty-bitmap-remove: gone for qemu-img too, while the node is open."
    qemu_img("bitmap", "--add", str(path), "a")
    qemu_img("bitmap", "--add", str(path), "b")
    daemon = open_in(cohortd, path)
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="a")
    assert set(stored_live(path)) == {"b"}
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="b")
    assert stored_live(path) == {}
    close(daemon)
    assert stored(path) == {}
    assert_sound(path)


def test_deleting_the_node_stores_them(cohortd, path):
    "blockdev-del: the image is what it is after `quit`."
    daemon = open_in(cohortd, path, export=False)
    add_bitmap(daemon, "disk", persistent=True)
    daemon.qmp.command("blockdev-del", node_name="disk")
    assert stored(path) == {"b0": (64 * KIB, ["auto"])}
    assert_sound(path)


def test_a_read_only_node_has_them_and_keeps_them(cohortd, path):
    "They can be read and not be changed; the file is not touched."
    qemu_img("bitmap", "--add", str(path), "a")
    before = path_bytes(path)
    daemon = open_in(cohortd, path, export=False, **{"read-only": True})
    assert bitmaps(daemon)["a"]["persistent"]
    for command in "clear", "remove":
        with pytest.raises(QmpError, match="read-only"):
            daemon.qmp.command(f"block-dirty-bitmap-{command}", node="disk",
                               name="a")
    close(daemon)
    assert path_bytes(path) == before


def path_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("cluster", [512, 1024, 4096, 2 * MIB])
@pytest.mark.parametrize("backing", [False, True])
def test_any_cluster_size_and_header(cohortd, qsd, tmp_path, cluster, backing):
    """Small clusters, where the header has hardly room, and a backing name that
    has to move: what was there before is there after."""
    name = tmp_path / ("long" * 20 + ".raw")
    with open(name, "wb") as file:
        file.truncate(8 * MIB)
    path = create(tmp_path / "disk.qcow2", 8 * MIB,
                  **({"backing": name, "backing_format": "raw"}
                     if backing else {}), cluster_size=cluster)
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", persistent=True, granularity=512)
    write(daemon, "write 0 4k", "write 5M 64k")
    here = shas(daemon)
    close(daemon)
    assert_sound(path)
    if backing:
        assert image_json(path)["backing-filename"] == str(name)
    assert shas(open_in(qsd, path)) == here


def test_a_header_without_room_is_told(cohortd, tmp_path):
    "A backing name that fills the header: the bitmap cannot be stored."
    place = tmp_path / ("d" * 150)
    place.mkdir()
    name = place / ("n" * (370 - len(str(place)) - 1))
    with open(name, "wb") as file:
        file.truncate(MIB)
    path = create(tmp_path / "disk.qcow2", MIB, backing=name,
                  backing_format="raw", cluster_size=512)
    before = path_bytes(path)[:512]
    daemon = open_in(cohortd, path)
    with pytest.raises(QmpError, match="does not fit"):
        add_bitmap(daemon, "disk", persistent=True)
    close(daemon)
    assert path_bytes(path)[:512] == before
    assert_sound(path)


def test_version_2_cannot(cohortd, tmp_path):
    "An image of version 2 refuses a persistent bitmap, and says what to do."
    path = create(tmp_path / "disk.qcow2", SIZE, compat="0.10")
    daemon = open_in(cohortd, path)
    with pytest.raises(QmpError, match="qemu-img amend"):
        add_bitmap(daemon, "disk", persistent=True)
    add_bitmap(daemon, "disk")


def test_limits_are_told_when_it_is_added(cohortd, tmp_path):
    "What QEMU would not open is refused at once."
    path = create(tmp_path / "disk.qcow2", 4 << 40)
    daemon = open_in(cohortd, path)
    with pytest.raises(QmpError, match="coarser"):
        add_bitmap(daemon, "disk", persistent=True, granularity=512)


def test_a_grown_disk_keeps_its_bitmaps(cohortd, qsd, path):
    "block_resize: what is new is dirty; stored with the new size."
    qemu_img("bitmap", "--add", str(path), "a")
    daemon = open_in(cohortd, path, export=False)
    daemon.qmp.command("block_resize", node_name="disk", size=96 * MIB)
    here = shas(daemon)
    assert bitmaps(daemon)["a"]["count"] >= 31 * MIB
    close(daemon)
    assert_sound(path)
    assert shas(open_in(qsd, path)) == here


def test_a_bitmap_that_is_not_loaded_keeps_the_size(cohortd, qsd, path):
    "One that is inconsistent in the image refuses block_resize until removed."
    peer = open_in(qsd, path)
    add_bitmap(peer, "disk", "lost", persistent=True)
    close(peer)
    kill(open_in(qsd, path))
    daemon = open_in(cohortd, path, export=False)
    assert bitmaps(daemon)["lost"]["inconsistent"]
    with pytest.raises(QmpError, match="lost"):
        daemon.qmp.command("block_resize", node_name="disk", size=96 * MIB)
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="lost")
    daemon.qmp.command("block_resize", node_name="disk", size=96 * MIB)


# Who else wrote.

def tracked(cohortd, path):
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    return daemon


def again(cohortd, path):
    daemon = open_in(cohortd, path)
    return daemon, bitmaps(daemon)["b0"]


def test_after_a_kill_the_tracking_file_wins(cohortd, qsd, path):
    "Recovered here; for QEMU, which looks read-only, it is inconsistent."
    daemon = tracked(cohortd, path)
    close(daemon)
    daemon = open_in(cohortd, path)
    write(daemon, "write 9M 64k")
    kill(daemon)
    assert stored(path) == {"b0": (64 * KIB, ["auto", "in-use"])}
    peer = open_in(qsd, path, export=False, **{"read-only": True})
    assert bitmaps(peer)["b0"]["inconsistent"]
    close(peer)
    _, bitmap = again(cohortd, path)
    assert "inconsistent" not in bitmap and bitmap["recording"]
    assert bitmap["count"] >= 128 * KIB
    assert bitmap["x-cohort-recovered"]["regions"] >= 1


def test_a_kill_while_opening_is_as_if_it_had_not_been(cohortd, path):
    "Opened and killed twice without a write: nothing is lost."
    close(tracked(cohortd, path))
    kill(open_in(cohortd, path))
    kill(open_in(cohortd, path))
    _, bitmap = again(cohortd, path)
    assert "inconsistent" not in bitmap


def test_writes_of_qemu_after_a_clean_close_are_in_it(cohortd, path):
    "qemu-io keeps the image's bitmap: that is the one that counts."
    close(tracked(cohortd, path))
    qemu_io(str(path), "write 20M 64k", image_format="qcow2")
    _, bitmap = again(cohortd, path)
    assert "inconsistent" not in bitmap
    assert bitmap["count"] == 128 * KIB
    assert bitmap["x-cohort-base"] == []


def test_qemu_that_wrote_nothing_is_noticed_too(cohortd, path):
    "It may have: the image's bitmap counts, which has the same bits."
    close(tracked(cohortd, path))
    qemu_io(str(path), "quit", image_format="qcow2")
    _, bitmap = again(cohortd, path)
    assert "inconsistent" not in bitmap and bitmap["count"] == 64 * KIB


def test_writes_of_qemu_after_a_kill_are_noticed(cohortd, path):
    "The image's bitmap is in use, and the stamp gone: inconsistent, and why."
    kill(tracked_twice(cohortd, path))
    qemu_io(str(path), "write 20M 64k", image_format="qcow2")
    _, bitmap = again(cohortd, path)
    assert bitmap["inconsistent"] and not bitmap["recording"]
    assert "another program" in bitmap["x-cohort-reason"]


def tracked_twice(cohortd, path):
    close(tracked(cohortd, path))
    return open_in(cohortd, path)


def test_a_bitmap_that_qemu_never_saw_is_noticed_too(cohortd, path):
    "Added, killed before it was ever in the image, written by QEMU."
    kill(tracked(cohortd, path))
    qemu_io(str(path), "write 20M 64k", image_format="qcow2")
    _, bitmap = again(cohortd, path)
    assert bitmap["inconsistent"]


def test_a_killed_qemu_leaves_it_inconsistent(cohortd, qsd, path):
    "in_use by QEMU, stamp gone."
    close(tracked(cohortd, path))
    kill(open_in(qsd, path))
    _, bitmap = again(cohortd, path)
    assert bitmap["inconsistent"]


def test_a_lost_tracking_file_is_noticed(cohortd, path):
    "The stamp stands, and there is no file that it could be of."
    close(tracked(cohortd, path))
    os.unlink(f"{path}.cbt")
    daemon, bitmap = again(cohortd, path)
    assert bitmap["inconsistent"]
    assert "tracking file" in bitmap["x-cohort-reason"]
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    add_bitmap(daemon, "disk", persistent=True)
    close(daemon)
    assert stored(path) == {"b0": (64 * KIB, ["auto"])}
    assert_sound(path)


def test_an_image_that_was_put_back_is_noticed(cohortd, path, tmp_path):
    "A copy from before the last use, beside the tracking file of now."
    close(tracked(cohortd, path))
    copy = path_bytes(path)
    daemon = open_in(cohortd, path)
    write(daemon, "write 30M 64k")
    close(daemon)
    with open(path, "wb") as file:
        file.write(copy)
    _, bitmap = again(cohortd, path)
    assert bitmap["inconsistent"]


def chained(folder):
    """An overlay over an overlay over a raw file."""
    base = folder / "base.raw"
    with open(base, "wb") as file:
        file.truncate(SIZE)
    middle = create(folder / "middle.qcow2", SIZE, "base.raw", "raw")
    return create(folder / "top.qcow2", SIZE, "middle.qcow2", "qcow2"), [
        base, middle]


def overwrite(path):
    """By another program, in place."""
    qemu_io(path, "write -P 9 10M 64k",
            image_format="raw" if str(path).endswith(".raw") else "qcow2")


def is_inconsistent(daemon, name="b"):
    return bitmaps(daemon)[name].get("inconsistent", False)


@pytest.mark.parametrize("end", [close, kill])
@pytest.mark.parametrize("which", [0, 1])
def test_a_backing_file_that_changed_is_noticed(cohortd, tmp_path, end, which):
    "A stranger's write below the image is in no bitmap of it."
    path, below = chained(tmp_path)
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", "b", persistent=True)
    write(daemon, "write 1M 64k")
    end(daemon)
    overwrite(below[which])
    daemon = open_in(cohortd, path)
    assert is_inconsistent(daemon)
    assert "below the image" in bitmaps(daemon)["b"]["x-cohort-reason"]
    add_bitmap(daemon, "disk", "c", persistent=True)
    kill(daemon)
    overwrite(below[which])
    assert is_inconsistent(open_in(cohortd, path), "c")


@pytest.mark.parametrize("end", [close, kill])
def test_a_chain_that_stays_as_it_was_keeps_bitmaps(cohortd, tmp_path, end):
    "Again and again; also when all of it is moved elsewhere."
    folder = tmp_path / "one"
    folder.mkdir()
    path, _ = chained(folder)
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", "b", persistent=True)
    for number in range(3):
        write(daemon, f"write {number}M 64k")
        end(daemon)
        daemon = open_in(cohortd, path)
        assert not is_inconsistent(daemon)
    close(daemon)
    folder.rename(tmp_path / "two")
    daemon = open_in(cohortd, tmp_path / "two" / "top.qcow2")
    assert not is_inconsistent(daemon)


def test_a_data_file_that_changed_is_noticed(cohortd, tmp_path):
    "After a clean close; what a killed daemon wrote to it itself is no change."
    path = create(tmp_path / "disk.qcow2", SIZE, data_file=tmp_path / "data")
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", "b", persistent=True)
    for end in (kill, close):
        write(daemon, "write 1M 64k", "write 3M 64k")
        end(daemon)
        daemon = open_in(cohortd, path)
        assert not is_inconsistent(daemon)
    close(daemon)
    data = tmp_path / "data"
    qemu_io(data, "write -P 9 0 64k")
    assert is_inconsistent(open_in(cohortd, path))


def test_an_inconsistent_bitmap_can_be_replaced(cohortd, qsd, path):
    "Removed, added again: right here and in QEMU."
    kill(tracked_twice(cohortd, path))
    qemu_io(str(path), "write 20M 64k", image_format="qcow2")
    daemon, _ = again(cohortd, path)
    daemon.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    assert stored_live(path) == {}
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 2M 64k")
    here = shas(daemon)
    close(daemon)
    assert_sound(path)
    assert shas(open_in(qsd, path)) == here


# No room.

def limit_file_size(daemon, size):
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, -1))


def test_no_room_at_the_end_is_told_and_loses_nothing(cohortd, path):
    """blockdev-del is refused and says why; the bitmap stays in use in the
    image; with room it is stored."""
    daemon = open_in(cohortd, path, export=False)
    add_bitmap(daemon, "disk", persistent=True)
    daemon.qmp.command("block-export-add", type="nbd", id="e",
                       node_name="disk", writable=True)
    write(daemon, "write 1M 64k")
    daemon.qmp.command("block-export-del", id="e", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    limit_file_size(daemon, os.path.getsize(path))
    with pytest.raises(QmpError, match="stays open"):
        daemon.qmp.command("blockdev-del", node_name="disk")
    assert bitmaps(daemon)["b0"]["recording"]
    limit_file_size(daemon, -1)
    daemon.qmp.command("blockdev-del", node_name="disk")
    assert stored(path) == {"b0": (64 * KIB, ["auto"])}
    assert_sound(path)


def test_no_room_at_quit_is_in_the_log_and_loses_nothing(cohortd, path):
    """The daemon ends, the log says why; QEMU sees it in use, and the next
    daemon has it from the tracking file."""
    daemon = open_in(cohortd, path)
    add_bitmap(daemon, "disk", persistent=True)
    write(daemon, "write 1M 64k")
    here = shas(daemon)
    limit_file_size(daemon, os.path.getsize(path))
    close(daemon)
    assert "were not stored in its image" in daemon.stderr()
    assert_sound(path)
    assert all("in-use" in flags for _, flags in stored(path).values())
    again_open = open_in(cohortd, path)
    assert shas(again_open) == here
    assert "inconsistent" not in bitmaps(again_open)["b0"]


def test_a_bitmap_that_was_stored_before_stays_in_use(cohortd, path):
    "Stored once, then no room: in_use is what QEMU finds."
    close(tracked(cohortd, path))
    daemon = open_in(cohortd, path)
    write(daemon, "write 9M 64k")
    here = shas(daemon)
    limit_file_size(daemon, os.path.getsize(path))
    close(daemon)
    assert stored(path) == {"b0": (64 * KIB, ["auto", "in-use"])}
    assert shas(open_in(cohortd, path)) == here
