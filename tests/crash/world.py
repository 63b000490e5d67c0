# SPDX-License-Identifier: BSD-3-Clause
"""A world of a few disks, their daemon, and the repository that they are backed up
to; and what must be true of it after each crash."""
import json
import os
import shutil
import subprocess

import nbd

from agreement import Prediction, keep_copies
from daemon_under_kill import CohortDaemon
from fio_record import FioPart
from record import Known, Wrong, firm_before
from verbs import SLOW

MIB = 1 << 20


class Fault(Exception):
    """What cohort promises does not hold."""


def run(*words, timeout=120):
    return subprocess.run([str(word) for word in words], text=True,
                          errors="replace", stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=timeout, check=False)


class Disk:
    """An image, and the node that shows it."""

    def __init__(self, name, kind, folder, size):
        self.name = name
        self.kind = kind        # raw, qcow2, loop
        self.size = size
        self.path = f"{folder}/{name}.{'qcow2' if kind == 'qcow2' else 'raw'}"
        self.device = None
        # fio writes to the last third, the own guests to the rest.
        self.own_bytes = size // 3 * 2 // MIB * MIB
        self.fio = FioPart(self.own_bytes, size - self.own_bytes)
        self.known = Known(size, self.fio)

    def create(self):
        if self.kind == "qcow2":
            run("qemu-img", "create", "-q", "-f", "qcow2", self.path,
                self.size)
            return
        with open(self.path, "wb") as file:
            file.truncate(self.size)
        if self.kind == "loop":
            found = run("losetup", "--show", "-f", self.path)
            if found.returncode != 0:
                raise Fault(f"losetup: {found.stderr}")
            self.device = found.stdout.strip()

    def options(self):
        file = {"driver": "file", "filename": self.path}
        if self.kind == "loop":
            file = {"driver": "host_device", "filename": self.device}
        return json.dumps({
            "driver": "qcow2" if self.kind == "qcow2" else "raw",
            "node-name": self.name, "discard": "unmap",
            "file": {**file, "discard": "unmap"}})

    def tracking_file(self, state):
        """None: there is none yet."""
        if self.kind == "loop":
            found = [name for name in (os.listdir(state) if os.path.isdir(
                state) else []) if name.startswith("disk-") and
                name.endswith(".cbt")]
            return f"{state}/{found[0]}" if found else None
        return f"{self.path}.cbt" if os.path.exists(f"{self.path}.cbt") \
            else None

    def release(self):
        if self.device is not None:
            run("losetup", "-d", self.device)
            self.device = None


def read_disk(uri, size):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    try:
        return b"".join(bytes(handle.pread(min(MIB, size - offset), offset))
                        for offset in range(0, size, MIB))
    finally:
        handle.shutdown()


class World:
    def __init__(self, folder, scratch, cohortd, cohort, kinds, disk_bytes):
        """All that counts is in `folder`; `scratch` is for copies."""
        self.folder = str(folder)
        self.scratch = str(scratch)
        os.makedirs(self.folder, exist_ok=True)
        self.cohortd = cohortd
        self.cohort = cohort
        self.disks = [Disk(f"disk-{index}-{kind}", kind, self.folder,
                           disk_bytes) for index, kind in enumerate(kinds)]
        self.spare = None       # a disk that nobody is served, to be resized
        self.repo = f"{self.folder}/repo"
        self.state = f"{self.folder}/state"
        self.daemon = None
        self.prediction = None
        self.tracking = "durability=power"

    def names(self):
        return [disk.name for disk in self.disks]

    def all_disks(self):
        return self.disks + ([self.spare] if self.spare else [])

    def create(self, spare_size=None):
        for disk in self.disks:
            disk.create()
        if spare_size is not None:
            self.spare = Disk("spare", "raw", self.folder, spare_size)
            self.spare.create()

    def release(self):
        if self.daemon is not None and self.daemon.is_alive():
            self.daemon.kill()
            self.daemon.wait()
        for disk in self.all_disks():
            disk.release()

    def start(self, on_line=None):
        """A daemon, whether it gets ready or not."""
        self.daemon = CohortDaemon(
            self.cohortd, self.folder, self.tracking,
            [disk.options() for disk in self.all_disks()], on_line)

    def serve_without_exports(self, on_line=None):
        self.start(on_line)
        self.daemon.ready()

    def serve(self, on_line=None):
        """A daemon that nobody kills, ready, with its exports."""
        self.serve_without_exports(on_line)
        self.daemon.export(self.names())

    def uris(self):
        return [self.daemon.uri(name) for name in self.names()]

    def backup(self, *options):
        """The words of a run of `cohort backup`."""
        for disk in self.names():
            options += ("--disk", disk)
        return [self.cohort, "backup", self.repo, "--qmp",
                self.daemon.qmp_path, "--json", "--quiet", *options]

    def points(self):
        """Published points, oldest first: id -> manifest."""
        found = {}
        if os.path.isdir(self.repo):
            for name in sorted(os.listdir(self.repo)):
                path = f"{self.repo}/{name}/manifest.json"
                if name[0] != "." and os.path.exists(path):
                    with open(path, encoding="utf-8") as file:
                        found[name] = json.load(file)
        return found

    # What a crash has left.

    def predict(self, sizes):
        folder = f"{self.scratch}/copy"
        keep_copies({disk.name: disk.tracking_file(self.state)
                     for disk in self.all_disks()}, self.state, folder)
        self.prediction = Prediction(folder, sizes)

    def bitmaps(self):
        """disk -> name -> BlockDirtyInfo, of those that are persistent."""
        return {info["node-name"]: {
            found["name"]: found for found in info.get("dirty-bitmaps", [])
            if found["persistent"] and "name" in found}
            for info in self.daemon.qmp.command("query-named-block-nodes")}

    def check_agreement(self, bitmaps):
        """The daemon has recovered what the checker said."""
        for disk in self.all_disks():
            wrong = self.prediction.disagreement(
                disk.name, self.daemon.qmp, bitmaps[disk.name])
            if wrong is not None:
                raise Fault(f"the checker and cohortd disagree: {wrong}")
        wrong = self.prediction.disagreement_on_outcomes(self.daemon.qmp)
        if wrong is not None:
            raise Fault(f"the checker and cohortd disagree: {wrong}")

    def check_group(self, bitmaps):
        """All disks' bitmaps of the repository stand on the same transaction;
        returns its txid, or None."""
        bases = {}
        for disk in self.names():
            for name, info in bitmaps[disk].items():
                if name.startswith("cohort-"):
                    if info.get("inconsistent"):
                        raise Fault(f"bitmap {name} of {disk}: "
                                    f"{info.get('x-cohort-reason')}")
                    bases.setdefault(name, {})[disk] = [
                        point["txid"] for point in info["x-cohort-base"]]
        points = [base for found in bases.values() for base in found.values()
                  if base]
        if any(len(base) > 1 for base in points):
            raise Fault(f"a transaction of unknown outcome: {bases}")
        for name, found in bases.items():
            if len({str(base) for base in found.values()}) > 1 or \
                    any(found.values()) and len(found) < len(self.disks):
                raise Fault(f"a mixed group: bitmap {name} {found}")
        return points[0][0] if points else None

    def read_all(self):
        return {disk.name: read_disk(self.daemon.uri(disk.name), disk.size)
                for disk in self.disks}

    def next_backup(self):
        """The next ordinary command, when nothing is going on: it must just
        work, and be an increment if anything was ever published."""
        before = self.points()
        began = run(*self.backup())
        while began.returncode == 1 and SLOW in began.stderr:
            began = run(*self.backup())
        if began.returncode != 0:
            raise Fault(f"the next `cohort backup` failed, "
                        f"{began.returncode}:\n{began.stderr}")
        after = self.points()
        manifest = json.loads(began.stdout)
        settled = [name for name in after if name not in before and
                   name != manifest["point"]]
        if before or settled:
            for disk in manifest["disks"]:
                if disk["kind"] != "incremental":
                    raise Fault(f"{disk['node']} went full: {disk['reason']}")
        return manifest

    def check_base(self, txid, manifest):
        """What the bitmaps stood on is a point that is there, the newest one
        before this."""
        points = [name for name in self.points() if name < manifest["point"]]
        newest = self.points()[points[-1]]["txid"] if points else None
        if txid != newest:
            raise Fault(f"the bitmaps' base was {txid}, the newest point's "
                        f"transaction is {newest}")

    def restore(self, point):
        folder = f"{self.scratch}/restored"
        shutil.rmtree(folder, ignore_errors=True)
        done = run(self.cohort, "restore", self.repo, point, "--to", folder,
                   "--quiet")
        if done.returncode != 0:
            raise Fault(f"restoring {point} failed:\n{done.stderr}")
        found = {}
        for disk in self.disks:
            with open(f"{folder}/{disk.name}.raw", "rb") as file:
                found[disk.name] = file.read()
        return found

    def check_restored(self, point, contents):
        for name, data in self.restore(point).items():
            if data != contents[name]:
                index = next(i for i in range(0, len(data), 512)
                             if data[i:i + 512] != contents[name][i:i + 512])
                raise Fault(f"{name}: point {point} differs from the disk at "
                            f"byte {index}")

    def check_point_under_load(self, point, began, ended, writes):
        """A point that was made while guests wrote: what they had a reply to
        before it began is in it, and nothing that they sent after its end."""
        for disk, data in zip(self.disks, self.restore(point).values()):
            try:
                disk.known.check(data, writes[disk.name], firm_before(began),
                                 f"{disk.name} in point {point}", until=ended)
            except Wrong as wrong:
                raise Fault(str(wrong)) from wrong

    def forget_repo_if_long(self, points_max):
        """Chains get long; a new repository is as good as the old one."""
        if len(self.points()) < points_max:
            return
        shutil.rmtree(self.repo)
        run("sync", "-f", self.folder)  # or a power cut brings it back
        for disk, found in self.bitmaps().items():
            for name in found:
                if name.startswith("cohort-"):
                    self.daemon.qmp.command("block-dirty-bitmap-remove",
                                            node=disk, name=name)
