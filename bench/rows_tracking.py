# SPDX-License-Identifier: BSD-3-Clause
"""What tracking costs: cohortd against itself, with and without bitmaps.

Sides are ways to keep the bitmap of one and the same daemon:
    none       there is none
    transient  in memory
    process    persistent, durability=process
    power      persistent, durability=power
    still      persistent, durability=power, and no checkpoint during the run
"""
import contextlib
import json
import os
import pathlib
import statistics
import tempfile
import time

from rows import Row, Sample, Scene, fio
from sides import StorageDaemon, cpu_seconds
from support import daemon as daemons
from support.disks import raw_options
from support.images import GIB, KIB, MIB, sparse_image

SIDES = ("none", "transient", "process", "power", "still")
WAYS = SIDES[:4]
NEVER_MS = 3600000
COLD_BYTES = 64 * GIB
TENTHS = 10


def tracking_options(side):
    "x-cohort-tracking of a node."
    if side == "process":
        return {"durability": "process"}
    return {"checkpoint-interval": NEVER_MS} if side == "still" else {}


def add_disk(server, side, path, node="disk", **more):
    options = raw_options(node, path)
    tracking = {**tracking_options(side), **more}
    if tracking:
        options["x-cohort-tracking"] = tracking
    server.qmp.command("blockdev-add", options)
    if side != "none":
        server.qmp.command("block-dirty-bitmap-add", node=node, name="b",
                           granularity=64 * KIB,
                           persistent=side != "transient")
    return server.export(node)


def fill_bits(uri, disk_bytes):
    "A write to each cluster: all bits set, as after a while of use."
    import nbd
    client = nbd.NBD()
    client.connect_uri(uri)
    for offset in range(0, disk_bytes, 64 * KIB):
        client.pwrite(client.pread(512, offset), offset)
    client.flush()
    client.shutdown()


@contextlib.contextmanager
def disk_in_memory(scene):
    """The path of a disk in a file system in memory. What the medium takes to
    write back would hide what the bitmaps cost; their tracking file is kept on
    the medium, in the state directory."""
    with tempfile.NamedTemporaryFile(prefix="cohort-bench-",
                                     dir="/dev/shm") as file:
        os.posix_fallocate(file.fileno(), 0, scene.disk_bytes)
        yield pathlib.Path(file.name)


@contextlib.contextmanager
def daemon_in(scene, side):
    server = StorageDaemon("cohortd", scene.room(side))
    try:
        yield server
    finally:
        server.stop()


def warm(depth):
    """Random writes where everything was written to before."""
    def measure(side, scene):
        with disk_in_memory(scene) as path, daemon_in(scene, side) as server:
            uri = add_disk(server, side, path, location="state-dir")
            fill_bits(uri, scene.disk_bytes)
            before = cpu_seconds(server.pid())
            job = fio(uri, scene, "randwrite", 4 * KIB, depth,
                      scene.runtime_s)["write"]
            spent = cpu_seconds(server.pid()) - before
        return Sample(job["iops"], spent / max(job["total_ios"], 1) * 1e6)
    return measure


def cold(depth, full_count, quick_count):
    """First touches: a sparse disk of 64 GiB that nobody has written to. Tells
    the rate of each tenth of the run, too."""
    def measure(side, scene):
        count = full_count if scene.disk_bytes >= GIB else quick_count
        room = scene.room(side)
        path = sparse_image(room / "cold.raw", COLD_BYTES)
        server = StorageDaemon("cohortd", room)
        tenths = []
        try:
            uri = add_disk(server, side, path)
            for _ in range(TENTHS):
                tenths.append(fio_part(uri, depth, count // TENTHS))
        finally:
            server.stop()
        seconds = sum(tenths)
        measure.tenths.setdefault(side, []).append(
            [count / TENTHS / part for part in tenths])
        return Sample(count / seconds)
    measure.tenths = {}
    return measure


def fio_part(uri, depth, count):
    "Seconds for so many writes, others in each part."
    scene = Scene(None, COLD_BYTES, None)
    result = fio(uri, scene, "randwrite", 4 * KIB, depth, None,
                 operations=count, more=("--randrepeat=0",))
    return result["write"]["runtime"] / 1e3


def fdatasync_us(folder, rounds=200):
    "Median of an overwrite of 512 bytes with its fdatasync."
    path = folder / "sync"
    path.write_bytes(bytes(MIB))
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    found = []
    for index in range(rounds):
        began = time.monotonic()
        os.pwrite(descriptor, bytes([index % 256]) * 512, index * 512)
        os.fdatasync(descriptor)
        found.append(time.monotonic() - began)
    os.close(descriptor)
    path.unlink()
    return statistics.median(found) * 1e6


def stop_and_start(side, scene):
    """Milliseconds for a clean end and a start with 64 disks, each with a
    write of its own since."""
    import nbd
    room = scene.room(side)
    server = StorageDaemon("cohortd", room)
    words = []
    for index in range(64):
        path = sparse_image(room / f"disk{index}.raw", 64 * GIB)
        client = nbd.NBD()
        client.connect_uri(add_disk(server, side, path, f"disk{index}"))
        client.pwrite(b"x" * 4096, index * MIB)
        client.flush()
        client.shutdown()
        options = raw_options(f"disk{index}", path)
        if tracking_options(side):
            options["x-cohort-tracking"] = tracking_options(side)
        words += ["--blockdev", json.dumps(options)]
    began = time.monotonic()
    server.daemon.quit()
    again = daemons.cohortd(room, *words)
    seconds = time.monotonic() - began
    again.finish()
    return Sample(seconds * 1e3)


def checkpoints(side, scene):
    """Microseconds that 99 of 100 writes need at most, one at a time, all over
    the disk; a checkpoint each 100 ms, or none."""
    more = {} if side == "still" else {"checkpoint-interval": 100}
    with disk_in_memory(scene) as path, daemon_in(scene, side) as server:
        uri = add_disk(server, side, path, location="state-dir", **more)
        fill_bits(uri, scene.disk_bytes)
        job = fio(uri, scene, "randwrite", 4 * KIB, 1, scene.runtime_s)
    return Sample(job["write"]["clat_ns"]["percentile"]["99.000000"] / 1e3)


def rows():
    found = [Row(f"tracking-warm-depth{depth}",
                 f"4k random write, depth {depth}, warm", "IOPS", True, WAYS,
                 warm(depth)) for depth in (32, 1)]
    return found + [
        Row("tracking-cold-depth32", "4k random write, depth 32, first touch",
            "IOPS", True, WAYS, cold(32, 2000000, 20000), 1),
        Row("tracking-cold-depth1", "4k random write, depth 1, first touch",
            "IOPS", True, WAYS, cold(1, 50000, 2000), 1),
        Row("tracking-restart", "clean stop and start, 64 disks", "ms", False,
            WAYS, stop_and_start),
        Row("tracking-checkpoint", "p99 of a write under checkpoints", "µs",
            False, ("still", "power"), checkpoints),
    ]
