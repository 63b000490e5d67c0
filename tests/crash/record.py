# SPDX-License-Identifier: BSD-3-Clause
"""What a disk may hold, by the records of its guests (guests.py, fio_record.py).

A write *supersedes* another one of the same sector if it was sent after the
reply to that one, and is *firm*: it must be there still. A sector may hold what
any write left that no firm one supersedes. What is firm depends on what has
happened:

    the daemon was killed    what was replied to
    the power was cut        what was replied to before a flush was sent, or with
                             FUA; and that flush was replied to. The same goes for
                             qcow2 images of a daemon that was killed: tables that
                             were not flushed were in its memory
    a backup                 what was replied to before it began; and what was
                             sent after its end is not in it
"""
import os
from array import array
from bisect import bisect_left

from guests import DONE, FLUSH, LINE, SECTOR, TRIM, WRITE

NEVER = 1 << 62
WORDS = SECTOR // 8


class Write:
    def __init__(self, what, fua, number, offset, length, sent):
        self.what = what
        self.fua = fua
        self.number = number
        self.value = number if what == WRITE else 0
        self.first = offset // SECTOR
        self.count = length // SECTOR
        self.sent = sent
        self.replied = NEVER
        self.durable = NEVER


def read_record(path, fio=None):
    """All writes, zeroes and trims of a record, and when they were durable.
    `fio`: a FioRun on the same disk, whose writes are among them."""
    writes, flushes = read_own(path)
    if fio is not None:
        of_fio = fio.read()
        writes += of_fio[0]
        flushes += of_fio[1]
    flushes.sort()
    begins = [sent for sent, _ in flushes]
    for write in writes:
        first = bisect_left(begins, write.replied)
        if first < len(flushes):
            write.durable = min(write.durable, flushes[first][1])
    return writes


def read_own(path):
    """Writes, and (sent, replied) of flushes that had a reply."""
    writes, flushes = {}, {}
    data = b""
    if os.path.exists(path):
        with open(path, "rb") as file:
            data = file.read()
    data = data[:len(data) // LINE.size * LINE.size]
    done_flushes = []
    for what, fua, _, length, number, offset, when in LINE.iter_unpack(data):
        if what == FLUSH:
            flushes[number] = when
        elif what != DONE:
            writes[number] = Write(what, fua, number, offset, length, when)
        elif number in flushes:
            done_flushes.append((flushes[number], when))
        else:
            writes[number].replied = when
            if writes[number].fua:
                writes[number].durable = when
    return list(writes.values()), done_flushes


class Wrong(Exception):
    """A disk holds what it must not hold."""


def numbers_of(data, what):
    """Who wrote each sector: an array of numbers, 0 where it is zeroes."""
    words = array("Q", data)
    numbers, places = words[0::WORDS], words[1::WORDS]
    for index in range(2, WORDS):
        expected = places if index % 2 else numbers
        if words[index::WORDS] != expected:
            torn = next(s for s, (a, b) in enumerate(
                zip(words[index::WORDS], expected)) if a != b)
            mixed = words[torn * WORDS:(torn + 1) * WORDS]
            raise Wrong(f"{what}: sector {torn} is torn: "
                        f"{[hex(word) for word in mixed]}")
    for sector, place in enumerate(places):
        if place != sector and (place != 0 or numbers[sector] != 0):
            raise Wrong(f"{what}: sector {sector} holds what belongs to "
                        f"{place}, of write {numbers[sector]:x}")
    return numbers


class Known:
    """What a disk holds for certain, sector by sector."""

    def __init__(self, size, fio=None):
        """`fio`: the FioPart at its end, if there is one."""
        self.numbers = array("Q", bytes(size // SECTOR * 8))
        self.fio = fio

    def numbers_of(self, data, what):
        if self.fio is None:
            return numbers_of(data, what)
        found = numbers_of(data[:self.fio.first], what)
        found.extend(self.fio.numbers_of(data, what))
        return found

    def check(self, data, writes, firm, what, until=NEVER):
        """Raises Wrong; else returns the numbers found in `data`. `firm`: see
        above; `until`: what was sent later must not be in it."""
        found = self.numbers_of(data, what)
        if len(found) != len(self.numbers):
            raise Wrong(f"{what}: {len(found)} sectors, not "
                        f"{len(self.numbers)}")
        touched = {}
        for write in writes:
            if write.sent <= until:
                for sector in range(write.first, write.first + write.count):
                    touched.setdefault(sector, []).append(write)
        expected = array("Q", self.numbers)
        for sector, by in touched.items():
            last_firm = max((write.sent for write in by
                             if write.what != TRIM and firm(write)), default=-1)
            legal = {write.value for write in by if write.replied > last_firm}
            if last_firm < 0:
                legal.add(self.numbers[sector])
            if found[sector] not in legal:
                raise Wrong(
                    f"{what}: sector {sector} holds write "
                    f"{found[sector]:x}, which it must not; it was "
                    f"{self.numbers[sector]:x}, then " +
                    ", ".join(f"{w.value:x} [{w.sent}-{w.replied}"
                              f"{' firm' if firm(w) else ''}]" for w in by))
            expected[sector] = found[sector]
        if expected != found:
            sector = next(s for s, (a, b) in enumerate(zip(expected, found))
                          if a != b)
            raise Wrong(f"{what}: nobody wrote to sector {sector}, but it holds "
                        f"{found[sector]:x} instead of {expected[sector]:x}")
        return found

    def settle(self, numbers):
        self.numbers = numbers


def firm_after_kill(write):
    return write.replied < NEVER


def firm_after_cut(write):
    return write.durable < NEVER


def firm_before(when):
    return lambda write: write.replied <= when
