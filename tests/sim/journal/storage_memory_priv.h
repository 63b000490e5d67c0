/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a storage in memory: files and names, each as they are seen and
 * as they are durable. */
#ifndef SIM_JOURNAL_STORAGE_MEMORY_PRIV_H
#define SIM_JOURNAL_STORAGE_MEMORY_PRIV_H

#include "journal/storage_memory.h"

#define SECTOR STORAGE_SECTOR_BYTES

/* A file, whatever names it has. */
struct inode {
    uint64_t number;
    char *name;          /* that it got last */
    GByteArray *data;    /* as the page cache has it */
    GByteArray *durable; /* as the disk has it */
    /* Sector -> GPtrArray of versions (g_malloc'ed sectors) that were written
     * since the last sync, oldest first. */
    GHashTable *unsynced;
    bool size_unsynced;
    bool suspect; /* a sync failed: the cache shows what the disk lacks */
    unsigned int failed_syncs;
    unsigned int opens;
    struct memory_file *lock_owner; /* of an exclusive lock */
    unsigned int shared_locks;
    int64_t modified_ns;
    int64_t durable_modified_ns;
    int64_t changed_ns;
    int64_t born_ns;
};

/* A change of names that is not durable yet. */
struct name_change {
    char *directory;
    char *gone; /* NULL: none */
    char *come; /* NULL: none */
    struct inode *inode;
};

struct memory_file {
    struct storage_file file; /* first */
    struct inode *inode;
    bool writable;
    bool has_shared_lock;
    unsigned int told; /* of so many of the inode's failed syncs */
};

struct storage_memory {
    struct storage storage; /* first */
    struct random *random;
    GHashTable *names;   /* path -> inode; as seen */
    GHashTable *durable; /* ... as on disk */
    GHashTable *directories;
    GPtrArray *changes; /* struct name_change */
    GPtrArray *inodes;  /* all, owned */
    GPtrArray *files;   /* struct memory_file that are open, owned */
    const uint64_t *clock_ns;
    uint64_t points;
    uint64_t crash_at;      /* value of points; 0: never */
    uint64_t crash_at_sync; /* so many from now; 0: never */
    bool crash_at_names;    /* ... of directories */
    storage_observe_fn observe;
    void *observe_opaque;
    bool dead;
    char *died_in; /* the operation and its path; NULL: never */
    uint64_t boots;
    uint64_t fail_sync;
    uint64_t fail_syncs_after; /* so many more, right after that one */
    char *fail_sync_suffix;
    char *fail_rename_suffix;
    char *fail_read_suffix;
    int fail_read_error;
    char *fail_write_suffix;
    int fail_write_error;
    uint64_t space_bytes;
    bool is_volatile;
};

static inline struct storage_memory *memory_of(struct storage *storage)
{
    return (struct storage_memory *)(void *)storage;
}

static inline struct memory_file *file_of(struct storage_file *file)
{
    return (struct memory_file *)(void *)file;
}

extern const struct storage_ops storage_memory_ops;

/* storage_memory_data.c */
void memory_remember_version(struct inode *inode, uint64_t sector);
void memory_write_data(struct storage_memory *memory,
                       struct inode *inode,
                       uint64_t offset,
                       const uint8_t *data,
                       uint64_t bytes);
void memory_sync_data(struct inode *inode);
void memory_lose_data(struct storage_memory *memory, struct inode *inode);
void memory_change_names(struct storage_memory *memory,
                         const char *gone,
                         const char *come,
                         struct inode *inode);
void memory_apply_change(struct storage_memory *memory,
                         const struct name_change *change);
void memory_sync_names(struct storage_memory *memory, const char *directory);
void memory_lose_names(struct storage_memory *memory);
void memory_copy_names(GHashTable *to, GHashTable *from);
void memory_grow(GByteArray *bytes, uint64_t size);
struct inode *memory_inode_new(struct storage_memory *memory);
void memory_inode_free(void *opaque);
void memory_free_change(void *opaque);
void memory_free_file(void *opaque);
int64_t memory_now(const struct storage_memory *memory);

#endif
