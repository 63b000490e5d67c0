/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fill of an allocating write: what the guest has not written, before and
 * behind its data, in the part of a cluster that is stored as a whole.
 */
#ifndef DRIVERS_QCOW2_FILL_H
#define DRIVERS_QCOW2_FILL_H

#include "drivers/qcow2/l2_table.h"

struct qcow2_fill {
    uint64_t offset; /* guest bytes; perhaps behind the end of the disk */
    uint64_t bytes;
    bool is_zero;     /* else `content` has it */
    uint8_t *content; /* borrowed from `buffer` of either fill */
    uint8_t *buffer;  /* owned */
};

void qcow2_fill_release(struct qcow2_fill *fill);

/* Where the fill of data that begins (ends) at `offset` has to begin (end), by
 * the entry of the cluster that `offset` (the byte before it) is in. `in_place`:
 * its host cluster is kept. */
uint64_t qcow2_fill_start(const struct qcow2_image *image,
                          const struct qcow2_entry *entry,
                          uint64_t offset,
                          bool in_place);
uint64_t qcow2_fill_end(const struct qcow2_image *image,
                        const struct qcow2_entry *entry,
                        uint64_t offset,
                        bool in_place);
/* Does the cluster hold guest data that goes with it to another place? */
bool qcow2_entry_has_data(const struct qcow2_image *image,
                          const struct qcow2_entry *entry);

/* Sets offset, bytes and is_zero, the latter as far as the tables tell. */
void qcow2_fill_set(const struct qcow2_image *image,
                    const struct qcow2_entry *entry,
                    uint64_t start,
                    uint64_t end,
                    struct qcow2_fill *ret_fill);
/* Reads what is not zero, as the guest sees it now: in one go if both are in one
 * cluster and near. What turns out to be zeroes becomes is_zero. */
int co_qcow2_fill_read(struct qcow2_image *image,
                       struct qcow2_fill *head,
                       struct qcow2_fill *tail);

#endif
