#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Kills cohortd, cohort, or both, again and again, under load.

    kills.py [--cuts] [--kills N | --seconds S] [--seed N] [--keep]
             [--worlds N]

Several worlds side by side, each with disks, a daemon and a repository of its
own (rounds.py). Ends with what was hit; fails if a promise was broken or a bucket
is empty. A seed that failed is run again by --seed, as far as real processes can
be; its folder is kept."""
import argparse
import multiprocessing
import os
import pathlib
import random
import shutil
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PATH"] += ":/usr/sbin:/sbin"

from buckets import Histogram, SPANS, VERBS  # noqa: E402
from daemon_under_kill import DaemonFailed  # noqa: E402
from power_cuts import PowerRounds  # noqa: E402
from rounds import Rounds  # noqa: E402
from support.daemon import cohort_binary, cohortd_binary  # noqa: E402
from world import Fault  # noqa: E402

ROUNDS_IN_A_WORLD = 12
FAULTS_MAX = 5
PLACE = "/var/tmp"
BUCKETS = [
    *(f"in {name}" for name in SPANS),
    *(f"during {name}" for name in Rounds.WEIGHTS),
    *(f"in verb {verb}" for verb in VERBS),
    *(f"killed: {victim}" for victim in ("daemon", "cohort", "both")),
    "points made under load", "settled: published", "settled: not published"]


def one_world(kind, folder, seed, histogram, is_over):
    """Some rounds; returns what is wrong, or None."""
    rounds = kind(folder, seed, cohortd_binary(), cohort_binary())
    number = 0
    try:
        rounds.create()
        while number < ROUNDS_IN_A_WORLD and not is_over():
            number += 1
            before = rounds.kills
            rounds.round()
            histogram.add("rounds")
            is_over(rounds.kills - before)
    except (Fault, DaemonFailed, AssertionError, OSError, EOFError) as fault:
        daemon = rounds.world.daemon
        return (f"seed {seed}, round {number} ({rounds.moment}): {fault}\n"
                f"{traceback.format_exc(limit=-4)}"
                f"the daemon said last:\n{daemon.tail(20) if daemon else ''}")
    finally:
        rounds.release()
        histogram.merge(rounds.histogram)
    return None


class Worker:
    """Worlds, one after the other, until there have been enough kills."""

    def __init__(self, number, options, seeds, left, results):
        self.number = number
        self.options = options
        self.seeds = seeds
        self.left = left      # kills that are wanted still, of all workers
        self.results = results
        self.deadline = time.monotonic() + options.seconds

    def is_over(self, kills=0):
        with self.left.get_lock():
            self.left.value -= kills
            return self.left.value <= 0 or time.monotonic() > self.deadline

    def run(self):
        for seed in self.seeds:
            if self.is_over():
                break
            folder = pathlib.Path(f"{PLACE}/cohort-kills-{os.getpid()}-{seed}")
            histogram = Histogram()
            try:
                problem = one_world(
                    PowerRounds if self.options.cuts else Rounds, folder, seed,
                    histogram, self.is_over)
            except BaseException:
                problem = f"seed {seed}: {traceback.format_exc()}"
            self.results.put((seed, histogram, problem))
            if problem is None and not self.options.keep:
                shutil.rmtree(folder, ignore_errors=True)
        self.results.put(None)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cuts", action="store_true",
                        help="cut the power instead (power_cuts.py)")
    parser.add_argument("--kills", type=int, default=1 << 30)
    parser.add_argument("--seconds", type=float, default=1 << 30)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--keep", action="store_true",
                        help="keep the folders of all worlds")
    options = parser.parse_args()
    if options.seed is None and options.kills == options.seconds:
        options.seconds = 100
    return options


def seeds_of(options, number):
    if options.seed is not None:
        return [options.seed] if number == 0 else []
    first = options.first_seed + number
    return range(first, first + 1_000_000_000, options.worlds)


def main():
    options = parse()
    options.first_seed = random.SystemRandom().randrange(1 << 24)
    if options.seed is None:
        print(f"seeds from {options.first_seed}", flush=True)
    context = multiprocessing.get_context("fork")
    left = context.Value("q", options.kills)
    results = context.Queue()
    workers = [context.Process(target=Worker(
        number, options, seeds_of(options, number), left, results).run)
        for number in range(options.worlds)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    histogram, problems, running, told = Histogram(), [], len(workers), 0
    while running > 0:
        result = results.get()
        if result is None:
            running -= 1
            continue
        _, found, problem = result
        histogram.merge(found)
        if problem is not None:
            problems.append(problem)
            print(f"FAULT {problem}", flush=True)
            if len(problems) == FAULTS_MAX:
                left.value = 0
        kills = histogram.counts.get("kills", 0)
        if kills - told >= 100:
            told = kills
            print(f"{kills} kills, {time.monotonic() - began:.0f} s",
                  flush=True)
    for worker in workers:
        worker.join()
    print(histogram.text())
    empty = histogram.empty(BUCKETS) if options.seed is None else []
    for name in empty:
        print(f"nothing was killed {name}")
    print(f"{histogram.counts.get('kills', 0)} kills, {len(problems)} faults, "
          f"{time.monotonic() - began:.0f} s")
    return 1 if problems or empty else 0


if __name__ == "__main__":
    sys.exit(main())
