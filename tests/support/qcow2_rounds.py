# SPDX-License-Identifier: BSD-3-Clause
"""Random rounds on qcow2 images.

A round draws from its seed an image (qcow2_variants.py) and what happens to it
in a few sessions: random requests (qcow2_disk.py), resizes, crashes; between
them snapshots, compressed backups, and QEMU's programs at work on it. At its
end qemu-img finds nothing wrong and reads what was written; leaks are allowed
after a crash, and mended.

    Host(folder)                   a daemon for many rounds
    Round(host, seed).run()        raises RoundFailed with all that was done
"""
import json
import shutil
import traceback

from support.daemon import cohort_binary, cohortd, qemu_storage_daemon
from support.images import MIB, qemu_img, run
from support.qcow2_disk import Fault, Qcow2Disk
from support.qcow2_images import child, image_json, scribble, to_raw
from support.qcow2_variants import (SECTOR, backing_bytes, fresh, make_image,
                                    pick_node_options, pick_variant)
from support.source_disk import compressed_backup

LARGEST = 8 * MIB


class RoundFailed(Exception):
    """Names the seed, and tells what was done until then."""


class Host:
    def __init__(self, folder, start=cohortd):
        self.folder, self.start = folder, start
        self.is_qemu = start is qemu_storage_daemon
        self.daemon = start(folder / "daemon", nbd=True)

    def restart(self):
        """After its daemon was killed."""
        if self.daemon.client is not None:
            self.daemon.client.close()
        self.daemon = self.start(self.folder / "daemon", nbd=True)

    def replace(self):
        """After a round that failed: who knows what state it is in."""
        if self.daemon.is_alive():
            self.daemon.kill()
        self.restart()

    def finish(self):
        self.daemon.finish()


def qemu_host(folder):
    return Host(folder, qemu_storage_daemon)


class Round:
    def __init__(self, host, seed):
        self.host, self.seed = host, seed
        self.crashes = not host.is_qemu
        self.chance = fresh(seed)
        self.folder = host.folder / "round"
        self.log = []
        self.snapshots = {}  # name: content then
        self.crashed = False  # since the last repair
        self.path = self.disk = self.variant = None

    def run(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        try:
            self._run()
        except Exception as problem:
            raise RoundFailed("\n".join([
                f"seed {self.seed}", *self.log, traceback.format_exc(),
                self.host.daemon.stderr()[-2000:]])) from problem

    def say(self, text):
        self.log.append(text)

    def _run(self):
        self.variant = pick_variant(self.chance)
        self.say(self.variant.words())
        self.path = make_image(self.variant, self.folder, self.host.daemon)
        self.disk = Qcow2Disk(self.host, self.path, bytes(self.variant.size),
                              self.variant.cluster, self.chance)
        below = backing_bytes(self.folder)
        if self.variant.content or below is not None:
            self.read_again()
        if self.variant.content == "snapshot":
            self.take_snapshot()
        for number in range(self.chance.randint(1, 3)):
            if number > 0:
                self.between_sessions()
            self.session()
        self.check_end()
        assert backing_bytes(self.folder) == below, "the backing file changed"

    def read_again(self):
        """What qemu-img reads there is what it must hold."""
        raw = to_raw(self.path, self.folder / "read.raw")
        with open(raw, "rb") as file:
            self.disk.model.replace(file.read())

    # A session: an image is opened, worked on and closed.

    def session(self):
        chance = self.chance
        options = pick_node_options(chance, self.variant)
        fault = None
        if self.crashes and chance.random() < 0.2:
            fault = Fault(chance)
            self.crashed = True  # it may leak as after a crash
            if fault.kind == "flush":  # nothing is written back from then on
                options.pop("l2-cache-size", None)
                options.pop("refcount-cache-size", None)
        self.say(f"open {options}" + ("" if fault is None else
                                      f", {fault.words()}"))
        self.disk.open(fault, **options)
        for _ in range(chance.randint(1, 6)):
            self.step()
        if self.crashes and chance.random() < 0.3:
            self.crash()
            return
        self.disk.verify()
        self.disk.close()
        if self.host.is_qemu:
            self.read_again()
        if self.disk.is_lost:
            self.say("a sync had failed")
            self.after_crash()

    def step(self):
        chance, disk = self.chance, self.disk
        count = chance.choice([1, 4, 16, 16, 32])
        flush = chance.random() < 0.2
        self.say(f"{count} requests" + (" and a flush" if flush else ""))
        disk.batch(count, flush)
        draw = chance.random()
        if draw < 0.25:
            self.say("flush")
            disk.flush()
        elif draw < 0.4:
            disk.verify()
        elif draw < 0.55 and self.may_resize() and \
                not (disk.fault and disk.fault.kind == "flush"):
            size = chance.choice([disk.model.size // 2, disk.model.size * 2,
                                  chance.randint(SECTOR, LARGEST)])
            size = max(SECTOR, min(size, LARGEST)) // SECTOR * SECTOR
            self.say(f"resize {disk.model.size} to {size}")
            disk.resize(size)

    def may_resize(self):
        if not self.variant.version_2:
            return True
        # In version 2 qemu-img cannot hide what a backing file has there.
        return not self.snapshots and not (self.variant.backing and
                                           self.host.is_qemu)

    def crash(self):
        chance = self.chance
        count = chance.choice([1, 8, 24])
        answers = chance.randint(0, count)
        self.say(f"killed when {answers} of {count} requests are done")
        self.disk.crash(count, answers)
        self.crashed = True
        self.after_crash()

    def after_crash(self):
        self.qemu_check()
        self.disk.open()
        self.disk.model.after_crash(self.disk.read())
        self.disk.close()
        if self.chance.random() < 0.5:
            self.repair()

    # Between sessions.

    def between_sessions(self):
        draw = self.chance.random()
        if draw < 0.2 and self.may_snapshot():
            self.take_snapshot()
        elif draw < 0.3 and self.snapshots:
            self.delete_snapshot()
        elif draw < 0.5:
            seed = self.chance.randrange(1 << 30)
            self.say(f"scribble {seed}")
            scribble(self.path, seed, count=10)
            self.read_again()
        elif draw < 0.8 and self.variant.may_compress() and \
                not self.host.is_qemu:  # refuses to overwrite a cluster so
            self.say("compressed backup")
            compressed_backup(self.host.daemon, self.disk, self.folder)

    def may_snapshot(self):
        # A narrow count may be full of compressed clusters.
        return self.variant.may_snapshot() and len(self.snapshots) < 4 and \
            self.variant.options.get("refcount_bits", 16) >= 8

    def take_snapshot(self):
        name = f"s{len(self.log)}"
        self.say(f"snapshot {name}")
        qemu_img("snapshot", "-c", name, self.path)
        self.snapshots[name] = bytes(self.disk.model.content)

    def delete_snapshot(self):
        name = self.chance.choice(list(self.snapshots))
        self.say(f"delete snapshot {name}")
        qemu_img("snapshot", "-d", name, self.path)
        del self.snapshots[name]

    # The end.

    def qemu_check(self):
        """The number of leaks; anything else must not be."""
        result = run("qemu-img", "check", "-U", "--output=json", self.path,
                     check=False)
        assert result.stdout, result.stderr
        report = json.loads(result.stdout)
        said = result.stdout + result.stderr
        if self.host.is_qemu:
            return 0  # its own affair
        assert report.get("corruptions", 0) == 0, said
        assert report.get("check-errors", 0) == 0, said
        if not self.crashed:
            assert report.get("leaks", 0) == 0, said
        return report.get("leaks", 0)

    def repair(self):
        """Finds and mends what a crash leaked."""
        leaks = self.qemu_check()
        ours = run(cohort_binary(), "check", "--json", self.path, check=False)
        assert json.loads(ours.stdout).get("leaks", 0) == leaks, ours.stdout
        self.say(f"repair {leaks} leaks")
        run(cohort_binary(), "check", "--repair=leaks", self.path)
        self.crashed = False
        assert self.qemu_check() == 0

    def check_end(self):
        if self.crashed:
            self.repair()
        else:
            self.qemu_check()
        content = self.disk.model.content
        expected = self.folder / "expected.raw"
        expected.write_bytes(content)
        said = qemu_img("compare", "-f", "qcow2", "-F", "raw", self.path,
                        expected)
        assert said.startswith("Images are identical"), said
        if self.variant.data_file == "raw" and not self.host.is_qemu:
            found = (self.folder / "data").read_bytes()
            assert found[:len(content)] == content, "the raw data file differs"
        for name, then in self.snapshots.items():
            self.check_snapshot(name, then)

    def check_snapshot(self, name, then):
        if image_json(self.path)["virtual-size"] == len(then):
            raw = to_raw(self.path, self.folder / "snapshot.raw", "-l",
                         f"snapshot.name={name}")
            with open(raw, "rb") as file:
                assert file.read() == then, f"snapshot {name}"
