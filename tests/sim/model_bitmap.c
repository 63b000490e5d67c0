/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dirty bitmaps: must <= bits <= may.
 *
 * `must` grows when a disk's content changes under a recording bitmap; `may`
 * already when a guest's write sets out, rounded to the granularity. While a
 * bitmap is frozen both grow in the successor's sets.
 */
#include "model.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "bitmap/dirty_bitmap.h"

struct bitmap_model *model_bitmap(struct disk *disk, const char *name)
{
    int index = name[0] == 'b' ? atoi(name + 1) : NOBODY;

    if (index < 0 || index >= BITMAPS_PER_DISK) {
        violation("the command reached its instant with a bitmap '%s'", name);
    }
    return &disk->bitmaps[index];
}

static struct dirty_bitmap *engine_bitmap(struct disk *disk,
                                          struct bitmap_model *bitmap)
{
    if (bitmap->engine == NULL) {
        char name[8];

        g_snprintf(name, sizeof(name), "b%d", (int)(bitmap - disk->bitmaps));
        bitmap->engine = dirty_bitmap_find(disk->node, name);
        if (bitmap->engine == NULL) {
            violation("bitmap %s of %s is gone", name, disk->name);
        }
    }
    return bitmap->engine;
}

/* A bitmap that its group has added and takes back: in the turn in which a job
 * of the group lets it go. */
static bool is_taken_back(struct disk *disk, struct bitmap_model *bitmap)
{
    char name[8];

    if (bitmap->change != CHANGE_ADD) {
        return false;
    }
    g_snprintf(name, sizeof(name), "b%d", (int)(bitmap - disk->bitmaps));
    return dirty_bitmap_find(disk->node, name) == NULL;
}

bool model_is_frozen_in_engine(struct disk *disk, struct bitmap_model *bitmap)
{
    return !is_taken_back(disk, bitmap) &&
           dirty_bitmap_is_frozen(engine_bitmap(disk, bitmap));
}

void model_add_writes_inside(const struct disk *disk,
                             struct block_set *set,
                             uint64_t granularity)
{
    for (unsigned int i = 0; i < disk->guest_count; i++) {
        const struct guest *guest = &disk->guests[i];

        if (guest->writing) {
            block_set_add_range(set, guest->offset, guest->bytes, granularity,
                                disk->block_count);
        }
    }
}

void model_write_begins(struct disk *disk, const struct guest *guest)
{
    for (unsigned int i = 0; i < BITMAPS_PER_DISK; i++) {
        struct bitmap_model *bitmap = &disk->bitmaps[i];

        if (bitmap->exists && bitmap->enabled) {
            block_set_add_range(bitmap->frozen_by == NOBODY ? &bitmap->may
                                                            : &bitmap->next_may,
                                guest->offset, guest->bytes,
                                bitmap->granularity, disk->block_count);
        }
    }
}

void model_content_changes(struct disk *disk, unsigned int block)
{
    for (unsigned int i = 0; i < BITMAPS_PER_DISK; i++) {
        struct bitmap_model *bitmap = &disk->bitmaps[i];

        if (!bitmap->exists || !bitmap->enabled) {
            continue;
        }
        if (bitmap->frozen_by != NOBODY) {
            block_set_add(&bitmap->next_must, block);
            continue;
        }
        block_set_add(&bitmap->must, block);
        if (!bitmap_get(dirty_bitmap_bits(engine_bitmap(disk, bitmap)),
                        block * BLOCK_BYTES)) {
            violation("block %u of %s changes while bitmap b%u is clean there",
                      block, disk->name, i);
        }
    }
}

/* --- Comparing ------------------------------------------------------------- */

/* The blocks that have a set bit. */
static void collect_bits(const struct disk *disk,
                         const struct bitmap *bits,
                         struct block_set *set)
{
    uint64_t offset = 0;
    uint64_t bytes;

    memset(set, 0, sizeof(*set));
    while (bitmap_next_set(bits, offset, UINT64_MAX, &offset, &bytes)) {
        block_set_add_range(set, offset, bytes, 1, disk->block_count);
        offset += bytes;
    }
}

static void check_bits(struct disk *disk, struct bitmap_model *bitmap)
{
    struct dirty_bitmap *engine = engine_bitmap(disk, bitmap);
    const struct bitmap *bits = dirty_bitmap_bits(engine);
    struct block_set have;

    collect_bits(disk, bits, &have);
    for (unsigned int i = 0; i < disk->word_count; i++) {
        uint64_t missing = bitmap->must.words[i] & ~have.words[i];
        uint64_t surplus = have.words[i] & ~bitmap->may.words[i];

        if (missing != 0) {
            violation("bitmap %s of %s lacks block %u",
                      dirty_bitmap_name(engine), disk->name,
                      i * 64 + (unsigned int)__builtin_ctzll(missing));
        }
        if (surplus != 0 && !bitmap->loose) {
            violation("bitmap %s of %s has block %u, which nobody touched",
                      dirty_bitmap_name(engine), disk->name,
                      i * 64 + (unsigned int)__builtin_ctzll(surplus));
        }
    }
}

void model_check_bitmaps(struct disk *disk)
{
    if (disk->node == NULL) {
        return;
    }
    for (unsigned int i = 0; i < BITMAPS_PER_DISK; i++) {
        struct bitmap_model *bitmap = &disk->bitmaps[i];
        char name[8];
        struct dirty_bitmap *engine;

        g_snprintf(name, sizeof(name), "b%u", i);
        engine = dirty_bitmap_find(disk->node, name);
        if ((engine != NULL) != bitmap->exists) {
            violation("bitmap %s of %s %s", name, disk->name,
                      engine != NULL ? "exists, though no command has made it"
                                     : "is gone");
        }
        if (engine == NULL) {
            continue;
        }
        if (bitmap->engine != NULL && bitmap->engine != engine) {
            violation("bitmap %s of %s is another one", name, disk->name);
        }
        if (dirty_bitmap_is_enabled(engine) != bitmap->enabled) {
            violation("bitmap %s of %s is %s", name, disk->name,
                      bitmap->enabled ? "disabled" : "enabled");
        }
        if (dirty_bitmap_is_busy(engine) !=
            (bitmap->frozen_by != NOBODY || bitmap->change != CHANGE_NONE)) {
            violation("bitmap %s of %s is %sbusy", name, disk->name,
                      dirty_bitmap_is_busy(engine) ? "" : "not ");
        }
        if (dirty_bitmap_is_frozen(engine) != (bitmap->frozen_by != NOBODY)) {
            violation("bitmap %s of %s is %sfrozen", name, disk->name,
                      bitmap->frozen_by != NOBODY ? "not " : "");
        }
        check_bits(disk, bitmap);
    }
}

void model_forget_bitmaps(struct disk *disk)
{
    for (unsigned int i = 0; i < BITMAPS_PER_DISK; i++) {
        if (disk->bitmaps[i].exists &&
            (disk->bitmaps[i].frozen_by != NOBODY ||
             disk->bitmaps[i].change != CHANGE_NONE)) {
            violation("%s was deleted with a busy bitmap", disk->name);
        }
        disk->bitmaps[i].exists = false;
        disk->bitmaps[i].engine = NULL;
    }
}

/* `group`: that of the command under way, which may use what it has just
 * added. */
void model_check_free(const struct disk *disk,
                      const struct bitmap_model *bitmap,
                      const struct group_model *group)
{
    bool is_new = bitmap->change == CHANGE_ADD && group != NULL &&
                  bitmap->change_group == group;

    if (!bitmap->exists || bitmap->frozen_by != NOBODY ||
        (bitmap->change != CHANGE_NONE && !is_new)) {
        violation("a command that uses b%d of %s took effect, though it %s",
                  (int)(bitmap - disk->bitmaps), disk->name,
                  bitmap->exists ? "is busy" : "does not exist");
    }
}

void model_begin_successor(struct disk *disk, struct bitmap_model *bitmap)
{
    memset(&bitmap->next_must, 0, sizeof(bitmap->next_must));
    memset(&bitmap->next_may, 0, sizeof(bitmap->next_may));
    if (bitmap->enabled) {
        model_add_writes_inside(disk, &bitmap->next_may, bitmap->granularity);
    }
}

/* --- Freezing ------------------------------------------------------------------ */

void model_freeze(struct disk *disk, int index, int job)
{
    struct bitmap_model *bitmap = &disk->bitmaps[index];

    model_check_free(disk, bitmap, disk->world->jobs[job].group);
    bitmap->frozen_by = job;
    disk->world->frozen_count++;
    model_begin_successor(disk, bitmap);
}

/* Whatever the target lacks must stay dirty, and all that was to be copied may
 * be, by whole clusters. */
static void keep_uncopied(const struct disk *disk,
                          struct bitmap_model *bitmap,
                          const struct job_model *job)
{
    for (unsigned int i = 0; i < disk->block_count; i++) {
        if (((job->full && !job->top) || block_set_has(&job->must, i)) &&
            job->target->stamps[i] != job->snapshot[i]) {
            block_set_add(&bitmap->next_must, i);
        }
        if (job->full || block_set_has(&bitmap->may, i)) {
            block_set_add_range(
                &bitmap->next_may, i * BLOCK_BYTES, BLOCK_BYTES,
                max_u64(bitmap->granularity, job->cluster_bytes),
                disk->block_count);
        }
    }
}

void model_thaw(struct disk *disk,
                struct bitmap_model *bitmap,
                const struct job_model *job,
                bool success)
{
    bool always = strcmp(job->mode, "always") == 0;
    bool abdicates = always || (success && strcmp(job->mode, "never") != 0);

    for (unsigned int i = 0; i < disk->guest_count; i++) {
        disk->world->histogram->buckets[THAW_DURING_WRITE] +=
            disk->guests[i].writing;
    }
    if (always && !success) {
        keep_uncopied(disk, bitmap, job);
    }
    if (abdicates) {
        bitmap->must = bitmap->next_must;
        bitmap->may = bitmap->next_may;
    } else {
        block_set_merge(&bitmap->must, &bitmap->next_must, disk->word_count);
        block_set_merge(&bitmap->may, &bitmap->next_may, disk->word_count);
    }
    bitmap->frozen_by = NOBODY;
    disk->world->frozen_count--;
    if (!is_taken_back(disk, bitmap)) {
        check_bits(disk, bitmap);
    }
}
