# SPDX-License-Identifier: BSD-3-Clause
"""blockdev-snapshot and blockdev-snapshot-sync, alone and in transactions."""
import pytest

from support.disks import add_bitmap, backup_action, dirty_bytes, new_target
from support.disks import new_disk
from support.images import KIB, MIB, qemu_img, qemu_io, run
from support.qmp import QmpError

SIZE = 4 * MIB


@pytest.fixture
def daemon(cohortd):
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", SIZE, seed=1)
    return daemon


def overlay_path(daemon, name):
    return daemon.folder / f"{name}.qcow2"


def add_overlay(daemon, name="overlay", size=SIZE, **more):
    """A qcow2 node without a backing file."""
    path = overlay_path(daemon, name)
    qemu_img("create", "-q", "-f", "qcow2", path, str(size))
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": name, "backing": None,
        "file": {"driver": "file", "filename": str(path)}, **more})
    return path


def snapshot(node="disk", overlay="overlay"):
    return ("blockdev-snapshot", {"node": node, "overlay": overlay})


def sync(daemon, name="overlay", node="disk", **more):
    return ("blockdev-snapshot-sync",
            {"node-name": node, "snapshot-node-name": name,
             "snapshot-file": str(overlay_path(daemon, name)),
             **{key.replace("_", "-"): value for key, value in more.items()}})


def bitmap(verb, node, name="b0", **more):
    return (f"block-dirty-bitmap-{verb}", {"node": node, "name": name, **more})


def backing_of(daemon, name):
    return {child["child"]: child["node-name"]
            for child in daemon.qmp.node(name)["children"]}.get("backing")


def bitmap_names(daemon, node):
    return [entry["name"]
            for entry in daemon.qmp.node(node).get("dirty-bitmaps", [])]


def test_a_client_goes_on_in_the_overlay(daemon, nbd_client):
    "One connection: reads see the old data, writes go above it."
    client = nbd_client(daemon.nbd_uri("disk"))
    client.pwrite(b"a" * 4096, 0)
    add_overlay(daemon)
    daemon.qmp.command(*snapshot())
    assert backing_of(daemon, "overlay") == "disk"
    export, = daemon.qmp.command("query-block-exports")
    assert export["node-name"] == "overlay"
    assert client.pread(4096, 0) == b"a" * 4096
    client.pwrite(b"b" * 4096, 4096)
    client.flush()
    assert client.pread(8192, 0) == b"a" * 4096 + b"b" * 4096
    client.shutdown()
    with open(daemon.folder / "disk.raw", "rb") as file:
        data = file.read(8192)
    assert data[:4096] == b"a" * 4096
    assert data[4096:] != b"b" * 4096


def test_the_old_node_has_no_new_writers(daemon):
    "What the overlay relies on stays as it is."
    add_overlay(daemon)
    daemon.qmp.command(*snapshot())
    error = daemon.qmp.error("block-export-add", type="nbd", id="more",
                             node_name="disk", name="more", writable=True)
    assert "'overlay'" in error.desc
    assert "in use" in daemon.qmp.error("blockdev-del", node_name="disk").desc


def test_a_chain_grows_and_reads_whole(daemon, folder):
    "Ten snapshots, each with a write; an image made of it all is equal."
    expected = folder / "expected"
    run("cp", daemon.folder / "disk.raw", expected)
    below = "disk"
    for i in range(10):
        daemon.qmp.command(*sync(daemon, f"o{i}", below))
        below = f"o{i}"
        for target in (daemon.nbd_uri("disk"), expected):
            qemu_io(target, f"write -P {i + 1} {i * 96}k 128k")
    qemu_img("compare", "-f", "raw", "-F", "raw", daemon.nbd_uri("disk"),
             expected)
    daemon.quit()
    qemu_img("compare", "-f", "qcow2", "-F", "raw",
             overlay_path(daemon, "o9"), expected)
    for i in range(10):
        qemu_img("check", overlay_path(daemon, f"o{i}"))


def test_guests_write_while_snapshots_are_taken(daemon, nbd_client):
    "Writes in flight at the instant are in one image or the other, once."
    client = nbd_client(daemon.nbd_uri("disk"))
    below = "disk"
    for i in range(20):
        pending = [client.aio_pwrite(bytes([i + 1]) * 4096,
                                     (i * 16 + k) * 4096)
                   for k in range(16)]
        daemon.qmp.send({"execute": "blockdev-snapshot-sync",
                         "arguments": sync(daemon, f"o{i}", below)[1]})
        while pending:
            client.poll(1)
            pending = [cookie for cookie in pending
                       if not client.aio_command_completed(cookie)]
        assert daemon.qmp.reply()["return"] == {}
        below = f"o{i}"
    for i in range(20):
        assert client.pread(65536, i * 65536) == bytes([i + 1]) * 65536
    client.shutdown()


def test_snapshot_sync_makes_an_image_with_its_backing_file(daemon):
    "qcow2, as large as the disk, with an absolute name."
    daemon.qmp.command(*sync(daemon))
    image = daemon.qmp.node("overlay")["image"]
    assert image["virtual-size"] == SIZE
    assert image["backing-filename"] == str(daemon.folder / "disk.raw")
    assert image["backing-filename-format"] == "raw"
    assert daemon.qmp.node("overlay")["backing_file_depth"] == 1


def test_snapshot_sync_takes_an_existing_image(daemon):
    "mode=existing: opened as it is, and the disk put below."
    path = overlay_path(daemon, "overlay")
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    daemon.qmp.command(*sync(daemon, mode="existing"))
    assert backing_of(daemon, "overlay") == "disk"
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 0 64k", "read -P 7 0 64k")


def test_a_bitmap_moves_to_the_overlay_in_one_transaction(daemon):
    "T20: snapshot, add above, merge from below, remove there."
    add_bitmap(daemon, "disk")
    add_bitmap(daemon, "disk", "b1")
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.qmp.transaction(
        sync(daemon),
        bitmap("add", "overlay", granularity=64 * KIB),
        ("block-dirty-bitmap-merge",
         {"node": "overlay", "target": "b0",
          "bitmaps": [{"node": "disk", "name": "b0"}]}),
        bitmap("remove", "disk"),
        bitmap("add", "overlay", "b1", granularity=64 * KIB),
        ("block-dirty-bitmap-merge",
         {"node": "overlay", "target": "b1",
          "bitmaps": [{"node": "disk", "name": "b1"}]}))
    assert sorted(bitmap_names(daemon, "overlay")) == ["b0", "b1"]
    assert bitmap_names(daemon, "disk") == ["b1"]
    assert dirty_bytes(daemon, "overlay") == 64 * KIB
    qemu_io(daemon.nbd_uri("disk"), "write -P 2 1M 64k")
    assert dirty_bytes(daemon, "overlay") == 128 * KIB
    assert dirty_bytes(daemon, "disk", "b1") == 64 * KIB


def test_a_failed_transaction_takes_the_overlay_off_again(daemon):
    "Nobody has seen it; the image file stays, the same command works."
    with pytest.raises(QmpError, match="abort"):
        daemon.qmp.transaction(sync(daemon), ("abort", {}))
    assert "overlay" not in {node["node-name"] for node in
                             daemon.qmp.command("query-named-block-nodes")}
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    with open(daemon.folder / "disk.raw", "rb") as file:
        assert file.read(1) == b"\1"
    daemon.qmp.command(*sync(daemon))
    qemu_io(daemon.nbd_uri("disk"), "read -P 1 0 64k", "write -P 2 0 64k")


def test_all_that_was_prepared_on_the_overlay_goes_with_it(daemon):
    "A second overlay, a bitmap and a job, undone in reverse."
    new_target(daemon, "target", SIZE)
    add_bitmap(daemon, "disk")
    add_overlay(daemon, "second")
    with pytest.raises(QmpError, match="abort"):
        daemon.qmp.transaction(
            sync(daemon), bitmap("add", "overlay"),
            ("block-dirty-bitmap-merge",
             {"node": "overlay", "target": "b0",
              "bitmaps": [{"node": "disk", "name": "b0"}]}),
            snapshot("overlay", "second"),
            bitmap("add", "second"),
            backup_action("second", "target", filter_node_name="cbw0"),
            ("abort", {}))
    left = {node["node-name"] for node in
            daemon.qmp.command("query-named-block-nodes")}
    assert not left & {"overlay", "cbw0"}
    assert backing_of(daemon, "second") is None
    assert daemon.qmp.command("query-jobs") == []
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    assert dirty_bytes(daemon, "disk") == 64 * KIB


def test_two_levels_at_one_instant(daemon):
    "A snapshot, and one of the overlay, in the same transaction."
    add_overlay(daemon, "second")
    daemon.qmp.transaction(sync(daemon), snapshot("overlay", "second"))
    assert backing_of(daemon, "second") == "overlay"
    assert backing_of(daemon, "overlay") == "disk"
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k", "read -P 1 0 64k")


def test_a_filter_above_an_overlay_of_the_same_transaction(daemon):
    "Guests end up on the filter, above the overlay, above the disk."
    new_target(daemon, "target", SIZE)
    daemon.qmp.transaction(
        sync(daemon),
        backup_action("overlay", "target", sync="none",
                      filter_node_name="cbw0"))
    export, = daemon.qmp.command("query-block-exports")
    assert export["node-name"] == "cbw0"
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.qmp.command("job-cancel", id="job-overlay")
    daemon.qmp.wait_job_gone("job-overlay")
    export, = daemon.qmp.command("query-block-exports")
    assert export["node-name"] == "overlay"
    qemu_io(daemon.nbd_uri("disk"), "read -P 1 0 64k")
    with open(daemon.folder / "disk.raw", "rb") as file:
        assert file.read(1) != b"\1"


def test_two_disks_at_one_instant_with_a_backup_of_the_new_top(daemon):
    "Snapshots of two disks and a job on one overlay, all in one."
    new_disk(daemon, "other", SIZE, seed=2)
    new_target(daemon, "target", SIZE)
    run("cp", daemon.folder / "disk.raw", daemon.folder / "before")
    daemon.qmp.transaction(
        sync(daemon), sync(daemon, "above", "other"),
        backup_action("overlay", "target", speed=1))
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.qmp.command("block-job-set-speed", device="job-overlay", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-overlay")["data"]
    run("cmp", daemon.folder / "before", daemon.folder / "target.raw")


def test_sync_top_copies_the_overlay_alone(daemon):
    "T18, T22: only what the top layer holds."
    daemon.qmp.command(*sync(daemon))
    qemu_io(daemon.nbd_uri("disk"), "write -P 5 1M 64k")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("overlay", "target", sync="top"))
    end = daemon.qmp.wait_job_gone("job-overlay")
    assert end["data"]["len"] == 64 * KIB
    qemu_io(daemon.folder / "target.raw", "read -P 0 0 1M",
            "read -P 5 1M 64k", "read -P 0 1088k 1M", read_only=True)


def test_a_filter_and_a_snapshot_above_it(daemon):
    "The overlay lies on the filter, then on the disk itself."
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="none",
                                      filter_node_name="cbw0"))
    daemon.qmp.command(*sync(daemon, node="cbw0"))
    assert backing_of(daemon, "overlay") == "cbw0"
    assert daemon.qmp.node("overlay")["image"]["backing-filename"] == \
        str(daemon.folder / "disk.raw")
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.qmp.command("job-cancel", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")
    assert backing_of(daemon, "overlay") == "disk"
    qemu_io(daemon.nbd_uri("disk"), "read -P 1 0 64k", "write -P 2 1M 64k")


def test_a_node_with_a_job_is_refused(daemon):
    "The job is named."
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", sync="none"))
    add_overlay(daemon)
    assert "'job-disk'" in daemon.qmp.error(*snapshot()).desc
    assert "'job-disk'" in daemon.qmp.error(*snapshot("target")).desc
    daemon.qmp.command("job-cancel", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")
    daemon.qmp.command(*snapshot())


def test_a_grouped_transaction_is_refused(daemon):
    "A snapshot cannot be undone when a job fails later."
    add_overlay(daemon)
    with pytest.raises(QmpError, match="grouped"):
        daemon.qmp.transaction(snapshot(), grouped=True)
    assert backing_of(daemon, "overlay") is None


@pytest.mark.parametrize("node, overlay, word", [
    ("nope", "overlay", "nope"),
    ("disk", "nope", "nope"),
    ("disk", "disk", "itself"),
    ("disk", "small", "1048576"),
    ("disk", "readonly", "read-only"),
    ("disk", "full", "backing"),
    ("disk", "raw", "no backing file"),
    ("overlay", "overlay", "itself"),
])
def test_what_does_not_fit_is_refused(daemon, node, overlay, word):
    "A clear error, and the guest goes on as before."
    add_overlay(daemon)
    add_overlay(daemon, "small", MIB)
    path = add_overlay(daemon, "tmp")
    daemon.qmp.command("blockdev-del", node_name="tmp")
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "readonly", "read-only": True,
        "file": {"driver": "file", "filename": str(path)}})
    for name in ("raw", "below"):
        new_target(daemon, name, SIZE)
    path = overlay_path(daemon, "full")
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "full", "backing": "below",
        "file": {"driver": "file", "filename": str(path)}})
    assert word in daemon.qmp.error(*snapshot(node, overlay)).desc
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")


def test_where_an_image_is_kept_nothing_is_put_above(daemon):
    "It would go on writing below, to what has become a backing file."
    path = daemon.folder / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, str(SIZE))
    run("truncate", "-s", SIZE, path)
    daemon.qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "image",
        "file": {"driver": "file", "node-name": "kept",
                 "filename": str(path)}})
    add_overlay(daemon)
    assert "'image'" in daemon.qmp.error(*snapshot("kept")).desc
    daemon.qmp.command(*snapshot("image"))


@pytest.mark.parametrize("members, word", [
    ({"device": "disk"}, "exactly one"),
    ({"snapshot-file": "/nowhere/at/all"}, "/nowhere/at/all"),
    ({"format": "raw"}, "qcow2"),
    ({"format": "vmdk"}, "vmdk"),
    ({"mode": "existing"}, "overlay.qcow2"),
    ({"snapshot-node-name": "disk"}, "exists already"),
    ({"snapshot-file": "nbd:localhost:1", "mode": "existing"}, "nbd"),
])
def test_a_snapshot_that_cannot_be_made_is_refused(daemon, members, word):
    "A clear error, and no node."
    before = daemon.qmp.command("query-named-block-nodes")
    kind, data = sync(daemon)
    assert word in daemon.qmp.error(kind, {**data, **members}).desc
    assert len(daemon.qmp.command("query-named-block-nodes")) == len(before)
