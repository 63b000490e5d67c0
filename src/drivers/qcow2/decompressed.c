/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A handful of slots, the least recently used of which is taken for the next
 * cluster. Slots that are being filled cannot be taken; if all are, who comes
 * next waits. That also bounds how much is decompressed at a time.
 */
#include "drivers/qcow2/decompressed.h"

#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/codec.h"

/* As many clusters as fit into this, within the two bounds below. */
#define CACHE_BYTES (4 * MIB)
#define SLOTS_MIN   4
#define SLOTS_MAX   64

struct slot {
    uint64_t host_offset; /* 0: empty */
    uint8_t *bytes;       /* owned; a cluster; NULL before the first use */
    bool filling;
    uint64_t last_used; /* higher is later */
};

struct decompressed_cache {
    struct qcow2_image *image;
    struct slot slots[SLOTS_MAX];
    unsigned int slot_count;
    uint64_t clock;
    struct co_queue filled; /* some slot has been */
};

struct decompressed_cache *decompressed_new(struct qcow2_image *image)
{
    struct decompressed_cache *cache = g_new0(struct decompressed_cache, 1);

    cache->image = image;
    cache->slot_count = (unsigned int)CLAMP(CACHE_BYTES / image->cluster_bytes,
                                            SLOTS_MIN, SLOTS_MAX);
    co_queue_init(&cache->filled);
    return cache;
}

void decompressed_free(struct decompressed_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (unsigned int i = 0; i < cache->slot_count; i++) {
        g_assert(!cache->slots[i].filling);
        g_free(cache->slots[i].bytes);
    }
    g_free(cache);
}

static struct slot *lookup(struct decompressed_cache *cache,
                           uint64_t host_offset)
{
    for (unsigned int i = 0; i < cache->slot_count; i++) {
        if (cache->slots[i].host_offset == host_offset) {
            return &cache->slots[i];
        }
    }
    return NULL;
}

const uint8_t *decompressed_find(struct decompressed_cache *cache,
                                 uint64_t host_offset)
{
    struct slot *slot = lookup(cache, host_offset);

    if (slot == NULL || slot->filling) {
        return NULL;
    }
    slot->last_used = ++cache->clock;
    return slot->bytes;
}

/* NULL: all are being filled. */
static struct slot *oldest(struct decompressed_cache *cache)
{
    struct slot *found = NULL;

    for (unsigned int i = 0; i < cache->slot_count; i++) {
        struct slot *slot = &cache->slots[i];

        if (!slot->filling &&
            (found == NULL || slot->last_used < found->last_used)) {
            found = slot;
        }
    }
    return found;
}

/* One call of qcow2_decompress() on another thread. */
struct decompression {
    enum qcow2_compression type;
    const uint8_t *in;
    size_t in_bytes;
    uint8_t *out;
    size_t out_bytes;
};

static int run_decompression(void *opaque)
{
    const struct decompression *call = opaque;

    return qcow2_decompress(call->type, call->in, call->in_bytes, call->out,
                            call->out_bytes);
}

/* The file may end within the last sector of a stream. */
static int co_fill(struct decompressed_cache *cache,
                   struct slot *slot,
                   const struct qcow2_mapping *mapping)
{
    struct qcow2_image *image = cache->image;
    uint64_t left = block_size(image->file) - mapping->host_offset;
    uint64_t in_bytes = min_u64(mapping->compressed_bytes, left);
    g_autofree uint8_t *in = g_try_malloc(in_bytes);
    struct decompression call = { image->header->compression, in, in_bytes,
                                  slot->bytes, image->cluster_bytes };
    struct iovec iov = { in, in_bytes };
    int ret;

    if (in == NULL) {
        return -ENOMEM;
    }
    ret = co_block_child_preadv(image->file, mapping->host_offset, in_bytes,
                                &iov, 1);
    if (ret < 0) {
        return ret;
    }
    ret = co_offload(run_decompression, &call);
    if (ret == -EIO) {
        return co_qcow2_mark_corrupt(
            image,
            "the compressed cluster at offset %" G_GUINT64_FORMAT
            " of the file cannot be decompressed",
            mapping->host_offset);
    }
    return ret;
}

static int co_take_and_fill(struct decompressed_cache *cache,
                            struct slot *slot,
                            const struct qcow2_mapping *mapping)
{
    int ret;

    slot->host_offset = 0;
    if (slot->bytes == NULL) {
        slot->bytes = g_try_malloc(cache->image->cluster_bytes);
    }
    if (slot->bytes == NULL) {
        return -ENOMEM;
    }
    slot->host_offset = mapping->host_offset;
    slot->filling = true;
    ret = co_fill(cache, slot, mapping);
    slot->filling = false;
    if (ret < 0) {
        slot->host_offset = 0;
    }
    co_queue_wake_all(&cache->filled);
    return ret;
}

int co_decompressed_get(struct decompressed_cache *cache,
                        const struct qcow2_mapping *mapping,
                        const uint8_t **ret_cluster)
{
    for (;;) {
        struct slot *slot = lookup(cache, mapping->host_offset);
        int ret;

        if (slot == NULL) {
            slot = oldest(cache);
            if (slot != NULL) {
                ret = co_take_and_fill(cache, slot, mapping);
                if (ret < 0) {
                    return ret;
                }
            }
        }
        *ret_cluster = decompressed_find(cache, mapping->host_offset);
        if (*ret_cluster != NULL) {
            return 0;
        }
        co_queue_wait(&cache->filled);
    }
}

void decompressed_forget(struct decompressed_cache *cache,
                         uint64_t host_offset,
                         uint64_t bytes)
{
    for (unsigned int i = 0; i < cache->slot_count; i++) {
        struct slot *slot = &cache->slots[i];

        if (slot->host_offset - host_offset < bytes) {
            g_assert(!slot->filling);
            slot->host_offset = 0;
        }
    }
}
