# SPDX-License-Identifier: BSD-3-Clause
"""Many of everything in one daemon: what it takes is bounded, and given back."""
import struct
import threading

from support.daemon import cohortd_binary
from support.disks import backup_action, new_disk, new_target
from support.images import KIB, MIB, read_at

DISKS = 64
DISK_BYTES = 4 * MIB
NODES = 1000
THREADS = ("--object", "iothread,id=i0", "--object", "iothread,id=i1")


class Counter(threading.Thread):
    """Writes 1 to each disk, in their order, then 2 to each, and so on; and
    with each number a piece of its own to each disk."""

    def __init__(self, clients):
        super().__init__()
        self.clients = clients
        self.over = threading.Event()
        self.round = threading.Condition()
        self.value = 0

    def run(self):
        while not self.over.is_set():
            with self.round:
                self.value += 1
                self.round.notify_all()
            data = struct.pack("<Q", self.value) * 512
            for client in self.clients:
                client.pwrite(data, 0)
                client.pwrite(data, self.value * 64 * KIB % DISK_BYTES)

    def wait_rounds(self, count):
        with self.round:
            target = self.value + count
            assert self.round.wait_for(lambda: self.value >= target, 60)

    def stop(self):
        self.over.set()
        self.join()


def grouped_backup(daemon, names):
    daemon.qmp.transaction(
        *(backup_action(name, f"{name}-target", job=f"job-{name}")
          for name in names), grouped=True)


def is_sanitized():
    with open(cohortd_binary(), "rb") as file:
        return b"__asan_init" in file.read()


def test_64_disks_in_one_group(cohortd, nbd_client, capsys):
    """All on two threads, exported, written to all the time: twice a backup of
    one instant. What is copied is in memory at most once, and not for long;
    descriptors do not grow."""
    daemon = cohortd(*THREADS, nbd=True)
    names = [f"d{number:02}" for number in range(DISKS)]
    for number, name in enumerate(names):
        new_disk(daemon, name, DISK_BYTES, seed=number)
        new_target(daemon, f"{name}-target", DISK_BYTES)
    clients = [nbd_client(daemon.nbd_uri(name)) for name in names]
    before = daemon.open_files()
    idle = daemon.status("VmRSS")
    counter = Counter(clients)
    counter.start()
    try:
        counter.wait_rounds(2)
        for _ in range(2):
            grouped_backup(daemon, names)
            during = daemon.open_files()
            counter.wait_rounds(1)
            for name in names:
                end = daemon.qmp.wait_job_gone(f"job-{name}")
                assert "error" not in end["data"], end
            values = [struct.unpack("<Q", read_at(
                daemon.folder / f"{name}-target.raw", 0, 8))[0]
                      for name in names]
            assert values == sorted(values, reverse=True), values
            assert values[0] - values[-1] <= 1
    finally:
        counter.stop()
    peak, after = daemon.status("VmHWM"), daemon.status("VmRSS")
    with capsys.disabled():
        print(f"\n{DISKS} disks: {idle // MIB} MiB idle with clients, "
              f"{peak // MIB} MiB at most, {after // MIB} MiB afterwards; "
              f"{before} descriptors, {during} during a backup")
    assert during <= before + DISKS
    assert daemon.open_files() == before
    if not is_sanitized():
        assert peak - idle < DISKS * (DISK_BYTES + MIB)
        assert after - idle < DISKS * MIB // 2


def test_adding_and_deleting_leaves_nothing(cohortd, folder, capsys):
    "1,000 nodes with bitmap and export, one after the other and at once."
    daemon = cohortd(*THREADS, nbd=True)
    image = folder / "image"
    image.write_bytes(bytes(MIB))

    def add(name):
        daemon.qmp.command("blockdev-add", {
            "driver": "raw", "node-name": name, "read-only": True,
            "file": {"driver": "file", "filename": str(image)}})
        daemon.qmp.command("block-dirty-bitmap-add", node=name, name="b0")
        daemon.qmp.command("block-export-add", type="nbd", id=name,
                           node_name=name)

    def delete(name):
        daemon.qmp.command("block-export-del", id=name)
        daemon.qmp.wait_event("BLOCK_EXPORT_DELETED", id=name)
        daemon.qmp.command("blockdev-del", node_name=name)

    def one_after_the_other():
        for number in range(NODES):
            add(f"n{number}")
            delete(f"n{number}")

    def at_once():
        for number in range(NODES):
            add(f"n{number}")
        for number in range(NODES):
            delete(f"n{number}")

    seen = []
    for act in (at_once, one_after_the_other, at_once):
        act()
        seen.append((daemon.open_files(), daemon.status("VmRSS")))
    with capsys.disabled():
        print("\ndescriptors, MiB after each:",
              [(files, round(rss / MIB, 1)) for files, rss in seen])
    assert len({files for files, _ in seen}) == 1
    # 2,000 nodes more, of some KiB each, would show.
    if not is_sanitized():
        assert seen[-1][1] - seen[0][1] < 2 * MIB
