# SPDX-License-Identifier: BSD-3-Clause
"""blockdev-create: images that qemu-img finds sound and describes as its own,
and jobs that behave as those of qemu-storage-daemon."""
import json

import pytest

from support.create import create, create_job, create_qcow2, file_node
from support.images import (GIB, KIB, MIB, TIB, allocated_bytes, qemu_img,
                            qemu_io, random_image, read_at, run, sparse_image)


def describe(path):
    """What qemu-img info says, without what two files never share."""
    info = json.loads(qemu_img("info", "--output=json", path))
    for key in ("filename", "actual-size"):
        del info[key]
    info["format-specific"]["data"].pop("data-file", None)
    return info


def assert_sound(path):
    """No leak, no corruption, nothing repaired."""
    result = run("qemu-img", "check", "-f", "qcow2", "--output=json", path)
    found = json.loads(result.stdout)
    assert found.get("leaks", 0) == found.get("corruptions", 0) == 0, found
    return found


def twin_options(options):
    """Members of BlockdevCreateOptions as options of qemu-img create."""
    words = {"backing-file": "backing_file", "backing-fmt": "backing_fmt"}
    parts = []
    for key, value in options.items():
        if key == "version":
            key, value = "compat", {"v2": "0.10", "v3": "1.1"}[value]
        if isinstance(value, bool):
            value = "on" if value else "off"
        key = words.get(key, key.replace("-", "_"))
        parts.append(f"{key}={value}")
    return ["-o", ",".join(parts)] if parts else []


VARIANTS = [
    {},
    {"version": "v2"},
    {"lazy-refcounts": True},
    {"compression-type": "zstd"},
    {"extended-l2": True},
    {"extended-l2": True, "cluster-size": 16 * KIB},
    *({"cluster-size": 1 << bits} for bits in range(9, 22)),
    *({"refcount-bits": 1 << order} for order in range(7)),
    *({"preallocation": mode} for mode in ("metadata", "falloc", "full")),
    *({"preallocation": "metadata", "refcount-bits": 1 << order}
      for order in range(7)),
    *({"preallocation": "metadata", "cluster-size": 1 << bits}
      for bits in (9, 12, 21)),
    {"preallocation": "metadata", "version": "v2"},
    {"preallocation": "metadata", "extended-l2": True},
    {"preallocation": "metadata", "cluster-size": 512, "refcount-bits": 64},
    {"preallocation": "falloc", "extended-l2": True, "cluster-size": 2 * MIB},
]


def name_of(options):
    return ",".join(f"{key}={value}" for key, value in options.items()) or "-"


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
def test_an_image_is_as_one_of_qemu_img(cohortd, options):
    "qemu-img finds it sound, empty, and describes it as one it made itself."
    daemon = cohortd()
    size = 21 * MIB + 512
    ours = create_qcow2(daemon, daemon.folder / "ours", size, **options)
    theirs = str(daemon.folder / "theirs")
    qemu_img("create", "-q", "-f", "qcow2", *twin_options(options), theirs,
             str(size))
    assert_sound(ours)
    assert describe(ours) == describe(theirs)
    assert qemu_img("compare", ours, theirs).startswith("Images are identical")


@pytest.mark.parametrize("options", VARIANTS, ids=name_of)
def test_qemu_writes_into_it(cohortd, options):
    "What qemu-io writes is there after, and the image is still sound."
    daemon = cohortd()
    path = create_qcow2(daemon, daemon.folder / "image", 5 * MIB, **options)
    qemu_io(path, "write -P 1 0 70k", "write -P 2 3M 1M", "write -z 4M 1k",
            image_format="qcow2")
    qemu_io(path, "read -P 1 0 70k", "read -P 0 70k 2000k",
            "read -P 2 3M 1M", image_format="qcow2")
    assert_sound(path)


@pytest.mark.parametrize("size", [0, 512, TIB, 64 * TIB],
                         ids=["0", "512", "1T", "64T"])
def test_any_size_will_do(cohortd, size):
    "From nothing to 64 TiB, without taking space for it."
    daemon = cohortd()
    path = create_qcow2(daemon, daemon.folder / "image", size)
    assert_sound(path)
    assert describe(path)["virtual-size"] == size
    assert allocated_bytes(path) < MIB


def test_a_large_image_has_all_its_tables(cohortd):
    "64 GiB with preallocated metadata: a million clusters, counted and mapped."
    daemon = cohortd()
    path = create_qcow2(daemon, daemon.folder / "image", GIB * 64,
                        preallocation="metadata")
    assert assert_sound(path)["allocated-clusters"] == MIB
    assert allocated_bytes(path) < 32 * MIB


@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_preallocation_takes_the_space(cohortd, mode):
    daemon = cohortd()
    path = create_qcow2(daemon, daemon.folder / "image", 8 * MIB,
                        preallocation=mode)
    assert allocated_bytes(path) >= 8 * MIB
    qemu_io(path, "read -P 0 0 8M", image_format="qcow2")


def test_what_was_in_the_file_is_gone(cohortd):
    "An old, larger content shows nowhere."
    daemon = cohortd()
    path = random_image(daemon.folder / "image", 4 * MIB)
    create(daemon, driver="qcow2", file=file_node(path), size=2 * MIB,
           preallocation="metadata")
    qemu_io(path, "read -P 0 0 2M", image_format="qcow2")
    assert_sound(path)


def test_a_backing_file_is_written_as_named(cohortd):
    "The name is not opened; qemu reads through it, relative to the image."
    daemon = cohortd()
    random_image(daemon.folder / "base", MIB)
    for options in ({}, {"extended-l2": True, "preallocation": "metadata"}):
        path = create_qcow2(daemon, daemon.folder / "image", MIB,
                            backing_file="base", backing_fmt="raw", **options)
        assert describe(path)["backing-filename"] == "base"
        assert describe(path)["backing-filename-format"] == "raw"
        assert qemu_img("compare", path, daemon.folder / "base").startswith(
            "Images are identical")
        assert_sound(path)


@pytest.mark.parametrize("options", [
    {}, {"preallocation": "metadata"}, {"data-file-raw": True},
    {"extended-l2": True, "data-file-raw": True}], ids=name_of)
def test_an_external_data_file(cohortd, options):
    "The data lies in it; the image names it, and is sound."
    daemon = cohortd()
    data, path = daemon.folder / "data", daemon.folder / "image"
    create(daemon, driver="file", filename=str(data), size=0)
    path = create_qcow2(daemon, path, 3 * MIB, data_file=file_node(data),
                        **options)
    theirs = str(daemon.folder / "theirs")
    qemu_img("create", "-q", "-f", "qcow2", *twin_options(
        {**options, "data_file": f"{daemon.folder}/other"}), theirs,
        str(3 * MIB))
    assert_sound(path)
    assert describe(path) == describe(theirs)
    qemu_io(path, "write -P 5 1M 1M", image_format="qcow2")
    assert read_at(data, MIB, MIB) == b"\5" * MIB
    assert_sound(path)


def test_a_raw_data_file_keeps_what_it_holds(cohortd):
    "A disk that is there can be put under a qcow2 image."
    daemon = cohortd()
    data = random_image(daemon.folder / "data", 3 * MIB)
    path = create_qcow2(daemon, daemon.folder / "image", 3 * MIB,
                        data_file=file_node(data), data_file_raw=True)
    assert qemu_img("compare", path, data, "-f", "qcow2", "-F",
                    "raw").startswith("Images are identical")


REFUSED = [
    {"cluster-size": 4097}, {"cluster-size": 256}, {"cluster-size": 4 * MIB},
    {"cluster-size": 1 << 40},
    {"cluster-size": 8 * KIB, "extended-l2": True},
    {"refcount-bits": 3}, {"refcount-bits": 128}, {"refcount-bits": 0},
    {"version": "v2", "refcount-bits": 8},
    {"version": "v2", "lazy-refcounts": True},
    {"version": "v2", "extended-l2": True},
    {"version": "v2", "compression-type": "zstd"},
    {"data-file-raw": True},
    {"backing-file": "x", "backing-fmt": "raw", "preallocation": "metadata"},
    {"backing-fmt": "raw"},
    {"size": 1000}, {"size": 1 << 62},
    {"size": 256 * GIB, "cluster-size": 512},
    {"file": "nosuch"}, {"file": "read-only"}, {"data-file": "nosuch"},
    {"data-file": "file"},
]


@pytest.mark.parametrize("name", ["cohortd", "qsd"])
@pytest.mark.parametrize("options", REFUSED, ids=name_of)
def test_what_cannot_be_is_a_failed_job(request, name, options):
    "Both daemons start the job, and it fails; nothing else is disturbed."
    daemon = request.getfixturevalue(name)()
    for node, read_only in (("file", False), ("read-only", True)):
        path = sparse_image(daemon.folder / node, MIB)
        daemon.qmp.command("blockdev-add", {
            **file_node(path), "node-name": node, "read-only": read_only})
    info = create_job(daemon, **{"driver": "qcow2", "file": "file",
                                 "size": MIB, **options})
    assert info["error"]
    assert len(daemon.qmp.command("query-named-block-nodes")) == 2


@pytest.mark.parametrize("name", ["cohortd", "qsd"])
@pytest.mark.parametrize("options", [
    {"driver": "null-co", "size": MIB},
    {"driver": "raw", "file": "file", "size": MIB},
    {"driver": "qcow2", "size": MIB},
    {"driver": "file", "filename": "x"},
    {"driver": "qcow2", "file": "file", "size": "1M"},
    {"driver": "qcow2", "file": "file", "size": MIB, "backing-file": "x",
     "backing-fmt": "bogus"},
    {"driver": "qcow2", "file": "file", "size": MIB, "version": "v4"},
], ids=name_of)
def test_what_makes_no_sense_is_refused_at_once(request, name, options):
    "Without a job."
    daemon = request.getfixturevalue(name)()
    error = daemon.qmp.error("blockdev-create", job_id="j", options=options)
    assert error.error_class == "GenericError"
    assert daemon.qmp.command("query-jobs") == []


def job_events(daemon):
    return [(event["event"], event["data"].get("status"))
            for event in daemon.qmp.event_log]


@pytest.mark.parametrize("works", [True, False])
def test_the_job_lives_as_in_qemu(cohortd, qsd, works):
    """The same events, no block job's among them; listed by query-jobs alone,
    until it is dismissed."""
    seen = []
    for daemon in (cohortd(), qsd()):
        path = daemon.folder / ("new" if works else "no/where")
        info = create_job(daemon, driver="file", filename=str(path), size=MIB)
        daemon.qmp.wait_event("JOB_STATUS_CHANGE", status="null")
        assert daemon.qmp.command("query-jobs") == []
        for key in ("id", "error"):
            assert bool(info.pop(key, None)) == (key == "id" or not works)
        seen.append((info, job_events(daemon)))
    assert seen[0] == seen[1]


def test_the_job_is_no_block_job(cohortd):
    daemon = cohortd()
    daemon.qmp.command("blockdev-create", job_id="j", options={
        "driver": "file", "filename": "/no/where", "size": MIB})
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="j", status="concluded")
    assert daemon.qmp.command("query-block-jobs") == []
    assert "No such file" in daemon.qmp.command("query-jobs")[0]["error"]
    error = daemon.qmp.error("blockdev-create", job_id="j", options={
        "driver": "file", "filename": "/no/where", "size": MIB})
    assert "'j'" in error.desc


@pytest.mark.parametrize("what", ["file", "qcow2", "data-file"])
def test_a_cancelled_job_stops_soon(cohortd, what):
    "Before all zeroes are written."
    daemon = cohortd()
    path, data = daemon.folder / "new", daemon.folder / "data"
    data.touch()
    create(daemon, driver="file", filename=str(path), size=0)
    options = {"file": file_node(path)} if what != "file" else {
        "filename": str(path)}
    if what == "data-file":
        options["data-file"] = file_node(data)
    daemon.qmp.command("blockdev-create", job_id="j", options={
        "driver": "file" if what == "file" else "qcow2", "size": 4 * GIB,
        "preallocation": "full", **options})
    daemon.qmp.command("job-cancel", id="j")
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id="j", status="concluded")
    info = next(info for info in daemon.qmp.command("query-jobs"))
    assert info["error"] == "Operation canceled"
    assert allocated_bytes(path) + allocated_bytes(data) < 4 * GIB
    assert daemon.qmp.command("query-named-block-nodes") == []


@pytest.mark.parametrize("job", ["", "1x", "a b"])
def test_a_bad_job_id_is_refused(cohortd, job):
    error = cohortd().qmp.error("blockdev-create", job_id=job, options={
        "driver": "file", "filename": "/no/where", "size": MIB})
    assert error.error_class == "GenericError"


def test_a_file_in_use_is_not_touched(cohortd):
    "An image that a node has open keeps its content."
    daemon = cohortd()
    path = random_image(daemon.folder / "image", MIB)
    before = read_at(path, 0, MIB)
    daemon.qmp.command("blockdev-add", {"driver": "raw", "node-name": "disk",
                                        "file": file_node(path)})
    daemon.qmp.command("nbd-server-start", {"addr": {
        "type": "unix", "data": {"path": str(daemon.folder / "nbd")}}})
    daemon.qmp.command("block-export-add", {
        "type": "nbd", "id": "e", "node-name": "disk", "writable": True})
    for options in ({"driver": "file", "filename": path, "size": 0},
                    {"driver": "qcow2", "file": file_node(path), "size": MIB}):
        assert create_job(daemon, **options)["error"]
    assert read_at(path, 0, MIB) == before


@pytest.mark.parametrize("mode,space", [("off", 0), ("falloc", MIB),
                                        ("full", MIB)])
def test_a_file_of_its_own(cohortd, mode, space):
    "driver=file: emptied, of the size asked for, with the space promised."
    daemon = cohortd()
    path = random_image(daemon.folder / "file", 2 * MIB)
    create(daemon, driver="file", filename=path, size=MIB, preallocation=mode)
    assert read_at(path, 0, 2 * MIB) == bytes(MIB)
    assert allocated_bytes(path) >= space
    assert allocated_bytes(path) <= space + 64 * KIB


def test_a_file_has_no_metadata(cohortd, qsd):
    for daemon in (cohortd(), qsd()):
        info = create_job(daemon, driver="file", size=MIB,
                          filename=str(daemon.folder / "new"),
                          preallocation="metadata")
        assert info["error"]
