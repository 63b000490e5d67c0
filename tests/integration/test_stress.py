# SPDX-License-Identifier: BSD-3-Clause
"""Everything at once: clients that get in each other's way at random.

Three QMP clients choose commands and names at random from a small set, so that
they meet on the same nodes, jobs, bitmaps, exports and threads; NBD clients
read, write, trim and vanish meanwhile. Whether a command succeeds is up to
chance. What is promised: the daemon lives and answers every command, and in
the end everything can be taken down, with nothing left.

COHORT_STRESS_SEED repeats a run's choices (not its timing), COHORT_STRESS_S
makes it longer.
"""
import os
import random
import threading
import time

import nbd
import pytest

from support.qmp import QmpError

SECONDS = float(os.environ.get("COHORT_STRESS_S", "6"))
MIB = 1 << 20
DISKS = 4
SIZE = 4 * MIB


class Chooser:
    """Makes up commands."""

    def __init__(self, rng, folder):
        self.rng = rng
        self.folder = folder

    def one(self, kind, count):
        return f"{kind}{self.rng.randrange(count)}"

    def node(self):
        return self.one("n", 8)

    def bitmap(self):
        return {"node": self.node(), "name": self.one("b", 2)}

    def blockdev_add(self):
        rng = self.rng
        options = {"node-name": self.node()}
        path = str(self.folder / f"disk{rng.randrange(DISKS)}.raw")
        kind = rng.randrange(5)
        if kind == 0:
            options |= {"driver": "null-co", "size": SIZE,
                        "read-zeroes": True}
        elif kind == 1:
            options |= {"driver": "file", "filename": path,
                        "discard": "unmap"}
        elif kind == 2:
            options |= {"driver": "raw", "discard": "unmap",
                        "file": {"driver": "file", "filename": path}}
        elif kind == 3:
            options |= {"driver": "raw", "file": self.node()}
        else:
            options |= {"driver": "blkdebug", "image": self.node(),
                        "inject-error": [{
                            "event": rng.choice(["read_aio", "write_aio",
                                                 "flush_to_disk"]),
                            "errno": rng.choice([5, 28]), "once": True}]}
        return "blockdev-add", options

    def backup(self):
        rng = self.rng
        data = {"job-id": self.one("j", 6), "device": self.node(),
                "sync": rng.choice(["full", "incremental", "bitmap"]),
                "auto-finalize": rng.random() < 0.7,
                "auto-dismiss": rng.random() < 0.7}
        if rng.random() < 0.3:
            data["speed"] = rng.choice([1, 65536, 4 * MIB])
        if data["sync"] != "full":
            data["bitmap"] = self.one("b", 2)
        if data["sync"] == "bitmap":
            data["bitmap-mode"] = rng.choice(["on-success", "never",
                                              "always"])
        if rng.random() < 0.4:
            return "blockdev-backup", data | {"target": self.node()}
        path = self.folder / f"target{rng.randrange(6)}.raw"
        if rng.random() < 0.1:
            path = self.folder / f"disk{rng.randrange(DISKS)}.raw"
        return "drive-backup", data | {"target": str(path)}

    def bitmap_verb(self):
        verb = self.rng.choice(["add", "add", "remove", "clear", "enable",
                                "disable"])
        return f"block-dirty-bitmap-{verb}", self.bitmap()

    def merge(self):
        target = self.bitmap()
        return "block-dirty-bitmap-merge", {
            "node": target["node"], "target": target["name"],
            "bitmaps": [self.bitmap(), self.one("b", 2)]}

    def transaction(self):
        rng = self.rng
        grouped = rng.random() < 0.5
        makers = [self.backup] if grouped else \
            [self.backup, self.bitmap_verb, self.merge]
        actions = [rng.choice(makers)() for _ in range(rng.randrange(1, 5))]
        if not grouped and rng.random() < 0.1:
            actions.append(("abort", {}))
        return "transaction", {
            "actions": [{"type": kind, "data": data}
                        for kind, data in actions],
            "properties": {"completion-mode":
                           "grouped" if grouped else "individual"}}

    def job_verb(self):
        rng = self.rng
        job = self.one("j", 6)
        verb = rng.choice(["job-cancel", "job-pause", "job-resume",
                           "job-finalize", "job-dismiss",
                           "block-job-cancel", "block-job-set-speed",
                           "x-cohort-query-backup-extents"])
        if verb == "block-job-set-speed":
            return verb, {"device": job, "speed": rng.choice([0, 1, MIB])}
        if verb == "block-job-cancel":
            return verb, {"device": job, "force": rng.random() < 0.5}
        return verb, {"id": job}

    def export(self):
        rng = self.rng
        identity = self.one("e", 4)
        if rng.random() < 0.6:
            return "block-export-add", {
                "type": "nbd", "id": identity, "name": identity,
                "node-name": self.node(), "writable": rng.random() < 0.7,
                "writethrough": rng.random() < 0.2}
        return "block-export-del", {
            "id": identity, "mode": rng.choice(["safe", "hard", "hard"])}

    def server(self):
        if self.rng.random() < 0.3:
            return "nbd-server-stop", {}
        return "nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": str(self.folder / "s.sock")}}}

    def thread(self):
        verb, identity = self.rng.choice(["add", "del"]), self.one("t", 3)
        if verb == "del":
            return "object-del", {"id": identity}
        return "object-add", {"qom-type": "iothread", "id": identity}

    def resize(self):
        return "block_resize", {
            "node-name": self.node(),
            "size": self.rng.choice([SIZE, SIZE, SIZE + 65536, MIB])}

    def query(self):
        return self.rng.choice([
            ("query-jobs", {}), ("query-block-jobs", {}),
            ("query-named-block-nodes", {}), ("query-block", {}),
            ("query-block-exports", {}), ("query-iothreads", {}),
            ("x-debug-block-dirty-bitmap-sha256", self.bitmap())])

    def next(self):
        kinds = {self.blockdev_add: 10, self.backup: 10, self.merge: 2,
                 self.bitmap_verb: 6, self.transaction: 8,
                 self.job_verb: 14, self.export: 8, self.server: 2,
                 self.thread: 2, self.resize: 1, self.query: 6}
        if self.rng.random() < 0.06:
            return "blockdev-del", {"node-name": self.node()}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()


class Load:
    """Threads that go on until told to stop, and what went wrong in them."""

    def __init__(self):
        self.stop = threading.Event()
        self.threads = []
        self.problems = []

    def start(self, work, *arguments):
        def guarded():
            try:
                work(self.stop, *arguments)
            except Exception as problem:  # told by join()
                self.problems.append(problem)
                self.stop.set()
        self.threads.append(threading.Thread(target=guarded))
        self.threads[-1].start()

    def join(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a client waits for ever"
        if self.problems:
            raise self.problems[0]


def drive_qmp(stop, daemon, seed, folder, outcomes):
    chooser = Chooser(random.Random(seed), folder)
    with daemon.connect() as qmp:
        while not stop.is_set():
            name, arguments = chooser.next()
            try:
                qmp.command(name, arguments)
                outcomes[name] = outcomes.get(name, 0) + 1
            except QmpError as error:
                assert error.desc, name
            qmp.events.clear()
            qmp.event_log.clear()


def abandon(handle, rng):
    """Asks for much and hangs up without waiting for an answer."""
    for _ in range(16):
        handle.aio_pwrite(bytes([rng.randrange(256)]) * 65536,
                          rng.randrange(SIZE // 65536) * 65536)


def drive_nbd(stop, seed, folder):
    rng = random.Random(seed)
    while not stop.is_set():
        handle = nbd.NBD()
        try:
            handle.connect_uri(f"nbd+unix:///e{rng.randrange(4)}"
                               f"?socket={folder / 's.sock'}")
            for _ in range(rng.randrange(1, 200)):
                offset = rng.randrange(SIZE - 65536)
                length = rng.randrange(1, 65536)
                kind = rng.randrange(6)
                if kind < 2:
                    handle.pread(length, offset)
                elif kind < 4:
                    handle.pwrite(bytes([rng.randrange(256)]) * length,
                                  offset)
                elif kind == 4:
                    handle.trim(length, offset)
                else:
                    handle.flush()
            if rng.random() < 0.5:
                abandon(handle, rng)
        except nbd.Error:
            time.sleep(0.002)  # there is nothing to connect to, or it went


def take_down(qmp):
    """Everything must be removable, by the ordinary commands."""
    try:
        qmp.command("nbd-server-stop")
    except QmpError:
        pass  # it does not run
    assert qmp.command("query-block-exports") == []
    deadline = time.monotonic() + 30
    while jobs := qmp.command("query-jobs"):
        assert time.monotonic() < deadline, jobs
        for job in jobs:
            verb = "job-dismiss" if job["status"] == "concluded" \
                else "block-job-cancel"
            try:
                if verb == "job-dismiss":
                    qmp.command(verb, id=job["id"])
                else:
                    qmp.command(verb, device=job["id"], force=True)
            except QmpError:
                pass  # it has moved on
    while nodes := qmp.command("query-named-block-nodes"):
        before = len(nodes)
        for node in nodes:
            try:
                qmp.command("blockdev-del", node_name=node["node-name"])
            except QmpError:
                pass  # goes with, or after, its parent
        assert len(qmp.command("query-named-block-nodes")) < before, nodes
    for thread in qmp.command("query-iothreads"):
        qmp.command("object-del", id=thread["id"])


@pytest.mark.parametrize("clients", [3])
def test_clients_in_each_others_way_do_no_harm(cohortd, folder, clients):
    seed = int(os.environ.get("COHORT_STRESS_SEED",
                              random.SystemRandom().randrange(1 << 32)))
    print(f"COHORT_STRESS_SEED={seed}")
    for number in range(DISKS):
        (folder / f"disk{number}.raw").write_bytes(os.urandom(SIZE))
    daemon = cohortd("--object", "iothread,id=t0",
                     "--object", "iothread,id=t1")
    load = Load()
    outcomes = {}
    for number in range(clients):
        load.start(drive_qmp, daemon, seed + number, folder, outcomes)
    for number in range(3):
        load.start(drive_nbd, seed + 100 + number, folder)
    load.stop.wait(SECONDS)
    load.join()
    assert daemon.is_alive()
    print(sorted(outcomes.items()))
    take_down(daemon.qmp)
    assert daemon.quit() == 0


def overwrite(stop, daemon, disk, seed):
    rng = random.Random(seed)
    handle = nbd.NBD()
    handle.connect_uri(daemon.nbd_uri(disk))
    while not stop.is_set():
        handle.pwrite(bytes([rng.randrange(256)]) * 4096,
                      rng.randrange(SIZE // 4096) * 4096)
    handle.shutdown()


def test_disks_move_between_threads_under_load(cohortd):
    "64 disks in one group, their targets on other threads, guests writing."
    daemon = cohortd("--object", "iothread,id=t0",
                     "--object", "iothread,id=t1",
                     "--object", "iothread,id=t2", nbd=True)
    qmp = daemon.qmp
    names = [f"d{number}" for number in range(64)]
    for name in names:
        qmp.command("blockdev-add", driver="null-co", node_name=name,
                    size=SIZE, read_zeroes=True)
        qmp.command("block-dirty-bitmap-add", node=name, name="b")
    for name in names[:8]:
        qmp.command("block-export-add", type="nbd", id=name, node_name=name,
                    writable=True)
    # One more than the threads divide: the targets lie on other threads.
    for name in ["odd"] + [f"to-{name}" for name in names]:
        qmp.command("blockdev-add", driver="null-co", node_name=name,
                    size=SIZE)
    load = Load()
    for number, name in enumerate(names[:8]):
        load.start(overwrite, daemon, name, number)
    for _ in range(4):
        qmp.transaction(*[
            ("blockdev-backup", {"job-id": f"j-{name}", "device": name,
                                 "target": f"to-{name}", "bitmap": "b",
                                 "sync": "incremental"})
            for name in names], grouped=True)
        for name in names:
            assert "error" not in qmp.wait_job_gone(f"j-{name}")["data"]
        # Off to another thread again: the source follows a target in use.
        for name in names[:8]:
            qmp.command("blockdev-add", driver="null-co",
                        node_name=f"away-{name}", size=SIZE)
            qmp.command("blockdev-backup", job_id="away", sync="full",
                        device=f"away-{name}", target=f"to-{name}")
            qmp.wait_job_gone("away")
            qmp.command("blockdev-del", node_name=f"away-{name}")
    load.join()
    take_down(qmp)


def test_an_end_in_the_middle_of_a_group_is_clean(cohortd, folder):
    "SIGTERM while 8 jobs run under load: all end, exit code 0, no sockets."
    import signal
    daemon = cohortd("--object", "iothread,id=t0",
                     "--object", "iothread,id=t1", nbd=True)
    qmp = daemon.qmp
    names = [f"d{number}" for number in range(8)]
    for name in names:
        qmp.command("blockdev-add", driver="null-co", node_name=name,
                    size=SIZE, read_zeroes=True)
        qmp.command("block-dirty-bitmap-add", node=name, name="b")
        qmp.command("block-export-add", type="nbd", id=name, node_name=name,
                    writable=True)
    load = Load()
    for number, name in enumerate(names[:3]):
        load.start(drive_until_gone, daemon, name, number)
    qmp.transaction(*[
        ("drive-backup", {"job-id": f"j-{name}", "device": name,
                          "target": str(folder / f"{name}.raw"),
                          "sync": "full", "speed": 1})
        for name in names], grouped=True)
    daemon.signal(signal.SIGTERM)
    for name in names:
        assert qmp.wait_job(f"j-{name}")["event"] == "BLOCK_JOB_CANCELLED"
    assert daemon.wait() == 0
    load.join()
    for path in (daemon.nbd_path, daemon.qmp_path, daemon.pidfile):
        assert not os.path.exists(path)


def drive_until_gone(stop, daemon, disk, seed):
    try:
        overwrite(stop, daemon, disk, seed)
    except nbd.Error:
        pass  # the daemon has ended, as it was told to
