# SPDX-License-Identifier: BSD-3-Clause
"""fio as one more guest of each disk: random writes, 32 at a time, to the part of
the disk that is its own.

    fio, one job a disk  ->  nbdkit with its log filter, one a disk  ->  cohortd

nbdkit outlives the daemon, and its log is the record: a line goes to it before a
request is passed on, and another one before the reply is. When the daemon dies fio
gets errors and ends by itself; by itself it would poll a dead connection for
ever. fio_record.py reads what they leave."""
import os
import signal
import subprocess
import time

from fio_record import FioRun
from machine import listens

DEPTH = 32
# The headers number the writes with 16 bits: fewer than 2^16 in so many seconds.
RUNTIME_S, WRITES_A_SECOND = 25, 2400
TIMEOUT_S = 60
SIZES = ("4k/100", "4k/70:8k/20:32k/10", "4k/40:16k/30:64k/30")


class FioGuests:
    """A fio that writes to all disks from here to join()."""

    def __init__(self, uris, disks, numbers, rng, folder):
        """`disks`: world.Disk; `numbers`: see FioRun; `rng` chooses sizes and
        rhythms; `folder`: for what they leave."""
        self.runs = []
        self.servers = []
        self.process = None
        self.folder = folder
        try:
            words = self.words(uris, disks, numbers, rng)
            for run in self.runs:
                self.wait_until(lambda: listens(run.socket), "nbdkit's start")
            with open(f"{folder}/fio.log", "wb") as log:
                self.process = subprocess.Popen(
                    words, cwd=folder, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log)
        except BaseException:
            self.kill()
            raise

    def words(self, uris, disks, numbers, rng):
        """The command; what its jobs talk to is started."""
        words = ["fio", "--thread"]
        for index, (uri, disk) in enumerate(zip(uris, disks)):
            run = FioRun(f"{self.folder}/fio-{index}", numbers)
            disk.fio.runs.append(run)
            self.runs.append(run)
            self.servers.append(subprocess.Popen(
                ["nbdkit", "-f", "--exit-with-parent", "-U", run.socket,
                 "--filter=log", "nbd", f"uri={uri}", f"logfile={run.log}"],
                env={**os.environ, "TZ": "UTC"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            words += [
                f"--name=fio-{index}", "--ioengine=nbd",
                f"--uri=nbd+unix:///?socket={run.socket}", "--rw=randwrite",
                f"--bssplit={rng.choice(SIZES)}", "--blockalign=4k",
                f"--iodepth={DEPTH}", f"--offset={disk.fio.first}",
                f"--size={disk.fio.length}",
                "--norandommap", "--serialize_overlap=1", "--time_based",
                f"--runtime={RUNTIME_S}", f"--rate_iops={WRITES_A_SECOND}",
                f"--thinktime={rng.choice((10000, 40000, 100000))}",
                f"--thinktime_blocks={rng.choice((64, 128))}",
                f"--fsync={rng.choice((0, 100))}",
                f"--randseed={rng.randrange(1 << 31)}",
                "--verify=md5", "--verify_interval=512", "--do_verify=0",
                "--verify_state_save=0", "--clocksource=clock_gettime",
                f"--write_iolog={run.issued}"]
        return words

    def wait_until(self, condition, what):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            ended = [process.args[0] for process in
                     (*self.servers, *filter(None, [self.process]))
                     if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{what} does not happen; "
                                     f"these have ended: {ended}")
            time.sleep(0.002)

    def wait_for_first_writes(self):
        for run in self.runs:
            self.wait_until(run.has_begun, "the first write of fio")

    def stop(self):
        """It waits for its replies and ends."""
        self.process.send_signal(signal.SIGINT)

    def join(self):
        """Reaps all of it, stopped or with a daemon that has died."""
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as hung:
            raise AssertionError("fio did not end") from hung
        finally:
            self.kill()
        for run in self.runs:
            run.ended()

    def kill(self):
        """All replies are in the logs when fio has ended, so nobody has anything
        more to say."""
        for process in (self.process, *self.servers):
            if process is not None:
                process.kill()
                process.wait()
        for run in self.runs:
            if os.path.exists(run.socket):
                os.unlink(run.socket)
