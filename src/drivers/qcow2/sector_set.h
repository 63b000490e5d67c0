/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which sectors of a table of 64-bit entries have changed, in the order in which
 * they did. Embedded.
 */
#ifndef DRIVERS_QCOW2_SECTOR_SET_H
#define DRIVERS_QCOW2_SECTOR_SET_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "drivers/qcow2/format.h"

#define SECTOR_ENTRIES (QCOW2_SECTOR_BYTES / 8)

struct sector_set {
    GArray *numbers;   /* uint32_t */
    GByteArray *flags; /* by number: is it there? */
};

void sector_set_init(struct sector_set *set);
void sector_set_release(struct sector_set *set);
void sector_set_add(struct sector_set *set, uint64_t number);
/* All of `from` joins `to`; `from` is empty then. */
void sector_set_move(struct sector_set *to, struct sector_set *from);
bool sector_set_is_empty(const struct sector_set *set);
uint64_t sector_set_get(const struct sector_set *set, guint index);

#endif
