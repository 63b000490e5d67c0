/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hashes of one disk at one point: a SHA-256 for each MiB of its content,
 * and a root, the SHA-256 of the file that lists them.
 *
 * The file's format is docs/reference/repository.md, "NAME.hashes". Because an
 * increment inherits the list of the point before it, only the pieces that
 * changed are hashed again.
 *
 * One owner at a time; any thread.
 */
#ifndef REPO_HASH_LIST_H
#define REPO_HASH_LIST_H

#include <glib.h>
#include <stdint.h>

#include "base/bytes.h"

#define HASH_PIECE_BYTES MIB
#define HASH_BYTES       32

/* The typedef exists for g_autoptr(hash_list_auto) only. */
typedef struct hash_list hash_list_auto;
struct hash_list;

/* Every piece is one of zeroes. */
struct hash_list *hash_list_new(uint64_t disk_bytes);
void hash_list_free(struct hash_list *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(hash_list_auto, hash_list_free)

/* Reads the file and checks that its SHA-256 is `root` and that it is for a
 * disk of this size. NULL with err set. */
struct hash_list *hash_list_load(int directory_fd,
                                 const char *name,
                                 uint64_t disk_bytes,
                                 const char *root,
                                 GError **err);

/* Writes it durably; `*ret_root` is a new string of hexadecimal digits. */
int hash_list_store(const struct hash_list *list,
                    int directory_fd,
                    const char *name,
                    char **ret_root,
                    GError **err);

uint64_t hash_list_count(const struct hash_list *list); /* pieces */
/* How many bytes piece `index` has: a MiB, or less for the last. */
uint64_t hash_list_piece_bytes(const struct hash_list *list, uint64_t index);

/* HASH_BYTES bytes, borrowed. */
const uint8_t *hash_list_get(const struct hash_list *list, uint64_t index);
/* The content of piece `index` is `data`: enter or compare its hash. */
void hash_list_set(struct hash_list *list, uint64_t index, const void *data);
void hash_list_set_zero(struct hash_list *list, uint64_t index);
bool hash_list_matches(const struct hash_list *list,
                       uint64_t index,
                       const void *data);
bool hash_list_is_zero(const struct hash_list *list, uint64_t index);

#endif
