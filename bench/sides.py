# SPDX-License-Identifier: BSD-3-Clause
"""The servers that are compared.

cohortd              as it comes: it spreads disks over the cores by itself
qemu-storage-daemon  as it comes: in its main thread. (An iothread for the
                     export would poll, but 7.2 aborts when a client of such
                     an export disconnects.)
nbdkit file          as it comes: 16 threads
"""
import os
import subprocess

from support import daemon as daemons
from support.waiting import wait_for_file


class StorageDaemon:
    """cohortd or qemu-storage-daemon, driven over QMP alike."""

    def __init__(self, name, folder):
        self.name = name
        start = daemons.cohortd if name == "cohortd" \
            else daemons.qemu_storage_daemon
        self.daemon = start(folder, nbd=True)
        self.qmp = self.daemon.qmp
        self.qmp.timeout = 600

    def add_disk(self, node, path, read_only=False):
        self.qmp.command("blockdev-add", driver="raw", node_name=node,
                         read_only=read_only,
                         file={"driver": "file", "filename": str(path),
                               "read-only": read_only})

    def add_qcow2(self, node, path):
        """With the caches that the daemon takes by itself."""
        self.qmp.command("blockdev-add", driver="qcow2", node_name=node,
                         file={"driver": "file", "filename": str(path)})

    def add_bitmap(self, node):
        self.qmp.command("block-dirty-bitmap-add", node=node, name="b",
                         granularity=65536)

    def export(self, node):
        self.qmp.command("block-export-add", id=f"e-{node}", type="nbd",
                         node_name=node, name=node, writable=True)
        return self.daemon.nbd_uri(node)

    def pid(self):
        return self.daemon.pid

    def stop(self):
        self.daemon.finish()


class Nbdkit:
    def __init__(self, folder, path):
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "nbd.sock"
        pidfile = folder / "pid"
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "-U", str(self.socket), "-P", str(pidfile),
             "file", str(path)], stdin=subprocess.DEVNULL)
        wait_for_file(str(pidfile), self.process, 30)

    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def pid(self):
        return self.process.pid

    def stop(self):
        self.process.terminate()
        self.process.wait()


def cpu_seconds(pid):
    """User and system time of all threads of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise KeyError("VmRSS")
