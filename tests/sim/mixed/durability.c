/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What durability=process promises, and what not.
 *
 * Half of the worlds know nothing else than durability=power. In the other half
 * each life has a daemon of its own kind, and each disk; they change from life to
 * life. A kill loses nothing: those bitmaps are compared as any other. A power cut
 * leaves no bitmap of a disk that such a life had in use: each is inconsistent, or
 * gone with the file, and the next backup of the disk is full. Of a life that died
 * while it opened or closed the disk, it may be all or none of them.
 */
#include <string.h>

#include "mixed/world.h"

bool world_has_process(const struct world *world)
{
    return world->seed % 2 == 0;
}

void world_choose_durability(struct world *world)
{
    struct random *random = &world->random;

    if (!world_has_process(world)) {
        return;
    }
    world->is_process = random_once_in(random, 4);
    for (int i = 0; i < DISKS; i++) {
        world->disks[i].is_process =
            world->is_process || random_once_in(random, 3);
    }
    if (world->is_process) {
        world_count(world, WORLD_PROCESS_DAEMONS);
    }
}

void durability_opens(struct disk *disk)
{
    disk->was_at_risk = disk->is_at_risk;
    disk->may_tell_loss |= disk->risk != RISK_NONE;
    if (disk->is_process) {
        world_count(disk->world, WORLD_PROCESS_DISKS);
        disk->is_at_risk = true;
    }
}

void durability_opened(struct disk *disk)
{
    disk->is_at_risk = disk->is_process;
    disk->risk = RISK_NONE;
    /* What is lost stays so, and is told again, until a bitmap is added. */
    disk->may_tell_loss &= tracker_of(disk->node) == NULL;
}

void durability_closed(struct disk *disk)
{
    if (disk->node != NULL && !world_is_dead(disk->world)) {
        disk->is_at_risk = false;
    }
}

void world_power_is_cut(struct world *world, bool clean)
{
    for (int i = 0; i < DISKS; i++) {
        struct disk *disk = &world->disks[i];

        if (disk->is_at_risk) {
            bool was_used = disk->was_open && !clean;

            disk->risk = MAX(disk->risk, was_used ? RISK_CERTAIN : RISK_MAYBE);
        }
    }
    for (guint i = 0; i < world->fates->len; i++) {
        struct fate *fate = g_ptr_array_index(world->fates, i);

        fate->is_forgotten |= fate->is_process;
    }
}

void world_note_death(struct world *world)
{
    for (int i = 0; i < DISKS; i++) {
        world->disks[i].was_open =
            world->disks[i].node != NULL && !world->coverage.phase.closing;
    }
}

/* Gone with the tracking file, or listed as what is not to be believed. */
static void lose(struct disk *disk)
{
    struct world *world = disk->world;
    struct dirty_bitmap *bitmap = NULL;

    if (dirty_bitmap_next(disk->node, NULL) != NULL) {
        world_count(world, WORLD_PROCESS_LOST);
    }
    world_trace(world, "%s has lost its bitmaps", disk->name);
    for (guint i = 0; i < disk->oracle.bitmaps->len; i++) {
        oracle_forget(g_ptr_array_index(disk->oracle.bitmaps, i));
    }
    while ((bitmap = dirty_bitmap_next(disk->node, bitmap)) != NULL) {
        g_hash_table_add(disk->leftovers, g_strdup(dirty_bitmap_name(bitmap)));
    }
    for (int i = 0; i < REPOSITORIES; i++) {
        disk->must_be_full[i] = true;
    }
}

/* What a superblock names is durable before it, or the superblock itself is not
 * to be believed: nothing is ever found damaged. */
static void check_undamaged(struct disk *disk,
                            const struct dirty_bitmap *bitmap)
{
    const char *reason = dirty_bitmap_reason(bitmap);

    if (reason != NULL && strstr(reason, "damaged") != NULL) {
        world_fail(disk->world, "bitmap '%s' of %s is lost: %s",
                   dirty_bitmap_name(bitmap), disk->name, reason);
    }
}

bool durability_lost(struct disk *disk)
{
    struct dirty_bitmap *bitmap = NULL;
    bool is_believed = false;

    if (disk->risk == RISK_NONE) {
        if (disk->was_at_risk) {
            world_count(disk->world, WORLD_PROCESS_KEPT);
        }
        return false;
    }
    while ((bitmap = dirty_bitmap_next(disk->node, bitmap)) != NULL) {
        check_undamaged(disk, bitmap);
        is_believed |= dirty_bitmap_reason(bitmap) == NULL;
        if (disk->risk == RISK_CERTAIN && dirty_bitmap_reason(bitmap) == NULL) {
            world_fail(disk->world,
                       "bitmap '%s' of %s is believed, though it was kept with "
                       "durability=process and power was cut",
                       dirty_bitmap_name(bitmap), disk->name);
        }
    }
    if (!is_believed) {
        lose(disk);
    }
    return !is_believed;
}
