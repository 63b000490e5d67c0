/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bounded cache of equal-sized blocks of metadata: slices of L2 tables, and
 * of refcount blocks.
 *
 * A block is named by its host offset. It is found without waiting when it is
 * there, else read. Whoever changes one marks it dirty; it then stays in memory
 * until a metadata commit (metadata_commit.h) has written it in its turn. Clean
 * blocks that nobody has pinned go, least recently used first, when the cache
 * is full. When too much is dirty, getting another block starts a commit and
 * waits for it; so the bound holds, but for blocks that are pinned.
 *
 * Content is kept as it stands in the file (big-endian). Home thread only.
 */
#ifndef DRIVERS_QCOW2_TABLE_CACHE_H
#define DRIVERS_QCOW2_TABLE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/node.h"

struct qcow2_image;
struct table_cache;
struct table_piece; /* table_memory.h */

struct table_block {
    uint64_t host_offset;
    uint8_t *bytes; /* block_bytes of them; valid while pinned */
};

/* `block_bytes`: a power of two. `max_bytes` is rounded up to a few blocks. */
struct table_cache *table_cache_new(struct qcow2_image *image,
                                    uint32_t block_bytes,
                                    uint64_t max_bytes);
/* Nothing is written; nothing may be pinned. */
void table_cache_free(struct table_cache *cache);

/* The block if it is in memory, pinned; else NULL. Never waits. */
struct table_block *table_cache_find(struct table_cache *cache,
                                     uint64_t host_offset);
/* Gets it, reading it if need be; pinned. A read error is returned. What lies
 * behind the end of the file reads as zeroes. */
int co_table_cache_get(struct table_cache *cache,
                       uint64_t host_offset,
                       struct table_block **ret_block);
/* As above for a block of new metadata: zeroes, nothing is read. */
int co_table_cache_get_new(struct table_cache *cache,
                           uint64_t host_offset,
                           struct table_block **ret_block);
/* As co_table_cache_get(), but never waits for a commit: for what runs within
 * one. The cache may outgrow its bound a little. */
int co_table_cache_get_within_commit(struct table_cache *cache,
                                     uint64_t host_offset,
                                     struct table_block **ret_block);
void table_cache_put(struct table_cache *cache, struct table_block *block);
void table_cache_mark_dirty(struct table_cache *cache,
                            struct table_block *block);
/* Forgets blocks of a range of the file that is metadata no more. A block that
 * is pinned lives on for who has pinned it, and is found by nobody else. */
void table_cache_forget(struct table_cache *cache,
                        uint64_t host_offset,
                        uint64_t bytes);

/*
 * The side of metadata commits.
 */

/* Who writes dirty blocks. `dirtied` is told of each block that becomes dirty;
 * `co_write_back` makes room by writing them all. Not set: nothing may become
 * dirty. */
struct table_cache_writer {
    void (*dirtied)(void *opaque);
    int (*co_write_back)(void *opaque);
    void *opaque;
};

void table_cache_set_writer(struct table_cache *cache,
                            const struct table_cache_writer *writer);

/* What a dirty block held when the copy was taken. */
struct table_copy {
    struct table_cache *cache;
    struct table_block *block; /* pinned */
    uint64_t host_offset;
    uint32_t bytes;
    uint8_t *content; /* owned, of `piece` of the cache's memory */
    struct table_piece *piece;
};

/* Appends a copy of each dirty block to `copies`, an array of struct
 * table_copy. The blocks are clean then, and pinned until
 * table_copy_release(). -ENOMEM: nothing was taken. */
int table_cache_take_dirty(struct table_cache *cache, GArray *copies);
/* `written`: the file has it; else the block is dirty again. */
void table_copy_release(struct table_copy *copy, bool written);

uint64_t table_cache_dirty_bytes(const struct table_cache *cache);
uint64_t table_cache_max_bytes(const struct table_cache *cache);
uint32_t table_cache_block_bytes(const struct table_cache *cache);

#endif
