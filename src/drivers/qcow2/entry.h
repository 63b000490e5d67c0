/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One L2 entry, taken apart and put together. Source: docs/interop/qcow2.txt,
 * "L2 table entry", "Standard Cluster Descriptor", "Compressed Clusters
 * Descriptor", "Extended L2 Entries". No I/O; any thread.
 */
#ifndef DRIVERS_QCOW2_ENTRY_H
#define DRIVERS_QCOW2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

struct qcow2_entry {
    bool compressed;
    bool copied;          /* refcount is exactly 1; never with `compressed` */
    bool zero;            /* without subclusters: reads as zeroes */
    uint64_t host_offset; /* 0: none (but see external data files); standard
                             clusters: a multiple of 512, and whether it is one
                             of the cluster's size is for the caller to check */
    uint64_t compressed_bytes; /* loading: from host_offset to the end of the
                                  stream's last sector; storing: of the stream */
    uint32_t subclusters_allocated; /* bit n: subcluster n */
    uint32_t subclusters_zero;
};

/* `bytes`: 8, or 16 with subclusters. Reserved bits that are set, or a
 * subcluster both allocated and zero, make it invalid: false. What a version 2
 * image may not have (`zero`) is for the caller to refuse, and so is `copied`
 * with `compressed`, which does no harm. */
bool qcow2_entry_load(const uint8_t *bytes,
                      unsigned int cluster_bits,
                      bool has_subclusters,
                      struct qcow2_entry *ret_entry);
/* A compressed cluster is stored without `copied`. */
void qcow2_entry_store(uint8_t *bytes,
                       unsigned int cluster_bits,
                       bool has_subclusters,
                       const struct qcow2_entry *entry);

#endif
