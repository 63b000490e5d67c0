/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Positions and bits of the qcow2 format, version 3, as far as a repository
 * uses it. Source: QEMU's docs/interop/qcow2.txt, sections "Header", "Header
 * extensions", "Host cluster management" and "Cluster mapping". All integers
 * are big-endian.
 */
#ifndef REPO_QCOW2_FORMAT_H
#define REPO_QCOW2_FORMAT_H

#include <stdint.h>

#define QCOW2_MAGIC_VALUE UINT32_C(0x514649fb)

/* Header: byte offsets. */
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
    QCOW2_INCOMPATIBLE = 72,
    QCOW2_REFCOUNT_ORDER = 96,
    QCOW2_HEADER_LENGTH = 100,
    QCOW2_HEADER_BYTES = 104,
};

#define QCOW2_BACKING_BYTES_MAX 1023
/* 32 MiB, the largest L1 table that QEMU reads. */
#define QCOW2_L1_COUNT_MAX (UINT64_C(4) << 20)

#define QCOW2_EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)

/* L1 and L2 entries. */
#define QCOW2_ENTRY_COPIED   (UINT64_C(1) << 63)
#define QCOW2_L2_ZERO        UINT64_C(1)
#define QCOW2_L2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)

#endif
