/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/hash_list.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "base/error.h"
#include "repo/durable.h"
#include "repo/names.h"

static const char magic[8] = "COHORTHL";

enum {
    HEADER_VERSION = 1,
    HEADER_BYTES = 32,
};

struct hash_list {
    uint64_t disk_bytes;
    uint64_t count;
    /* The file as it is on disk: header, then count hashes. */
    uint8_t *file;
    size_t file_bytes;
    /* Hashes of a whole piece of zeroes and of a last one. */
    uint8_t zero[HASH_BYTES];
    uint8_t zero_last[HASH_BYTES];
};

static void hash_data(const void *data, size_t bytes, uint8_t *ret_hash)
{
    /* Fails only for an algorithm the library does not have. */
    g_assert(gnutls_hash_fast(GNUTLS_DIG_SHA256, data, bytes, ret_hash) == 0);
}

static uint8_t *entry(const struct hash_list *list, uint64_t index)
{
    g_assert(index < list->count);
    return list->file + HEADER_BYTES + index * HASH_BYTES;
}

/* Without the file's bytes. */
static struct hash_list *list_new(uint64_t disk_bytes)
{
    struct hash_list *list = g_new0(struct hash_list, 1);
    g_autofree uint8_t *zeroes = g_malloc0(HASH_PIECE_BYTES);
    uint64_t last = disk_bytes % HASH_PIECE_BYTES;

    g_assert(disk_bytes <= REPO_DISK_BYTES_MAX);
    list->disk_bytes = disk_bytes;
    list->count = divide_round_up(disk_bytes, HASH_PIECE_BYTES);
    list->file_bytes = (size_t)(HEADER_BYTES + list->count * HASH_BYTES);
    hash_data(zeroes, HASH_PIECE_BYTES, list->zero);
    hash_data(zeroes, (size_t)(last == 0 ? HASH_PIECE_BYTES : last),
              list->zero_last);
    return list;
}

static void fill_header(const struct hash_list *list, uint8_t *header)
{
    memcpy(header, magic, sizeof(magic));
    store_le32(header + 8, HEADER_VERSION);
    store_le32(header + 12, (uint32_t)HASH_PIECE_BYTES);
    store_le64(header + 16, list->disk_bytes);
    store_le64(header + 24, list->count);
}

struct hash_list *hash_list_new(uint64_t disk_bytes)
{
    struct hash_list *list = list_new(disk_bytes);

    list->file = g_malloc(list->file_bytes);
    fill_header(list, list->file);
    for (uint64_t i = 0; i < list->count; i++) {
        hash_list_set_zero(list, i);
    }
    return list;
}

void hash_list_free(struct hash_list *list)
{
    if (list != NULL) {
        g_free(list->file);
        g_free(list);
    }
}

static char *root_of(const struct hash_list *list)
{
    uint8_t hash[HASH_BYTES];
    GString *text = g_string_new(NULL);

    hash_data(list->file, list->file_bytes, hash);
    for (size_t i = 0; i < HASH_BYTES; i++) {
        g_string_append_printf(text, "%02x", hash[i]);
    }
    return g_string_free(text, FALSE);
}

struct hash_list *hash_list_load(int directory_fd,
                                 const char *name,
                                 uint64_t disk_bytes,
                                 const char *root,
                                 GError **err)
{
    g_autoptr(hash_list_auto) list = list_new(disk_bytes);
    uint8_t header[HEADER_BYTES];
    size_t bytes;

    /* Of our own making and bounded by what the disk's size implies. */
    if (durable_read(directory_fd, name, list->file_bytes,
                     (char **)(void *)&list->file, &bytes, err) < 0) {
        return NULL;
    }
    fill_header(list, header);
    if (bytes != list->file_bytes ||
        memcmp(list->file, header, HEADER_BYTES) != 0) {
        (void)error_set(err, -EINVAL,
                        "'%s' is damaged: it is no list of the hashes of a "
                        "disk of %" G_GUINT64_FORMAT " bytes",
                        name, disk_bytes);
        return NULL;
    }
    g_autofree char *found = root_of(list);
    if (strcmp(found, root) != 0) {
        (void)error_set(err, -EINVAL,
                        "'%s' is damaged: its SHA-256 is %s, the manifest "
                        "says %s",
                        name, found, root);
        return NULL;
    }
    return g_steal_pointer(&list);
}

int hash_list_store(const struct hash_list *list,
                    int directory_fd,
                    const char *name,
                    char **ret_root,
                    GError **err)
{
    int ret =
        durable_write(directory_fd, name, list->file, list->file_bytes, err);

    if (ret == 0) {
        *ret_root = root_of(list);
    }
    return ret;
}

uint64_t hash_list_count(const struct hash_list *list)
{
    return list->count;
}

uint64_t hash_list_piece_bytes(const struct hash_list *list, uint64_t index)
{
    return min_u64(HASH_PIECE_BYTES,
                   list->disk_bytes - index * HASH_PIECE_BYTES);
}

const uint8_t *hash_list_get(const struct hash_list *list, uint64_t index)
{
    return entry(list, index);
}

void hash_list_set(struct hash_list *list, uint64_t index, const void *data)
{
    hash_data(data, (size_t)hash_list_piece_bytes(list, index),
              entry(list, index));
}

static const uint8_t *zero_hash(const struct hash_list *list, uint64_t index)
{
    return index + 1 == list->count ? list->zero_last : list->zero;
}

void hash_list_set_zero(struct hash_list *list, uint64_t index)
{
    memcpy(entry(list, index), zero_hash(list, index), HASH_BYTES);
}

bool hash_list_matches(const struct hash_list *list,
                       uint64_t index,
                       const void *data)
{
    uint8_t hash[HASH_BYTES];

    hash_data(data, (size_t)hash_list_piece_bytes(list, index), hash);
    return memcmp(hash, entry(list, index), HASH_BYTES) == 0;
}

bool hash_list_is_zero(const struct hash_list *list, uint64_t index)
{
    return memcmp(entry(list, index), zero_hash(list, index), HASH_BYTES) == 0;
}
