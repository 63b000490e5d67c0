/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A number for each cluster of a file, most of them zero: how often something
 * names it. Costs memory only where something is named, and never more than a
 * bound: an image that names clusters all over a huge sparse file is given up
 * on. Pure; one thread at a time.
 */
#ifndef DRIVERS_QCOW2_CHECK_COUNTS_H
#define DRIVERS_QCOW2_CHECK_COUNTS_H

#include <glib.h>
#include <stdint.h>

#define CHECK_COUNTS_NONE UINT64_MAX

typedef struct check_counts check_counts; /* for g_autoptr only */

/* `max_bytes`: of memory. */
struct check_counts *check_counts_new(uint64_t max_bytes);
void check_counts_free(struct check_counts *counts);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(check_counts, check_counts_free)

uint64_t check_counts_get(struct check_counts *counts, uint64_t cluster);
/* Adds; stays at UINT64_MAX rather than wrap around. -ENOMEM: beyond the bound,
 * and nothing was added. */
int check_counts_add(struct check_counts *counts,
                     uint64_t cluster,
                     uint64_t times);
/* The first cluster from `cluster` on whose number is not zero, or
 * CHECK_COUNTS_NONE. */
uint64_t check_counts_next(struct check_counts *counts, uint64_t cluster);

#endif
