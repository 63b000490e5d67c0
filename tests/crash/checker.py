#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tells from the bytes of a crashed state what each bitmap must be.

Written from docs/reference/tracking-file.md and commit-log.md alone, and shares
no code with cohortd: where the two disagree, one of them, or the pages, is wrong.
It reads and never writes, and takes no locks: for states in which every daemon
is dead. Whether a cleanly closed image is still the same one it does not judge.

    checker.py TRACKING-FILE --size BYTES --state-dir DIR [--boot-id HEX]

prints the disk and its bitmaps."""
import argparse
import hashlib
import json
import os
import re
import struct

NO_ID = bytes(16)
CLEAN, POISONED, PROCESS, RESIZING = 1, 2, 4, 8
RECORDING, INCONSISTENT, SECOND_SET = 1, 4, 8
CHANGES = ("none", "job", "add", "remove", "clear", "enable", "disable", "merge")
NEVER = 1
COMMITTED, ABORTED, UNKNOWN = "committed", "aborted", "unknown"
PAGE_WORDS = 508
SECTOR_REGIONS = 3968

TABLE = list(range(256))
for _ in range(8):
    TABLE = [crc >> 1 ^ (0x82F63B78 if crc & 1 else 0) for crc in TABLE]


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def crc_is_right(data, at):
    """Of a structure whose own CRC is at `at`, counted as zeroes."""
    return crc32c(data[:at], bytes(4), data[at + 4:]) == \
        struct.unpack_from("<I", data, at)[0]


class Lost(Exception):
    """What cannot be believed."""


def frames(data):
    """The payloads of a log file, and whether it is damaged."""
    def frame(at, number=None):
        if at + 16 > len(data) or data[at:at + 4] != b"CLfr":
            return None
        length, found, crc = struct.unpack_from("<III", data, at + 4)
        payload = data[at + 16:at + 16 + length]
        if not 1 <= length <= 8388608 or len(payload) < length or \
                (number is not None and found != number) or \
                crc32c(data[at:at + 12], data[12:32], payload) != crc:
            return None
        return found, payload

    payloads, at = [], 128
    while (found := frame(at, len(payloads))) is not None:
        payloads.append(found[1])
        at += 16 + (len(found[1]) + 7) // 8 * 8
    at = data.find(b"CLfr", at)
    while at >= 0:
        later = frame(at) if at % 8 == 0 else None
        if later is not None and later[0] >= len(payloads):
            return payloads, True
        at = data.find(b"CLfr", at + 1)
    return payloads, False


def records(payload):
    at = 0
    while at + 8 <= len(payload):
        kind, _, length = struct.unpack_from("<HHI", payload, at)
        if length < 8 or length % 8 != 0 or at + length > len(payload):
            raise Lost("a record that is no record")
        yield kind, payload[at:at + length]
        at += length
    if at != len(payload):
        raise Lost("bytes that are no record")


class LogFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        head = self.data[:128]
        if len(head) < 128 or head[:8] != b"COHORTCL" or \
                crc32c(head[:124]) != struct.unpack_from("<I", head, 124)[0] \
                or struct.unpack_from("<H", head, 8)[0] != 1:
            raise Lost("a header that cannot be read")
        self.is_process = head[41] == 1
        self.first_part, = struct.unpack_from("<I", head, 44)
        self.boot_id = head[48:64]
        self.payloads, self.is_damaged = frames(self.data)

    def records(self):
        return (record for each in self.payloads for record in records(each))


class Log:
    """All runs of a state directory, all of them dead."""

    def __init__(self, folder, boot_id):
        self.folder = folder
        self.boot_id = boot_id
        self.runs = {}         # run -> (damaged, {txid: outcome})
        self.retired = set()
        names = os.listdir(folder) if folder else []
        for name in names:
            found = re.fullmatch(
                r"commit-([0-9a-f]{32})(\.sealed|-\d+\.log|\.run)", name)
            if found and bytes.fromhex(found[1]) not in self.runs:
                run = found[1]
                sealed = f"commit-{run}.sealed" in names
                self.runs[bytes.fromhex(run)] = \
                    self.sealed(run) if sealed else self.parts(run, names)
        if "commit.retired" in names:
            file = LogFile(os.path.join(folder, "commit.retired"))
            self.retired = {record[8:24] for kind, record in file.records()
                            if kind == 7}

    def sealed(self, run):
        outcomes, damaged = {}, False
        try:
            file = LogFile(os.path.join(self.folder, f"commit-{run}.sealed"))
            for kind, record in file.records():
                if kind == 4:
                    word, = struct.unpack_from("<I", record, 32)
                    outcomes[record[8:24]] = \
                        {1: COMMITTED, 2: ABORTED}.get(word, UNKNOWN)
                damaged |= kind == 6
            damaged |= file.is_damaged
        except Lost:
            return True, {}
        return damaged, outcomes

    def parts(self, run, names):
        """The outcomes in a log that nobody has sealed yet."""
        numbers = sorted(int(name[39 + 1:-4]) for name in names if
                         re.fullmatch(rf"commit-{run}-\d+\.log", name))
        damaged, files = False, {}
        for number in numbers:
            try:
                files[number] = LogFile(os.path.join(
                    self.folder, f"commit-{run}-{number:04}.log"))
            except Lost:
                damaged = True
        if numbers:
            last = files.get(numbers[-1])
            wanted = range(last.first_part if last else 0, numbers[-1] + 1)
            damaged |= any(number not in files for number in wanted)
            files = {n: file for n, file in files.items() if n in wanted}
        found = {kind: set() for kind in (1, 2, 3, 5)}
        for file in files.values():
            damaged |= file.is_damaged
            damaged |= file.is_process and file.boot_id != self.boot_id
            try:
                for kind, record in file.records():
                    found[kind].add(record[8:24])
            except (Lost, KeyError):
                damaged = True
        return damaged, {
            txid: ABORTED if txid in found[3] else UNKNOWN if damaged else
            COMMITTED if txid in found[2] else ABORTED
            for txid in found[1] | found[2]}

    def outcome(self, txid, run):
        """`run` none: the transaction was not prepared; any may have it."""
        if run == NO_ID:
            return next((outcomes[txid] for _, outcomes in self.runs.values()
                         if txid in outcomes), ABORTED)
        if run not in self.runs:
            return ABORTED if run in self.retired else UNKNOWN
        damaged, outcomes = self.runs[run]
        return outcomes.get(txid, UNKNOWN if damaged else ABORTED)


class Bitmap:
    """An entry of the superblock. Sets are integers, one bit a segment."""

    def __init__(self, tracking, entry):
        (_, self.number, self.flags, shift, points, self.change,
         self.state, self.mode) = struct.unpack_from("<III5B", entry, 0)
        self.granularity = 1 << shift
        self.run, self.txid = entry[24:40], entry[40:56]
        self.points = [(entry[at:at + 16], entry[at + 16:at + 32])
                       for at in (56, 88)][:points]
        pages, name, reason = struct.unpack_from("<IHH", entry, 120)
        at = 128 + 8 * pages * (2 if self.flags & SECOND_SET else 1)
        self.name = entry[at:at + name].decode()
        self.reason = None
        if self.flags & INCONSISTENT:
            self.reason = entry[at + name:at + name + reason].decode()
        self.sets = [0, 0]
        try:
            for which in range(2 if self.flags & SECOND_SET else 1):
                self.sets[which] = self.read_set(
                    tracking, which, pages, entry[128 + 8 * pages * which:])
        except Lost as lost:
            self.reason = self.reason or str(lost)

    def read_set(self, tracking, which, pages, table):
        words = bytearray()
        for index in range(pages):
            number, crc = struct.unpack_from("<II", table, 8 * index)
            page = bytes(4096)
            if number != 0:
                at = tracking.pages_at + (number - 1) * 4096
                page = tracking.data[at:at + 4096]
                if len(page) < 4096 or not crc_is_right(page, 0) or \
                        struct.unpack_from("<IIQ", page) != \
                        (crc, self.number * 2 + which, index):
                    raise Lost(f"page {index} of set {which} is damaged")
            words += page[32:32 + 8 * PAGE_WORDS]
        return int.from_bytes(words, "little")

    def segments(self, size):
        return -(-size // self.granularity)

    def mark(self, which, start, end):
        """The bytes from `start` to `end` are dirty."""
        if start < end:
            low, high = start // self.granularity, self.segments(end)
            self.sets[which] |= (1 << high) - (1 << low)

    def decide(self, outcome, disk):
        """None: the bitmap is gone; else (bits, recording, base points)."""
        first, second = self.sets
        both, recording = first | second, bool(self.flags & RECORDING)
        old, new = self.points, [(self.txid, disk)]
        change = CHANGES[self.change]
        prepared = self.state == 2
        if change == "none":
            return first, recording, old
        if change == "job":
            if not prepared and outcome == UNKNOWN:
                outcome = ABORTED
            if outcome == ABORTED or self.mode == NEVER:
                return both, recording, old
            if prepared and outcome == COMMITTED:
                return second, recording, new
            # With no base before there is nothing for "either" to name.
            return both, recording, old + new if old else []
        if not prepared:
            outcome = {COMMITTED: UNKNOWN, UNKNOWN: ABORTED}.get(outcome,
                                                                 outcome)
        kept, bare = (first, recording, old), (first, recording, [])
        committed, aborted, unknown = {
            "add": (bare, None, bare),
            "remove": (None, kept, bare),
            "clear": ((second, recording, []), (both, recording, old),
                      (both, recording, [])),
            "enable": ((first, True, []), (first, False, old),
                       (first, True, [])),
            "disable": ((first, False, old), kept, (first, True, [])),
            "merge": ((both, recording, old), kept, (both, recording, [])),
        }[change]
        return {COMMITTED: committed, ABORTED: aborted}.get(outcome, unknown)


class Tracking:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        head = self.data[:4096]
        if head[:8] != b"cohortbt" or len(head) < 4096 or \
                not crc_is_right(head, 12):
            raise Lost("the header cannot be read")
        if struct.unpack_from("<H", head, 8)[0] > 1:
            raise Lost("made by a newer version")
        self.disk = head[16:32]
        (self.region, _, slot0, slot1, slot_bytes, self.intents_at,
         self.intent_sectors, self.pages_at, _) = \
            struct.unpack_from("<9Q", head, 32)
        slots = [self.superblock(at, slot_bytes) for at in (slot0, slot1)]
        slots = [slot for slot in slots if slot is not None]
        if not slots:
            raise Lost("no superblock can be read")
        self.parse(max(slots, key=lambda slot: slot[0])[1])

    def superblock(self, at, slot_bytes):
        slot = self.data[at:at + slot_bytes]
        if len(slot) < 256 or slot[:8] != b"cohortsb" or \
                slot[24:40] != self.disk:
            return None
        length, sequence = struct.unpack_from("<IQ", slot, 12)
        if not 256 <= length <= len(slot) or not crc_is_right(slot[:length], 8):
            return None
        return sequence, slot[:length]

    def parse(self, block):
        self.sequence, = struct.unpack_from("<Q", block, 16)
        self.size, self.flags, count, _, reason = \
            struct.unpack_from("<QIIII", block, 40)
        self.boot_id = block[64:80]
        self.old_size, self.new_size = struct.unpack_from("<QQ", block, 80)
        self.bitmaps, at = [], 256
        for _ in range(count):
            length, = struct.unpack_from("<I", block, at)
            self.bitmaps.append(Bitmap(self, block[at:at + length]))
            at += length
        self.reason = None
        if self.flags & POISONED:
            self.reason = block[at:at + reason].decode() or "poisoned"

    def regions(self):
        """The regions whose intent bit is set."""
        for index in range(self.intent_sectors):
            at = self.intents_at + 512 * index
            sector = self.data[at:at + 512]
            bits = (1 << SECTOR_REGIONS) - 1
            if len(sector) == 512 and crc_is_right(sector, 0) and \
                    struct.unpack_from("<I", sector, 4)[0] == index:
                if struct.unpack_from("<Q", sector, 8)[0] > self.sequence:
                    raise Lost("the intent map is newer than the superblock")
                bits = int.from_bytes(sector[16:], "little")
            while bits:
                low = (bits & -bits).bit_length() - 1
                bits &= bits - 1
                yield index * SECTOR_REGIONS + low

    def recover(self, size, boot_id):
        """Marks the sets; or says why none can be believed."""
        if self.reason is not None:
            return self.reason
        if self.flags & PROCESS and not self.flags & CLEAN and \
                boot_id != self.boot_id:
            return "another boot"
        if not self.flags & RESIZING and size < self.size:
            return "the image is shorter than it was"
        try:
            regions = [] if self.flags & CLEAN else list(self.regions())
        except Lost as lost:
            return str(lost)
        for bitmap in self.bitmaps:
            which = 1 if CHANGES[bitmap.change] in ("job", "clear") and \
                bitmap.flags & SECOND_SET else 0
            if bitmap.flags & RECORDING:
                for region in regions:
                    start = region * self.region
                    bitmap.mark(which, start, min(start + self.region, size))
            if self.flags & RESIZING:
                for each in range(2 if bitmap.flags & SECOND_SET else 1):
                    bitmap.mark(each, min(self.old_size, self.new_size), size)
            elif bitmap.flags & RECORDING:
                bitmap.mark(which, self.size, size)
        return None


def check(path, size, log, boot_id):
    try:
        tracking = Tracking(path)
    except Lost as lost:
        return {"lost": str(lost), "bitmaps": []}
    reason = tracking.recover(size, boot_id)
    state = {"disk": tracking.disk.hex(), "clean": bool(tracking.flags & CLEAN),
             "bitmaps": []}
    for bitmap in tracking.bitmaps:
        entry = {"name": bitmap.name, "granularity": bitmap.granularity}
        why = reason or bitmap.reason
        if why is not None:
            entry.update(inconsistent=True, reason=why)
            state["bitmaps"].append(entry)
            continue
        outcome = log.outcome(bitmap.txid, bitmap.run) if bitmap.change else None
        left = bitmap.decide(outcome, tracking.disk)
        if left is None:
            continue
        bits, recording, base = left
        segments = bitmap.segments(size)
        bits &= (1 << segments) - 1
        raw = bits.to_bytes(-(-segments // 64) * 8, "little")
        entry.update(recording=recording, outcome=outcome, bits=raw,
                     count=bits.bit_count() * bitmap.granularity,
                     sha256=hashlib.sha256(raw).hexdigest(),
                     base=[[txid.hex(), disk.hex()] for txid, disk in base])
        state["bitmaps"].append(entry)
    return state


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("tracking_file")
    parser.add_argument("--size", type=int, required=True)
    for option in ("--state-dir", "--boot-id"):
        parser.add_argument(option, default="")
    options = parser.parse_args()
    boot_id = bytes.fromhex(options.boot_id.replace("-", ""))
    log = Log(options.state_dir, boot_id)
    told = check(options.tracking_file, options.size, log, boot_id)
    print(json.dumps(told, indent=1, default=bytes.hex))
