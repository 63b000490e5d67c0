# SPDX-License-Identifier: BSD-3-Clause
"""What fio has written, by nbdkit's log, and what a sector that it wrote holds.

fio puts a header of its own into each sector: for which place, when, and by which
of its writes the sector was made, and an MD5 of the rest. fio's list of what it
issued tells the n-th write's place and size; as fio never has two writes to the
same bytes under way, the k-th one of a place and size there is the k-th one of
them in the log, which tells when it was sent and replied to."""
import calendar
import functools
import hashlib
import os
import re
import struct
import time

from checker import crc32c
from guests import SECTOR, WRITE
from record import Wrong, Write

# struct verify_header of fio 3: magic, kind, bytes, seed, offset, seconds,
# nanoseconds, thread, number; then the header's CRC, and the MD5.
HEADER = struct.Struct("<HHIQQIIHHI16s")
MAGIC, HEADER_CRC_AT = 0xACCA, 36
# 2026-11-23 21:02:47.485400 connection=1 Write id=7 offset=0x0 count=0x1000 ...
ISSUED = re.compile(
    r"(\S+ \S+) connection=(\d+) (Write|Flush) id=(\d+)"
    r"(?: offset=0x([0-9a-f]+) count=0x([0-9a-f]+) fua=(\d))? \.\.\.")
REPLIED = re.compile(
    r"(\S+ \S+) connection=(\d+) \.\.\.(?:Write|Flush) id=(\d+) return=0")
FIRST_NUMBER = 1 << 31


def clock_difference():
    """Nanoseconds from the monotonic clock to the one of logs."""
    return time.time_ns() - time.monotonic_ns()


@functools.lru_cache(maxsize=64)
def seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def wall_ns(text):
    return seconds(text[:19]) * 10**9 + int(text[20:]) * 1000


@functools.lru_cache(maxsize=1 << 16)
def header_of(sector):
    """(place, time, number) of a sector that fio wrote; None: it is no such."""
    magic, _, length, _, place, second, nanosecond, _, number, crc, digest = \
        HEADER.unpack_from(sector)
    if magic != MAGIC or length != SECTOR or \
            crc32c(sector[:HEADER_CRC_AT]) ^ 0xFFFFFFFF != crc or \
            hashlib.md5(sector[HEADER.size:]).digest() != digest:
        return None
    return place, second * 10**9 + nanosecond, number


class FioRun:
    """What one fio did to one disk. Its n-th write has the number `numbers` +
    FIRST_NUMBER + n."""

    def __init__(self, path, numbers):
        self.log = f"{path}.log"
        self.issued = f"{path}.issued"
        self.socket = f"{path}.sock"
        self.numbers = numbers + FIRST_NUMBER
        for left in (self.log, self.issued, self.socket):
            if os.path.exists(left):
                os.unlink(left)
        self.began = time.monotonic_ns()
        self.differences = [clock_difference()]

    def has_begun(self):
        """A write has had its reply."""
        if not os.path.exists(self.log):
            return False
        with open(self.log, encoding="ascii") as file:
            return "...Write id=" in file.read(1 << 16)

    def ended(self):
        self.differences.append(clock_difference())

    def read(self):
        """Its writes, and (sent, replied) of its flushes that had a reply."""
        sent, writes, flushes = {}, {}, []
        earliest, latest = max(self.differences), min(self.differences)
        with open(self.log, encoding="ascii", errors="replace") as file:
            for line in file:
                found = ISSUED.match(line)
                if found is not None:
                    when = wall_ns(found[1]) - earliest
                    key = found[2], found[4]
                    sent[key] = when
                    if found[3] == "Write":
                        offset, length = int(found[5], 16), int(found[6], 16)
                        writes[key] = Write(WRITE, int(found[7]), 0, offset,
                                            length, when)
                    continue
                found = REPLIED.match(line)
                if found is None:
                    continue
                key, when = (found[2], found[3]), wall_ns(found[1]) - latest
                if key not in writes:
                    flushes.append((sent[key], when))
                    continue
                writes[key].replied = when
                if writes[key].fua:
                    writes[key].durable = when
        return self.numbered(list(writes.values())), flushes

    def numbered(self, writes):
        issued = {}
        for number, place in enumerate(self.read_issued()):
            issued.setdefault(place, []).append(number)
        for numbers in issued.values():
            numbers.reverse()
        for write in writes:
            write.number = write.value = self.numbers + issued[
                write.first, write.count].pop()
        return writes

    def read_issued(self):
        """(first sector, sectors) of each write, in fio's order."""
        with open(self.issued, encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[2:3] == ["write"]:
                    yield int(words[3]) // SECTOR, int(words[4]) // SECTOR


class FioPart:
    """The part of a disk that is fio's, over all its runs."""

    def __init__(self, first, length):
        self.first = first
        self.length = length
        self.runs = []

    def numbers_of(self, data, what):
        """Like record.numbers_of, of this part of the disk."""
        found = []
        for at in range(self.first, self.first + self.length, SECTOR):
            found.append(self.number_of(data[at:at + SECTOR], at, what))
        return found

    def number_of(self, sector, at, what):
        if not any(sector):
            return 0
        header = header_of(sector)
        if header is None:
            raise Wrong(f"{what}: sector {at // SECTOR} is none that fio wrote, "
                        "or is torn")
        place, when, number = header
        if place != at:
            raise Wrong(f"{what}: sector {at // SECTOR} holds what fio wrote to "
                        f"{place // SECTOR}")
        for run in reversed(self.runs):
            if run.began <= when:
                return run.numbers + number
        raise Wrong(f"{what}: sector {at // SECTOR} is older than the disk")
