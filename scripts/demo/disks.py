# SPDX-License-Identifier: BSD-3-Clause
"""The demo's disks: ext4 made from this machine's own files, and three ways
for a file system to write to them through NBD."""
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import time

MIB = 1 << 20
# What a disk may be filled with, best first: plain files that all may read.
SOURCES = ["/usr/include", "/usr/lib/python3", "/usr/share/perl",
           "/usr/lib/python3.11", "/usr/share/doc", "/usr/share/zoneinfo",
           "/usr/sbin", "/usr/lib"]
LIMIT_BYTES = 150 * MIB

# Where Debian keeps mke2fs and debugfs; not in everyone's path.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def run(*words, check=True, data=None):
    result = subprocess.run([str(word) for word in words], text=True,
                            input=data, capture_output=True, check=False)
    if check and result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code "
                           f"{result.returncode}\n{result.stdout}"
                           f"{result.stderr}")
    return result


def folder_bytes(path):
    return sum(entry.stat(follow_symlinks=False).st_blocks * 512
               for folder, _, names in os.walk(path)
               for entry in map(pathlib.Path(folder).joinpath, names)
               if not entry.is_symlink())


def choose_sources(count):
    """Folders of this machine with enough in them to be worth a backup."""
    found = []
    for source in SOURCES:
        if os.path.isdir(source) and os.access(source, os.R_OK) and \
                4 * MIB < folder_bytes(source) < LIMIT_BYTES:
            found.append(source)
    if len(found) < count:
        raise RuntimeError("this machine has too few files for the demo; "
                           f"looked at {', '.join(SOURCES)}")
    return found[:count]


def make_disk(path, source):
    """An ext4 file system with the files of `source` and room for more."""
    size = (folder_bytes(source) * 5 // 4 + 64 * MIB) // MIB
    # Nothing is left for the kernel to initialise behind our back.
    run("mke2fs", "-q", "-t", "ext4", "-L", path.stem, "-d", source,
        "-E", "lazy_itable_init=0,lazy_journal_init=0", path, f"{size}M")
    listing = run("dumpe2fs", "-h", path).stdout
    inodes = {line.split(":")[0]: line.split(":")[1].strip()
              for line in listing.splitlines() if ":" in line}
    return size * MIB, \
        int(inodes["Inode count"]) - int(inodes["Free inodes"])


class Disk:
    """One disk as the guest sees it: a place that takes changes. Subclasses
    say how they reach it. Used by one thread at a time."""

    def __init__(self, name, uri, folder):
        self.name, self.uri, self.folder = name, uri, folder
        self.chance = random.Random(name)
        self.files = []
        self.changes = 0

    def change(self):
        """One change: a new file, or an old one of ours gone."""
        self.changes += 1
        if len(self.files) > 20 and self.chance.random() < 0.5:
            self.remove(self.files.pop(0))
        else:
            name = f"demo-{self.changes}"
            self.add(name, self.chance.randbytes(
                self.chance.randrange(1000, 200_000)))
            self.files.append(name)

    def freeze(self):
        """All that was written is in the image, and nothing more comes."""

    def thaw(self):
        pass


class KernelDisk(Disk):
    """Linux's own ext4, on a loop device, on nbdfuse."""
    variant = "the kernel's ext4 on a loop device over nbdfuse"

    def attach(self):
        self.mount = self.folder / f"mount-{self.name}"
        self.mount.mkdir()
        self.fuse = Fuse(self.folder / f"fuse-{self.name}", self.uri)
        run("mount", "-o", "loop,noatime", self.fuse.file, self.mount)

    def add(self, name, content):
        with open(self.mount / name, "wb") as file:
            file.write(content)
            if self.changes % 4 == 0:
                os.fsync(file.fileno())

    def remove(self, name):
        (self.mount / name).unlink()

    def freeze(self):
        run("fsfreeze", "--freeze", self.mount)

    def thaw(self):
        run("fsfreeze", "--unfreeze", self.mount)

    def detach(self):
        run("fsfreeze", "--unfreeze", self.mount, check=False)
        run("umount", self.mount, check=False)
        self.fuse.stop()


class DebugfsDisk(Disk):
    """debugfs, which needs no mount, on nbdfuse."""
    variant = "debugfs over nbdfuse (no loop mount here)"
    BATCH = 8  # changes to one run of debugfs

    def attach(self):
        self.fuse = Fuse(self.folder / f"fuse-{self.name}", self.uri)
        self.file = self.fuse.file

    def change(self):
        self.commands = []
        for _ in range(self.BATCH):
            super().change()
        self.debugfs("\n".join(self.commands) + "\n")

    def add(self, name, content):
        source = self.folder / f"{self.name}-content{len(self.commands)}"
        source.write_bytes(content)
        self.commands.append(f"write {source} {name}")

    def remove(self, name):
        self.commands.append(f"rm {name}")

    def debugfs(self, commands):
        run("debugfs", "-w", "-f", "-", self.file, data=commands)

    def freeze(self):
        with open(self.file, "r+b") as file:
            os.fsync(file.fileno())

    def detach(self):
        self.fuse.stop()


class CarriedDisk(DebugfsDisk):
    """debugfs on a file beside, and an NBD client that carries over every
    block that became different: for machines without FUSE."""
    variant = "debugfs, its changes carried by an NBD client (no FUSE here)"
    BLOCK = 4096

    def attach(self):
        import nbd
        self.client = nbd.NBD()
        self.client.connect_uri(self.uri)
        self.file = self.folder / f"carried-{self.name}.raw"
        run("nbdcopy", self.uri, self.file)
        self.known = self.file.read_bytes()

    def debugfs(self, commands):
        super().debugfs(commands)
        now = self.file.read_bytes()
        for piece in range(0, len(now), MIB):
            if now[piece:piece + MIB] == self.known[piece:piece + MIB]:
                continue
            for offset in range(piece, piece + MIB, self.BLOCK):
                block = now[offset:offset + self.BLOCK]
                if block != self.known[offset:offset + self.BLOCK]:
                    self.client.pwrite(block, offset)
        self.known = now

    def freeze(self):
        self.client.flush()

    def detach(self):
        self.client.shutdown()


class Fuse:
    """An NBD export as a file."""

    def __init__(self, folder, uri):
        folder.mkdir()
        self.folder, self.file = folder, folder / "nbd"
        pidfile = folder.with_suffix(".pid")
        self.process = subprocess.Popen(
            ["nbdfuse", "--pidfile", str(pidfile), str(folder), uri],
            stdin=subprocess.DEVNULL)
        while not pidfile.exists():
            if self.process.poll() is not None:
                raise RuntimeError("nbdfuse could not mount")
            time.sleep(0.01)

    def stop(self):
        """A loop device that was on it lets go a moment after its file system is
        unmounted; as long as it has not, fusermount3 is refused."""
        for _ in range(300):
            run("fusermount3", "-u", self.folder, check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
                return
        raise RuntimeError(f"{self.folder} stays mounted")


def choose_kind(folder):
    """The nearest to a real guest that this machine allows."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return CarriedDisk
    image, mount = folder / "try.raw", folder / "try"
    mount.mkdir()
    if os.geteuid() != 0:
        return DebugfsDisk
    run("mke2fs", "-q", image, "1M")
    if run("mount", "-o", "loop", image, mount, check=False).returncode != 0:
        return DebugfsDisk
    run("umount", mount)
    return KernelDisk


def same_content(path_a, path_b):
    return run("cmp", path_a, path_b, check=False).returncode == 0


def is_clean(path):
    return run("e2fsck", "-fn", path, check=False).returncode == 0


def disk_usage(path):
    """Bytes that a folder really takes, holes not counted."""
    return folder_bytes(path)


def free(folder):
    shutil.rmtree(folder, ignore_errors=True)
