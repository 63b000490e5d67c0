# SPDX-License-Identifier: BSD-3-Clause
"""A cohortd that is killed: its trace is read as it comes, so that whoever wants
to kill it at an event can, and tells afterwards what it was doing."""
import os
import subprocess
import threading
import time

from support.qmp import Qmp, QmpTimeout

START_TIMEOUT_S = 60


class DaemonFailed(Exception):
    """It ended, or does not answer, though nobody killed it."""


class CohortDaemon:
    def __init__(self, binary, folder, tracking, options, on_line=None):
        """Starts it; `tracking`: --tracking; `options`: of its nodes; `on_line`: called with each line of its trace, in a thread
        of its own. ready() waits until it serves."""
        self.folder = folder
        self.qmp_path = f"{folder}/qmp.sock"
        self.nbd_path = f"{folder}/nbd.sock"
        self.pidfile = f"{folder}/pid"
        self.on_line = on_line
        self.lines = []
        self.killed = False
        nodes = [word for option in options for word in ("--blockdev", option)]
        words = [binary, "--trace", "*", "--state-dir", f"{folder}/state",
                 "--pidfile", self.pidfile,
                 "--chardev", f"socket,id=q,path={self.qmp_path},server=on,"
                 "wait=off", "--monitor", "chardev=q",
                 "--tracking", tracking, *nodes,
                 "--nbd-server", f"addr.type=unix,addr.path={self.nbd_path}"]
        reading, writing = os.pipe()
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL,
                                        stderr=writing)
        os.close(writing)
        self.reader = threading.Thread(target=self.read, args=(reading,))
        self.reader.start()

    def export(self, names):
        for name in names:
            self.qmp.command("block-export-add", type="nbd",
                             id=f"export-{name}", node_name=name, name=name,
                             writable=True)

    def read(self, descriptor):
        rest = b""
        while data := os.read(descriptor, 1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                line = line.decode(errors="replace")
                self.lines.append(line)
                if self.on_line is not None:
                    self.on_line(line)
        os.close(descriptor)
        if rest:
            self.lines.append(rest.decode(errors="replace"))

    def ready(self):
        """Waits until it has written its pid file; False: it was killed."""
        deadline = time.monotonic() + START_TIMEOUT_S
        wanted = str(self.process.pid)
        while True:
            try:
                with open(self.pidfile, encoding="ascii") as file:
                    if file.read().strip() == wanted:
                        break
            except FileNotFoundError:
                pass
            if self.process.poll() is not None:
                self.reader.join()
                if self.killed:
                    return False
                raise DaemonFailed("cohortd could not start:\n" + self.tail())
            if time.monotonic() > deadline:
                raise DaemonFailed("cohortd does not start:\n" + self.tail())
            time.sleep(0.001)
        try:
            self.qmp = Qmp(self.qmp_path)
        except (OSError, EOFError, QmpTimeout):
            if self.killed:
                return False
            raise
        return True

    def uri(self, name):
        return f"nbd+unix:///{name}?socket={self.nbd_path}"

    def kill(self):
        """SIGKILL, from any thread."""
        self.killed = True
        self.process.kill()

    def is_alive(self):
        return self.process.poll() is None

    def wait(self):
        """Its exit code, when all that it said has been read."""
        code = self.process.wait(60)
        self.reader.join()
        return code

    def tail(self, count=30):
        return "\n".join(self.lines[-count:])
