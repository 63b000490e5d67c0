/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copies a disk out of the repository. What is compared with its hash is the
 * very buffer that is written, so no damage slips through between check and
 * copy. Stretches of zeroes stay holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/chain.h"
#include "repo/content.h"
#include "repo/durable.h"
#include "repo/fd.h"

/* Zeroes at least this long become holes. */
#define HOLE_BYTES 4096

struct restoration {
    struct chain *chain;
    struct hash_list *list;
    const struct manifest *point;
    const struct manifest_disk *disk;
    const struct content_watch *watch;
    int fd;
    uint8_t *buffer; /* one piece */
};

/* Writes what is not zero of the buffer. */
static int write_data(struct restoration *restoration,
                      uint64_t offset,
                      size_t bytes)
{
    static const uint8_t zeroes[HOLE_BYTES];
    size_t at = 0;

    while (at < bytes) {
        size_t length = 0;
        while (at + length < bytes) {
            size_t part = MIN(HOLE_BYTES, bytes - at - length);
            if (memcmp(restoration->buffer + at + length, zeroes, part) == 0) {
                break;
            }
            length += part;
        }
        if (length > 0) {
            int ret = pwrite_fully(restoration->fd, restoration->buffer + at,
                                   length, offset + at);
            if (ret < 0) {
                return ret;
            }
        }
        at += length + MIN(HOLE_BYTES, bytes - at - length);
    }
    return 0;
}

static int restore_piece(struct restoration *restoration,
                         uint64_t index,
                         GError **err)
{
    uint64_t offset = index * HASH_PIECE_BYTES;
    size_t bytes = (size_t)hash_list_piece_bytes(restoration->list, index);
    bool is_zero;
    int ret = chain_read(restoration->chain, offset, restoration->buffer, bytes,
                         &is_zero, err);

    if (ret < 0) {
        return ret;
    }
    if (is_zero ? !hash_list_is_zero(restoration->list, index)
                : !hash_list_matches(restoration->list, index,
                                     restoration->buffer)) {
        return error_set(err, -EBADMSG,
                         "disk '%s' of point %s is damaged at offset "
                         "%" G_GUINT64_FORMAT
                         ": the content differs from its hash; nothing was "
                         "restored of it",
                         restoration->disk->node, restoration->point->point,
                         offset);
    }
    ret = is_zero ? 0 : write_data(restoration, offset, bytes);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot write '%s.raw'",
                               restoration->disk->node);
    }
    return 0;
}

static int restore_pieces(struct restoration *restoration, GError **err)
{
    uint64_t count = hash_list_count(restoration->list);

    for (uint64_t i = 0; i < count; i++) {
        int ret = restore_piece(restoration, i, err);
        if (ret < 0) {
            return ret;
        }
        if (!restoration->watch->step(restoration->watch->opaque,
                                      restoration->disk->node, i + 1, count)) {
            return error_set(err, -ECANCELED, "interrupted");
        }
    }
    return 0;
}

/* Reads all there is to read and writes it to the open file. */
static int fill_file(const struct repository *repository,
                     const struct manifest *point,
                     const struct manifest_disk *disk,
                     int fd,
                     const struct content_watch *watch,
                     GError **err)
{
    g_autofree uint8_t *buffer = g_malloc(HASH_PIECE_BYTES);
    g_autoptr(hash_list_auto) list =
        content_load_hashes(repository, point, disk, err);

    if (list == NULL) {
        return -EBADMSG;
    }
    g_autoptr(chain_auto) chain =
        chain_open(repository, point, disk->node, err);
    if (chain == NULL) {
        return -EBADMSG;
    }
    if (ftruncate(fd, (off_t)disk->size) < 0) {
        return error_set_errno(err, -errno,
                               "cannot make '%s.raw' %" PRIu64 " bytes long",
                               disk->node, disk->size);
    }
    struct restoration restoration = { .chain = chain,
                                       .list = list,
                                       .point = point,
                                       .disk = disk,
                                       .watch = watch,
                                       .fd = fd,
                                       .buffer = buffer };
    int ret = restore_pieces(&restoration, err);
    return ret < 0 ? ret : durable_sync(fd, disk->node, err);
}

static int refuse_existing(const char *name, GError **err)
{
    return error_set(err, -EEXIST, "'%s' exists already; --force replaces it",
                     name);
}

int content_restore(const struct repository *repository,
                    const struct manifest *point,
                    const struct manifest_disk *disk,
                    int directory_fd,
                    bool replace,
                    const struct content_watch *watch,
                    GError **err)
{
    g_autofree char *name = g_strconcat(disk->node, ".raw", NULL);
    g_autofree char *temporary =
        g_strdup_printf(".%s.%ld.partial", name, (long)getpid());
    int ret;

    if (!replace &&
        faccessat(directory_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        return refuse_existing(name, err);
    }
    auto_fd int fd = openat(directory_fd, temporary,
                            O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot create '%s'", temporary);
    }
    ret = fill_file(repository, point, disk, fd, watch, err);
    if (ret == 0 && renameat2(directory_fd, temporary, directory_fd, name,
                              replace ? 0 : RENAME_NOREPLACE) < 0) {
        ret = errno == EEXIST
                  ? refuse_existing(name, err)
                  : error_set_errno(err, -errno, "cannot rename '%s' to '%s'",
                                    temporary, name);
    }
    if (ret < 0) {
        (void)unlinkat(directory_fd, temporary, 0); /* the error stands */
        return ret;
    }
    return durable_sync(directory_fd, name, err);
}
