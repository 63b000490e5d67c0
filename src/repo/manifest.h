/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a restore point says of itself: its `manifest.json`.
 *
 * The format is docs/reference/repository.md, "manifest.json". A manifest that
 * was read is checked whole: names are legal, numbers are in range, file names
 * are those that the disk's name implies, so nothing in it can point outside
 * the repository.
 *
 * Pure functions over memory; any thread.
 */
#ifndef REPO_MANIFEST_H
#define REPO_MANIFEST_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define MANIFEST_FILE "manifest.json"
/* In a partial point: what is about to be sent to the daemon. The same format,
 * its hash roots all zeroes. */
#define STARTED_FILE       "started.json"
#define MANIFEST_BYTES_MAX ((size_t)(16 << 20))
#define HASH_HEX_BYTES     64

/* What a bitmap that outlives the daemon is a difference to: the transaction of
 * a backup, and the disk (32 hexadecimal digits each). NULL: none. */
struct manifest_base {
    char *txid;
    char *disk;
};

struct manifest_disk {
    char *node;
    uint64_t size;    /* bytes */
    bool incremental; /* else full */
    bool raw;         /* full, and a raw file: from before all were qcow2 */
    char *reason;     /* why it is of this kind, for people */
    char *previous;   /* the point an increment is relative to, else NULL */
    char *bitmap;     /* records what changes after this point; NULL: none */
    char *previous_bitmap;     /* the name it had until then; NULL if full */
    struct manifest_base base; /* of `bitmap`, from this point on */
    struct manifest_base previous_base; /* what the increment demanded */
    char *job;                          /* the id its backup job had */
    uint64_t changed_bytes;             /* what this point holds of the disk */
    char *hash_root;                    /* SHA-256 of the disk's .hashes file */
};

/* The typedef exists for g_autoptr(manifest_auto) only. */
typedef struct manifest manifest_auto;

struct manifest {
    char *point;      /* id */
    char *directory;  /* where it is: its id, or PARTIAL_PREFIX and its id */
    char *repository; /* the repository's id */
    uint64_t sequence;
    char *label;      /* common start of the names of its jobs and bitmaps, and
                         the id that its transaction is asked for by */
    char *txid;       /* the daemon's for that; NULL: it keeps no record */
    char *not_before; /* the instant lies between these two, ISO 8601 */
    char *not_after;
    char *tool;
    char *daemon;
    GPtrArray *disks; /* struct manifest_disk *, owned */
};

struct manifest *manifest_new(void);
void manifest_free(struct manifest *manifest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(manifest_auto, manifest_free)

/* A disk to be filled in; owned by the manifest. */
struct manifest_disk *manifest_add_disk(struct manifest *manifest,
                                        const char *node);
/* NULL when the point does not hold that disk. */
struct manifest_disk *manifest_find_disk(const struct manifest *manifest,
                                         const char *node);

void manifest_base_set(struct manifest_base *base,
                       const char *txid,
                       const char *disk);
/* False if either is none. */
bool manifest_base_equal(const struct manifest_base *one,
                         const struct manifest_base *other);

/* The disk's file names within its point; new strings. */
char *manifest_image_name(const struct manifest_disk *disk);
char *manifest_hashes_name(const struct manifest_disk *disk);

/* The JSON text; a new string. */
char *manifest_write(const struct manifest *manifest);

/* Parses and checks. `directory` is the directory's name, which must be that
 * of the point. NULL with err set. */
struct manifest *manifest_parse(const char *text,
                                size_t bytes,
                                const char *directory,
                                GError **err);

#endif
