# SPDX-License-Identifier: BSD-3-Clause
"""A file system whose disk loses writes, and says so, from .fail() to .mend():
nbdkit's error filter behind nbdfuse and a loop device. Without a journal, so
that the file system itself goes on. Needs root and /dev/fuse."""
import nbd

from support.filesystem import Filesystem
from support.images import MIB, run
from support.waiting import wait_for_file


class FailingFilesystem(Filesystem):
    def __init__(self, folder, background, size=64 * MIB):
        folder.mkdir()
        self.trigger = folder / "fails"
        self.nbd = folder / "disk.sock"
        pidfile = folder / "nbdkit.pid"
        server = background("nbdkit", "-f", "-U", self.nbd, "-P", pidfile,
                            "--filter=error", "memory", str(size),
                            "error=EIO", "error-pwrite-rate=100%",
                            f"error-pwrite-file={self.trigger}")
        wait_for_file(str(pidfile), server, 20)
        ready = folder / "nbdfuse.pid"
        disk = folder / "fuse"
        disk.mkdir()
        self.fuse = disk / "disk"
        fuse = background("nbdfuse", "-P", ready, self.fuse, "--unix",
                          str(self.nbd))
        wait_for_file(str(ready), fuse, 20)
        super().__init__(folder / "fs", size=size, image=self.fuse,
                         make=("-O", "^has_journal"))

    def fail(self):
        self.trigger.touch()

    def mend(self):
        self.trigger.unlink(missing_ok=True)

    def content(self):
        "What the disk really holds, all of it."
        handle = nbd.NBD()
        handle.connect_uri(f"nbd+unix:///?socket={self.nbd}")
        data = b"".join(bytes(handle.pread(MIB, offset)) for offset in
                        range(0, handle.get_size(), MIB))
        handle.shutdown()
        return data

    def close(self):
        self.mend()
        super().close()
        run("umount", "--lazy", self.fuse.parent)
