# SPDX-License-Identifier: BSD-3-Clause
"""A daemon is killed, its successor begins to recover, and before anything of that
is on the disk the power is cut. On an ext4 whose disk forgets what was not
flushed; tests/crash/power_cuts.py does the same at random."""
import itertools
import random
import threading

import nbd
import pytest

from crash.machine import Machine
from support.disks import add_bitmap, raw_options
from support.images import KIB, MIB, sparse_image
from support.qmp import QmpError

SIZE = 8 * MIB


@pytest.fixture
def machine(folder):
    "One that forgets all that was not flushed."
    seed = next(seed for seed in itertools.count()
                if random.Random(seed).random() < 0.3)
    (folder / "machine").mkdir()
    found = Machine(folder / "machine", seed)
    assert found.forgets_all
    yield found
    found.off()


def options(machine):
    return raw_options("disk", f"{machine.root}/disk.raw")


def start(cohortd, machine):
    return cohortd("--state-dir", f"{machine.root}/state", nbd=True)


def add_disk(daemon, machine):
    daemon.qmp.command("blockdev-add", options(machine))
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)


def back_up(daemon, path, sync):
    if not path.exists():
        sparse_image(path, SIZE)
    daemon.qmp.command("blockdev-add", raw_options("target", path))
    daemon.qmp.command("blockdev-backup", job_id="job", device="disk",
                       target="target", sync=sync, bitmap="b0",
                       bitmap_mode="on-success")
    assert "error" not in daemon.qmp.wait_job_gone("job")["data"]
    daemon.qmp.command("blockdev-del", node_name="target")


def begin_to_recover(daemon, machine):
    "The disk no longer answers: opening hangs until the daemon is killed."
    def open_it():
        try:
            daemon.qmp.command("blockdev-add", options(machine))
        except (EOFError, OSError, QmpError):
            pass
    thread = threading.Thread(target=open_it)
    thread.start()
    thread.join(1)
    return thread


def cut_power(machine, *daemons):
    machine.freeze()
    for daemon in daemons:
        daemon.process.kill()
        daemon.expected_exit = -9
    machine.cut()
    for daemon in daemons:
        daemon.process.wait()
    machine.clear()
    machine.on()


def test_kill_then_power_cut_before_recovery_synced(machine, cohortd, folder):
    "What the disk holds then, and what the bitmap says, fit."
    sparse_image(f"{machine.root}/disk.raw", SIZE)
    daemon = start(cohortd, machine)
    add_disk(daemon, machine)
    add_bitmap(daemon, "disk", persistent=True)
    back_up(daemon, folder / "backup.raw", "full")
    guest = nbd.NBD()
    guest.connect_uri(daemon.nbd_uri("disk"))
    guest.pwrite(b"\1" * 64 * KIB, 1 * MIB)
    guest.flush()
    guest.pwrite(b"\2" * 64 * KIB, 5 * MIB)     # not flushed
    daemon.kill()
    successor = start(cohortd, machine)
    machine.freeze()
    opening = begin_to_recover(successor, machine)
    cut_power(machine, successor)
    opening.join()
    last = start(cohortd, machine)
    add_disk(last, machine)
    found = last.qmp.bitmap("disk", "b0")
    assert "inconsistent" not in found and found["count"] >= 64 * KIB
    back_up(last, folder / "backup.raw", "incremental")
    content = (folder / "backup.raw").read_bytes()
    with open(f"{machine.root}/disk.raw", "rb") as disk:
        assert disk.read() == content
    assert content[MIB:MIB + 64 * KIB] == b"\1" * 64 * KIB
    last.quit()
