# SPDX-License-Identifier: BSD-3-Clause
"""A storage daemon under test: cohortd, or qemu-storage-daemon as its peer.

Both take the same options, so a test may run either. A daemon has a folder of
its own with a QMP socket (qmp.sock), an NBD socket (nbd.sock, if asked for),
a pidfile and its stderr; beside it is the state directory, which the daemons of
a test share. It is ready when its pidfile is written.
"""
import os
import pathlib
import subprocess

from support.qmp import Qmp
from support.waiting import wait_for_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
SANITIZER_WORDS = ("Sanitizer", "runtime error:", "ERROR: LeakSan",
                   "assertion failed", "Bail out!", "CRITICAL **")


def cohortd_binary():
    return os.environ.get("COHORTD", str(ROOT / "build/cohortd"))


def cohort_binary():
    return os.environ.get("COHORT", str(ROOT / "build/cohort"))


class Daemon:
    def __init__(self, binary, folder, options=(), nbd=False, qmp=True,
                 env=None, wrapper=()):
        """Starts it. `options` are further command-line words; `nbd`: serve
        NBD on nbd.sock from the start; `wrapper`: words before the binary."""
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.qmp_path = str(self.folder / "qmp.sock")
        self.nbd_path = str(self.folder / "nbd.sock")
        self.pidfile = str(self.folder / "pid")
        self.stderr_path = self.folder / "stderr"
        self.expected_exit = 0
        self.client = None
        self.clients = []
        words = [*wrapper, binary, "--pidfile", self.pidfile]
        if qmp:
            words += ["--chardev", f"socket,id=qmp,path={self.qmp_path},"
                      "server=on,wait=off", "--monitor", "chardev=qmp"]
        if nbd:
            words += ["--nbd-server",
                      f"addr.type=unix,addr.path={self.nbd_path}"]
        self.words = words + [str(option) for option in options]
        pathlib.Path(self.pidfile).unlink(missing_ok=True)  # of a killed one
        with open(self.stderr_path, "ab") as errors:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=errors,
                env={**os.environ,
                     "STATE_DIRECTORY": str(self.folder.parent / "state"),
                     **(env or {})})
        try:
            wait_for_file(self.pidfile, self.process, START_TIMEOUT_S)
        except Exception as error:
            self.process.kill()
            code = self.process.wait()
            raise RuntimeError(f"{' '.join(self.words)}: {error}, exit code "
                               f"{code}\n{self.stderr()}") from error

    @property
    def pid(self):
        return self.process.pid

    @property
    def qmp(self):
        """The client that most tests need: connected once, on first use."""
        if self.client is None:
            self.client = self.connect()
        return self.client

    def connect(self, negotiate=True):
        """One more client; closed by finish() if the caller does not."""
        self.clients.append(Qmp(self.qmp_path, negotiate=negotiate))
        return self.clients[-1]

    def nbd_uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.nbd_path}"

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def status(self, field):
        """A number from /proc/PID/status in bytes (VmRSS, VmHWM) or as it is
        (Threads)."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text() \
                .splitlines():
            name, _, value = line.partition(":")
            if name == field:
                number, _, unit = value.strip().partition(" ")
                return int(number) * (1024 if unit == "kB" else 1)
        raise KeyError(field)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def is_alive(self):
        return self.process.poll() is None

    # Endings.

    def quit(self):
        """`quit` over QMP; returns the exit code."""
        try:
            self.qmp.command("quit")
        except (EOFError, ConnectionError):
            pass  # it may be gone before its reply
        return self.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=STOP_TIMEOUT_S):
        return self.process.wait(timeout)

    def kill(self):
        """As a crash: SIGKILL."""
        self.process.kill()
        self.expected_exit = -9
        return self.process.wait()

    def finish(self):
        """Ends it if it runs still, and raises if it ended or ran badly."""
        if self.is_alive():
            self.process.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("the daemon did not end on SIGTERM\n" +
                                     self.stderr()) from None
        for client in self.clients:
            client.close()
        said = self.stderr()
        if any(word in said for word in SANITIZER_WORDS):
            raise AssertionError(f"the daemon complained:\n{said}")
        if self.process.returncode != self.expected_exit:
            raise AssertionError(f"the daemon ended with exit code "
                                 f"{self.process.returncode}\n{said}")


def cohortd(folder, *options, **keywords):
    return Daemon(cohortd_binary(), folder, options, **keywords)


def qemu_storage_daemon(folder, *options, **keywords):
    return Daemon("qemu-storage-daemon", folder, options, **keywords)
