/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "base/error.h"
#include "repo/chain.h"
#include "repo/content.h"
#include "repo/durable.h"
#include "repo/fd.h"

struct hashing {
    struct chain *chain;
    struct hash_list *list;
    const char *node;
    const struct content_watch *watch;
    uint8_t *buffer; /* one piece */
};

static int tell(const struct hashing *hashing, uint64_t done, GError **err)
{
    if (!hashing->watch->step(hashing->watch->opaque, hashing->node, done,
                              hash_list_count(hashing->list))) {
        return error_set(err, -ECANCELED, "interrupted");
    }
    return 0;
}

static int hash_piece(struct hashing *hashing, uint64_t index, GError **err)
{
    uint64_t bytes = hash_list_piece_bytes(hashing->list, index);
    bool is_zero;
    int ret = chain_read(hashing->chain, index * HASH_PIECE_BYTES,
                         hashing->buffer, (size_t)bytes, &is_zero, err);

    if (ret < 0) {
        return ret;
    }
    if (is_zero) {
        hash_list_set_zero(hashing->list, index);
    } else {
        hash_list_set(hashing->list, index, hashing->buffer);
    }
    return tell(hashing, index + 1, err);
}

static int hash_extents(struct hashing *hashing,
                        const struct increment_extent *extents,
                        size_t count,
                        GError **err)
{
    uint64_t next = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t end = extents[i].offset + extents[i].bytes;
        uint64_t index = max_u64(next, extents[i].offset / HASH_PIECE_BYTES);
        for (; index * HASH_PIECE_BYTES < end; index++) {
            int ret = hash_piece(hashing, index, err);
            if (ret < 0) {
                return ret;
            }
        }
        next = index;
    }
    return tell(hashing, hash_list_count(hashing->list), err);
}

struct hash_list *content_load_hashes(const struct repository *repository,
                                      const struct manifest *point,
                                      const struct manifest_disk *disk,
                                      GError **err)
{
    g_autofree char *name = manifest_hashes_name(disk);
    auto_fd int fd =
        durable_open_directory(repository->fd, point->directory, err);
    struct hash_list *list =
        fd < 0 ? NULL
               : hash_list_load(fd, name, disk->size, disk->hash_root, err);

    if (list == NULL) {
        g_prefix_error(err, "point %s: ", point->point);
    }
    return list;
}

static struct hash_list *load_previous(const struct repository *repository,
                                       const struct manifest_disk *disk,
                                       GError **err)
{
    const struct manifest *previous =
        repository_find(repository, disk->previous);
    const struct manifest_disk *base =
        previous == NULL ? NULL : manifest_find_disk(previous, disk->node);

    g_assert(base != NULL && base->size == disk->size);
    return content_load_hashes(repository, previous, base, err);
}

int content_hash(const struct repository *repository,
                 struct manifest *point,
                 struct manifest_disk *disk,
                 const struct increment_extent *extents,
                 size_t extent_count,
                 const struct content_watch *watch,
                 GError **err)
{
    struct increment_extent all = { .offset = 0, .bytes = disk->size };
    g_autofree char *name = manifest_hashes_name(disk);
    g_autofree uint8_t *buffer = g_malloc(HASH_PIECE_BYTES);
    g_autoptr(chain_auto) chain =
        chain_open(repository, point, disk->node, err);
    g_autoptr(hash_list_auto) list = NULL;

    if (chain == NULL) {
        return -EIO;
    }
    if (disk->incremental) {
        list = load_previous(repository, disk, err);
        if (list == NULL) {
            return -EIO;
        }
    } else {
        list = hash_list_new(disk->size);
        extents = &all;
        extent_count = 1;
    }
    struct hashing hashing = { .chain = chain,
                               .list = list,
                               .node = disk->node,
                               .watch = watch,
                               .buffer = buffer };
    int ret = hash_extents(&hashing, extents, extent_count, err);
    if (ret < 0) {
        return ret;
    }
    auto_fd int fd =
        durable_open_directory(repository->fd, point->directory, err);
    g_clear_pointer(&disk->hash_root, g_free);
    return fd < 0 ? fd : hash_list_store(list, fd, name, &disk->hash_root, err);
}
