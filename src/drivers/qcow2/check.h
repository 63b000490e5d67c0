/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks an image, and repairs it: does every cluster have the refcount that
 * its uses give it, are all tables where they may be, is the "copied" flag of
 * each entry right? The same findings as `qemu-img check`.
 *
 *     leak        counted more than used: space lost, nothing else
 *     corruption  used more than counted, or used as two things, or out of
 *                 range: writing would destroy data
 *
 * Works on an opened node of driver qcow2. Memory is bounded by the file's size
 * (a refcount of 16 bits for each cluster) and by limits that a hostile image
 * cannot move. Coroutines of the node's home thread, drained.
 */
#ifndef DRIVERS_QCOW2_CHECK_H
#define DRIVERS_QCOW2_CHECK_H

#include "block/node.h"

enum qcow2_repair {
    QCOW2_REPAIR_NOTHING,
    QCOW2_REPAIR_LEAKS, /* only what cannot lose anything */
    QCOW2_REPAIR_ALL,
};

struct qcow2_check_result {
    uint64_t leaks;
    uint64_t corruptions;
    uint64_t check_errors; /* what could not be read, and is not known */
    uint64_t leaks_fixed;
    uint64_t corruptions_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters;
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
};

/* Told of each finding, one sentence each. */
typedef void qcow2_check_report(void *opaque, const char *sentence);

int co_qcow2_check(struct block_node *node,
                   enum qcow2_repair repair,
                   qcow2_check_report *report, /* may be NULL */
                   void *opaque,
                   struct qcow2_check_result *ret_result,
                   GError **err);

#endif
