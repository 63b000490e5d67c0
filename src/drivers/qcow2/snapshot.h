/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The internal snapshots of an image: its snapshot table as values. Source:
 * docs/interop/qcow2.txt, "Snapshots".
 *
 * They are preserved, since the refcounts that they hold keep their clusters
 * from being used; and read, when a node is opened with the option
 * x-cohort-snapshot. Making and deleting them is left to others.
 */
#ifndef DRIVERS_QCOW2_SNAPSHOT_H
#define DRIVERS_QCOW2_SNAPSHOT_H

#include "block/node.h"
#include "drivers/qcow2/header.h"

struct qcow2_snapshot {
    uint64_t l1_offset; /* not checked: see qcow2_snapshot_check() */
    uint32_t l1_count;
    char *id;   /* owned; as it stands, perhaps no UTF-8 */
    char *name; /* owned; likewise */
    uint32_t date_seconds;
    uint32_t date_nanoseconds;
    uint64_t guest_clock_nanoseconds;
    uint64_t vm_state_bytes;
    uint64_t size_bytes; /* of the disk */
    bool has_instruction_count;
    uint64_t instruction_count;
};

struct qcow2_snapshots {
    uint32_t count;
    struct qcow2_snapshot *snapshots;
    uint64_t table_bytes; /* what the table takes in the file */
};

/* Reads the table that `header` tells of from `file`. Memory is bounded by the
 * limits of format.h and by the file's size. `name`: of the image, for
 * sentences. Coroutines of the file's home. */
int co_qcow2_snapshots_load(struct block_node *file,
                            const struct qcow2_header *header,
                            const char *name,
                            struct qcow2_snapshots **ret_snapshots,
                            GError **err);
void qcow2_snapshots_free(struct qcow2_snapshots *snapshots);

/* By id, or else by name; NULL: there is none. Any thread. */
const struct qcow2_snapshot *qcow2_snapshot_find(
    const struct qcow2_snapshots *snapshots,
    const char *id_or_name);

/* Is its L1 table where one may be, and large enough for its size? */
int qcow2_snapshot_check(const struct qcow2_snapshot *snapshot,
                         const struct qcow2_header *header,
                         const char *name,
                         GError **err);

#endif
