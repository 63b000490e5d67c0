# SPDX-License-Identifier: BSD-3-Clause
"""Rounds that end in a power cut: disks, tracking files, the state directory and the
repository are on an ext4 whose disk forgets what was not flushed (machine.py).

At the moment that a trigger chooses the disk stops, then cohortd and cohort are
killed, then the disk forgets. Sometimes cohortd is killed before, and starts to
recover, so that the cut comes before what it read is on the disk. Afterwards ext4
is mounted, and all holds as after a kill; of what guests wrote only that need be
there which they had flushed, or which had been replied to before a backup, or a
verb that makes a bitmap clear, began and succeeded; and what was published is
there and whole."""
import time

from record import firm_after_cut, firm_after_kill
from rounds import Rounds
from machine import Machine
from world import Fault, run


class PowerRounds(Rounds):
    KINDS = ("raw", "qcow2", "raw")
    DISK_BYTES = 3 << 20    # all of it goes through fuse
    POINTS_MAX = 4
    RUNS_MAX = 8            # or the disk would be full
    FIO_SHARE = 0.25
    DURABILITIES = ("power",)
    WEIGHTS = {"load": 2, "backup": 14, "verbs": 8, "resize": 3, "close": 3,
               "recovery": 4}

    def place(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.machine = Machine(folder, self.seed)
        self.cut_at = None
        return f"{self.machine.root}/world"

    def is_firm(self, disk, crashed):
        if not crashed:
            return firm_after_kill
        flushed = max([self.verbs.flushed[disk.name]] + [
            began for began, ended, code in self.runs
            if code == 0 and ended < (self.cut_at or 0)])
        return lambda write: firm_after_cut(write) or write.replied <= flushed

    def choose_victim(self, activity):
        return "both" if activity == "backup" else "daemon"

    # The cut, which takes all of them with it.

    def fire_daemon(self):
        self.under_way = self.guests.under_way() if self.guests else 0
        self.verb_under_way = self.verbs.under_way
        if self.what == "recovery":     # the cut comes later
            self.must_stop = True
            self.world.daemon.kill()
            return
        self.machine.freeze()
        self.cut_at = self.killed_at = time.monotonic_ns()
        self.must_stop = True
        self.world.daemon.kill()
        self.fire_cohort()
        self.machine.cut()

    fire_both = fire_daemon

    def fire_recovery(self):
        self.machine.freeze()
        self.world.daemon.kill()
        self.machine.cut()

    def start_for_recovery(self):
        if self.machine.server.poll() is not None:
            self.machine.clear()
            self.machine.on()
        super().start_for_recovery()

    def restart(self):
        if self.machine.server.poll() is not None:
            self.histogram.add("cuts")
            self.histogram.add("cuts: all is forgotten"
                               if self.machine.forgets_all
                               else "cuts: a part is forgotten")
            self.machine.clear()
            self.machine.on()
            self.check_published()
        super().restart()

    def check_published(self):
        """What a command had said was published is there, and whole."""
        points = self.world.points()
        told = [run for run in self.runs
                if run[2] == 0 and run[1] < (self.cut_at or 0)]
        lost = [name for name in self.points_before if name not in points]
        if lost or len(points) < len(self.points_before) + len(told):
            raise Fault(f"published points are lost: {lost}, there are "
                        f"{list(points)}, {len(told)} were told of since "
                        f"{list(self.points_before)}")
        if points:
            done = run(self.world.cohort, "verify", self.world.repo, "--quiet")
            if done.returncode != 0:
                raise Fault(f"after the cut the repository is damaged:\n"
                            f"{done.stdout}{done.stderr}")

    def release(self):
        super().release()
        self.machine.off(keep=self.has_failed)
