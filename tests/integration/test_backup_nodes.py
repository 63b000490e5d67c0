# SPDX-License-Identifier: BSD-3-Clause
"""What a backup does to nodes besides copying: its filter, discarding from
the source, copying in the kernel."""
import nbd
import pytest

from support.disks import (add_bitmap, add_disk, backup_action, dirty_bytes,
                           new_disk, new_target, raw_options)
from support.images import (KIB, MIB, allocated_bytes, assert_same, qemu_io,
                            random_image, run, sparse_image)

SIZE = 4 * MIB


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


def children(daemon, name):
    return {child["child"]: child["node-name"]
            for child in daemon.qmp.node(name)["children"]}


def export_node(daemon):
    return daemon.qmp.command("query-block-exports")[0]["node-name"]


def names(daemon):
    return {node["node-name"] for node in
            daemon.qmp.command("query-named-block-nodes")}


def start_filtered(daemon, **more):
    daemon.qmp.command(*backup_action("disk", "target", sync="none",
                                      filter_node_name="cbw0", **more))


def test_a_filter_lives_as_long_as_its_job(daemon, nbd_client):
    "A client goes on through it, before, during and after, on one connection."
    disk = new_disk(daemon, "disk", SIZE, seed=1)
    new_target(daemon, "target", SIZE)
    client = nbd_client(daemon.nbd_uri("disk"))
    client.pwrite(b"a" * 4096, 0)
    start_filtered(daemon)
    assert daemon.qmp.node("cbw0")["drv"] == "copy-before-write"
    assert children(daemon, "cbw0") == {"file": "disk"}
    assert export_node(daemon) == "cbw0"
    client.pwrite(b"b" * 4096, 4096)
    assert client.pread(4096, 0) == b"a" * 4096
    daemon.qmp.command("job-cancel", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")
    assert "cbw0" not in names(daemon)
    assert export_node(daemon) == "disk"
    client.pwrite(b"c" * 4096, 8192)
    client.shutdown()
    with open(disk, "rb") as file:
        assert file.read(3 * 4096) == b"".join(
            letter * 4096 for letter in (b"a", b"b", b"c"))


def test_what_goes_through_the_filter_is_saved_and_recorded(daemon):
    "Copy-before-write and bitmaps are the source's, and see it all."
    disk = new_disk(daemon, "disk", SIZE, seed=2)
    run("cp", disk, daemon.folder / "before")
    add_bitmap(daemon, "disk")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", speed=1,
                                      filter_node_name="cbw0"))
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 0 1M")
    assert dirty_bytes(daemon, "disk") == MIB
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(daemon.folder / "before", daemon.folder / "target.raw")


@pytest.mark.parametrize("members, word", [
    ({"filter-node-name": "disk"}, "exists already"),
    ({"filter-node-name": "0bad"}, "cannot be a node name"),
])
def test_a_name_that_cannot_be_is_refused(daemon, members, word):
    "A clear error, no job, no trace."
    new_disk(daemon, "disk", SIZE)
    new_target(daemon, "target", SIZE)
    before = names(daemon)
    kind, data = backup_action("disk", "target")
    assert word in daemon.qmp.error(kind, {**data, **members}).desc
    assert names(daemon) == before
    assert daemon.qmp.command("query-jobs") == []
    assert export_node(daemon) == "disk"
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")


def test_a_filter_goes_when_its_transaction_fails(daemon):
    "Prepared, and taken away again before any guest has seen it."
    new_disk(daemon, "disk", SIZE)
    new_target(daemon, "target", SIZE)
    before = names(daemon)
    with pytest.raises(Exception, match="abort"):
        daemon.qmp.transaction(
            backup_action("disk", "target", filter_node_name="cbw0"),
            ("abort", {}))
    assert names(daemon) == before
    assert export_node(daemon) == "disk"
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")


def test_two_jobs_have_a_filter_each(daemon):
    "The second one goes above the source too; they go in any order."
    new_disk(daemon, "disk", SIZE, seed=3)
    for name in ("target", "second"):
        new_target(daemon, name, SIZE)
    start_filtered(daemon)
    daemon.qmp.command(*backup_action("disk", "second", job="second",
                                      sync="none", filter_node_name="cbw1"))
    assert children(daemon, "cbw0") == {"file": "cbw1"}
    assert children(daemon, "cbw1") == {"file": "disk"}
    daemon.qmp.command("job-cancel", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")
    assert export_node(daemon) == "cbw1"
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.qmp.command("job-cancel", id="second")
    daemon.qmp.wait_job_gone("second")
    assert export_node(daemon) == "disk"


def test_a_filter_is_in_use_by_its_job(daemon):
    "It cannot be deleted, nor backed up itself."
    new_disk(daemon, "disk", SIZE)
    for name in ("target", "other"):
        new_target(daemon, name, SIZE)
    start_filtered(daemon)
    daemon.qmp.command("block-export-del", id="export-disk", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    error = daemon.qmp.error("blockdev-del", node_name="cbw0")
    assert "job 'job-disk'" in error.desc
    for device, target in (("cbw0", "other"), ("other", "cbw0")):
        error = daemon.qmp.error(*backup_action(device, target, job="j"))
        assert "filter" in error.desc or "in use" in error.desc
    daemon.qmp.command("job-cancel", id="job-disk")
    daemon.qmp.wait_job_gone("job-disk")


def test_discard_source_frees_what_has_been_copied(daemon):
    "The target is whole, the source is empty."
    disk = daemon.folder / "disk.raw"
    random_image(disk, SIZE, 4)
    run("cp", disk, daemon.folder / "before")
    daemon.qmp.command("blockdev-add", raw_options("disk", disk))
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", discard_source=True))
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(daemon.folder / "before", daemon.folder / "target.raw")
    assert allocated_bytes(disk) == 0


def test_discard_source_spares_what_guests_write(daemon):
    "A guest that writes meanwhile finds its data afterwards."
    disk = new_disk(daemon, "disk", SIZE, seed=5)
    run("cp", disk, daemon.folder / "before")
    new_target(daemon, "target", SIZE)
    daemon.qmp.command(*backup_action("disk", "target", discard_source=True,
                                      speed=256 * KIB))
    qemu_io(daemon.nbd_uri("disk"), *(f"write -P 9 {i * 256}k 64k"
                                      for i in range(16)))
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(daemon.folder / "before", daemon.folder / "target.raw")
    qemu_io(disk, *(f"read -P 9 {i * 256}k 64k" for i in range(16)),
            read_only=True)


def test_discard_source_of_a_read_only_disk_is_refused(daemon):
    "It needs to write there."
    path = sparse_image(daemon.folder / "disk.raw", SIZE)
    daemon.qmp.command("blockdev-add",
                       raw_options("disk", path, **{"read-only": True}))
    new_target(daemon, "target", SIZE)
    error = daemon.qmp.error(*backup_action("disk", "target",
                                            discard_source=True))
    assert "read-only" in error.desc


@pytest.mark.parametrize("target", ["plain", "null", "window"])
def test_copying_in_the_kernel_changes_nothing(daemon, target):
    "Equal images, with guests writing, whether the kernel can do it or not."
    disk = new_disk(daemon, "disk", SIZE + 512, seed=6)
    run("cp", disk, daemon.folder / "before")
    add_bitmap(daemon, "disk")
    path = sparse_image(daemon.folder / "target.raw", SIZE + 512)
    daemon.qmp.command("blockdev-add", {
        "plain": raw_options("target", path),
        "null": {"driver": "blkdebug", "node-name": "target",
                 "image": {"driver": "file", "filename": path}},
        "window": raw_options("target", path, offset=0),
    }[target])
    add_bitmap(daemon, "target", "t0")
    daemon.qmp.command(*backup_action("disk", "target", speed=256 * KIB,
                                      x_perf={"use-copy-range": True}))
    qemu_io(daemon.nbd_uri("disk"), *(f"write -P 9 {i * 256}k 64k"
                                      for i in range(16)))
    daemon.qmp.command("block-job-set-speed", device="job-disk", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert_same(daemon.folder / "before", path)
    assert dirty_bytes(daemon, "target", "t0") == SIZE + 64 * KIB
    assert dirty_bytes(daemon, "disk") == MIB


def test_ending_the_daemon_takes_the_filter_away(daemon):
    "The job is cancelled, and nothing is left open."
    new_disk(daemon, "disk", SIZE)
    new_target(daemon, "target", SIZE)
    start_filtered(daemon)
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 0 64k")
    daemon.quit()


def test_a_filter_over_a_disk_that_hangs_goes_later(
        cohortd, nbd_client, hanging_disk, request):
    "The job waits with it; everyone else is served meanwhile."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    add_disk(daemon, "disk", hanging_disk.path)
    new_target(daemon, "target", MIB)
    start_filtered(daemon)
    client = nbd_client(daemon.nbd_uri("disk"))
    client.pread(512, 0)
    hanging_disk.hang()
    client.aio_pread(nbd.Buffer(64 * KIB), 64 * KIB)
    hanging_disk.wait_for_hung("Read")
    daemon.qmp.command("job-cancel", id="job-disk")
    for _ in range(3):
        assert "cbw0" in names(daemon)
    assert [job["id"] for job in daemon.qmp.command("query-jobs")] == \
        ["job-disk"]
    hanging_disk.go_on()
    daemon.qmp.wait_job_gone("job-disk")
    assert "cbw0" not in names(daemon)
    client.pread(512, 0)
