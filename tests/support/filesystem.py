# SPDX-License-Identifier: BSD-3-Clause
"""A file system of its own, in a file behind a loop device. Needs root."""
import fcntl
import os
import pathlib
import struct
import subprocess

from support.images import MIB, run

# Linux, include/uapi/linux/fs.h and fs/xfs/libxfs/xfs_fs.h: FS_IOC_SHUTDOWN,
# which ext4 and xfs have; 2: without writing out the log.
SHUTDOWN, AT_ONCE = 0x8004587D, 2

MAKE = {"ext4": ("mke2fs", "-q", "-t", "ext4"), "xfs": ("mkfs.xfs", "-q")}


class LoopDevice:
    def __init__(self, path, size=None):
        "`size`: the file is made; else it is there."
        if size is not None:
            with open(path, "wb") as image:
                image.truncate(size)
        self.path = run("losetup", "--find", "--show", path) \
            .stdout.strip()

    def counters(self):
        """As in Linux, Documentation/block/stat.rst."""
        name = pathlib.Path(self.path).name
        return [int(word) for word in
                pathlib.Path(f"/sys/block/{name}/stat").read_text().split()]

    def close(self):
        subprocess.run(["losetup", "--detach", self.path], check=False)


class Filesystem:
    """Mounted at .path until close()."""

    def __init__(self, folder, kind="ext4", size=64 * MIB, options="",
                 image=None, make=()):
        "`image`: a file that is there already; `make`: words for mkfs."
        folder.mkdir()
        self.path = folder / "mount"
        self.path.mkdir()
        self.device = LoopDevice(folder / "image", size) if image is None \
            else LoopDevice(image)
        self.options = f"noatime,{options}".rstrip(",")
        try:
            run(*MAKE[kind], *make, self.device.path)
            self.mount()
        except BaseException:
            self.device.close()
            raise

    def mount(self):
        run("mount", "-o", self.options, self.device.path, self.path)

    def mount_again(self):
        "Nobody has a file of it open."
        run("umount", self.path)
        self.mount()

    def flushes(self):
        "How often its device was told to make durable what it has."
        return self.device.counters()[15]

    def shut_down(self):
        "From here on all that would reach the disk fails."
        place = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(place, SHUTDOWN, struct.pack("I", AT_ONCE))
        finally:
            os.close(place)

    def close(self):
        subprocess.run(["umount", "--lazy", self.path], check=False)
        self.device.close()
