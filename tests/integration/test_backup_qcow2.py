# SPDX-License-Identifier: BSD-3-Clause
"""Backups into qcow2 images and from them. Labels T10, T18, T22 are those of
docs/internals/differences-from-qemu.md."""
import json

import pytest

from support.chains import (add_qcow2, assert_equal_images, assert_sound,
                            close_node, new_layer)
from support.create import create_qcow2
from support.disks import add_bitmap, add_disk, dirty_bytes, new_disk
from support.images import (KIB, MIB, allocated_bytes, patchy_image, qemu_img,
                            qemu_io, random_image)

SIZE = 8 * MIB + 3 * 512


def backup(daemon, **arguments):
    """Runs a job to its end; how it ended."""
    command = "blockdev-backup"
    if arguments.pop("drive", False):
        command = "drive-backup"
    arguments = {"job_id": "job", "device": "disk", "sync": "full",
                 **arguments}
    daemon.qmp.command(command, **arguments)
    end = daemon.qmp.wait_job_gone("job")
    assert end["event"] == "BLOCK_JOB_COMPLETED", end
    return end["data"]


def done(daemon, **arguments):
    data = backup(daemon, **arguments)
    assert "error" not in data, data
    return data


def reference(daemon, name="disk"):
    """A raw copy of the disk as it is now."""
    path = daemon.folder / "reference.raw"
    qemu_img("convert", "-O", "raw", daemon.nbd_uri(name), path)
    return path


def source_disk(daemon, kind, **options):
    """A disk with some content, raw or qcow2, exported."""
    content = patchy_image(daemon.folder / "content.raw", SIZE, seed=5)
    if kind == "raw":
        return add_disk(daemon, "disk", content)
    path = daemon.folder / "disk.qcow2"
    create_qcow2(daemon, path, SIZE, **options)
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", content, path)
    return add_qcow2(daemon, "disk", path)


def writes(daemon, seed, name="disk"):
    """Other ones for each seed: data, zeroes and discards, in pieces."""
    qemu_io(daemon.nbd_uri(name), f"write -P {seed} {seed * 300}k 70k",
            f"write -z {1000 + seed * 200}k 100k",
            f"discard {5000 + seed * 128}k 128k",
            f"write -P {seed + 50} {7000 + seed * 10}k 1k")


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("options", [
    {}, {"cluster_size": 512}, {"cluster_size": 2 * MIB},
    {"extended_l2": True}, {"refcount_bits": 64}, {"version": "v2"},
    {"preallocation": "metadata"}, {"compression_type": "zstd"}],
    ids=lambda options: ",".join(map(str, options.values())) or "-")
def test_a_full_backup_into_an_image_of_each_kind(cohortd, kind, options):
    "The image holds the disk as it was; qemu-img finds it sound."
    daemon = cohortd(nbd=True)
    source_disk(daemon, kind)
    path = new_layer(daemon, "target", SIZE, **options)
    want = reference(daemon)
    done(daemon, target="target")
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, want)


GRANULARITIES = [32 * KIB, 64 * KIB, 128 * KIB]


@pytest.mark.parametrize("cluster", [64 * KIB, 128 * KIB])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_t10_increments_in_a_chain(cohortd, granularity, cluster):
    """T10: a full backup and three increments, each an overlay of the one
    before: each equals the disk as it was then."""
    daemon = cohortd(nbd=True)
    source_disk(daemon, "qcow2")
    add_bitmap(daemon, "disk", granularity=granularity)
    below = new_layer(daemon, "full", SIZE, cluster_size=cluster)
    done(daemon, target="full")
    close_node(daemon, "full")
    chain = []
    for seed in range(1, 4):
        writes(daemon, seed)
        want = random_copy(daemon, seed)
        below = new_layer(daemon, f"inc{seed}", SIZE, below,
                          cluster_size=cluster)
        done(daemon, target=f"inc{seed}", sync="incremental", bitmap="b0")
        assert dirty_bytes(daemon, "disk") == 0
        close_node(daemon, f"inc{seed}")
        chain.append((below, want))
    for path, want in chain:
        assert_sound(path)
        assert_equal_images(path, want)
    assert_equal_images(chain[-1][0], reference(daemon))


def random_copy(daemon, seed):
    path = daemon.folder / f"then{seed}.raw"
    reference(daemon).rename(path)
    return path


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_t10_a_target_with_no_backing_file_yet(cohortd, granularity, kind):
    """T10: clusters of 128 KiB and no backing file; that is attached later.
    Whole clusters are copied, and what is zero now hides what was not."""
    daemon = cohortd(nbd=True)
    source_disk(daemon, kind)
    qemu_io(daemon.nbd_uri("disk"), "write -P 77 2M 1M")
    add_bitmap(daemon, "disk", granularity=granularity)
    base = new_layer(daemon, "full", SIZE)
    done(daemon, target="full")
    close_node(daemon, "full")
    writes(daemon, 3)
    qemu_io(daemon.nbd_uri("disk"), "write -z 2M 512k", "discard 2560k 256k")
    path = new_layer(daemon, "late", SIZE, cluster_size=128 * KIB)
    done(daemon, target="late", sync="incremental", bitmap="b0")
    close_node(daemon, "late")
    qemu_img("rebase", "-u", "-b", base, "-F", "qcow2", path)
    assert_sound(path)
    assert_equal_images(path, reference(daemon))


def test_a_guest_overwrites_during_a_backup_into_an_overlay(cohortd):
    "What copy-before-write saves lands in the overlay, in whole clusters."
    daemon = cohortd(nbd=True)
    source_disk(daemon, "qcow2")
    add_bitmap(daemon, "disk")
    base = new_layer(daemon, "full", SIZE)
    done(daemon, target="full")
    close_node(daemon, "full")
    writes(daemon, 1)
    want = reference(daemon)
    path = new_layer(daemon, "target", SIZE, base, cluster_size=256 * KIB)
    daemon.qmp.command("blockdev-backup", job_id="job", device="disk",
                       target="target", sync="incremental", bitmap="b0",
                       speed=1)
    qemu_io(daemon.nbd_uri("disk"), "write -P 9 0 2M", "write -z 4M 1M",
            "discard 5M 1M")
    daemon.qmp.command("block-job-set-speed", device="job", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, want)


# --- drive-backup ---------------------------------------------------------------

def describe(path):
    return json.loads(qemu_img("info", "-U", "--output=json", path))


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_drive_backup_makes_the_format_of_its_source(cohortd, kind):
    "Unless another is asked for."
    daemon = cohortd(nbd=True)
    source_disk(daemon, kind)
    want = reference(daemon)
    other = {"raw": "qcow2", "qcow2": "raw"}[kind]
    for form, more in ((kind, {}), (other, {"format": other})):
        path = daemon.folder / f"copy-{form}"
        done(daemon, drive=True, target=str(path), **more)
        assert describe(path)["format"] == form
        said = qemu_img("compare", "-f", form, "-F", "raw", path, want)
        assert said.startswith("Images are identical")


def test_drive_backup_finds_the_format_of_an_existing_file(cohortd):
    daemon = cohortd(nbd=True)
    source_disk(daemon, "raw")
    path = create_qcow2(daemon, daemon.folder / "target", SIZE,
                        cluster_size=4 * KIB)
    done(daemon, drive=True, target=path, mode="existing")
    assert describe(path)["cluster-size"] == 4 * KIB
    assert_sound(path)
    assert_equal_images(path, reference(daemon))


def test_an_existing_image_of_another_size_is_refused(cohortd):
    daemon = cohortd(nbd=True)
    source_disk(daemon, "raw")
    path = create_qcow2(daemon, daemon.folder / "target", SIZE + 512)
    error = daemon.qmp.error("drive-backup", job_id="job", device="disk",
                             sync="full", target=path, mode="existing")
    assert "equal sizes" in error.desc
    assert len(daemon.qmp.command("query-named-block-nodes")) == 2


def overlay_disk(daemon, **options):
    """A disk of two layers: `disk` over `base`."""
    base = random_image(daemon.folder / "base.raw", SIZE, seed=8)
    path = new_layer(daemon, "disk", SIZE, base, "raw", export=True, **options)
    qemu_io(daemon.nbd_uri("disk"), "write -P 1 100k 30k", "write -P 2 3M 1M",
            "write -z 5M 200k")
    return base, path


def own_bytes(path):
    """How much the image holds itself."""
    return sum(extent["length"] for extent in
               json.loads(qemu_img("map", "-U", "--output=json", path))
               if extent["depth"] == 0 and extent["data"])


def test_t22_top_copies_the_top_layer(cohortd):
    """T22: drive-backup makes an image over the source's backing file, with
    what the source's own layer holds, zeroes included."""
    daemon = cohortd(nbd=True)
    base, _ = overlay_disk(daemon)
    path = daemon.folder / "copy.qcow2"
    data = done(daemon, drive=True, sync="top", target=str(path))
    assert describe(path)["backing-filename"] == base
    assert describe(path)["backing-filename-format"] == "raw"
    assert_sound(path)
    assert_equal_images(path, reference(daemon))
    assert own_bytes(path) <= 30 * KIB + MIB + 3 * 64 * KIB
    assert data["len"] == data["offset"] < 2 * MIB


@pytest.mark.parametrize("cluster", [4 * KIB, 64 * KIB, 256 * KIB])
@pytest.mark.parametrize("target_cluster", [4 * KIB, 256 * KIB])
def test_t22_top_with_other_cluster_sizes(cohortd, cluster, target_cluster):
    "A cluster of the job of which the layer has a part is copied whole."
    daemon = cohortd(nbd=True)
    base, _ = overlay_disk(daemon, cluster_size=cluster)
    path = new_layer(daemon, "target", SIZE, base, "raw",
                     cluster_size=target_cluster)
    done(daemon, sync="top", target="target")
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, reference(daemon))
    assert own_bytes(path) < 3 * MIB


def test_top_of_a_disk_of_one_layer_is_full(cohortd):
    daemon = cohortd(nbd=True)
    source_disk(daemon, "qcow2")
    path = daemon.folder / "copy"
    data = done(daemon, drive=True, sync="top", target=str(path))
    assert "backing-filename" not in describe(path)
    assert_equal_images(path, reference(daemon))
    assert data["len"] == SIZE


def test_t22_top_keeps_the_instant(cohortd):
    "Guests that write to either kind of place meanwhile change nothing of it."
    daemon = cohortd(nbd=True)
    overlay_disk(daemon)
    want = reference(daemon)
    path = daemon.folder / "copy"
    daemon.qmp.command("drive-backup", job_id="job", device="disk", sync="top",
                       target=str(path), speed=1)
    qemu_io(daemon.nbd_uri("disk"), "write -P 99 0 1M", "write -P 98 6M 1M")
    daemon.qmp.command("block-job-set-speed", device="job", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
    assert_sound(path)
    assert_equal_images(path, want)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_none_makes_an_image_over_the_source(cohortd, kind):
    """What guests overwrite is in it; the rest, and what is overwritten with
    zeroes of old, it shows through the source."""
    daemon = cohortd(nbd=True)
    source = source_disk(daemon, kind)
    want = reference(daemon)
    path = daemon.folder / "copy"
    daemon.qmp.command("drive-backup", job_id="job", device="disk",
                       sync="none", target=str(path), format="qcow2")
    writes(daemon, 2)
    qemu_io(daemon.nbd_uri("disk"), "write -P 3 0 8M")
    daemon.qmp.command("block-job-cancel", device="job")
    assert daemon.qmp.wait_job_gone("job")["event"] == "BLOCK_JOB_CANCELLED"
    assert describe(path)["backing-filename"] == source
    assert_sound(path)
    assert_equal_images(path, want)


def test_none_into_an_existing_image_lies_over_the_source(cohortd):
    daemon = cohortd(nbd=True)
    source = source_disk(daemon, "raw")
    want = reference(daemon)
    path = create_qcow2(daemon, daemon.folder / "copy", SIZE,
                        backing_file=source, backing_fmt="raw")
    daemon.qmp.command("drive-backup", job_id="job", device="disk",
                       sync="none", target=path, mode="existing")
    writes(daemon, 2)
    daemon.qmp.command("block-job-cancel", device="job")
    daemon.qmp.wait_job_gone("job")
    assert_sound(path)
    assert_equal_images(path, want)


# --- compress -------------------------------------------------------------------

@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", [64 * KIB, 256 * KIB])
def test_a_compressed_backup_is_small_and_right(cohortd, compression, cluster):
    daemon = cohortd(nbd=True)
    source_disk(daemon, "qcow2")
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 1M 4M")
    plain = new_layer(daemon, "plain", SIZE)
    path = new_layer(daemon, "target", SIZE, compression_type=compression,
                     cluster_size=cluster)
    done(daemon, target="plain")
    done(daemon, target="target", compress=True)
    close_node(daemon, "plain")
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, reference(daemon))
    assert allocated_bytes(path) < allocated_bytes(plain) - 3 * MIB


def test_a_compressed_increment_lies_over_the_full_backup(cohortd):
    daemon = cohortd(nbd=True)
    source_disk(daemon, "raw")
    add_bitmap(daemon, "disk")
    base = daemon.folder / "full"
    done(daemon, drive=True, format="qcow2", target=str(base), compress=True,
         bitmap="b0", bitmap_mode="on-success")
    writes(daemon, 4)
    path = new_layer(daemon, "target", SIZE, base)
    done(daemon, target="target", compress=True, sync="incremental",
         bitmap="b0")
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, reference(daemon))


def test_guests_write_during_a_compressed_backup(cohortd):
    "What they overwrite is compressed, too, and is the old content."
    daemon = cohortd(nbd=True)
    source_disk(daemon, "qcow2")
    want = reference(daemon)
    path = new_layer(daemon, "target", SIZE)
    daemon.qmp.command("blockdev-backup", job_id="job", device="disk",
                       target="target", sync="full", compress=True, speed=1)
    qemu_io(daemon.nbd_uri("disk"), "write -P 9 0 8M")
    daemon.qmp.command("block-job-set-speed", device="job", speed=0)
    assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
    close_node(daemon, "target")
    assert_sound(path)
    assert_equal_images(path, want)


@pytest.mark.parametrize("command", ["drive-backup", "blockdev-backup"])
def test_a_raw_target_takes_nothing_compressed(cohortd, command):
    "Refused at once, by name."
    daemon = cohortd(nbd=True)
    source_disk(daemon, "raw")
    new_disk(daemon, "target", SIZE, export=False)
    target = {"drive-backup": str(daemon.folder / "copy"),
              "blockdev-backup": "target"}[command]
    error = daemon.qmp.error(command, job_id="job", device="disk", sync="full",
                             target=target, compress=True)
    assert "compress" in error.desc
    assert daemon.qmp.command("query-jobs") == []
