/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * L2 tables that may be changed: made when there is none, copied when a snapshot
 * shares it.
 *
 * Coroutines of the home thread. A slice stays where it is while it is pinned.
 */
#ifndef DRIVERS_QCOW2_L2_TABLE_H
#define DRIVERS_QCOW2_L2_TABLE_H

#include "drivers/qcow2/entry.h"
#include "drivers/qcow2/image.h"

/* One slice of a table, for the guest's bytes [start, end). */
struct qcow2_slice {
    struct table_block *block; /* pinned; NULL: none */
    uint64_t start;
    uint64_t end;
};

/* The slice for a guest offset, whose table is ours alone; all of the disk's
 * size is covered by L1 entries. */
int co_qcow2_slice_for_change(struct qcow2_image *image,
                              uint64_t offset,
                              struct qcow2_slice *ret_slice);
/* The slice as it is, perhaps shared; block NULL: there is no table. */
int co_qcow2_slice_as_is(struct qcow2_image *image,
                         uint64_t offset,
                         struct qcow2_slice *ret_slice);
void qcow2_slice_put(struct qcow2_image *image, struct qcow2_slice *slice);

/* The entry of a guest offset within the slice. An invalid one (also one whose
 * cluster cannot be there) marks the image corrupt: -EIO. */
int co_qcow2_slice_load(struct qcow2_image *image,
                        const struct qcow2_slice *slice,
                        uint64_t offset,
                        struct qcow2_entry *ret_entry);
void qcow2_slice_store(struct qcow2_image *image,
                       const struct qcow2_slice *slice,
                       uint64_t offset,
                       const struct qcow2_entry *entry);

/* Frees, later, the place of an entry that is being replaced. */
void qcow2_entry_free_place(struct qcow2_image *image,
                            const struct qcow2_entry *entry,
                            bool discarded);
/* Does it have a host cluster? (In a data file that may be cluster 0.) */
bool qcow2_entry_has_place(const struct qcow2_image *image,
                           const struct qcow2_entry *entry);

#endif
