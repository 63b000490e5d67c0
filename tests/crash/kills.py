#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Kills cohortd, cohort, or both, again and again, under load; or cuts the power.

    kills.py [--kills N | --cuts N | --seconds S [--power]] [--aim BUCKET]
             [--seed N] [--worlds N] [--keep]

Several worlds side by side, each with disks, a daemon and a repository of its
own (rounds.py, power_cuts.py). Ends with what was hit; fails if a promise was
broken or a bucket is empty: to fill the last ones it goes on for up to three times
as long, and aims at them (aims.py). A seed that failed is run again by --seed, and
the --aim that it had, as far as real processes can be; the folder of what failed
is kept. SIGINT ends it early."""
import argparse
import multiprocessing
import os
import pathlib
import queue
import random
import shutil
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PATH"] += ":/usr/sbin:/sbin"

from aims import Aim, aim_at  # noqa: E402
from buckets import Histogram, SPANS, VERBS  # noqa: E402
from daemon_under_kill import DaemonFailed  # noqa: E402
from power_cuts import PowerRounds  # noqa: E402
from rounds import Rounds  # noqa: E402
from support.daemon import cohort_binary, cohortd_binary  # noqa: E402
from world import Fault  # noqa: E402

# What the campaign tells its workers, if not the index of a bucket to aim at.
NO_AIM, OVER = -1, -2
ROUNDS_IN_A_WORLD = 12
PLACE = "/var/tmp"
KILL_SECONDS, CUT_SECONDS = 90, 30
AIM_SECONDS = 10
FIO_BUCKETS = ["fio: rounds", "fio: writes under way when the daemon died"]
KILL_BUCKETS = [
    *(f"in {name}" for name in SPANS),
    *(f"during {name}" for name in Rounds.WEIGHTS),
    *(f"in verb {verb}" for verb in VERBS),
    *(f"killed: {victim}" for victim in ("daemon", "cohort", "both")),
    "points made under load", "settled: published", "settled: not published",
    *FIO_BUCKETS, *(f"fio: writes to {kind}" for kind in Rounds.KINDS)]
CUT_BUCKETS = [
    "during load", "during backup", "during verbs", "during recovery",
    "in first write waits for its intent", "in prepare of a member",
    "in flip: pages", "in flip: superblock", "cuts: all is forgotten",
    "cuts: a part is forgotten",
    *FIO_BUCKETS, "fio: writes to raw", "fio: writes to qcow2"]


def one_world(kind, folder, seed, bucket, report, is_over):
    """Some rounds that aim at a bucket, if one is given; returns what is wrong, or
    None."""
    rounds = kind(folder, seed, cohortd_binary(), cohort_binary(),
                  aim_at(bucket) if bucket else Aim())
    number = 0
    try:
        rounds.create()
        while number < ROUNDS_IN_A_WORLD and not is_over():
            number += 1
            rounds.round()
            rounds.histogram.add("rounds")
            report(rounds.histogram)
            rounds.histogram = Histogram()
    except (Fault, DaemonFailed, AssertionError, OSError, EOFError) as fault:
        rounds.has_failed = True
        daemon = rounds.world.daemon
        aimed = f", --aim '{bucket}'" if bucket else ""
        return (f"seed {seed}{aimed}, round {number} ({rounds.moment}): {fault}\n"
                f"{traceback.format_exc(limit=-4)}"
                f"the daemon said last:\n{daemon.tail(20) if daemon else ''}")
    finally:
        rounds.release()
    return None


class Worker:
    """Worlds, one after the other, until it is over."""

    def __init__(self, options, seeds, buckets, told, results):
        self.options = options
        self.seeds = seeds
        self.buckets = buckets
        self.told = told
        self.results = results
        self.parent = os.getpid()

    def is_over(self):
        return self.told.value == OVER or os.getppid() != self.parent

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):  # the campaign tells
            signal.signal(number, lambda *_: None)
        kind = PowerRounds if self.options.power else Rounds
        for seed in self.seeds:
            if self.is_over():
                break
            folder = pathlib.Path(f"{PLACE}/cohort-kills-{os.getpid()}-{seed}")
            aim = self.told.value
            try:
                problem = one_world(
                    kind, folder, seed,
                    self.buckets[aim] if aim >= 0 else None,
                    lambda found: self.results.put(("hit", found)),
                    lambda aim=aim: self.told.value != aim or self.is_over())
            except BaseException:
                problem = f"seed {seed}: {traceback.format_exc()}"
            if problem is not None:
                self.results.put(("fault", problem))
            elif not self.options.keep:
                shutil.rmtree(folder, ignore_errors=True)
        self.results.put(("end", None))


class Campaign:
    def __init__(self, options):
        self.options = options
        self.histogram = Histogram()
        self.problems = []
        self.told = 0
        self.began = time.monotonic()
        self.buckets = CUT_BUCKETS if options.power else KILL_BUCKETS
        self.unit = "cuts" if options.power else "kills"
        self.is_stopped = False

    def count(self):
        return self.histogram.counts.get(self.unit, 0)

    def passed(self):
        return time.monotonic() - self.began

    def what_to_tell(self):
        options = self.options
        if self.is_stopped or len(self.problems) >= options.faults or \
                self.passed() > 3 * options.seconds:
            return OVER
        empty = self.empty()
        if self.count() < options.count or not options.count and \
                self.passed() < options.seconds:
            return self.buckets.index(options.aim) if options.aim else NO_AIM
        if not empty:
            return OVER
        # In turn: one that is hard to hit does not keep the others waiting.
        turn = int(self.passed() / AIM_SECONDS)
        return self.buckets.index(empty[turn % len(empty)])

    def empty(self):
        if self.options.seed is not None or self.options.aim:
            return []
        return self.histogram.empty(self.buckets)

    def take(self, kind, what):
        if kind == "hit":
            self.histogram.merge(what)
            if self.count() - self.told >= 100:
                self.told = self.count()
                print(f"{self.told} {self.unit}, {self.passed():.0f} s",
                      flush=True)
        elif not self.is_stopped:  # Ctrl-C ends commands that run, too
            self.problems.append(what)
            print(f"FAULT {what}", flush=True)

    def run(self):
        def stop(*_):
            self.is_stopped = True
        context = multiprocessing.get_context("fork")
        told = context.RawValue("i", self.what_to_tell())
        results = context.Queue()
        workers = [context.Process(target=Worker(
            self.options, self.seeds(number), self.buckets, told, results).run)
            for number in range(self.options.worlds)]
        for worker in workers:
            worker.start()
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        running = len(workers)
        while running > 0:
            try:
                kind, what = results.get(timeout=1)
            except queue.Empty:
                kind = what = None
            if kind == "end":
                running -= 1
            elif kind is not None:
                self.take(kind, what)
            told.value = self.what_to_tell()
        for worker in workers:
            worker.join()
        return self.tell()

    def seeds(self, number):
        if self.options.seed is not None:
            return [self.options.seed] if number == 0 else []
        first = self.options.first_seed + number
        return range(first, first + (1 << 30), self.options.worlds)

    def tell(self):
        print(self.histogram.text())
        for name in self.empty():
            print(f"EMPTY: {name}")
        print(f"{self.count()} {self.unit}, {len(self.problems)} faults, "
              f"{self.passed():.0f} s")
        return 1 if self.problems or self.empty() else 0


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--cuts", type=int, default=0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--power", action="store_true",
                        help="cut the power instead of killing")
    parser.add_argument("--seed", type=int, help="run one world of this seed")
    parser.add_argument("--aim", help="aim at this bucket of the histogram")
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--faults", type=int, default=5,
                        help="end when so many were found")
    parser.add_argument("--keep", action="store_true",
                        help="keep the folders of all worlds")
    options = parser.parse_args()
    options.power |= options.cuts > 0
    options.count = options.kills or options.cuts
    if options.seconds is None:
        options.seconds = 1 << 30 if options.count or options.seed is not None \
            else CUT_SECONDS if options.power else KILL_SECONDS
    buckets = CUT_BUCKETS if options.power else KILL_BUCKETS
    if options.aim is not None and options.aim not in buckets:
        parser.error(f"--aim: one of {', '.join(buckets)}")
    options.first_seed = random.SystemRandom().randrange(1 << 24)
    return options


if __name__ == "__main__":
    given = parse()
    if given.seed is None:
        print(f"seeds from {given.first_seed}", flush=True)
    sys.exit(Campaign(given).run())
