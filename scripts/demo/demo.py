#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""`./dev demo`: the main job, on real file systems, from start to end.

Two ext4 disks are served by cohortd and written to without a pause. They are
backed up together; then an incremental backup of both fails because one
target gives an I/O error; then the same command again succeeds; then both
points are restored and held against copies taken at the frozen instants.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

import disks as demo_disks  # noqa: E402
from disks import MIB  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from support import daemon as daemons  # noqa: E402
from support.waiting import wait_until  # noqa: E402
from writer import Writer, ask  # noqa: E402

NAMES = ("system", "data")
# What cohort says of its progress where there is no terminal.
PROGRESS = re.compile(r"^\w+: \w+ +\d+ %$")


class Story:
    """Prints numbered steps and keeps the table's lines."""

    def __init__(self):
        self.number = 0
        self.began = time.monotonic()
        self.lines = []

    def step(self, text):
        self.number += 1
        print(f"{self.number:2}. {text}", flush=True)

    def more(self, text):
        for line in text.rstrip().splitlines():
            if not PROGRESS.search(line):
                print(f"      {line}", flush=True)

    def check(self, good, text):
        """What the demo is there to show; it ends here if it is not so."""
        self.more(f"{'ok  ' if good else 'BAD '}{text}")
        if not good:
            raise SystemExit("the demo failed")

    def table(self):
        print()
        head = ("step", "system", "data", "seconds", "outcome")
        widths = [max(len(str(line[column])) for line in [head, *self.lines])
                  for column in range(len(head))]
        for line in [head, ["-" * width for width in widths], *self.lines]:
            print("  " + "  ".join(
                str(cell).rjust(width) if column in (1, 2, 3)
                else str(cell).ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths))))


def mib(count):
    return f"{count / MIB:.1f} MiB"


class Demo:
    def __init__(self, folder):
        self.folder = folder
        self.story = Story()
        self.repository = folder / "repository"
        self.daemon = self.writer = self.proxy = None
        self.disks = []

    # The cast.

    def make_disks(self):
        sources = demo_disks.choose_sources(len(NAMES))
        facts = []
        for name, source in zip(NAMES, sources):
            size, files = demo_disks.make_disk(self.folder / f"{name}.raw",
                                               source)
            facts.append(f"{name}.raw, {size // MIB} MiB with "
                         f"{files:,} files of {source}")
        self.story.step("Made two ext4 disks: " + "; ".join(facts) + ".")

    def serve(self):
        options = []
        for name in NAMES:
            options += [
                "--blockdev", f"driver=file,node-name={name}-file,"
                f"filename={self.folder}/{name}.raw",
                "--blockdev", f"driver=raw,node-name={name},"
                f"file={name}-file",
                "--export", f"type=nbd,id={name},node-name={name},"
                f"name={name},writable=on"]
        self.daemon = daemons.cohortd(self.folder / "daemon", *options,
                                      nbd=True)
        self.proxy = FaultProxy(self.folder, self.daemon.qmp_path)
        self.story.step(
            f"cohortd (process {self.daemon.pid}, "
            f"{mib(self.daemon.status('VmRSS'))} of memory) serves both "
            "over NBD.")

    def attach(self):
        kind = demo_disks.choose_kind(self.folder)
        for name in NAMES:
            disk = kind(name, self.daemon.nbd_uri(name), self.folder)
            disk.attach()
            self.disks.append(disk)
        self.writer = Writer(self.disks, self.folder)
        wait_until(lambda: self.writer.changes() >= 10 or
                   self.writer.failure, 30, "the writer does not get going")
        self.story.step("From now on files come and go on both, "
                        "without a pause.")
        self.story.more(f"variant: {kind.variant}")

    # The deeds.

    def bitmap_counts(self):
        """Dirty bytes by disk, over the bitmaps that have a name."""
        counts = {}
        for name in NAMES:
            info = self.daemon.qmp.node(name)
            counts[name] = sum(
                bitmap["count"] for bitmap in info.get("dirty-bitmaps", [])
                if bitmap.get("name"))
        return counts

    def backup(self, point, *options):
        """One `cohort backup`; its exit code, output and seconds."""
        self.writer.snapshot = self.folder / f"instant-{point}"
        self.writer.snapshot.mkdir(exist_ok=True)
        agent = f"/usr/bin/python3 {HERE}/demo.py --ask " \
            f"{self.writer.address}"
        words = [daemons.cohort_binary(), "backup", str(self.repository),
                 "--qmp", self.proxy.path,
                 "--freeze-cmd", f"{agent} freeze",
                 "--thaw-cmd", f"{agent} thaw", *options]
        for name in NAMES:
            words += ["--disk", name]
        began, before = time.monotonic(), self.writer.changes()
        result = subprocess.run(words, text=True, capture_output=True,
                                stdin=subprocess.DEVNULL, check=False)
        # The copies for the comparison are the demo's own work.
        seconds = time.monotonic() - began - self.writer.copying_s
        self.check_writer()
        return result, seconds, self.writer.changes() - before

    def check_writer(self):
        if self.writer.failure:
            raise SystemExit(f"the guest's writes failed: "
                             f"{self.writer.failure}")

    def point_bytes(self):
        return demo_disks.disk_usage(self.repository) \
            if self.repository.exists() else 0

    def stored_now(self):
        """Bytes by disk in the newest point."""
        newest = pathlib.Path(self.points()[-1]).parent
        return {name: sum(path.stat().st_blocks * 512
                          for path in newest.iterdir()
                          if path.name.startswith(f"{name}."))
                for name in NAMES}

    def full_backup(self):
        result, seconds, changes = self.backup("full", "--full")
        self.story.step(f"Full backup of both, as one group: {seconds:.1f} s, "
                        f"with {changes} changes by the guest meanwhile.")
        self.story.more(result.stdout + result.stderr)
        self.story.check(result.returncode == 0,
                         f"cohort backup: exit code {result.returncode}")
        self.remember("full backup", self.stored_now(), seconds, "committed")

    def remember(self, what, amounts, seconds, outcome):
        self.story.lines.append((what, mib(amounts["system"]),
                                 mib(amounts["data"]),
                                 f"{seconds:.1f}", outcome))

    def more_changes(self):
        goal = self.writer.changes() + 60
        wait_until(lambda: self.writer.changes() >= goal or
                   self.writer.failure, 60, "the writer stands still")
        self.check_writer()
        counts = self.bitmap_counts()
        self.story.step("The guest goes on; the bitmaps hold what changed "
                        "since: " + ", ".join(
                            f"{name} {mib(counts[name])}" for name in NAMES))

    def failing_backup(self):
        """Disk 2's target breaks; the guest rests, so that the bitmaps can be
        compared to the bit."""
        self.story.step("Incremental backup of both, and the target of disk "
                        "2 gives EIO on its first write.")
        self.writer.rest()
        before = self.bitmap_counts()
        self.daemon.qmp.events_now()
        points = self.points()
        self.proxy.armed_for = NAMES[1]
        result, seconds, _ = self.backup("failed")
        self.proxy.armed_for = None
        after = self.bitmap_counts()
        self.writer.go_on()
        self.story.more(result.stdout + result.stderr)
        self.tell_job_ends()
        check = self.story.check
        check(self.proxy.broken > 0, "the fault was really there")
        check(result.returncode != 0,
              f"cohort backup: exit code {result.returncode}")
        check(self.points() == points, "the repository has no new point")
        check(before == after, "both bitmaps are as before: " + ", ".join(
            f"{name} {before[name]:,} -> {after[name]:,} bytes dirty"
            for name in NAMES))
        self.remember("incremental, disk 2 fails", before, seconds,
                      "nothing lost")

    def tell_job_ends(self):
        ends = [event for event in self.daemon.qmp.events_now()
                if event["event"] in ("BLOCK_JOB_COMPLETED",
                                      "BLOCK_JOB_CANCELLED")]
        for event in ends:
            data = event["data"]
            self.story.more(f"job {data['device']}: {event['event']}"
                            f"{': ' + data['error'] if 'error' in data else ''}")
        self.story.check(
            len(ends) == 2 and all(
                event["event"] == "BLOCK_JOB_CANCELLED" or
                "error" in event["data"] for event in ends) and
            self.daemon.qmp.command("query-jobs") == [],
            "both jobs have ended, neither with success")

    def points(self):
        """Manifests of the points, oldest first."""
        found = self.repository.glob("[!.]*/manifest.json")
        return sorted(map(str, found),
                      key=lambda path: os.stat(path).st_mtime_ns)

    def second_backup(self):
        result, seconds, changes = self.backup("incremental")
        self.story.step("The same command again, the cause being gone: "
                        f"{seconds:.1f} s, {changes} changes meanwhile.")
        self.story.more(result.stdout + result.stderr)
        self.story.check(result.returncode == 0,
                         f"cohort backup: exit code {result.returncode}")
        self.remember("the same again", self.stored_now(), seconds,
                      "committed")

    # The proof.

    def restore(self):
        self.writer.stop()
        self.check_writer()
        self.detach()
        self.story.step("The guest is gone; both points are verified and "
                        "restored elsewhere.")
        for words in (["list"], ["verify"]):
            result = subprocess.run(
                [daemons.cohort_binary(), *words, str(self.repository)],
                text=True, capture_output=True, check=False)
            self.story.more(result.stdout + result.stderr)
            self.story.check(result.returncode == 0, f"cohort {words[0]}")
        ids = [pathlib.Path(path).parent.name for path in self.points()]
        for point, name in zip(ids, ("full", "incremental")):
            self.restore_point(point, name)

    def restore_point(self, point, instant):
        target = self.folder / f"restored-{instant}"
        began = time.monotonic()
        result = subprocess.run(
            [daemons.cohort_binary(), "restore", str(self.repository), point,
             "--to", str(target)], text=True, capture_output=True,
            check=False)
        seconds = time.monotonic() - began
        self.story.check(result.returncode == 0,
                         f"cohort restore {point}: {seconds:.1f} s")
        sizes = {}
        for name in NAMES:
            restored = target / f"{name}.raw"
            sizes[name] = os.path.getsize(restored)
            same = demo_disks.same_content(
                restored, self.folder / f"instant-{instant}/{name}.raw")
            self.story.check(
                demo_disks.is_clean(restored) and same,
                f"{restored.name}: e2fsck -fn finds it clean; every byte is "
                "as it was at the instant")
        self.remember(f"restore of the {instant} point", sizes, seconds,
                      "clean, equal")

    def run(self):
        self.make_disks()
        self.serve()
        self.attach()
        self.full_backup()
        self.more_changes()
        self.failing_backup()
        self.second_backup()
        self.restore()
        peak = self.daemon.status("VmHWM")
        code = self.daemon.quit()
        self.story.step(f"cohortd quit with exit code {code}; it had used "
                        f"{mib(peak)} of memory at most.")
        self.story.table()
        print(f"\nDone in {time.monotonic() - self.story.began:.0f} s. The "
              "guest was frozen for each instant, and both disks copied aside "
              f"while it was\n(not counted above), so that the restored "
              "ones could be compared.")

    def detach(self):
        while self.disks:
            self.disks.pop().detach()

    def clean_up(self):
        if self.writer:
            self.writer.stop()
        self.detach()
        if self.daemon and self.daemon.is_alive():
            self.daemon.kill()


def main():
    parser = argparse.ArgumentParser(prog="./dev demo")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(*options.ask)
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cohort-demo-",
                                           dir=os.environ.get("TMPDIR",
                                                              "/var/tmp")))
    demo = Demo(folder)
    try:
        demo.run()
    except BaseException:
        if demo.daemon:
            print(demo.daemon.stderr(), file=sys.stderr)
        raise
    finally:
        demo.clean_up()
        if options.keep:
            print(f"Everything is in {folder}.")
        else:
            demo_disks.free(folder)


if __name__ == "__main__":
    main()
