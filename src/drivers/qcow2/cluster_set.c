/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A hash table with linear probing. A slot holds a cluster's number plus one; 0
 * is a free slot. It is at most half full.
 */
#include "drivers/qcow2/cluster_set.h"

#include <glib.h>

#define SLOTS_MIN 64

struct cluster_set {
    unsigned int cluster_bits;
    uint64_t *slots;
    uint64_t mask;
    uint64_t count;
};

struct cluster_set *cluster_set_new(unsigned int cluster_bits)
{
    struct cluster_set *set = g_new0(struct cluster_set, 1);

    set->cluster_bits = cluster_bits;
    set->slots = g_new0(uint64_t, SLOTS_MIN);
    set->mask = SLOTS_MIN - 1;
    return set;
}

void cluster_set_free(struct cluster_set *set)
{
    if (set != NULL) {
        g_free(set->slots);
        g_free(set);
    }
}

static uint64_t home_slot(const struct cluster_set *set, uint64_t key)
{
    return (key * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & set->mask;
}

/* The slot of `key`, or the free one where it would go. */
static uint64_t find_slot(const struct cluster_set *set, uint64_t key)
{
    uint64_t slot = home_slot(set, key);

    while (set->slots[slot] != 0 && set->slots[slot] != key) {
        slot = (slot + 1) & set->mask;
    }
    return slot;
}

static void insert(struct cluster_set *set, uint64_t key)
{
    uint64_t slot = find_slot(set, key);

    if (set->slots[slot] == 0) {
        set->slots[slot] = key;
        set->count++;
    }
}

static void make_larger(struct cluster_set *set)
{
    g_autofree uint64_t *old = set->slots;
    uint64_t old_slots = set->mask + 1;

    set->slots = g_new0(uint64_t, old_slots * 2);
    set->mask = old_slots * 2 - 1;
    set->count = 0;
    for (uint64_t i = 0; i < old_slots; i++) {
        if (old[i] != 0) {
            insert(set, old[i]);
        }
    }
}

/* Closes the gap at `slot`: what follows moves up, unless it is at home. */
static void close_gap(struct cluster_set *set, uint64_t slot)
{
    uint64_t next = slot;

    for (;;) {
        uint64_t home;

        next = (next + 1) & set->mask;
        if (set->slots[next] == 0) {
            break;
        }
        home = home_slot(set, set->slots[next]);
        if (((next - home) & set->mask) >= ((next - slot) & set->mask)) {
            set->slots[slot] = set->slots[next];
            slot = next;
        }
    }
    set->slots[slot] = 0;
}

/* The first and the last key of a range that is not empty. */
static uint64_t first_key(const struct cluster_set *set, uint64_t host_offset)
{
    return (host_offset >> set->cluster_bits) + 1;
}

static uint64_t last_key(const struct cluster_set *set,
                         uint64_t host_offset,
                         uint64_t bytes)
{
    return ((host_offset + bytes - 1) >> set->cluster_bits) + 1;
}

void cluster_set_add(struct cluster_set *set,
                     uint64_t host_offset,
                     uint64_t bytes)
{
    if (bytes == 0) {
        return;
    }
    for (uint64_t key = first_key(set, host_offset);
         key <= last_key(set, host_offset, bytes); key++) {
        if (set->count * 2 > set->mask) {
            make_larger(set);
        }
        insert(set, key);
    }
}

void cluster_set_remove(struct cluster_set *set,
                        uint64_t host_offset,
                        uint64_t bytes)
{
    if (bytes == 0) {
        return;
    }
    for (uint64_t key = first_key(set, host_offset);
         key <= last_key(set, host_offset, bytes); key++) {
        uint64_t slot = find_slot(set, key);

        if (set->slots[slot] != 0) {
            close_gap(set, slot);
            set->count--;
        }
    }
}

bool cluster_set_meets(const struct cluster_set *set,
                       uint64_t host_offset,
                       uint64_t bytes)
{
    if (bytes == 0) {
        return false;
    }
    for (uint64_t key = first_key(set, host_offset);
         key <= last_key(set, host_offset, bytes); key++) {
        if (set->slots[find_slot(set, key)] != 0) {
            return true;
        }
    }
    return false;
}
