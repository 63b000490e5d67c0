# SPDX-License-Identifier: BSD-3-Clause
"""A disk whose I/O can be made to hang and to go on: nbdkit's pause filter
behind nbdfuse, and a log of what has come. Needs /dev/fuse."""
import socket

from support.images import run
from support.waiting import wait_for_file, wait_for_words


class HangingDisk:
    def __init__(self, folder, background, size):
        self.mount = folder / "fuse"
        self.mount.mkdir()
        self.control = folder / "pause.sock"
        self.log = folder / "requests"
        nbd = folder / "slow.sock"
        pidfile = folder / "nbdkit.pid"
        server = background("nbdkit", "-f", "-U", nbd, "-P", pidfile,
                            "--filter=log", "--filter=pause",
                            "memory", str(size), f"logfile={self.log}",
                            f"pause-control={self.control}")
        wait_for_file(str(pidfile), server, 20)
        self.path = self.mount / "disk"
        ready = folder / "nbdfuse.pid"
        fuse = background("nbdfuse", "-P", ready, self.path,
                          "--unix", str(nbd))
        wait_for_file(str(ready), fuse, 20)
        self.hangs = False
        self.log_bytes = 0  # when it began to hang

    def send(self, letter, answer):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.control))
            control.sendall(letter)
            assert control.recv(1) == answer

    def hang(self):
        """Returns when what was under way has ended; new I/O hangs."""
        self.send(b"p", b"P")
        self.hangs = True
        self.log_bytes = self.log.stat().st_size

    def wait_for_hung(self, kind):
        """Returns when a request ("Read", "Write", "Flush") hangs."""
        wait_for_words(self.log, f" {kind} id=", 30, self.log_bytes)

    def go_on(self):
        if self.hangs:
            self.send(b"r", b"R")
            self.hangs = False

    def close(self):
        self.go_on()
        run("umount", "-l", self.mount)
