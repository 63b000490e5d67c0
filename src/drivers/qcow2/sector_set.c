/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/sector_set.h"

#include <string.h>

void sector_set_init(struct sector_set *set)
{
    set->numbers = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    set->flags = g_byte_array_new();
}

void sector_set_release(struct sector_set *set)
{
    g_array_unref(set->numbers);
    g_byte_array_unref(set->flags);
}

void sector_set_add(struct sector_set *set, uint64_t number)
{
    guint length = set->flags->len;
    uint32_t entry = (uint32_t)number;

    if (number >= length) {
        g_byte_array_set_size(set->flags, (guint)number + 1);
        memset(set->flags->data + length, 0, set->flags->len - length);
    }
    if (set->flags->data[number] == 0) {
        set->flags->data[number] = 1;
        g_array_append_val(set->numbers, entry);
    }
}

void sector_set_move(struct sector_set *to, struct sector_set *from)
{
    for (guint i = 0; i < from->numbers->len; i++) {
        uint64_t number = sector_set_get(from, i);

        sector_set_add(to, number);
        from->flags->data[number] = 0;
    }
    g_array_set_size(from->numbers, 0);
}

bool sector_set_is_empty(const struct sector_set *set)
{
    return set->numbers->len == 0;
}

uint64_t sector_set_get(const struct sector_set *set, guint index)
{
    return g_array_index(set->numbers, uint32_t, index);
}
