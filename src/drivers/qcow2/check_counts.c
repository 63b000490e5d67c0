/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages of 16-bit numbers, found by way of a tree, the last one without it. The
 * few numbers that 16 bits cannot hold are in a table of their own.
 */
#include "drivers/qcow2/check_counts.h"

#include <errno.h>

#define PAGE_ENTRIES 256
#define IN_TABLE     UINT16_MAX
/* What a page, and a number in the table, cost with all around them. */
#define PAGE_COST  (sizeof(struct page) + 64)
#define LARGE_COST 96

struct page {
    uint64_t index; /* of the first cluster, divided by PAGE_ENTRIES */
    uint16_t entries[PAGE_ENTRIES];
};

struct check_counts {
    GTree *pages; /* &page->index -> page, owned */
    struct page *last;
    GHashTable *large; /* uint64_t cluster -> uint64_t, both owned */
    uint64_t bytes;
    uint64_t max_bytes;
};

static gint compare_indices(gconstpointer a, gconstpointer b, gpointer opaque)
{
    const uint64_t *first = a;
    const uint64_t *second = b;

    (void)opaque;
    return (*first > *second) - (*first < *second);
}

struct check_counts *check_counts_new(uint64_t max_bytes)
{
    struct check_counts *counts = g_new0(struct check_counts, 1);

    counts->pages = g_tree_new_full(compare_indices, NULL, NULL, g_free);
    counts->large =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    counts->max_bytes = max_bytes;
    return counts;
}

void check_counts_free(struct check_counts *counts)
{
    if (counts == NULL) {
        return;
    }
    g_tree_destroy(counts->pages);
    g_hash_table_destroy(counts->large);
    g_free(counts);
}

static struct page *find_page(struct check_counts *counts, uint64_t index)
{
    if (counts->last == NULL || counts->last->index != index) {
        struct page *page = g_tree_lookup(counts->pages, &index);

        if (page == NULL) {
            return NULL;
        }
        counts->last = page;
    }
    return counts->last;
}

uint64_t check_counts_get(struct check_counts *counts, uint64_t cluster)
{
    const struct page *page = find_page(counts, cluster / PAGE_ENTRIES);
    uint16_t entry = page == NULL ? 0 : page->entries[cluster % PAGE_ENTRIES];

    if (entry == IN_TABLE) {
        const uint64_t *large = g_hash_table_lookup(counts->large, &cluster);

        return *large;
    }
    return entry;
}

static int charge(struct check_counts *counts, uint64_t bytes)
{
    if (bytes > counts->max_bytes - counts->bytes) {
        return -ENOMEM;
    }
    counts->bytes += bytes;
    return 0;
}

static int set_large(struct check_counts *counts,
                     uint64_t cluster,
                     uint64_t value)
{
    uint64_t *large = g_hash_table_lookup(counts->large, &cluster);

    if (large == NULL) {
        int ret = charge(counts, LARGE_COST);

        if (ret < 0) {
            return ret;
        }
        large = g_new(uint64_t, 1);
        g_hash_table_insert(counts->large, g_memdup2(&cluster, sizeof(cluster)),
                            large);
    }
    *large = value;
    return 0;
}

int check_counts_add(struct check_counts *counts,
                     uint64_t cluster,
                     uint64_t times)
{
    uint64_t old = check_counts_get(counts, cluster);
    uint64_t value = times > UINT64_MAX - old ? UINT64_MAX : old + times;
    struct page *page = find_page(counts, cluster / PAGE_ENTRIES);
    int ret = 0;

    if (times == 0) {
        return 0;
    }
    if (page == NULL) {
        ret = charge(counts, PAGE_COST);
        if (ret < 0) {
            return ret;
        }
        page = g_new0(struct page, 1);
        page->index = cluster / PAGE_ENTRIES;
        g_tree_insert(counts->pages, &page->index, page);
        counts->last = page;
    }
    if (value >= IN_TABLE) {
        ret = set_large(counts, cluster, value);
    }
    if (ret == 0) {
        page->entries[cluster % PAGE_ENTRIES] =
            (uint16_t)(value >= IN_TABLE ? IN_TABLE : value);
    }
    return ret;
}

uint64_t check_counts_next(struct check_counts *counts, uint64_t cluster)
{
    uint64_t index = cluster / PAGE_ENTRIES;
    uint64_t entry = cluster % PAGE_ENTRIES;
    GTreeNode *node = g_tree_lower_bound(counts->pages, &index);

    for (; node != NULL; node = g_tree_node_next(node)) {
        const struct page *page = g_tree_node_value(node);

        for (entry = page->index == index ? entry : 0; entry < PAGE_ENTRIES;
             entry++) {
            if (page->entries[entry] != 0) {
                return page->index * PAGE_ENTRIES + entry;
            }
        }
    }
    return CHECK_COUNTS_NONE;
}
