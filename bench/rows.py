# SPDX-License-Identifier: BSD-3-Clause
"""What is measured. Each row is a function (side, scene) -> Sample.

Before every sample the disk's file is synced and dropped from the page cache,
so each side starts from the same state; rows that want a warm cache then read
the disk once, from end to end, through the server that is measured.
"""
import dataclasses
import json
import os
import random
import shutil
import time

from sides import Nbdkit, StorageDaemon, cpu_seconds, resident_mib
from support.images import GIB, KIB, MIB, TIB, run, sparse_image

STORAGE_DAEMONS = ("cohortd", "qsd")
ALL = ("cohortd", "qsd", "nbdkit")


@dataclasses.dataclass
class Sample:
    value: float
    cpu_us_per_op: float | None = None


@dataclasses.dataclass
class Row:
    name: str
    title: str
    unit: str
    more_is_better: bool
    sides: tuple
    measure: object
    quick_rounds: int = 3


@dataclasses.dataclass
class Scene:
    folder: object  # a pathlib.Path on the file system that is measured
    disk_bytes: int
    runtime_s: float

    def disk(self):
        """The disk of the throughput rows: random data, made once."""
        path = self.folder / "disk.raw"
        if not path.exists():
            chance = random.Random(7)
            block = chance.randbytes(16 * MIB)
            with open(path, "wb") as file:
                for index in range(self.disk_bytes // (16 * MIB)):
                    file.write(index.to_bytes(8, "big") + block[8:])
        settle(path)
        return path

    def room(self, side):
        """A fresh folder for one sample."""
        path = self.folder / f"run-{side}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def settle(path):
    """On disk, and out of the page cache."""
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def sync_file(path):
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def serve(side, scene, path, bitmap):
    """Starts a server with one disk; returns it and the disk's URI."""
    if side == "nbdkit":
        server = Nbdkit(scene.room(side), path)
        return server, server.uri()
    server = StorageDaemon(side, scene.room(side))
    server.add_disk("disk", path)
    if bitmap:
        server.add_bitmap("disk")
    return server, server.export("disk")


def fio(uri, scene, mode, block, depth, runtime, disk_bytes=None,
        operations=None, more=()):
    """For so many seconds, or (runtime None) so many operations."""
    span = ("--time_based", f"--runtime={runtime}") if runtime else \
        (f"--number_ios={operations}",)
    result = run("fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}",
                 f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}",
                 f"--size={disk_bytes or scene.disk_bytes}",
                 "--randrepeat=1", "--norandommap", "--thread", *span, *more,
                 "--output-format=json", timeout=600)
    text = result.stdout
    return json.loads(text[text.index("{"):])["jobs"][0]


def throughput(mode, block, depth, bitmap=False):
    def measure(side, scene):
        server, uri = serve(side, scene, scene.disk(), bitmap)
        try:
            run("nbdcopy", uri, "null:", timeout=600)
            before = cpu_seconds(server.pid())
            job = fio(uri, scene, mode, block, depth, scene.runtime_s)
            spent = cpu_seconds(server.pid()) - before
        finally:
            server.stop()
        part = job["read" if "read" in mode else "write"]
        value = part["iops"] if block <= 4 * KIB else part["bw_bytes"] / MIB
        return Sample(value, spent / max(part["total_ios"], 1) * 1e6)
    return measure


def backup_action(node, target, bitmap=False):
    data = {"job-id": f"j-{node}", "device": node, "target": target,
            "sync": "incremental" if bitmap else "full"}
    if bitmap:
        data["bitmap"] = "b"
    return "blockdev-backup", data


def backup_full(side, scene):
    """Seconds from the command until the copy would survive a power cut."""
    source = scene.disk()
    server = StorageDaemon(side, scene.room(side))
    try:
        target = sparse_image(scene.folder / f"run-{side}/copy.raw",
                              scene.disk_bytes)
        server.add_disk("disk", source)
        server.add_disk("copy", target)
        before = cpu_seconds(server.pid())
        began = time.monotonic()
        server.qmp.transaction(backup_action("disk", "copy"))
        finish(server, ["disk"], [target])
        seconds = time.monotonic() - began
        spent = cpu_seconds(server.pid()) - before
    finally:
        server.stop()
    return Sample(scene.disk_bytes / MIB / seconds,
                  spent / (scene.disk_bytes / MIB) * 1e6)


def finish(server, nodes, targets):
    for node in nodes:
        end = server.qmp.wait_job(f"j-{node}", timeout=600)
        assert end["event"] == "BLOCK_JOB_COMPLETED" and \
            "error" not in end["data"], end
    for target in targets:
        sync_file(target)


def backup_incremental(side, scene):
    """A 1 TiB disk with 2,000 dirty clusters of 64 KiB, none beside the
    next; milliseconds until durable."""
    import nbd
    server = StorageDaemon(side, scene.room(side))
    try:
        source = sparse_image(scene.folder / f"run-{side}/huge.raw", TIB)
        target = sparse_image(scene.folder / f"run-{side}/copy.raw", TIB)
        server.add_disk("disk", source)
        server.add_disk("copy", target)
        server.add_bitmap("disk")
        client = nbd.NBD()
        client.connect_uri(server.export("disk"))
        step = TIB // 2000
        for index in range(2000):
            offset = index * step // (64 * KIB) * (64 * KIB)
            client.pwrite(index.to_bytes(2, "big") * (32 * KIB), offset)
        client.flush()
        client.shutdown()
        began = time.monotonic()
        server.qmp.transaction(backup_action("disk", "copy", bitmap=True))
        finish(server, ["disk"], [target])
        seconds = time.monotonic() - began
    finally:
        server.stop()
    return Sample(seconds * 1e3)


def group_of_64(side, scene):
    """64 disks of 64 MiB, a quarter of each data, backed up as one group."""
    server = StorageDaemon(side, scene.room(side))
    folder = scene.folder / f"run-{side}"
    nodes, targets, actions = [], [], []
    block = random.Random(9).randbytes(16 * MIB)
    try:
        for index in range(64):
            node = f"disk{index}"
            source = sparse_image(folder / f"{node}.raw", 64 * MIB)
            with open(source, "r+b") as file:
                file.write(block)
            settle(source)
            target = sparse_image(folder / f"{node}.copy", 64 * MIB)
            server.add_disk(node, source)
            server.add_disk(f"copy{index}", target)
            nodes.append(node)
            targets.append(target)
            actions.append(backup_action(node, f"copy{index}"))
        began = time.monotonic()
        server.qmp.transaction(*actions, grouped=True)
        finish(server, nodes, targets)
        seconds = time.monotonic() - began
    finally:
        server.stop()
    return Sample(seconds * 1e3)


def memory_idle(side, scene):
    server = StorageDaemon(side, scene.room(side))
    try:
        return Sample(resident_mib(server.pid()))
    finally:
        server.stop()


def memory_64(side, scene):
    """64 sparse disks of 64 GiB, each with a bitmap and an export that has
    served one write and one read."""
    import nbd
    server = StorageDaemon(side, scene.room(side))
    try:
        for index in range(64):
            path = sparse_image(
                scene.folder / f"run-{side}/disk{index}.raw", 64 * GIB)
            server.add_disk(f"disk{index}", path)
            server.add_bitmap(f"disk{index}")
            client = nbd.NBD()
            client.connect_uri(server.export(f"disk{index}"))
            client.pwrite(bytes(4096), 0)
            client.pread(4096, 0)
            client.shutdown()
        return Sample(resident_mib(server.pid()))
    finally:
        server.stop()


def rows():
    found = []
    for bitmap in (False, True):
        suffix = "-bitmap" if bitmap else ""
        note = ", dirty bitmap" if bitmap else ""
        for mode in ("read", "write"):
            for depth in (1, 32):
                found.append(Row(
                    f"{mode}-4k-depth{depth}{suffix}",
                    f"4k random {mode}, depth {depth}{note}", "IOPS", True,
                    STORAGE_DAEMONS if bitmap else ALL,
                    throughput(f"rand{mode}", 4 * KIB, depth, bitmap)))
    for mode in ("read", "write"):
        found.append(Row(f"{mode}-128k", f"128k sequential {mode}, depth 8",
                         "MiB/s", True, ALL,
                         throughput(mode, 128 * KIB, 8)))
    return found + [
        Row("backup-full", "full backup, raw to raw, until durable", "MiB/s",
            True, STORAGE_DAEMONS, backup_full),
        Row("backup-incremental",
            "incremental of 1 TiB, 2,000 dirty clusters", "ms", False,
            STORAGE_DAEMONS, backup_incremental),
        Row("backup-group", "64 disks in one group, 1 GiB in all", "ms",
            False, STORAGE_DAEMONS, group_of_64),
        Row("memory-idle", "memory, idle", "MiB", False, STORAGE_DAEMONS,
            memory_idle),
        Row("memory-64", "memory, 64 disks of 64 GiB with bitmaps", "MiB",
            False, STORAGE_DAEMONS, memory_64),
    ]
