# SPDX-License-Identifier: BSD-3-Clause
"""A client that changes persistent bitmaps without end, and knows what each of
them must hold.

A bitmap must hold what was written while it recorded: from the reply to what made
it record to the moment when something was sent that makes it stop. What was sent
and not replied to may have happened or not; but to all disks of one transaction
alike."""
import random
import time

from support.qmp import QmpError
from record import NEVER

BLOCK = 4096
GRANULARITIES = (4096, 65536)


class Expected:
    """What one bitmap must hold: blocks of 4 KiB."""

    def __init__(self, granularity, recording):
        self.granularity = granularity
        self.recording = recording  # None: either
        self.exists = True          # None: either
        self.blocks = set()
        self.spans = []             # [since, until]: of what it recorded

    def start(self, when):
        if not self.spans or self.spans[-1][1] != NEVER:
            self.spans.append([when, NEVER])

    def stop(self, when):
        if self.spans and self.spans[-1][1] == NEVER:
            self.spans[-1][1] = when

    def clear(self):
        self.blocks = set()
        self.spans = []

    def fold(self, writes, numbers):
        """The writes of a round, `numbers` being what the disk holds after it,
        become blocks."""
        for write in writes:
            for since, until in self.spans:
                if write.sent < since or write.sent > until:
                    continue
                if write.replied <= until and write.replied < NEVER or \
                        until == NEVER and write.value != 0 and write.number \
                        in numbers[write.first:write.first + write.count]:
                    self.blocks.update(range(
                        write.first // 8,
                        (write.first + write.count - 1) // 8 + 1))
                    break
        self.spans = []

    def missing(self, bits):
        """A block that must be dirty and is not; None: all are."""
        for block in self.blocks:
            if not bits >> (block * BLOCK // self.granularity) & 1:
                return block
        return None


class Verbs:
    def __init__(self, disks, seed):
        self.disks = disks
        self.rng = random.Random(seed)
        self.bitmaps = {disk: {} for disk in disks}  # name -> Expected
        self.generation = 0
        self.under_way = None   # (verb, [(disk, name, source)]), while sent
        self.sent = 0
        # What was replied to before this is durable: a bitmap that is clear now
        # would not have it, if it were lost.
        self.flushed = {disk: 0 for disk in disks}

    def choose(self):
        """A verb and its targets: one bitmap, or one of each disk."""
        if self.rng.random() < 0.4:
            return self.choose_group()
        disk = self.rng.choice(self.disks)
        names = [name for name in self.bitmaps[disk] if name[0] == "x"]
        if len(names) < 2 or (len(names) < 4 and self.rng.random() < 0.3):
            self.generation += 1
            return "add", [(disk, f"x{self.generation}", None)]
        name = self.rng.choice(names)
        verb = self.rng.choice(("clear", "enable", "disable", "merge",
                                "remove"))
        other = self.rng.choice([n for n in names if n != name])
        return verb, [(disk, name, other if verb == "merge" else None)]

    def choose_group(self):
        names = [name for name in self.bitmaps[self.disks[0]]
                 if name[0] == "g"]
        if len(names) < 2:
            self.generation += 1
            return "add", [(disk, f"g{self.generation}", None)
                           for disk in self.disks]
        verb = self.rng.choice(("clear", "enable", "disable", "merge",
                                "remove"))
        return verb, [(disk, names[0], names[1] if verb == "merge" else None)
                      for disk in self.disks]

    def action(self, verb, disk, name, source):
        data = {"node": disk, "name": name}
        if verb == "add":
            data.update(persistent=True,
                        granularity=self.rng.choice(GRANULARITIES))
        elif verb == "merge":
            data = {"node": disk, "target": name, "bitmaps": [source]}
        return {"type": f"block-dirty-bitmap-{verb}", "data": data}

    def step(self, qmp):
        """One verb, to its reply."""
        verb, targets = self.choose()
        actions = [self.action(verb, *target) for target in targets]
        began = time.monotonic_ns()
        self.before(verb, targets, actions)
        self.under_way = verb, targets
        self.sent += 1
        try:
            if len(actions) == 1:
                qmp.command(actions[0]["type"], actions[0]["data"])
            else:
                qmp.command("transaction", actions=actions)
        except QmpError as error:
            raise AssertionError(f"{verb} of {targets}: {error}") from error
        self.after(verb, targets)
        self.under_way = None
        if verb in ("add", "clear"):
            for disk, _, _ in targets:
                self.flushed[disk] = began

    def before(self, verb, targets, actions):
        now = time.monotonic_ns()
        for (disk, name, source), action in zip(targets, actions):
            if verb == "add":
                expected = Expected(action["data"]["granularity"], True)
                expected.exists = None
                self.bitmaps[disk][name] = expected
            expected = self.bitmaps[disk][name]
            if verb == "disable":
                expected.stop(now)
            if verb in ("enable", "disable"):
                expected.recording = None \
                    if expected.recording is not (verb == "enable") \
                    else expected.recording
            elif verb == "remove":
                expected.exists = None
            elif verb == "merge":
                other = self.bitmaps[disk][source]
                expected.merged = (set(other.blocks), [
                    [since, min(until, now)] for since, until in other.spans])

    def after(self, verb, targets):
        now = time.monotonic_ns()
        for disk, name, _ in targets:
            expected = self.bitmaps[disk][name]
            if verb == "add":
                expected.exists = True
                expected.start(now)
            elif verb == "remove":
                del self.bitmaps[disk][name]
            elif verb == "clear":
                recording = expected.recording
                expected.clear()
                if recording:
                    expected.start(now)
            elif verb == "enable":
                expected.recording = True
                expected.start(now)
            elif verb == "disable":
                expected.recording = False
            elif verb == "merge":
                expected.blocks |= expected.merged[0]
                expected.spans = expected.merged[1] + expected.spans

    def crashed(self):
        """What was under way may have happened or not."""
        verb, targets = self.under_way or (None, [])
        if verb == "clear":
            for disk, name, _ in targets:
                self.bitmaps[disk][name].clear()
        self.under_way = None
        return verb, targets

    def fold(self, disk, writes, numbers):
        for expected in self.bitmaps[disk].values():
            expected.fold(writes, numbers)

    def restarted(self, disk, found):
        """`found`: name -> entry as the daemon tells it. Returns what is wrong,
        or None; takes over what was open."""
        now = time.monotonic_ns()
        for name, expected in list(self.bitmaps[disk].items()):
            entry = found.get(name)
            if entry is None:
                if expected.exists is True:
                    return f"bitmap {name} of {disk} is gone"
                del self.bitmaps[disk][name]
                continue
            expected.exists = True
            if entry.get("inconsistent"):
                return f"bitmap {name} of {disk} is inconsistent: " + \
                    entry.get("x-cohort-reason", "")
            if expected.recording not in (None, entry["recording"]):
                return f"bitmap {name} of {disk} is recording: " \
                    f"{entry['recording']}"
            expected.recording = entry["recording"]
            if expected.recording:
                expected.start(now)
        for name in found:
            if name[0] in "xg" and name not in self.bitmaps[disk]:
                return f"bitmap {name} of {disk} is there again"
        return None
