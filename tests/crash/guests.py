# SPDX-License-Identifier: BSD-3-Clause
"""Guests that write at random, and the record of what they have written.

Each disk has a guest: an NBD client with several requests under way. Before a
request is sent, and when its reply has come, a line goes to a file of the guest's
own (Record), which knows nothing of the daemon. Every sector that is written
holds the number of its write and its own place, 32 times over, so it tells from
any content who wrote it, and whether it is whole.

Guests run in a process of their own (Guests), since whoever kills the daemon must
be quick. What they have under way is in memory that both see.
"""
import multiprocessing
import os
import random
import struct
import threading
import time

import nbd

SECTOR = 512
LINE = struct.Struct("<BBHIQQQ")  # what, fua, 0, bytes, number, offset, time
WRITE, ZERO, TRIM, FLUSH, DONE = range(1, 6)
DEPTH = 5
SIZES = (SECTOR, 4096, 4096, 8192, 8192, 16384, 65536)


def content(number, offset, length):
    first = offset // SECTOR
    return b"".join(struct.pack("<QQ", number, sector) * (SECTOR // 16)
                    for sector in range(first, first + length // SECTOR))


class Guest:
    def __init__(self, uri, size, numbers, seed, record, shared, disk):
        self.rng = random.Random(seed)
        self.size = size
        self.number = numbers
        self.record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.shared = shared
        self.disk = disk
        self.under_way = 0
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.hot = self.rng.randrange(size // SECTOR) * SECTOR

    def note(self, what, number, offset=0, length=0, fua=0):
        os.write(self.record, LINE.pack(what, fua, 0, length, number, offset,
                                        time.monotonic_ns()))

    def place(self, length):
        if self.rng.random() < 0.4:  # where others write, too
            offset = self.hot + self.rng.randrange(64) * SECTOR
            return min(offset, self.size - length)
        return self.rng.randrange((self.size - length) // SECTOR + 1) * SECTOR

    def issue(self):
        self.number += 1
        number = self.number
        length = self.rng.choice(SIZES)
        offset = self.place(length)
        chance = self.rng.random()
        fua = nbd.CMD_FLAG_FUA if self.rng.random() < 0.04 else 0

        def done(error):
            self.under_way -= 1
            self.shared.under_way[self.disk] = self.under_way
            if error.value == 0:
                self.note(DONE, number)
                self.shared.done[self.disk] += 1
            return 1

        self.under_way += 1
        self.shared.under_way[self.disk] = self.under_way
        if chance < 0.05:
            self.note(FLUSH, number)
            self.handle.aio_flush(completion=done)
        elif chance < 0.10:
            self.note(ZERO, number, offset, length, int(fua != 0))
            self.handle.aio_zero(
                length, offset, completion=done,
                flags=fua | self.rng.choice((0, nbd.CMD_FLAG_NO_HOLE)))
        elif chance < 0.14:
            self.note(TRIM, number, offset, length)
            self.handle.aio_trim(length, offset, completion=done)
        else:
            self.note(WRITE, number, offset, length, int(fua != 0))
            data = nbd.Buffer.from_bytearray(
                bytearray(content(number, offset, length)))
            self.handle.aio_pwrite(data, offset, completion=done, flags=fua)

    def run(self):
        try:
            while True:
                if self.shared.stop.value == 0:
                    while self.under_way < DEPTH:
                        self.issue()
                elif self.under_way == 0:
                    break
                self.handle.poll(100)
            self.handle.shutdown()
        except nbd.Error:
            pass  # killed, or closing
        self.shared.under_way[self.disk] = 0
        os.close(self.record)


class Shared:
    def __init__(self, disks):
        self.under_way = multiprocessing.RawArray("q", disks)
        self.done = multiprocessing.RawArray("q", disks)
        self.stop = multiprocessing.RawValue("b", 0)


def _run_all(uris, sizes, numbers, seed, records, shared):
    def one(disk):
        try:
            guest = Guest(uris[disk], sizes[disk], numbers, f"{seed} {disk}",
                          records[disk], shared, disk)
        except nbd.Error:
            return  # killed before
        guest.run()
    threads = [threading.Thread(target=one, args=(disk,))
               for disk in range(len(uris))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


class Guests:
    """All disks' guests, from here to join(). Numbers of writes are greater than
    `numbers`, which must grow by 2 ** 32 from one to the next."""

    def __init__(self, uris, sizes, numbers, seed, records):
        self.shared = Shared(len(uris))
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run_all, args=(
            uris, sizes, numbers, seed, records, self.shared))
        self.process.start()

    def under_way(self):
        return sum(self.shared.under_way)

    def done(self):
        return min(self.shared.done)

    def wait_for(self, count, timeout=120):
        deadline = time.monotonic() + timeout
        while self.done() < count:
            if time.monotonic() > deadline or not self.process.is_alive():
                raise AssertionError(f"guests got {list(self.shared.done)} "
                                     f"replies, not {count}")
            time.sleep(0.002)

    def stop(self):
        """They wait for their replies and end."""
        self.shared.stop.value = 1

    def join(self, timeout=120):
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError("the guests did not end")
