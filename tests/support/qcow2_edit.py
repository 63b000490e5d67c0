# SPDX-License-Identifier: BSD-3-Clause
"""A qcow2 file taken in hand: its tables read and changed, byte by byte, to
damage an image on purpose. Written from docs/interop/qcow2.txt of QEMU, for
the tests alone; knows neither caches nor safety.

    with Qcow2(path) as image:
        image.set_refcount(image.l2_offset(0), 0)
"""
import struct

COPIED = 1 << 63
COMPRESSED = 1 << 62
OFFSET_MASK = 0x00fffffffffffe00
ZERO = 1

DIRTY, CORRUPT = 1, 2

# Header fields: name, byte offset, struct format.
FIELDS = {
    "magic": (0, ">I"), "version": (4, ">I"), "backing_offset": (8, ">Q"),
    "backing_bytes": (16, ">I"), "cluster_bits": (20, ">I"),
    "size": (24, ">Q"), "crypt_method": (32, ">I"), "l1_count": (36, ">I"),
    "l1_offset": (40, ">Q"), "refcount_table_offset": (48, ">Q"),
    "refcount_table_clusters": (56, ">I"), "snapshot_count": (60, ">I"),
    "snapshots_offset": (64, ">Q"), "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"), "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"), "header_length": (100, ">I"),
}

BITMAPS_EXTENSION = 0x23852875


class Qcow2:
    def __init__(self, path):
        self.file = open(path, "r+b")  # closed by __exit__

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    # Bytes and numbers.

    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def write(self, offset, data):
        self.file.seek(offset)
        self.file.write(data)

    def number(self, offset, form=">Q"):
        return struct.unpack(form, self.read(offset, struct.calcsize(form)))[0]

    def set_number(self, offset, value, form=">Q"):
        self.write(offset, struct.pack(form, value))

    def change(self, offset, clear=0, set_bits=0):
        """Clears and sets bits of the 64-bit number at `offset`."""
        self.set_number(offset, self.number(offset) & ~clear | set_bits)

    def __getitem__(self, field):
        return self.number(*FIELDS[field])

    def __setitem__(self, field, value):
        offset, form = FIELDS[field]
        self.set_number(offset, value, form)

    # Sizes.

    @property
    def cluster(self):
        return 1 << self["cluster_bits"]

    @property
    def refcount_bits(self):
        return 1 << (self["refcount_order"] if self["version"] > 2 else 4)

    @property
    def entry_bytes(self):
        extended = self["version"] > 2 and self["incompatible"] & 16
        return 16 if extended else 8

    def end(self):
        """Of the file, rounded up to a cluster."""
        return -(-self.file.seek(0, 2) // self.cluster) * self.cluster

    def append(self, data=b""):
        """A new cluster at the end, not counted; its offset."""
        offset = self.end()
        self.write(offset, data.ljust(self.cluster, b"\0"))
        return offset

    # Mapping. An "at" is where in the file an entry stands.

    def l1_at(self, index=0):
        return self["l1_offset"] + 8 * index

    def l2_offset(self, index=0):
        return self.number(self.l1_at(index)) & OFFSET_MASK

    def l2_at(self, cluster, l1_at=None):
        """Where the L2 entry of a guest cluster stands."""
        per_table = self.cluster // self.entry_bytes
        at = (self["l1_offset"] if l1_at is None else l1_at) + \
            8 * (cluster // per_table)
        table = self.number(at) & OFFSET_MASK
        assert table != 0
        return table + self.entry_bytes * (cluster % per_table)

    def host(self, cluster):
        return self.number(self.l2_at(cluster)) & OFFSET_MASK

    # Refcounts.

    def block_at(self, offset):
        """Where the refcount table entry for a host offset stands."""
        per_block = self.cluster * 8 // self.refcount_bits
        index = offset // self.cluster // per_block
        assert index < self["refcount_table_clusters"] * self.cluster // 8
        return self["refcount_table_offset"] + 8 * index

    def _refcount_place(self, offset):
        block = self.number(self.block_at(offset))
        assert block != 0
        bits = self.refcount_bits
        index = offset // self.cluster % (self.cluster * 8 // bits)
        return block + index * bits // 8, index * bits % 8, bits

    def refcount(self, offset):
        at, shift, bits = self._refcount_place(offset)
        width = max(bits // 8, 1)
        return int.from_bytes(self.read(at, width), "big") >> shift & \
            (1 << bits) - 1

    def set_refcount(self, offset, value):
        at, shift, bits = self._refcount_place(offset)
        width = max(bits // 8, 1)
        mask = (1 << bits) - 1
        old = int.from_bytes(self.read(at, width), "big")
        new = old & ~(mask << shift) | (value & mask) << shift
        self.write(at, new.to_bytes(width, "big"))

    # Snapshots and bitmaps.

    def snapshot_at(self, index=0):
        """Where an entry of the snapshot table stands."""
        at = self["snapshots_offset"]
        for _ in range(index):
            extra = self.number(at + 36, ">I")
            names = self.number(at + 12, ">H") + self.number(at + 14, ">H")
            at += -(-(40 + extra + names) // 8) * 8
        return at

    def extension_at(self, kind):
        """Where the data of a header extension begins."""
        at = self["header_length"]
        while True:
            found, length = struct.unpack(">II", self.read(at, 8))
            assert found != 0, f"no extension {kind:#x}"
            if found == kind:
                return at + 8
            at += 8 + -(-length // 8) * 8

    def bitmap_directory_at(self):
        return self.number(self.extension_at(BITMAPS_EXTENSION) + 16)

    def bitmap_table_at(self):
        """The table of the first bitmap."""
        return self.number(self.bitmap_directory_at())
