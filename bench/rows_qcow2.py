# SPDX-License-Identifier: BSD-3-Clause
"""The rows about qcow2.

A daemon keeps what it changed in an image's tables in memory until it must
write it. So a backup into qcow2 is timed until the target's node has been
deleted, which stores its tables, and the file is synced, on all sides.
"""
import time

from rows import (STORAGE_DAEMONS, Row, Sample, backup_action, cpu_seconds,
                  finish, fio, resident_mib, run, settle, sync_file)
from sides import StorageDaemon
from support.images import GIB, KIB, MIB, TIB, qemu_img

# Allocating writes: so many, each of 4 KiB, spread over a disk that is much
# larger, so that nearly every one needs a cluster.
FRESH_WRITES = 20000
FRESH_BYTES = 64 * GIB
DIRTY_CLUSTERS = 2000
SCATTERED_READS = 20000


def create(path, size, *options):
    """A new image, on disk and out of the page cache."""
    words = ["create", "-q", "-f", "qcow2"]
    for option in options:
        words += ["-o", option]
    run("qemu-img", *words, path, str(size), timeout=600)
    settle(path)
    return path


def made_once(scene, name, make):
    path = scene.folder / name
    if not path.exists():
        make(path)
    settle(path)
    return path


def preallocated(scene, size, name):
    return made_once(scene, name, lambda path: create(
        path, size, "preallocation=metadata"))


def start(side, scene, path):
    """A server with a qcow2 disk; returns it and the disk's URI."""
    server = StorageDaemon(side, scene.room(side))
    server.add_qcow2("disk", path)
    return server, server.export("disk")


def preallocated_throughput(mode):
    def measure(side, scene):
        path = preallocated(scene, scene.disk_bytes, "preallocated.qcow2")
        server, uri = start(side, scene, path)
        try:
            run("nbdcopy", uri, "null:", timeout=600)
            before = cpu_seconds(server.pid())
            job = fio(uri, scene, mode, 4 * KIB, 32, scene.runtime_s)
            spent = cpu_seconds(server.pid()) - before
        finally:
            server.stop()
        part = job["read" if "read" in mode else "write"]
        return Sample(part["iops"],
                      spent / max(part["total_ios"], 1) * 1e6)
    return measure


def fresh_read(side, scene):
    room = scene.room(side)
    server = StorageDaemon(side, room)
    try:
        server.add_qcow2("disk", create(room / "fresh.qcow2", FRESH_BYTES))
        uri = server.export("disk")
        before = cpu_seconds(server.pid())
        job = fio(uri, scene, "randread", 4 * KIB, 32, scene.runtime_s,
                  FRESH_BYTES)
        spent = cpu_seconds(server.pid()) - before
    finally:
        server.stop()
    part = job["read"]
    return Sample(part["iops"], spent / max(part["total_ios"], 1) * 1e6)


def fresh_write(side, scene):
    """A fixed number of writes, timed until a flush after the last."""
    import nbd
    room = scene.room(side)
    server = StorageDaemon(side, room)
    try:
        server.add_qcow2("disk", create(room / "fresh.qcow2", FRESH_BYTES))
        uri = server.export("disk")
        client = nbd.NBD()
        client.connect_uri(uri)
        before = cpu_seconds(server.pid())
        job = fio(uri, scene, "randwrite", 4 * KIB, 32, None, FRESH_BYTES,
                  operations=FRESH_WRITES)
        began = time.monotonic()
        client.flush()
        flush_s = time.monotonic() - began
        spent = cpu_seconds(server.pid()) - before
        client.shutdown()
    finally:
        server.stop()
    part = job["write"]
    seconds = part["runtime"] / 1e3 + flush_s
    return Sample(part["total_ios"] / seconds,
                  spent / max(part["total_ios"], 1) * 1e6)


def backup_full(source_format):
    """Of a whole disk into a new qcow2; MiB/s until it is durable."""
    def measure(side, scene):
        source = scene.disk()
        if source_format == "qcow2":
            source = made_once(scene, "disk.qcow2", lambda path: qemu_img(
                "convert", "-O", "qcow2", scene.disk(), path))
        room = scene.room(side)
        target = create(room / "copy.qcow2", scene.disk_bytes)
        server = StorageDaemon(side, room)
        try:
            if source_format == "qcow2":
                server.add_qcow2("disk", source)
            else:
                server.add_disk("disk", source)
            server.add_qcow2("copy", target)
            before = cpu_seconds(server.pid())
            began = time.monotonic()
            copy_until_durable(server, target, backup_action("disk", "copy"))
            seconds = time.monotonic() - began
            spent = cpu_seconds(server.pid()) - before
        finally:
            server.stop()
        return Sample(scene.disk_bytes / MIB / seconds,
                      spent / (scene.disk_bytes / MIB) * 1e6)
    return measure


def copy_until_durable(server, target, action):
    server.qmp.transaction(action)
    finish(server, ["disk"], [])
    server.qmp.command("blockdev-del", node_name="copy")
    sync_file(target)


def backup_incremental(side, scene):
    """A qcow2 disk of 1 TiB with scattered dirty clusters, into an overlay of
    the previous point; milliseconds until durable."""
    import nbd
    room = scene.room(side)
    server = StorageDaemon(side, room)
    try:
        base = create(room / "base.qcow2", TIB)
        target = create(room / "overlay.qcow2", TIB,
                        f"backing_file={base}", "backing_fmt=qcow2")
        server.add_qcow2("disk", create(room / "disk.qcow2", TIB))
        server.add_qcow2("copy", target)
        server.add_bitmap("disk")
        client = nbd.NBD()
        client.connect_uri(server.export("disk"))
        step = TIB // DIRTY_CLUSTERS
        for index in range(DIRTY_CLUSTERS):
            offset = index * step // (64 * KIB) * (64 * KIB)
            client.pwrite(index.to_bytes(2, "big") * (32 * KIB), offset)
        client.flush()
        client.shutdown()
        began = time.monotonic()
        copy_until_durable(server, target,
                           backup_action("disk", "copy", bitmap=True))
        seconds = time.monotonic() - began
    finally:
        server.stop()
    return Sample(seconds * 1e3)


class Scattered:
    """Reads all over an image whose tables are four times the cache, so many
    that the cache is full at the end; and the memory that is in use then."""

    def __init__(self):
        self.memory = {}  # by side: of runs that nobody has asked about yet

    def operations(self, side, scene):
        path = preallocated(scene, TIB, "huge.qcow2")
        server, uri = start(side, scene, path)
        try:
            before = cpu_seconds(server.pid())
            job = fio(uri, scene, "randread", 4 * KIB, 32, None, TIB,
                      operations=SCATTERED_READS)
            spent = cpu_seconds(server.pid()) - before
            self.memory.setdefault(side, []).append(
                resident_mib(server.pid()))
        finally:
            server.stop()
        part = job["read"]
        return Sample(part["iops"], spent / SCATTERED_READS * 1e6)

    def resident(self, side, scene):
        if not self.memory.get(side):
            self.operations(side, scene)
        return Sample(self.memory[side].pop())


def rows():
    found = []
    scattered = Scattered()

    def add(name, title, unit, more_is_better, measure):
        found.append(Row(name, title, unit, more_is_better, STORAGE_DAEMONS,
                         measure))

    for mode in ("read", "write"):
        add(f"qcow2-{mode}-preallocated",
            f"qcow2, metadata preallocated: 4k random {mode}, depth 32",
            "IOPS", True, preallocated_throughput(f"rand{mode}"))
    add("qcow2-read-fresh", "qcow2, fresh: 4k random read, depth 32", "IOPS",
        True, fresh_read)
    add("qcow2-write-fresh",
        "qcow2, fresh: 4k random write, depth 32, then a flush", "IOPS",
        True, fresh_write)
    for source in ("raw", "qcow2"):
        add(f"qcow2-backup-{source}",
            f"full backup, {source} to qcow2, until durable", "MiB/s", True,
            backup_full(source))
    add("qcow2-incremental",
        "incremental of 1 TiB, 2,000 dirty clusters, to a qcow2 overlay",
        "ms", False, backup_incremental)
    add("qcow2-scattered", "qcow2 of 1 TiB: 4k random read, depth 32, cold",
        "IOPS", True, scattered.operations)
    add("qcow2-scattered-memory", "memory after that", "MiB", False,
        scattered.resident)
    return found
