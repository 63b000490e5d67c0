/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Positions and bits of the qcow2 format, versions 2 and 3. Source: QEMU's
 * docs/interop/qcow2.txt; the section is named at each group. All integers on
 * disk are big-endian. "Standard" and "compressed" clusters, L1, L2, refcount
 * table and block are the specification's words.
 */
#ifndef DRIVERS_QCOW2_FORMAT_H
#define DRIVERS_QCOW2_FORMAT_H

#include <stdint.h>

#define QCOW2_MAGIC_VALUE UINT32_C(0x514649fb)

/* "Header": byte offsets. Version 2 ends at QCOW2_HEADER_BYTES_V2. */
enum {
    QCOW2_MAGIC = 0,
    QCOW2_VERSION = 4,
    QCOW2_BACKING_OFFSET = 8,
    QCOW2_BACKING_BYTES = 16,
    QCOW2_CLUSTER_BITS = 20,
    QCOW2_SIZE = 24,
    QCOW2_CRYPT_METHOD = 32,
    QCOW2_L1_COUNT = 36,
    QCOW2_L1_OFFSET = 40,
    QCOW2_REFCOUNT_TABLE_OFFSET = 48,
    QCOW2_REFCOUNT_TABLE_CLUSTERS = 56,
    QCOW2_SNAPSHOT_COUNT = 60,
    QCOW2_SNAPSHOTS_OFFSET = 64,
    QCOW2_HEADER_BYTES_V2 = 72,
    QCOW2_INCOMPATIBLE = 72,
    QCOW2_COMPATIBLE = 80,
    QCOW2_AUTOCLEAR = 88,
    QCOW2_REFCOUNT_ORDER = 96,
    QCOW2_HEADER_LENGTH = 100,
    QCOW2_HEADER_BYTES_V3 = 104, /* the shortest of version 3 */
    QCOW2_COMPRESSION_TYPE = 104,
    QCOW2_HEADER_BYTES = 112, /* what we write */
};

#define QCOW2_BACKING_BYTES_MAX  1023
#define QCOW2_CLUSTER_BITS_MIN   9
#define QCOW2_CLUSTER_BITS_MAX   21
#define QCOW2_REFCOUNT_ORDER_MAX 6
/* Bounds of ours on what a header may ask for (32 MiB, 8 MiB, 64 MiB), as
 * large as those of QEMU. */
#define QCOW2_L1_COUNT_MAX               (UINT64_C(4) << 20)
#define QCOW2_REFCOUNT_TABLE_BYTES_MAX   (UINT64_C(8) << 20)
#define QCOW2_SNAPSHOT_COUNT_MAX         65536
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX   (UINT64_C(64) << 20)
#define QCOW2_BITMAP_DIRECTORY_BYTES_MAX (UINT64_C(64) << 20)
/* No cluster lies behind this: the tables have no more bits for an offset. */
#define QCOW2_OFFSET_BITS_MAX 56

#define QCOW2_INCOMPATIBLE_DIRTY       (UINT64_C(1) << 0)
#define QCOW2_INCOMPATIBLE_CORRUPT     (UINT64_C(1) << 1)
#define QCOW2_INCOMPATIBLE_DATA_FILE   (UINT64_C(1) << 2)
#define QCOW2_INCOMPATIBLE_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPATIBLE_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_COMPATIBLE_LAZY          (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS        (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW  (UINT64_C(1) << 1)
/* Ours (docs/reference/tracking-file.md, "The stamp"). */
#define QCOW2_AUTOCLEAR_STAMP (UINT64_C(1) << 63)

enum qcow2_compression {
    QCOW2_COMPRESSION_ZLIB = 0, /* raw deflate */
    QCOW2_COMPRESSION_ZSTD = 1,
};

/* "Header extensions": type and length (4 bytes each), data, padding to 8. */
#define QCOW2_EXTENSION_END            UINT32_C(0)
#define QCOW2_EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define QCOW2_EXTENSION_FEATURE_NAMES  UINT32_C(0x6803f857)
#define QCOW2_EXTENSION_BITMAPS        UINT32_C(0x23852875)
#define QCOW2_EXTENSION_ENCRYPTION     UINT32_C(0x0537be77)
#define QCOW2_EXTENSION_DATA_FILE      UINT32_C(0x44415441)
/* Ours: the stamp, and room that is stepped over while a header moves. */
#define QCOW2_EXTENSION_STAMP UINT32_C(0x636f6801)
#define QCOW2_EXTENSION_GAP   UINT32_C(0x636f6802)
#define QCOW2_STAMP_BYTES     16

/* "Cluster mapping": L1 and L2 entries. */
#define QCOW2_ENTRY_COPIED               (UINT64_C(1) << 63)
#define QCOW2_L1_OFFSET_MASK             UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED                UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_COMPRESSED              (UINT64_C(1) << 62)
#define QCOW2_L2_ZERO                    UINT64_C(1)
#define QCOW2_L2_OFFSET_MASK             UINT64_C(0x00fffffffffffe00)
#define QCOW2_SUBCLUSTERS                32
#define QCOW2_REFCOUNT_TABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
/* "Snapshots": the part of an entry before its extra data, id and name. */
#define QCOW2_SNAPSHOT_ENTRY_BYTES 40
/* Compressed clusters are measured in these. */
#define QCOW2_SECTOR_BYTES 512

#endif
