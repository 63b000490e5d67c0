/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks are found through a hash table of chains. Clean ones stand in a list
 * by last use, dirty ones in another, so that who looks for one to let go does
 * not walk past them. One that is being read is in the table already, so that a
 * second one who wants it waits for the first one's read.
 *
 * A failed read takes its block out of the table; who waited for it gets the
 * error, who comes later tries again.
 */
#include "drivers/qcow2/table_cache.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/driver.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/table_memory.h"

#define BLOCKS_MIN 16

struct entry {
    struct table_block block;
    struct table_piece *piece; /* of the cache's memory */
    struct list chain;         /* of the hash table; empty: found by nobody */
    struct list order;         /* in the cache's list `clean` or `dirty` */
    unsigned int pins;
    bool dirty;
    bool loading;
    int error; /* of loading */
    struct co_queue loaded;
};

struct table_cache {
    struct qcow2_image *image;
    struct table_memory *memory;
    uint32_t block_bytes;
    unsigned int block_bits;
    uint64_t blocks_max;
    uint64_t blocks; /* in the table */
    uint64_t dirty_blocks;
    struct list *chains;
    uint64_t chain_mask;
    struct list clean; /* least recently used first */
    struct list dirty;
    struct table_cache_writer writer;
};

struct table_cache *table_cache_new(struct qcow2_image *image,
                                    uint32_t block_bytes,
                                    uint64_t max_bytes)
{
    struct table_cache *cache = g_new0(struct table_cache, 1);
    uint64_t chains = 1;

    g_assert(is_power_of_two(block_bytes));
    cache->image = image;
    cache->memory = table_memory_new(block_bytes);
    cache->block_bytes = block_bytes;
    cache->block_bits = (unsigned int)__builtin_ctz(block_bytes);
    cache->blocks_max = max_u64(max_bytes / block_bytes, BLOCKS_MIN);
    while (chains < cache->blocks_max && chains < 65536) {
        chains *= 2;
    }
    cache->chain_mask = chains - 1;
    cache->chains = g_new(struct list, chains);
    for (uint64_t i = 0; i < chains; i++) {
        list_init(&cache->chains[i]);
    }
    list_init(&cache->clean);
    list_init(&cache->dirty);
    return cache;
}

static void entry_free(struct table_cache *cache, struct entry *entry)
{
    table_memory_give(cache->memory, entry->piece, entry->block.bytes);
    g_free(entry);
}

/* Takes the block out of the table. Whoever has it pinned keeps it. */
static void entry_detach(struct table_cache *cache, struct entry *entry)
{
    list_remove(&entry->chain);
    list_remove(&entry->order);
    if (entry->dirty) {
        entry->dirty = false;
        cache->dirty_blocks--;
    }
    cache->blocks--;
    if (entry->pins == 0) {
        entry_free(cache, entry);
    }
}

static bool entry_is_detached(const struct entry *entry)
{
    return list_is_empty(&entry->chain);
}

void table_cache_free(struct table_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    while (!list_is_empty(&cache->dirty) || !list_is_empty(&cache->clean)) {
        struct list *first = list_is_empty(&cache->dirty) ? cache->clean.next
                                                          : cache->dirty.next;
        struct entry *entry = LIST_ENTRY(first, struct entry, order);

        g_assert(entry->pins == 0);
        entry_detach(cache, entry);
    }
    table_memory_free(cache->memory);
    g_free(cache->chains);
    g_free(cache);
}

static struct list *chain_of(struct table_cache *cache, uint64_t host_offset)
{
    uint64_t number = host_offset >> cache->block_bits;

    return &cache->chains[(number ^ (number >> 16)) & cache->chain_mask];
}

static struct entry *lookup(struct table_cache *cache, uint64_t host_offset)
{
    struct list *chain = chain_of(cache, host_offset);

    LIST_FOREACH(link, chain) {
        struct entry *entry = LIST_ENTRY(link, struct entry, chain);

        if (entry->block.host_offset == host_offset) {
            return entry;
        }
    }
    return NULL;
}

static void entry_use(struct table_cache *cache, struct entry *entry)
{
    entry->pins++;
    if (!entry->dirty && cache->clean.previous != &entry->order &&
        !entry_is_detached(entry)) {
        list_remove(&entry->order);
        list_append(&cache->clean, &entry->order);
    }
}

struct table_block *table_cache_find(struct table_cache *cache,
                                     uint64_t host_offset)
{
    struct entry *entry = lookup(cache, host_offset);

    if (entry == NULL || entry->loading) {
        return NULL;
    }
    entry_use(cache, entry);
    return &entry->block;
}

void table_cache_put(struct table_cache *cache, struct table_block *block)
{
    struct entry *entry = LIST_ENTRY(block, struct entry, block);

    g_assert(entry->pins > 0);
    entry->pins--;
    if (entry->pins == 0 && entry_is_detached(entry)) {
        entry_free(cache, entry);
    }
}

static bool evict_one(struct table_cache *cache)
{
    LIST_FOREACH(link, &cache->clean) {
        struct entry *entry = LIST_ENTRY(link, struct entry, order);

        if (entry->pins == 0) {
            entry_detach(cache, entry);
            return true;
        }
    }
    return false;
}

/* Brings the cache below its bound, by a commit if need be and allowed. 1: it
 * has waited, the caller must look again what is there now. */
static int co_make_room(struct table_cache *cache, bool may_commit)
{
    int ret;

    while (cache->blocks >= cache->blocks_max && evict_one(cache)) {
    }
    if (cache->blocks < cache->blocks_max || cache->dirty_blocks == 0 ||
        !may_commit) {
        return 0;
    }
    ret = cache->writer.co_write_back(cache->writer.opaque);
    return ret < 0 ? ret : 1;
}

static struct entry *entry_new(struct table_cache *cache, uint64_t host_offset)
{
    struct table_piece *piece;
    uint8_t *bytes = table_memory_take(cache->memory, &piece);
    struct entry *entry;

    if (bytes == NULL) {
        return NULL;
    }
    entry = g_new0(struct entry, 1);
    entry->block.host_offset = host_offset;
    entry->block.bytes = bytes;
    entry->piece = piece;
    entry->pins = 1;
    co_queue_init(&entry->loaded);
    list_append(chain_of(cache, host_offset), &entry->chain);
    list_append(&cache->clean, &entry->order);
    cache->blocks++;
    return entry;
}

static int co_load(struct table_cache *cache, struct entry *entry)
{
    struct block_node *file = cache->image->file;
    uint64_t size_bytes = block_size(file);
    uint64_t offset = entry->block.host_offset;
    uint64_t bytes = 0;

    if (offset < size_bytes) {
        bytes = min_u64(cache->block_bytes, size_bytes - offset);
    }
    memset(entry->block.bytes + bytes, 0, cache->block_bytes - bytes);
    if (bytes == 0) {
        return 0;
    }
    struct iovec iov = { entry->block.bytes, bytes };
    int ret = block_child_try_preadv(file, offset, bytes, &iov, 1);

    return ret == -EAGAIN ? co_block_child_preadv(file, offset, bytes, &iov, 1)
                          : ret;
}

/* Waits for the block that someone is reading. */
static int co_await (struct table_cache *cache, struct entry *entry)
{
    int ret;

    entry_use(cache, entry);
    while (entry->loading) {
        co_queue_wait(&entry->loaded);
    }
    ret = entry->error;
    if (ret < 0) {
        table_cache_put(cache, &entry->block);
    }
    return ret;
}

static int co_get(struct table_cache *cache,
                  uint64_t host_offset,
                  bool is_new,
                  bool may_commit,
                  struct table_block **ret_block)
{
    struct entry *entry;
    int ret;

    do {
        entry = lookup(cache, host_offset);
        if (entry != NULL) {
            ret = co_await (cache, entry);
            if (ret == 0) {
                *ret_block = &entry->block;
            }
            return ret;
        }
        ret = co_make_room(cache, may_commit);
    } while (ret > 0);
    if (ret < 0) {
        return ret;
    }
    entry = entry_new(cache, host_offset);
    if (entry == NULL) {
        return -ENOMEM;
    }
    if (!is_new) {
        entry->loading = true;
        entry->error = co_load(cache, entry);
        entry->loading = false;
        co_queue_wake_all(&entry->loaded);
    }
    ret = entry->error;
    if (ret < 0) {
        if (!entry_is_detached(entry)) {
            entry_detach(cache, entry);
        }
        table_cache_put(cache, &entry->block);
        return ret;
    }
    *ret_block = &entry->block;
    return 0;
}

int co_table_cache_get(struct table_cache *cache,
                       uint64_t host_offset,
                       struct table_block **ret_block)
{
    return co_get(cache, host_offset, false, true, ret_block);
}

int co_table_cache_get_within_commit(struct table_cache *cache,
                                     uint64_t host_offset,
                                     struct table_block **ret_block)
{
    return co_get(cache, host_offset, false, false, ret_block);
}

int co_table_cache_get_new(struct table_cache *cache,
                           uint64_t host_offset,
                           struct table_block **ret_block)
{
    int ret = co_get(cache, host_offset, true, true, ret_block);

    if (ret == 0) {
        memset((*ret_block)->bytes, 0, cache->block_bytes);
    }
    return ret;
}

static void make_dirty(struct table_cache *cache, struct entry *entry)
{
    if (entry->dirty || entry_is_detached(entry)) {
        return;
    }
    entry->dirty = true;
    cache->dirty_blocks++;
    list_remove(&entry->order);
    list_append(&cache->dirty, &entry->order);
}

void table_cache_mark_dirty(struct table_cache *cache,
                            struct table_block *block)
{
    struct entry *entry = LIST_ENTRY(block, struct entry, block);

    g_assert(entry->pins > 0 && !entry->loading);
    if (!entry->dirty) {
        make_dirty(cache, entry);
        cache->writer.dirtied(cache->writer.opaque);
    }
}

static void forget_in(struct table_cache *cache,
                      struct list *entries,
                      uint64_t host_offset,
                      uint64_t bytes)
{
    LIST_FOREACH_SAFE(link, entries) {
        struct entry *entry = LIST_ENTRY(link, struct entry, order);

        if (entry->block.host_offset - host_offset < bytes) {
            entry_detach(cache, entry);
        }
    }
}

void table_cache_forget(struct table_cache *cache,
                        uint64_t host_offset,
                        uint64_t bytes)
{
    forget_in(cache, &cache->clean, host_offset, bytes);
    forget_in(cache, &cache->dirty, host_offset, bytes);
}

void table_cache_set_writer(struct table_cache *cache,
                            const struct table_cache_writer *writer)
{
    cache->writer = *writer;
}

static void take_copy(struct table_cache *cache,
                      struct entry *entry,
                      struct table_copy *copy)
{
    copy->cache = cache;
    copy->block = &entry->block;
    copy->host_offset = entry->block.host_offset;
    copy->bytes = cache->block_bytes;
    memcpy(copy->content, entry->block.bytes, cache->block_bytes);
    entry->pins++;
    entry->dirty = false;
    list_remove(&entry->order);
    list_append(&cache->clean, &entry->order);
    cache->dirty_blocks--;
}

int table_cache_take_dirty(struct table_cache *cache, GArray *copies)
{
    guint first = copies->len;

    g_array_set_size(copies, first + (guint)cache->dirty_blocks);
    for (guint i = first; i < copies->len; i++) {
        struct table_copy *copy = &g_array_index(copies, struct table_copy, i);

        copy->content = table_memory_take(cache->memory, &copy->piece);
        if (copy->content == NULL) {
            while (i-- > first) {
                copy = &g_array_index(copies, struct table_copy, i);
                table_memory_give(cache->memory, copy->piece, copy->content);
            }
            g_array_set_size(copies, first);
            return -ENOMEM;
        }
    }
    for (guint i = first; i < copies->len; i++) {
        struct entry *entry =
            LIST_ENTRY(cache->dirty.next, struct entry, order);

        take_copy(cache, entry, &g_array_index(copies, struct table_copy, i));
    }
    return 0;
}

void table_copy_release(struct table_copy *copy, bool written)
{
    struct entry *entry = LIST_ENTRY(copy->block, struct entry, block);

    if (!written) {
        make_dirty(copy->cache, entry);
    }
    table_memory_give(copy->cache->memory, copy->piece, copy->content);
    table_cache_put(copy->cache, copy->block);
}

uint64_t table_cache_dirty_bytes(const struct table_cache *cache)
{
    return cache->dirty_blocks << cache->block_bits;
}

uint64_t table_cache_max_bytes(const struct table_cache *cache)
{
    return cache->blocks_max << cache->block_bits;
}

uint32_t table_cache_block_bytes(const struct table_cache *cache)
{
    return cache->block_bytes;
}
