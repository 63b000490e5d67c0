# SPDX-License-Identifier: BSD-3-Clause
"""One round after another in a world: load, something that goes on, a kill at some
moment of it, and what must be true after it.

What goes on is one of WEIGHTS, the moment a line of the daemon's trace (the
n-th one from when it was armed) and a little delay, and who is killed is the
daemon, `cohort`, or both. A seed chooses all of it; when exactly the kill lands is
a matter of real time."""
import os
import random
import subprocess
import threading
import time

from aims import Aim
from buckets import Histogram, open_spans, reached
from fio_guest import FioGuests
from guests import Guests
from moments import MOMENTS, Trigger
from record import NEVER, Wrong, firm_after_cut, firm_after_kill, read_record
from support.qmp import QmpError, QmpTimeout
from verbs import SLOW, Verbs
from world import Fault, MIB, World

SPARE_SIZES = (4 * MIB, 5 * MIB + 512, 3 * MIB, 6 * MIB)
FIRE_TIMEOUT_S = 20
LOAD_TIMEOUT_S = 2      # no first write may be left to come


class Rounds:
    KINDS = ("raw", "qcow2", "loop")
    DISK_BYTES = 6 * MIB
    POINTS_MAX = 40
    RUNS_MAX = 1000     # backups in a round
    FIO_SHARE = 0.1     # of the rounds
    DURABILITIES = ("power", "power", "power", "process")
    WEIGHTS = {"load": 3, "backup": 14, "verbs": 10, "resize": 3, "close": 4,
               "recovery": 5, "checkpoint": 1}

    def __init__(self, folder, seed, cohortd, cohort, aim=Aim()):
        self.seed = seed
        self.aim = aim
        self.rng = random.Random(seed)
        self.world = World(self.place(folder), folder, cohortd, cohort,
                           self.KINDS, self.DISK_BYTES)
        self.records = [f"{folder}/{index}.record" for index in range(3)]
        self.verbs = Verbs(self.world.names(), f"{seed} verbs")
        self.histogram = Histogram()
        self.numbers = 1 << 40
        self.decks = {}
        self.kills = 0
        self.trigger = None
        self.guests = None
        self.fio = None
        self.killed_at = 0
        self.cohort_process = None
        self.runs = []          # [began, ended, exit code] of cohort backup
        self.what = self.moment = "creating"
        self.must_stop = False
        self.has_failed = False

    def place(self, folder):
        """Where the world is, all of it."""
        return folder

    def release(self):
        self.world.release()
        if self.guests is not None and self.guests.process.is_alive():
            self.guests.process.kill()
        if self.fio is not None:
            self.fio.kill()

    def is_firm(self, disk, crashed):
        """What must be on that disk; see record.py."""
        return firm_after_cut if crashed and disk.kind == "qcow2" \
            else firm_after_kill

    # What goes on.

    def on_line(self, line):
        if self.trigger is not None:
            self.trigger.line(line)

    def create(self):
        world = self.world
        world.create(self.rng.choice(SPARE_SIZES))
        interval = self.rng.choice((30, 300, 5000))
        world.tracking = f"durability={self.rng.choice(self.DURABILITIES)}," \
            f"checkpoint-interval={interval}"
        world.serve(self.on_line)
        world.daemon.qmp.command("block-dirty-bitmap-add", node="spare",
                                 name="spare", persistent=True,
                                 granularity=4096)
        self.spare_dirty_from = world.spare.size
        self.spare_blocks = set()
        for _ in range(self.rng.randrange(5)):
            self.verbs.step(world.daemon.qmp)

    def back_up(self):
        """Backups one after the other, until someone is killed."""
        while not self.must_stop and len(self.runs) < self.RUNS_MAX:
            began = time.monotonic_ns()
            process = subprocess.Popen(
                self.world.backup(), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            self.cohort_process = process
            said = process.communicate()[1]
            code = process.returncode
            self.runs.append((began, time.monotonic_ns(), code))
            if code == 1 and SLOW in said.decode():
                self.runs.pop()
            elif code != 0:
                if not self.must_stop:
                    self.problem = f"cohort backup: {code}\n{said.decode()}"
                return

    def change_bitmaps(self):
        qmp = self.world.daemon.qmp
        try:
            while not self.must_stop:
                self.verbs.step(qmp)
        except (OSError, EOFError, QmpTimeout):
            pass
        except AssertionError as problem:
            self.problem = str(problem)

    def resize(self):
        """Writes to the spare disk, and makes it smaller and larger."""
        world = self.world
        qmp = world.daemon.qmp
        try:
            while not self.must_stop:
                self.write_spare()
                size = self.rng.choice(SPARE_SIZES)
                qmp.command("block_resize", node_name="spare", size=size)
                self.spare_dirty_from = min(self.spare_dirty_from, size,
                                            self.spare_size)
                self.spare_size = size
        except (OSError, EOFError, QmpTimeout):
            pass
        except QmpError as problem:
            self.problem = f"resize: {problem}"

    def write_spare(self):
        import nbd
        world = self.world
        qmp = world.daemon.qmp
        qmp.command("block-export-add", type="nbd", id="spare",
                    node_name="spare", name="spare", writable=True)
        handle = nbd.NBD()
        try:
            handle.connect_uri(world.daemon.uri("spare"))
            for _ in range(3):
                block = self.rng.randrange(self.spare_size // 4096)
                handle.pwrite(b"x" * 4096, block * 4096)
                self.spare_blocks.add(block)
            handle.shutdown()
        except nbd.Error as error:
            raise EOFError(str(error)) from error
        qmp.command("block-export-del", id="spare", mode="hard")
        qmp.wait_event("BLOCK_EXPORT_DELETED", id="spare")

    def close(self):
        time.sleep(self.rng.random() * 0.05)
        self.world.daemon.process.terminate()

    # The kill.

    def fire_daemon(self):
        """Only while guests' writes are under way."""
        for _ in range(200):
            if self.guests is None or self.guests.under_way() > 0 or \
                    self.what == "close":
                break
            time.sleep(0.0005)
        self.under_way = self.guests.under_way() if self.guests else 0
        self.must_stop = True
        self.verb_under_way = self.verbs.under_way
        self.killed_at = time.monotonic_ns()
        self.world.daemon.kill()

    def fire_cohort(self):
        self.must_stop = True
        process = self.cohort_process
        if process is not None:
            process.kill()

    def fire_both(self):
        if self.rng.random() < 0.5:
            self.fire_cohort()
            self.fire_daemon()
        else:
            self.fire_daemon()
            self.fire_cohort()

    def draw(self, activity):
        """A moment; all of them come before one comes again."""
        if self.aim.pattern is not None and activity == self.aim.activity:
            return self.aim.pattern, self.aim.most
        if not self.decks.get(activity):
            self.decks[activity] = random.Random(self.rng.random()).sample(
                MOMENTS[activity], len(MOMENTS[activity]))
        return self.decks[activity].pop()

    def arm(self, activity, victim):
        pattern, most = self.draw(activity)
        delay = self.rng.choice((0, 0, 0, self.rng.random() * 0.002,
                                 self.rng.random() * 0.02))
        fire = {"daemon": self.fire_daemon, "cohort": self.fire_cohort,
                "both": self.fire_both}[victim]
        self.moment = f"{activity}, {victim}, {pattern} +{delay * 1000:.1f} ms"
        self.trigger = Trigger(pattern, self.rng.randint(1, most), delay, fire)
        return pattern

    def wait_fired(self, pattern, may_end):
        """`may_end`: what goes on may be over before the moment comes."""
        if pattern is None:
            time.sleep(self.rng.random() * 0.25)
            self.trigger.go()
        deadline = time.monotonic() + (
            LOAD_TIMEOUT_S if self.what in ("load", "recovery")
            else FIRE_TIMEOUT_S)
        while not self.trigger.fired.wait(0.01):
            if self.trigger.firing.is_set():
                self.trigger.fired.wait()
            elif self.problem is not None or not self.world.daemon.is_alive():
                break
            elif may_end() or time.monotonic() > deadline:
                self.trigger.go()
        if not self.trigger.fired.is_set() and self.problem is None and \
                self.what != "close":
            raise Fault("the daemon ended by itself:\n" +
                        self.world.daemon.tail())

    def choose_activity(self):
        chosen = self.rng.choices(list(self.WEIGHTS), self.WEIGHTS.values())[0]
        return self.aim.activity or chosen

    def choose_victim(self, activity):
        if activity != "backup":
            return "daemon"
        if self.aim.victim is not None:
            return self.aim.victim
        return self.rng.choices(("daemon", "cohort", "both"), (6, 2, 2))[0]

    def round(self):
        """A kill and what follows; `recovery` counts both of its kills."""
        activity = self.choose_activity()
        victim = self.choose_victim(activity)
        self.what, self.problem, self.must_stop = activity, None, False
        self.runs, self.cohort_process, self.under_way = [], None, 0
        self.verb_under_way = None
        self.spare_size = self.world.spare.size
        for path in self.records:
            if os.path.exists(path):
                os.unlink(path)
        self.points_before = self.world.points()
        self.load(activity, victim)
        self.after_load(activity, victim)

    def load(self, activity, victim):
        world, rng = self.world, self.rng
        self.numbers += 1 << 32
        self.killed_at = 0
        self.start_fio()
        self.guests = Guests(
            world.uris(), [disk.own_bytes for disk in world.disks],
            self.numbers, f"{self.seed} {self.numbers}", self.records)
        if not self.aim.early:
            self.guests.wait_for(rng.choice((1, 5, 20, 60)))
        if self.fio is not None:
            self.fio.wait_for_first_writes()
        del world.daemon.lines[:-400]
        first = "load" if activity == "recovery" else activity
        pattern = self.arm(first, victim)
        work = {"backup": self.back_up, "verbs": self.change_bitmaps,
                "resize": self.resize, "close": self.close}.get(activity)
        thread = None
        if work is not None:
            thread = threading.Thread(target=work)
            thread.start()
        self.wait_fired(pattern, lambda: not (
            world.daemon if activity == "close" else thread or
            world.daemon).is_alive())
        self.must_stop = True
        if victim == "cohort":
            self.guests.stop()
            if self.fio is not None:
                self.fio.stop()
        if thread is not None:
            thread.join()
        self.guests.join()
        if self.fio is not None:
            self.fio.join()
        self.trigger = None
        if self.problem is not None:
            raise Fault(self.problem)

    def start_fio(self):
        """In some of the rounds; the time that it takes to start is the others'
        gain."""
        self.fio = None
        chance = random.Random(f"{self.seed} {self.numbers} fio")
        if chance.random() < self.FIO_SHARE or self.aim.with_fio:
            self.fio = FioGuests(self.world.uris(), self.world.disks,
                                 self.numbers, chance, self.world.scratch)

    def count(self, activity, victim):
        if victim != "cohort":
            code = self.world.daemon.wait()
            if not self.world.daemon.killed:
                if code != 0:
                    raise Fault(f"a clean end with exit code {code}:\n" +
                                self.world.daemon.tail())
                self.histogram.add("not killed: it had ended cleanly")
                return
            if self.under_way == 0 and activity != "close":
                self.histogram.add("not counted: no write was under way")
            else:
                self.kills += 1
                self.histogram.add("kills")
            for span in open_spans(self.world.daemon.lines):
                self.histogram.add(f"in {span}")
            if self.verb_under_way is not None and reached(
                    self.world.daemon.lines, self.verb_under_way[0]):
                verb, targets = self.verb_under_way
                self.histogram.add(f"in verb {verb}")
                if len(targets) > 1:
                    self.histogram.add(f"in verb {verb} on all disks")
        else:
            self.kills += 1
            self.histogram.add("kills")
        self.histogram.add(f"killed: {victim}")
        self.histogram.add(f"during {activity}")

    def after_load(self, activity, victim):
        world = self.world
        self.count(activity, victim)
        if victim != "cohort":
            self.verbs_verb, self.verbs_touched = self.verbs.crashed()
            if activity == "recovery":
                self.kill_recovery()
            self.restart()
        self.check(victim != "cohort")

    def kill_recovery(self):
        """Starts it and kills it while it recovers, some times in a row."""
        world = self.world
        for _ in range(self.rng.randint(1, 3)):
            self.guests = None
            self.what = "recovery"
            pattern, most = self.draw("recovery")
            self.trigger = Trigger(pattern, self.rng.randint(1, most),
                                   self.rng.choice((0, 0, 0.001)),
                                   self.fire_recovery)
            self.start_for_recovery()
            if world.daemon.ready():
                # What nobody asks for is not sealed.
                try:
                    world.daemon.qmp.command("x-cohort-query-transactions")
                except (OSError, EOFError, QmpTimeout):
                    pass
                self.fire_recovery()
            world.daemon.wait()
            self.trigger = None
            self.kills += 1
            self.histogram.add("kills")
            self.histogram.add("killed: daemon")
            self.histogram.add("during recovery")
            for span in open_spans(world.daemon.lines):
                self.histogram.add(f"in {span}, while it recovered"
                                   if span[:4] == "flip" else f"in {span}")

    def start_for_recovery(self):
        self.world.start(self.on_line)

    def fire_recovery(self):
        self.world.daemon.kill()

    # What must be true.

    def restart(self):
        world = self.world
        world.spare.size = os.path.getsize(world.spare.path)
        if world.spare.size != self.spare_size:  # and no reply has come
            self.spare_dirty_from = min(self.spare_dirty_from, self.spare_size,
                                        world.spare.size)
        world.predict({disk.name: disk.size for disk in world.all_disks()})
        world.serve_without_exports(self.on_line)
        bitmaps = world.bitmaps()
        self.drop_leftovers(bitmaps)
        world.check_agreement(bitmaps)
        self.base = world.check_group(bitmaps)
        self.check_verbs_together(bitmaps)
        world.daemon.export(world.names())

    def drop_leftovers(self, bitmaps):
        """A bitmap whose removal was cut short may be left in the image."""
        removed = [target[:2] for target in self.verbs_touched] \
            if self.verbs_verb == "remove" else []
        for disk in self.world.disks:
            for name, info in list(bitmaps[disk.name].items()):
                if disk.kind == "qcow2" and "does not know it" in info.get(
                        "x-cohort-reason", "") and (
                            (disk.name, name) in removed or
                            name.startswith("cohort-")):
                    self.world.daemon.qmp.command("block-dirty-bitmap-remove",
                                                  node=disk.name, name=name)
                    del bitmaps[disk.name][name]
                    self.histogram.add("a removal was cut short")

    def check_verbs_together(self, bitmaps):
        """A transaction that was under way happened to all disks or to none."""
        if len(self.verbs_touched) < 2:
            return
        seen = {(name in bitmaps[disk], bitmaps[disk].get(name, {}).get(
            "recording")) for disk, name, _ in self.verbs_touched}
        if len(seen) > 1:
            raise Fault(f"a mixed transaction: {self.verbs_touched} {seen}")

    def check(self, crashed):
        world = self.world
        fio_runs = self.fio.runs if self.fio else [None] * len(world.disks)
        writes = {disk.name: read_record(path, run) for disk, path, run in
                  zip(world.disks, self.records, fio_runs)}
        self.count_fio(writes)
        contents = world.read_all()
        numbers = {}
        for disk in world.disks:
            try:
                numbers[disk.name] = disk.known.check(
                    contents[disk.name], writes[disk.name],
                    self.is_firm(disk, crashed), disk.name)
            except Wrong as wrong:
                raise Fault(str(wrong)) from wrong
        self.check_bitmaps(crashed, writes, numbers)
        self.check_backups(crashed, contents, writes)
        for disk in world.disks:
            disk.known.settle(numbers[disk.name])
        world.forget_repo_if_long(self.POINTS_MAX)

    def count_fio(self, writes):
        if self.fio is None:
            return
        self.histogram.add("fio: rounds")
        for disk in self.world.disks:
            of_fio = [write for write in writes[disk.name] if
                      write.first * 512 >= disk.own_bytes]
            replied = sum(write.replied < NEVER for write in of_fio)
            self.histogram.add(f"fio: writes to {disk.kind}", replied)
            self.histogram.add("fio: writes under way when the daemon died", sum(
                write.sent < self.killed_at < write.replied
                for write in of_fio))

    def check_bitmaps(self, crashed, writes, numbers):
        world = self.world
        bitmaps = world.bitmaps()
        for disk in world.names():
            self.verbs.fold(disk, writes[disk], numbers[disk])
            wrong = self.verbs.restarted(disk, bitmaps[disk])
            if wrong is not None:
                raise Fault(wrong)
            for name, expected in self.verbs.bitmaps[disk].items():
                if crashed:
                    block = expected.missing(
                        world.prediction.bits(disk, name))
                    if block is not None:
                        raise Fault(f"bitmap {name} of {disk} lacks the write "
                                    f"at byte {block * 4096}")
        if crashed:
            self.check_spare(bitmaps["spare"])

    def check_spare(self, bitmaps):
        if bitmaps["spare"].get("inconsistent"):
            raise Fault("the bitmap of the disk that was resized: " +
                        bitmaps["spare"].get("x-cohort-reason", ""))
        bits = self.world.prediction.bits("spare", "spare")
        blocks = self.spare_blocks | set(range(
            -(-self.spare_dirty_from // 4096),
            -(-self.world.spare.size // 4096)))
        for block in blocks:
            if block * 4096 < self.world.spare.size and not bits >> block & 1:
                raise Fault(f"the bitmap of the disk that was resized lacks "
                            f"byte {block * 4096}")

    def check_backups(self, crashed, contents, writes):
        world = self.world
        before = set(self.points_before)
        manifest = world.next_backup()
        if crashed:
            world.check_base(self.base, manifest)
        world.check_restored(manifest["point"], contents)
        made = [name for name in world.points()
                if name not in before and name != manifest["point"]]
        if made and self.runs:
            began, ended, code = self.runs[-1] if len(made) == len(
                self.runs) else self.runs[len(made) - 1]
            if code != 0:
                ended = 1 << 62
                self.histogram.add("settled: published")
            world.check_point_under_load(made[-1], began, ended, writes)
            self.histogram.add("points made under load")
        if self.runs and len(made) < len(self.runs):
            self.histogram.add("settled: not published")
