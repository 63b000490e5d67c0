# SPDX-License-Identifier: BSD-3-Clause
"""Small qcow2 images made by hand, most of them bad: what a hostile or broken
image may contain. tests/corpus/qcow2/ holds them all; to make them anew:

    python3 tests/support/qcow2_corpus.py tests/corpus/qcow2

Each is a function here; its docstring says what is wrong, its name is the
file's. They start from the same good image of 64 KiB with clusters of 512
bytes, in which everything has its place:

    0x000 header          0x200 refcount table    0x400 refcount block
    0x600 L1 table        0x800 two L2 tables     0xc00 data
"""
import pathlib
import struct
import sys
import zlib

CLUSTER = 512
SIZE = 64 * 1024
TABLE, BLOCK, L1, L2, L2B, DATA = 0x200, 0x400, 0x600, 0x800, 0xa00, 0xc00
COPIED, COMPRESSED = 1 << 63, 1 << 62
SECTORS_SHIFT = 62 - (9 - 8)  # of a compressed entry, clusters of 512 bytes
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED = 1, 2, 4, 8, 16
BACKING_FORMAT, FEATURES, BITMAPS, DATA_FILE_NAME, LUKS = (
    0xe2792aca, 0x6803f857, 0x23852875, 0x44415441, 0x0537be77)
STAMP, GAP = 0x636f6801, 0x636f6802  # cohort's own

FIELDS = {
    "magic": (0, ">I"), "version": (4, ">I"), "backing_offset": (8, ">Q"),
    "backing_bytes": (16, ">I"), "cluster_bits": (20, ">I"),
    "size": (24, ">Q"), "crypt_method": (32, ">I"), "l1_count": (36, ">I"),
    "l1_offset": (40, ">Q"), "refcount_table_offset": (48, ">Q"),
    "refcount_table_clusters": (56, ">I"), "snapshot_count": (60, ">I"),
    "snapshots_offset": (64, ">Q"), "incompatible": (72, ">Q"),
    "compatible": (80, ">Q"), "autoclear": (88, ">Q"),
    "refcount_order": (96, ">I"), "header_length": (100, ">I"),
    "compression": (104, ">B"),
}


class Image:
    """A good image, to be spoilt."""

    def __init__(self, **fields):
        self.data = bytearray(DATA)
        self.extension_end = 112
        self.header(magic=0x514649fb, version=3, cluster_bits=9, size=SIZE,
                    l1_count=2, l1_offset=L1, refcount_table_offset=TABLE,
                    refcount_table_clusters=1, refcount_order=4,
                    header_length=112)
        self.header(**fields)
        self.put(TABLE, BLOCK)
        self.put(L1, COPIED | L2, COPIED | L2B)
        for cluster in range(DATA // CLUSTER):
            self.refcount(cluster * CLUSTER, 1)
        self.entry(0, self.new(b"\x11" * CLUSTER) | COPIED)
        self.entry(1, 1)  # reads as zeroes
        self.entry(64, self.new(b"\x22" * CLUSTER) | COPIED)

    def header(self, **fields):
        for name, value in fields.items():
            offset, form = FIELDS[name]
            struct.pack_into(form, self.data, offset, value)
        return self

    def put(self, offset, *numbers):
        """Big-endian 64-bit numbers; the file grows if need be."""
        self.write(offset, struct.pack(f">{len(numbers)}Q", *numbers))
        return self

    def write(self, offset, data):
        if len(self.data) < offset + len(data):
            self.data.extend(bytes(offset + len(data) - len(self.data)))
        self.data[offset:offset + len(data)] = data
        return self

    def refcount(self, offset, value):
        struct.pack_into(">H", self.data, BLOCK + 2 * (offset // CLUSTER),
                         value)
        return self

    def new(self, data=b""):
        """A counted cluster, or as many as needed, at the end; its offset."""
        offset = -(-len(self.data) // CLUSTER) * CLUSTER
        clusters = max(1, -(-len(data) // CLUSTER))
        self.write(offset, data.ljust(clusters * CLUSTER, b"\0"))
        for i in range(clusters):
            self.refcount(offset + i * CLUSTER, 1)
        return offset

    def entry(self, cluster, value):
        """Sets the L2 entry of a guest cluster."""
        return self.put(L2 + 8 * cluster, value)

    def compressed(self, cluster, data, sectors=None):
        """Stores `data` as a compressed cluster, of so many more sectors."""
        offset = self.new(data)
        if sectors is None:
            sectors = (len(data) - 1) // 512
        return self.entry(cluster,
                          COMPRESSED | sectors << SECTORS_SHIFT | offset)

    def extension(self, kind, data, length=None):
        length = len(data) if length is None else length
        self.write(self.extension_end, struct.pack(">II", kind, length) + data)
        self.extension_end += 8 + -(-len(data) // 8) * 8
        return self

    def backing(self, name, form=None, length=None):
        if form is not None:
            self.extension(BACKING_FORMAT, form)
        offset = self.extension_end + 16
        self.write(offset, name)
        return self.header(backing_offset=offset,
                           backing_bytes=len(name) if length is None
                           else length)

    def snapshot(self, l1_offset=None, l1_count=2, extra=16, name=b"one",
                 name_bytes=None, count=1):
        """A snapshot table of one entry."""
        l1_offset = self.new() if l1_offset is None else l1_offset
        entry = struct.pack(">QIHHIIQII", l1_offset, l1_count, 1,
                            len(name) if name_bytes is None else name_bytes,
                            0, 0, 0, 0, extra)
        entry += struct.pack(">QQ", 0, SIZE) + b"1" + name
        return self.header(snapshots_offset=self.new(entry),
                           snapshot_count=count)

    def bitmap(self, table_offset=None, table_count=1, flags=2, kind=1,
               granularity=9, name=b"b0", name_bytes=None, extra=0, count=1,
               directory_bytes=None, directory_offset=None, copies=1,
               table=(0,)):
        """A bitmap directory of one entry, or of copies."""
        if table_offset is None:
            table_offset = self.new(struct.pack(f">{len(table)}Q", *table))
        entry = struct.pack(">QIIBBHI", table_offset, table_count, flags,
                            kind, granularity,
                            len(name) if name_bytes is None else name_bytes,
                            extra)
        entry = (entry + name).ljust(-(-(24 + len(name)) // 8) * 8, b"\0")
        offset = self.new(entry * copies)
        if directory_offset is not None:
            offset = directory_offset
        if directory_bytes is None:
            directory_bytes = len(entry) * copies
        self.extension(BITMAPS, struct.pack(">IIQQ", count, 0,
                                            directory_bytes, offset))
        return self.header(autoclear=1)


IMAGES = {}


def image(function):
    IMAGES[function.__name__] = function
    return function


def deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


# Good ones, for comparison and as seeds of fuzzing.

@image
def good():
    """Nothing is wrong."""
    return Image()


@image
def good_with_everything():
    """Nothing is wrong: compressed data, a snapshot, a bitmap, extensions."""
    result = Image().compressed(3, deflate(b"\x33" * CLUSTER))
    result.extension(0x12345678, b"what nobody knows")
    result.snapshot()
    return result.bitmap(table=(1,))


@image
def good_version_2():
    """Nothing is wrong: version 2."""
    result = Image(version=2)
    result.write(72, bytes(64))
    return result.entry(1, 0)


@image
def good_zstd():
    """Nothing is wrong: compression type zstd, nothing compressed."""
    return Image(incompatible=COMPRESSION, compression=1)


def other_clusters(bits, entries, incompatible=0):
    """An image of 16 clusters of other sizes: header, refcount table and block, L1
    and L2 table, then one cluster of data. `entries`: what the L2 table begins
    with."""
    cluster = 1 << bits
    data = bytearray(6 * cluster)
    for name, value in dict(
            magic=0x514649fb, version=3, cluster_bits=bits, size=16 * cluster,
            l1_count=1, l1_offset=3 * cluster, refcount_table_offset=cluster,
            refcount_table_clusters=1, refcount_order=4, header_length=112,
            incompatible=incompatible).items():
        offset, form = FIELDS[name]
        struct.pack_into(form, data, offset, value)
    struct.pack_into(">Q", data, cluster, 2 * cluster)
    struct.pack_into(">6H", data, 2 * cluster, *[1] * 6)
    struct.pack_into(">Q", data, 3 * cluster, COPIED | 4 * cluster)
    struct.pack_into(f">{len(entries)}Q", data, 4 * cluster, *entries)
    data[5 * cluster:] = b"\x44" * cluster
    return data


@image
def good_larger_clusters():
    """Nothing is wrong: clusters of 1 KiB, which can be written compressed."""
    return other_clusters(10, [COPIED | 5 << 10, 1])


@image
def good_subclusters():
    """Nothing is wrong: extended L2 entries; a cluster that is there in part, one
    that is zeroes in part."""
    return other_clusters(14, [COPIED | 5 << 14, 0xf0 << 32 | 0x0f,
                               0, 0xff << 32], EXTENDED)


@image
def sound_raw_data_file():
    """Nothing is wrong: an external data file, which is the disk."""
    result = Image(incompatible=DATA_FILE, autoclear=2)
    result.extension(DATA_FILE_NAME, b"data")
    for cluster in (0, 64):
        offset = struct.unpack_from(">Q", result.data, L2 + 8 * cluster)[0]
        result.refcount(offset & ~COPIED, 0)
        result.entry(cluster, COPIED | cluster * CLUSTER)
    return result


# The header.

@image
def empty():
    """An empty file."""
    return b""


@image
def magic_only():
    """Four bytes."""
    return bytes(Image().data[:4])


@image
def ends_in_header():
    """Fifty bytes."""
    return bytes(Image().data[:50])


@image
def ends_after_header():
    """The first cluster, and no more."""
    return bytes(Image().data[:CLUSTER])


@image
def ends_in_l2_table():
    """The end is missing."""
    return bytes(Image().data[:L2 + 100])


@image
def version_1():
    """A version that there never was."""
    return Image(version=1)


@image
def version_future():
    """A version that there is not yet."""
    return Image(version=4)


@image
def cluster_bits_too_small():
    """Clusters of 256 bytes."""
    return Image(cluster_bits=8)


@image
def cluster_bits_too_large():
    """Clusters of 4 MiB."""
    return Image(cluster_bits=22)


@image
def cluster_bits_absurd():
    """A shift by 2^31."""
    return Image(cluster_bits=1 << 31)


@image
def cluster_bits_of_another():
    """Clusters of 2 MiB, in a file of a few KiB."""
    return Image(cluster_bits=21)


@image
def size_absurd():
    """A disk of 2^64 - 1 bytes."""
    return Image(size=(1 << 64) - 1)


@image
def size_beyond_l1():
    """A disk that its L1 table cannot map."""
    return Image(size=1 << 40)


@image
def size_not_of_sectors():
    """A disk of an odd number of bytes: nothing wrong."""
    return Image(size=SIZE - 77)


@image
def header_length_absurd():
    """A header of 4 GiB."""
    return Image(header_length=0xfffffff8)


@image
def header_length_odd():
    """A header of 105 bytes."""
    return Image(header_length=105)


@image
def header_length_short():
    """A header of 8 bytes."""
    return Image(header_length=8)


@image
def refcount_order_7():
    """Refcounts of 128 bits."""
    return Image(refcount_order=7)


@image
def refcount_order_absurd():
    """A shift by 2^32 - 1."""
    return Image(refcount_order=0xffffffff)


@image
def incompatible_unknown():
    """A feature that nobody knows, with a name."""
    result = Image(incompatible=1 << 40)
    return result.extension(FEATURES, bytes([0, 40]) + b"time travel".ljust(
        46, b"\0"))


@image
def encrypted_aes():
    """Encrypted in the old way."""
    return Image(crypt_method=1)


@image
def encrypted_luks():
    """Encrypted."""
    return Image(crypt_method=2).extension(LUKS, struct.pack(">QQ", 0, 0))


@image
def encrypted_otherwise():
    """Encrypted in a way that there is not."""
    return Image(crypt_method=99)


@image
def compression_without_bit():
    """Compression type zstd, without the bit that must go with it."""
    return Image(compression=1)


@image
def compression_unknown():
    """Compression type 77."""
    return Image(compression=77, incompatible=COMPRESSION)


@image
def extended_with_small_clusters():
    """Subclusters of 16 bytes."""
    return Image(incompatible=EXTENDED)


@image
def dirty():
    """Left dirty: refcounts are to be made anew."""
    return Image(incompatible=DIRTY).refcount(DATA, 0).refcount(L1, 9)


@image
def dirty_and_beyond_repair():
    """Left dirty, and an L2 entry is out of the file."""
    return Image(incompatible=DIRTY).entry(5, COPIED | 1 << 40)


@image
def corrupt():
    """Marked corrupt; and nothing is wrong."""
    return Image(incompatible=CORRUPT)


# Header extensions.

@image
def extension_too_long():
    """An extension of 4 GiB."""
    return Image().extension(0x12345678, b"", 0xffffffff)


@image
def extension_over_end():
    """An extension that leaves the header cluster by a byte."""
    return Image().extension(0x12345678, b"", CLUSTER - 120 + 1)


@image
def extensions_without_end():
    """Extensions up to the last byte, and no end mark."""
    result = Image()
    while result.extension_end < CLUSTER:
        result.extension(0x12345678, b"")
    return result


@image
def extension_of_bitmaps_short():
    """A bitmaps extension of 4 bytes."""
    return Image(autoclear=1).extension(BITMAPS, b"\0\0\0\1")


@image
def bitmaps_bit_alone():
    """The autoclear bit for bitmaps, and no extension."""
    return Image(autoclear=1)


# Backing files, data files.

@image
def backing_itself():
    """Its own backing file."""
    return Image().backing(b"backing_itself.qcow2", b"qcow2")


@image
def backing_loop_a():
    """Over backing_loop_b, which is over this."""
    return Image().backing(b"backing_loop_b.qcow2", b"qcow2")


@image
def backing_loop_b():
    """Over backing_loop_a, which is over this."""
    return Image().backing(b"backing_loop_a.qcow2", b"qcow2")


@image
def backing_loop_json():
    """Its own backing file, by way of json:."""
    return Image().backing(
        b'json:{"driver":"qcow2","file":{"driver":"file",'
        b'"filename":"backing_loop_json.qcow2"}}')


@image
def backing_json_of_itself_unprobed():
    """Itself as raw, by way of json:; not a loop, but an odd disk."""
    return Image().backing(
        b'json:{"driver":"raw","file":{"driver":"file",'
        b'"filename":"backing_json_of_itself_unprobed.qcow2"}}')


@image
def backing_json_broken():
    """A json: name that ends too early."""
    return Image().backing(b'json:{"driver":"qcow2","file":{')


@image
def backing_json_deep():
    """A json: name of a hundred levels."""
    return Image().backing(b'json:' + b'{"file":' * 40 + b'1' + b'}' * 40)


@image
def backing_missing():
    """A backing file that is not there."""
    return Image().backing(b"no-such-file.qcow2", b"qcow2")


@image
def backing_format_unknown():
    """A backing format that is not there."""
    return Image().backing(b"good.qcow2", b"qcow99")


@image
def backing_name_outside():
    """A backing file name behind the header cluster."""
    return Image(backing_offset=CLUSTER, backing_bytes=16)


@image
def backing_name_over_end():
    """A backing file name that leaves the header cluster."""
    return Image(backing_offset=CLUSTER - 4, backing_bytes=16)


@image
def backing_name_too_long():
    """A backing file name of 4 GiB."""
    return Image().backing(b"x", length=0xffffffff)


@image
def backing_name_with_nul():
    """A backing file name with a NUL byte in it."""
    return Image().backing(b"good\0.qcow2")


@image
def backing_offset_absurd():
    """A backing file name at 2^64 - 8."""
    return Image(backing_offset=(1 << 64) - 8, backing_bytes=16)


@image
def data_file_unnamed():
    """An external data file, without a name."""
    return Image(incompatible=DATA_FILE)


@image
def data_file_itself():
    """Its own data file."""
    return Image(incompatible=DATA_FILE).extension(
        DATA_FILE_NAME, b"data_file_itself.qcow2")


@image
def data_file_and_raw_backing():
    """A raw external data file and a backing file."""
    result = Image(incompatible=DATA_FILE, autoclear=2)
    result.extension(DATA_FILE_NAME, b"good.qcow2")
    return result.backing(b"good.qcow2", b"qcow2")


# L1 and L2 tables.

@image
def l1_count_absurd():
    """An L1 table of 32 GiB."""
    return Image(l1_count=0xffffffff)


@image
def l1_count_largest():
    """An L1 table of 32 MiB, in a file of a few KiB."""
    return Image(l1_count=4 << 20)


@image
def l1_none():
    """No L1 entries for a disk of 64 KiB."""
    return Image(l1_count=0)


@image
def l1_unaligned():
    """An L1 table in the midst of a cluster."""
    return Image(l1_offset=L1 + 8)


@image
def l1_on_header():
    """The header is the L1 table."""
    return Image(l1_offset=0)


@image
def l1_on_refcount_table():
    """The refcount table is the L1 table."""
    return Image(l1_offset=TABLE)


@image
def l1_behind_end():
    """An L1 table at 1 TiB."""
    return Image(l1_offset=1 << 40)


@image
def l1_offset_absurd():
    """An L1 table whose end overflows."""
    return Image(l1_offset=(1 << 64) - CLUSTER)


@image
def l1_entry_is_l1():
    """The L1 table is its own L2 table, and so data of itself."""
    return Image().put(L1, COPIED | L1, COPIED | L1)


@image
def l1_entry_owns_nothing():
    """An L2 table that is not there, and owned."""
    return Image().put(L1 + 8, COPIED)


@image
def l1_entry_behind_end():
    """An L2 table at 1 TiB."""
    return Image().put(L1, COPIED | 1 << 40)


@image
def l1_entry_reserved():
    """Reserved bits of an L1 entry."""
    return Image().put(L1, COPIED | L2 | 0x100)


@image
def l1_entries_equal():
    """One L2 table for the whole disk, said to be owned."""
    return Image().put(L1, COPIED | L2, COPIED | L2)


@image
def l2_entry_is_l2():
    """The L2 table is data: a guest could write mappings."""
    return Image().entry(2, COPIED | L2)


@image
def l2_entry_is_refcount_block():
    """The refcount block is data."""
    return Image().entry(2, COPIED | BLOCK)


@image
def l2_entry_is_l1():
    """The L1 table is data."""
    return Image().entry(2, COPIED | L1)


@image
def l2_entry_behind_end():
    """Data at 1 TiB."""
    return Image().entry(2, COPIED | 1 << 40)


@image
def l2_entry_highest():
    """Data at the highest offset there is."""
    return Image().entry(2, COPIED | 0x00fffffffffffe00)


@image
def l2_entry_all_ones():
    """All bits of an entry."""
    return Image().entry(2, (1 << 64) - 1)


@image
def l2_entry_reserved():
    """Reserved bits of an entry."""
    return Image().entry(2, COPIED | DATA | 0x3e)


@image
def l2_entry_at_zero():
    """The header is data: offset 0, owned."""
    return Image().entry(2, COPIED)


@image
def l2_entries_equal():
    """All of the disk in one cluster, said to be owned."""
    result = Image()
    for cluster in range(128):
        result.entry(cluster, COPIED | DATA)
    return result


@image
def zero_entry_behind_end():
    """A preallocated zero cluster behind the end."""
    return Image().entry(2, COPIED | 1 << 30 | 1)


@image
def v2_with_zero_flag():
    """Version 2 has no zero clusters."""
    result = good_version_2()
    return result.entry(1, 1)


# Compressed clusters.

@image
def compressed_expands():
    """A stream of a few bytes for 16 MiB."""
    return Image().compressed(2, deflate(bytes(16 << 20))[:8 * CLUSTER])


@image
def compressed_short():
    """A stream that ends after 100 bytes."""
    return Image().compressed(2, deflate(bytes(100)))


@image
def compressed_garbage():
    """What is no stream."""
    return Image().compressed(2, b"\xff" * CLUSTER)


@image
def compressed_truncated():
    """A stream that goes on behind its last sector."""
    noise = bytes((i * 7919 >> 3) & 255 for i in range(4096))
    return Image().compressed(2, deflate(noise)[:CLUSTER], sectors=0)


@image
def compressed_behind_end():
    """A stream at 1 TiB."""
    return Image().entry(2, COMPRESSED | 1 << 40)


@image
def compressed_over_end():
    """A stream whose last sector is behind the end."""
    result = Image()
    return result.entry(2, COMPRESSED | 1 << SECTORS_SHIFT |
                        len(result.data) - CLUSTER)


@image
def compressed_all_ones():
    """The largest stream at the highest offset, and owned."""
    return Image().entry(2, (1 << 64) - 1)


@image
def compressed_is_metadata():
    """The L2 table is a stream."""
    return Image().entry(2, COMPRESSED | L2)


@image
def compressed_zstd_garbage():
    """What is no zstd frame."""
    result = Image(incompatible=COMPRESSION, compression=1)
    return result.compressed(2, b"\x28\xb5\x2f\xfd" + b"\xff" * 200)


@image
def compressed_zstd_absurd_size():
    """A zstd frame that announces 2^63 bytes."""
    result = Image(incompatible=COMPRESSION, compression=1)
    return result.compressed(2, b"\x28\xb5\x2f\xfd\xe0" +
                             struct.pack("<Q", 1 << 63) + b"\x01\0\0")


# Refcounts.

@image
def refcount_table_none():
    """No refcount table."""
    return Image(refcount_table_clusters=0)


@image
def refcount_table_absurd():
    """A refcount table of 2 TiB."""
    return Image(refcount_table_clusters=0xffffffff)


@image
def refcount_table_largest():
    """A refcount table of 8 MiB, in a file of a few KiB."""
    return Image(refcount_table_clusters=(8 << 20) // CLUSTER)


@image
def refcount_table_behind_end():
    """A refcount table at 1 TiB."""
    return Image(refcount_table_offset=1 << 40)


@image
def refcount_table_unaligned():
    """A refcount table in the midst of a cluster."""
    return Image(refcount_table_offset=TABLE + 64)


@image
def refcount_table_is_l1():
    """The L1 table is the refcount table."""
    return Image(refcount_table_offset=L1)


@image
def refcount_block_is_table():
    """The refcount table is its own block."""
    return Image().put(TABLE, TABLE)


@image
def refcount_block_is_l2():
    """An L2 table is the refcount block."""
    return Image().put(TABLE, L2)


@image
def refcount_block_behind_end():
    """A refcount block at 1 TiB."""
    return Image().put(TABLE, 1 << 40)


@image
def refcount_block_unaligned():
    """A refcount block with reserved bits."""
    return Image().put(TABLE, BLOCK | 7)


@image
def refcount_blocks_equal():
    """A bomb: one block for the whole table."""
    return Image().put(TABLE, *[BLOCK] * (CLUSTER // 8))


@image
def refcounts_zero():
    """Everything is free, tables included."""
    return Image().write(BLOCK, bytes(CLUSTER))


@image
def leaks():
    """Three clusters count that nothing uses."""
    result = Image()
    for _ in range(3):
        result.new()
    return result


@image
def refcounts_largest():
    """Nothing is ever free."""
    return Image().write(BLOCK, b"\xff" * CLUSTER)


@image
def refcounts_of_tables_zero():
    """Data counts, tables are free: the next write takes them."""
    result = Image()
    for cluster in range(DATA // CLUSTER):
        result.refcount(cluster * CLUSTER, 0)
    return result


# Snapshots.

@image
def snapshot_count_absurd():
    """2^32 - 1 snapshots."""
    return Image().snapshot(count=0xffffffff)


@image
def snapshot_count_largest():
    """65536 snapshots, in a file of a few KiB."""
    return Image().snapshot(count=65536)


@image
def snapshots_behind_end():
    """A snapshot table at 1 TiB."""
    return Image(snapshot_count=1, snapshots_offset=1 << 40)


@image
def snapshots_unaligned():
    """A snapshot table in the midst of a cluster."""
    return Image(snapshot_count=1, snapshots_offset=DATA + 8)


@image
def snapshot_extra_absurd():
    """Extra data of 4 GiB."""
    return Image().snapshot(extra=0xffffffff)


@image
def snapshot_extra_missing():
    """No extra data, which version 3 asks for."""
    return Image().snapshot(extra=0)


@image
def snapshot_name_over_end():
    """A name of 64 KiB."""
    return Image().snapshot(name_bytes=0xffff)


@image
def snapshot_l1_absurd():
    """A snapshot's L1 table of 32 GiB."""
    return Image().snapshot(l1_count=0xffffffff)


@image
def snapshot_l1_behind_end():
    """A snapshot's L1 table at 1 TiB."""
    return Image().snapshot(l1_offset=1 << 40)


@image
def snapshot_l1_is_header():
    """The header is a snapshot's L1 table."""
    return Image().snapshot(l1_offset=0)


@image
def snapshot_table_is_l1():
    """The L1 table is the snapshot table."""
    return Image(snapshot_count=3, snapshots_offset=L1)


# What fuzzing found: repairs that spoilt more at each run.

@image
def l1_where_refcounts_would_go():
    """No refcounts, and the L1 table right behind the end of the file."""
    return Image(l1_offset=0x1000).put(TABLE, 0)


@image
def header_is_l1_and_no_refcounts():
    """No refcounts, and the header is a snapshot's L1 table."""
    return Image().snapshot(l1_offset=0, l1_count=20).put(TABLE, 0)


@image
def snapshots_over_end_and_no_refcounts():
    """No refcounts, and the snapshot table leaves the file."""
    return Image().snapshot(count=30).put(TABLE, 0)


# Bitmaps.

@image
def bitmap_count_absurd():
    """2^32 - 1 bitmaps."""
    return Image().bitmap(count=0xffffffff)


@image
def bitmap_count_too_large():
    """More bitmaps than the directory holds."""
    return Image().bitmap(count=9)


@image
def bitmap_directory_absurd():
    """A bitmap directory of 2^63 bytes."""
    return Image().bitmap(directory_bytes=1 << 63)


@image
def bitmap_directory_behind_end():
    """A bitmap directory at 1 TiB."""
    return Image().bitmap(directory_offset=1 << 40)


@image
def bitmap_directory_is_header():
    """The header is the bitmap directory."""
    return Image().bitmap(directory_offset=0)


@image
def bitmap_table_absurd():
    """A bitmap table of 32 GiB."""
    return Image().bitmap(table_count=0xffffffff)


@image
def bitmap_table_behind_end():
    """A bitmap table at 1 TiB."""
    return Image().bitmap(table_offset=1 << 40)


@image
def bitmap_table_too_short():
    """A bitmap of no table entries."""
    return Image().bitmap(table_count=0)


@image
def bitmap_data_behind_end():
    """Bitmap data at 1 TiB."""
    return Image().bitmap(table=(1 << 40,))


@image
def bitmap_data_reserved():
    """Reserved bits of a bitmap table entry."""
    return Image().bitmap(table=((1 << 64) - 1,))


@image
def bitmap_data_is_header():
    """The L1 table is a bitmap's data."""
    return Image().bitmap(table=(L1,))


@image
def bitmap_directory_is_l1():
    """The L1 table is the bitmap directory."""
    return Image().bitmap(directory_offset=L1)


@image
def bitmap_table_is_l1():
    """The L1 table is a bitmap's table."""
    return Image().bitmap(table_offset=L1)


@image
def bitmap_data_shared():
    """Two entries of a bitmap's table name one cluster."""
    result = Image()
    cluster = result.new(b"\xff" * CLUSTER)
    return result.bitmap(table=(cluster, cluster), table_count=2)


@image
def stamp_good():
    """Nothing is wrong: a stamp, a gap before what follows, a bitmap."""
    result = Image()
    result.extension(STAMP, bytes(range(16)))
    result.extension(GAP, bytes(48))
    return result.bitmap().header(autoclear=1 | 1 << 63)


@image
def stamp_short():
    """A stamp of 3 bytes."""
    result = Image()
    result.extension(STAMP, b"abc")
    return result.header(autoclear=1 << 63)


@image
def stamp_bit_alone():
    """The autoclear bit of a stamp, and no stamp."""
    return Image().header(autoclear=1 << 63)


@image
def gap_over_end():
    """A gap that leaves the header cluster."""
    return Image().extension(GAP, bytes(8), length=1 << 20)


@image
def bitmap_granularity_absurd():
    """A granularity of 2^200."""
    return Image().bitmap(granularity=200)


@image
def bitmap_granularity_one():
    """A bit for each byte, with a table for less."""
    return Image().bitmap(granularity=0)


@image
def bitmap_kind_unknown():
    """A bitmap of kind 7."""
    return Image().bitmap(kind=7)


@image
def bitmap_flags_reserved():
    """Reserved flags of a bitmap."""
    return Image().bitmap(flags=0xffffffff)


@image
def bitmap_name_empty():
    """A bitmap without a name."""
    return Image().bitmap(name=b"")


@image
def bitmap_name_not_text():
    """A bitmap whose name is no UTF-8, with a NUL byte."""
    return Image().bitmap(name=b"\xff\xfe\0\xc0")


@image
def bitmap_name_over_end():
    """A name of 64 KiB."""
    return Image().bitmap(name_bytes=0xffff)


@image
def bitmap_extra_absurd():
    """Extra data of 4 GiB."""
    return Image().bitmap(extra=0xffffffff)


@image
def bitmap_names_equal():
    """Two bitmaps of one name, with one table."""
    return Image().bitmap(copies=2, count=2)


def all_images():
    """File name -> bytes."""
    made = {}
    for name, function in IMAGES.items():
        result = function()
        made[f"{name}.qcow2"] = bytes(getattr(result, "data", result))
    return made


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in all_images().items():
        (folder / name).write_bytes(data)
    print(f"{len(IMAGES)} images")


if __name__ == "__main__":
    main()
