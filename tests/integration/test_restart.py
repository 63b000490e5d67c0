# SPDX-License-Identifier: BSD-3-Clause
"""A daemon that was killed is started again at once, by the same words."""
import os
import signal
import subprocess

import nbd

from support.daemon import cohortd_binary
from support.images import MIB, sparse_image
from support.waiting import wait_until

ROUNDS = 20


class Line:
    """A command line, started again and again in one folder."""

    def __init__(self, folder):
        self.nbd = folder / "nbd.sock"
        self.pidfile = folder / "pid"
        disk = sparse_image(folder / "disk", 64 * MIB)
        self.words = [
            cohortd_binary(), "--pidfile", self.pidfile,
            "--chardev", f"socket,id=qmp,path={folder}/qmp.sock,server=on,"
            "wait=off", "--monitor", "chardev=qmp",
            "--blockdev", f"file,node-name=disk,filename={disk},"
            "cache.direct=on",
            "--nbd-server", f"addr.type=unix,addr.path={self.nbd}",
            "--export", "nbd,id=e,node-name=disk,writable=on"]

    def start(self):
        """Without waiting for it to be ready."""
        return subprocess.Popen([str(word) for word in self.words],
                                stderr=subprocess.PIPE, text=True)

    def wait_ready(self, process):
        """Its own pidfile tells, not its predecessor's."""
        def written():
            assert process.poll() is None, process.communicate()[1]
            return self.pidfile.exists() and \
                self.pidfile.read_text() == f"{process.pid}\n"
        wait_until(written, 30, "the daemon was not ready")


def fill_with_requests(client):
    """Many at once, so that some are under way whenever it is killed."""
    buffers = [nbd.Buffer.from_bytearray(bytearray(MIB)) for _ in range(16)]
    for index, buffer in enumerate(buffers):
        client.aio_pwrite(buffer, index * MIB)
    while client.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
        client.poll(-1)
    return buffers  # to be kept until the connection ends


def test_a_killed_daemon_starts_again_at_once(folder, nbd_client):
    "20 times, under load: sockets, image locks and pidfile are free for it."
    line = Line(folder)
    process = line.start()
    try:
        for _ in range(ROUNDS):
            line.wait_ready(process)
            client = nbd_client(f"nbd+unix:///disk?socket={line.nbd}")
            kept = fill_with_requests(client)
            os.kill(process.pid, signal.SIGKILL)
            old, process = process, line.start()
            del kept
            assert old.wait() == -signal.SIGKILL
            old.stderr.close()
        line.wait_ready(process)
    finally:
        process.terminate()
        said = process.communicate()[1]
    assert process.returncode == 0, said
