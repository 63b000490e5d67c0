/* SPDX-License-Identifier: BSD-3-Clause */
/* What a check (check.h) is asked for and what it tells, for those who know
 * nothing of nodes. */
#ifndef DRIVERS_QCOW2_CHECK_RESULT_H
#define DRIVERS_QCOW2_CHECK_RESULT_H

#include <stdbool.h>
#include <stdint.h>

enum qcow2_repair {
    QCOW2_REPAIR_NOTHING,
    QCOW2_REPAIR_LEAKS, /* only what cannot lose anything */
    QCOW2_REPAIR_ALL,
};

struct qcow2_check_result {
    uint64_t leaks;        /* that are there when the check ends */
    uint64_t corruptions;  /* ... likewise */
    uint64_t check_errors; /* what could not be read, and is not known */
    uint64_t leaks_fixed;
    uint64_t corruptions_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters;
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
    /* A table is something else, too: what is written to the disk may change
     * the table, and the reverse. Not counted: the refcounts may say so. */
    bool tables_overlap;
};

/* Told of each finding, one sentence each; also of those found once more after
 * a repair. */
typedef void qcow2_check_report(void *opaque, const char *sentence);

#endif
