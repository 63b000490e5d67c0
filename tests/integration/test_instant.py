# SPDX-License-Identifier: BSD-3-Clause
"""One instant for all disks, whatever the guests and the disks do."""
import struct
import threading

import pytest

from support.disks import (add_bitmap, add_disk, backup_action, new_disk,
                           new_target, raw_options)
from support.images import KIB, MIB, qemu_io, read_at

ROUNDS = 200


class Counter(threading.Thread):
    """Writes 1, 2, 3 ... to disk A, and each number to B once A has it."""

    def __init__(self, daemon, nbd_client):
        super().__init__()
        self.handles = [nbd_client(daemon.nbd_uri(disk)) for disk in "ab"]
        self.over = threading.Event()
        self.value = 0

    def run(self):
        while not self.over.is_set():
            self.value += 1
            for handle in self.handles:
                handle.pwrite(struct.pack("<Q", self.value).ljust(512, b"\0"),
                              0)

    def stop(self):
        self.over.set()
        self.join()


@pytest.mark.parametrize("sync", ["full", "incremental"])
def test_no_disk_is_ahead_of_another(cohortd, nbd_client, sync):
    "In 200 grouped backups under writes, B never has a number A lacks."
    daemon = cohortd("--object", "iothread,id=i0", "--object",
                     "iothread,id=i1", nbd=True)
    for disk in "ab":
        new_disk(daemon, disk, MIB)
        add_bitmap(daemon, disk)
        new_target(daemon, f"{disk}-target", MIB)
    more = {"bitmap": "b0", "bitmap_mode": "on-success"}
    if sync == "incremental":
        more = {"sync": "incremental", "bitmap": "b0"}
    counter = Counter(daemon, nbd_client)
    counter.start()
    try:
        seen = []
        for _ in range(ROUNDS):
            daemon.qmp.transaction(
                *(backup_action(disk, f"{disk}-target", **more)
                  for disk in "ab"), grouped=True)
            for disk in "ab":
                end = daemon.qmp.wait_job_gone(f"job-{disk}")
                assert "error" not in end["data"], end
            a, b = (struct.unpack("<Q", read_at(
                daemon.folder / f"{disk}-target.raw", 0, 8))[0]
                    for disk in "ab")
            assert b <= a <= b + 1
            seen.append(a)
    finally:
        counter.stop()
    assert seen == sorted(seen) and seen[-1] > seen[0]
    assert len(set(seen)) > ROUNDS // 4, "the writer hardly ran meanwhile"


def test_a_hung_disk_fails_the_transaction_and_frees_the_others(
        cohortd, nbd_client, hanging_disk, request):
    "The fence gives up on a disk whose write hangs; all goes on as before."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    add_disk(daemon, "slow", hanging_disk.path)
    new_disk(daemon, "quick", MIB)
    for disk in ("slow", "quick"):
        add_bitmap(daemon, disk)
        new_target(daemon, f"{disk}-target", MIB)
    slow = nbd_client(daemon.nbd_uri("slow"))
    quick = nbd_client(daemon.nbd_uri("quick"))
    hanging_disk.hang()
    import nbd
    pending = slow.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(64 * KIB)),
                              0)
    actions = [backup_action(disk, f"{disk}-target", bitmap="b0",
                             bitmap_mode="on-success")
               for disk in ("slow", "quick")]
    # The write has reached the disk when its bit is set.
    while daemon.qmp.bitmap("slow", "b0")["count"] == 0:
        pass
    with pytest.raises(Exception, match="slow"):
        daemon.qmp.transaction(*actions, grouped=True)
    assert daemon.qmp.command("query-jobs") == []
    quick.pwrite(b"x" * 512, 0)
    assert not daemon.qmp.bitmap("quick", "b0")["busy"]

    hanging_disk.go_on()
    while not slow.aio_command_completed(pending):
        slow.poll(-1)
    daemon.qmp.transaction(*actions, grouped=True)
    for job in ("job-slow", "job-quick"):
        assert "error" not in daemon.qmp.wait_job_gone(job)["data"]


def test_a_hung_target_does_not_hold_the_guest(cohortd, nbd_client,
                                               hanging_disk, request):
    "A guest overwrites a disk whose backup's target hangs; then all ends well."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    disk = new_disk(daemon, "disk", MIB, seed=1)
    before = read_at(disk, 0, MIB)
    daemon.qmp.command("blockdev-add",
                       raw_options("target", hanging_disk.path))
    guest = nbd_client(daemon.nbd_uri("disk"))
    hanging_disk.hang()
    daemon.qmp.command(*backup_action("disk", "target"))
    guest.pwrite(b"\x55" * MIB, 0)
    qemu_io(disk, "read -P 0x55 0 1M", read_only=True)
    # Another backup of the same disk starts meanwhile, fence and all.
    new_target(daemon, "other", MIB)
    daemon.qmp.command(*backup_action("disk", "other", job="second"))
    assert "error" not in daemon.qmp.wait_job_gone("second")["data"]
    hanging_disk.go_on()
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    assert read_at(hanging_disk.path, 0, MIB) == before


def test_a_cancel_of_a_hung_job_returns_at_once(cohortd, hanging_disk,
                                                request):
    "job-cancel does not wait for the target; the end is told when it comes."
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    new_disk(daemon, "disk", MIB, seed=1)
    daemon.qmp.command("blockdev-add",
                       raw_options("target", hanging_disk.path))
    hanging_disk.hang()
    daemon.qmp.command(*backup_action("disk", "target"))
    # Returns with what it overwrote on its way to the target.
    qemu_io(daemon.nbd_uri("disk"), "write 0 64k")
    daemon.qmp.command("job-cancel", id="job-disk")
    assert daemon.qmp.command("query-jobs")[0]["status"] == "running"
    hanging_disk.go_on()
    assert daemon.qmp.wait_job_gone("job-disk")["event"] == \
        "BLOCK_JOB_CANCELLED"
