#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""An NBD server whose disk forgets: when the power is cut, of what was not flushed
a random part is kept, in any order, torn at sectors.

    volatile_disk.py SOCKET IMAGE SEED

SIGTERM is the cut: connections break, the image is what the disk would hold, and
the process ends. One client at a time; the fixed newstyle handshake, simple
replies, reads, writes, flushes and FUA, as in the NBD protocol's document."""
import mmap
import os
import random
import signal
import socket
import struct
import sys

SECTOR = 512
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
EXPORT_NAME, ABORT, GO, INFO = 1, 2, 7, 6
ACK, INFO_REPLY, UNSUPPORTED = 1, 3, 0x80000001
FLAGS = 1 | 1 << 2 | 1 << 3  # has flags, flush, FUA
READ, WRITE, DISCONNECT, FLUSH = range(4)
FUA = 1


class PowerCut(Exception):
    """SIGTERM."""


class VolatileDisk:
    def __init__(self, image, seed):
        self.rng = random.Random(seed)
        self.file = open(image, "r+b")
        self.size = os.fstat(self.file.fileno()).st_size
        self.durable = mmap.mmap(self.file.fileno(), self.size)
        self.now = mmap.mmap(self.file.fileno(), self.size,
                             access=mmap.ACCESS_COPY)  # what is read
        self.pending = []                   # (offset, data, is firm)

    def write(self, offset, data, fua):
        self.now[offset:offset + len(data)] = data
        self.pending.append((offset, data, fua))

    def flush(self):
        pending, self.pending = self.pending, []
        for offset, data, _ in pending:
            self.durable[offset:offset + len(data)] = data

    def cut(self):
        """What was not flushed is kept in part. Each sector of each write alone,
        or each write as a whole, with one chance for all."""
        share = self.rng.choice((0, 0.1, 0.5, 0.5, 0.9, 1))
        tears = self.rng.random() < 0.5
        kept = 0
        for offset, data, firm in self.pending:
            step = SECTOR if tears and not firm else max(len(data), 1)
            for at in range(0, len(data), step):
                if firm or self.rng.random() < share:
                    piece = data[at:at + step]
                    self.durable[offset + at:offset + at + len(piece)] = piece
                    kept += 1
        self.durable.flush()
        print(f"cut: {len(self.pending)} writes were not flushed, {kept} "
              f"{'sectors' if tears else 'of them'} kept", flush=True)


class Connection:
    def __init__(self, disk, peer):
        self.disk = disk
        self.peer = peer

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.peer.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def reply_option(self, option, kind, data=b""):
        self.peer.sendall(struct.pack(">QIII", OPTION_REPLY_MAGIC, option,
                                      kind, len(data)) + data)

    def negotiate(self):
        """Returns False when the client only asked."""
        self.peer.sendall(struct.pack(">8sQH", b"NBDMAGIC", OPTION_MAGIC, 3))
        self.receive(4)
        while True:
            _, option, length = struct.unpack(">QII", self.receive(16))
            self.receive(length)
            if option == EXPORT_NAME:
                self.peer.sendall(struct.pack(">QH", self.disk.size, FLAGS))
                return True
            if option == GO or option == INFO:
                self.reply_option(option, INFO_REPLY, struct.pack(
                    ">HQH", 0, self.disk.size, FLAGS))
                self.reply_option(option, ACK)
                if option == GO:
                    return True
            elif option == ABORT:
                self.reply_option(option, ACK)
                return False
            else:
                self.reply_option(option, UNSUPPORTED)

    def serve(self):
        if not self.negotiate():
            return
        while True:
            _, flags, kind, cookie, offset, length = struct.unpack(
                ">IHHQQI", self.receive(28))
            data = b""
            if kind == READ:
                data = self.disk.now[offset:offset + length]
            elif kind == WRITE:
                self.disk.write(offset, self.receive(length),
                                flags & FUA != 0)
            elif kind == FLUSH:
                self.disk.flush()
            else:
                return
            self.peer.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) +
                              data)


def cut_power(*_):
    raise PowerCut


def main():
    path, image, seed = sys.argv[1:]
    disk = VolatileDisk(image, seed)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGTERM, cut_power)
    print("ready", flush=True)
    try:
        while True:
            peer, _ = listener.accept()
            try:
                Connection(disk, peer).serve()
            except (EOFError, OSError):
                pass
            peer.close()
    except PowerCut:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener.close()
    os.unlink(path)
    disk.cut()


if __name__ == "__main__":
    main()
