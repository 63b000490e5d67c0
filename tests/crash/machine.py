# SPDX-License-Identifier: BSD-3-Clause
"""A machine whose power can be cut: an ext4 of its own, on a loop device, on
nbdfuse, on a disk with a volatile write cache. That is nbdkit's cache filter,
which loses all that was not flushed when it is killed, or volatile_disk.py, which
keeps a random part."""
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BYTES = 128 << 20
IMAGES = "/dev/shm"
TIMEOUT_S = 60


class MachineFailed(Exception):
    """The machine, not what is tested, has failed."""


def run(*words):
    done = subprocess.run([str(word) for word in words], text=True,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise MachineFailed(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout.strip()


def is_plain(path):
    try:
        return os.path.isfile(path) and not os.path.ismount(path)
    except OSError:
        return False  # what was mounted there is dead


def wait_until(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise MachineFailed(f"{what} does not happen")
        time.sleep(0.002)


def listens(path):
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(path)
    except OSError:
        return False
    finally:
        peer.close()
    return True


class Machine:
    def __init__(self, folder, seed):
        self.folder = str(folder)
        self.rng = random.Random(seed)
        self.root = f"{folder}/root"    # where the ext4 is mounted
        self.image = f"{IMAGES}/cohort-cuts-{os.getpid()}-{seed}.img"
        self.log = open(f"{folder}/machine.log", "ab")
        self.server = self.fuse = self.device = None
        self.boots = 0
        os.makedirs(self.root, exist_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(BYTES)
        self.on(make=True)

    def on(self, make=False):
        self.boots += 1
        path = f"{self.folder}/{self.boots}.sock"
        self.forgets_all = self.rng.random() < 0.3
        if self.forgets_all:
            words = ["nbdkit", "-f", "-U", path, "--filter=cache", "file",
                     self.image, "cache=writeback"]
        else:
            words = [sys.executable, HERE / "volatile_disk.py", path,
                     self.image, self.rng.randrange(1 << 30)]
        self.server = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log)
        wait_until(lambda: listens(path), "the disk's start")
        point = f"{self.folder}/disk"
        open(point, "ab").close()
        self.fuse = subprocess.Popen(
            ["nbdfuse", point, "--unix", path], stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log)
        wait_until(lambda: os.stat(point).st_size == BYTES, "nbdfuse")
        self.device = run("losetup", "--show", "-f", point)
        self.write_pages_whole()
        if make:
            run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                self.device)
        # What is not synced is kept in memory for long, so that it can be lost.
        run("mount", "-o", "commit=600", self.device, self.root)

    def write_pages_whole(self):
        """A page that is written to while it is on its way to the disk may arrive
        half old and half new, within a sector. Guests that overwrite what they
        have not flushed would find that after a cut, and take it for a fault."""
        name = os.path.basename(self.device)
        with open(f"/sys/block/{name}/queue/stable_writes", "w",
                  encoding="ascii") as file:
            file.write("1")

    def freeze(self):
        """From here on nothing becomes durable any more, nor is replied to."""
        self.server.send_signal(signal.SIGSTOP)

    def cut(self):
        """After freeze(), when those that should die at once have got SIGKILL."""
        if self.forgets_all:
            self.server.kill()
        else:
            self.server.send_signal(signal.SIGTERM)
            self.server.send_signal(signal.SIGCONT)
        self.server.wait(TIMEOUT_S)

    def unmount_root(self):
        "Those that were killed may hold it for a moment longer."
        deadline = time.monotonic() + TIMEOUT_S
        while subprocess.run(["umount", self.root], stderr=self.log,
                             check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise MachineFailed("the file system stays mounted")
            time.sleep(0.01)

    def clear(self):
        """Takes down what stands on a disk that is gone."""
        self.unmount_root()
        run("losetup", "-d", self.device)
        self.device = None
        if self.fuse.poll() is None:
            self.fuse.kill()
        self.fuse.wait(TIMEOUT_S)
        # It may be busy for a moment: the loop device lets go of it later.
        subprocess.run(["umount", "-l", f"{self.folder}/disk"],
                       stderr=self.log, check=False)
        wait_until(lambda: is_plain(f"{self.folder}/disk"), "the unmounting")

    def off(self, keep=False):
        """For good; `keep`: what is on the disk goes to the folder."""
        for process in (self.server, self.fuse):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(TIMEOUT_S)
        if os.path.ismount(self.root):
            self.unmount_root()
        if self.device is not None:
            subprocess.run(["losetup", "-d", self.device], stderr=self.log,
                           check=False)
        subprocess.run(["umount", f"{self.folder}/disk"], stderr=self.log,
                       check=False)
        self.log.close()
        if keep:
            run("cp", "--sparse=always", self.image,
                f"{self.folder}/machine.img")
        os.unlink(self.image)
