/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions, and what recovery made of them.
 *
 * A bitmap that was in a transaction when all died may be found as it was before
 * or as it is after. The first disk on which that can be told apart decides for
 * all: for those that are opened later, and for the repository.
 */
#include <string.h>

#include "mixed/world.h"

struct fate *world_fate(struct world *world, const struct journal_id *txid)
{
    struct fate *fate;

    for (guint i = world->fates->len; i-- > 0;) {
        fate = g_ptr_array_index(world->fates, i);
        if (journal_id_equal(&fate->txid, txid)) {
            return fate;
        }
    }
    fate = g_new0(struct fate, 1);
    fate->txid = *txid;
    fate->repository = -1;
    fate->is_process = world->is_process;
    g_ptr_array_add(world->fates, fate);
    return fate;
}

struct fate *world_find_fate(struct world *world, const char *txid)
{
    struct journal_id id;

    return journal_id_parse(txid, &id) ? world_fate(world, &id) : NULL;
}

/* Drops what the verdicts have ruled out. */
static void prune(struct oracle_bitmap *bitmap)
{
    for (guint i = 0; i < bitmap->states->len;) {
        struct oracle_state *state = g_ptr_array_index(bitmap->states, i);
        const struct fate *fate = state->by;

        if (fate == NULL || fate->verdict == FATE_OPEN) {
            i++;
        } else if (fate->verdict == FATE_ABORTED) {
            g_ptr_array_remove_index(bitmap->states, i);
        } else {
            state->by = NULL;
            g_ptr_array_remove_range(bitmap->states, 0, i);
            i = 1;
        }
    }
}

void world_decide(struct world *world,
                  struct fate *fate,
                  enum fate_verdict verdict,
                  const char *who)
{
    if (fate->verdict != FATE_OPEN && fate->verdict != verdict) {
        char text[JOURNAL_ID_TEXT_BYTES];

        journal_id_format(&fate->txid, text);
        world_fail(world, "transaction %s is %s, and not for %s", text,
                   fate->verdict == FATE_COMMITTED ? "committed" : "aborted",
                   who);
    }
    if (fate->is_let_go && fate->verdict == FATE_OPEN) {
        world_count(world, verdict == FATE_COMMITTED ? WORLD_LET_GO_COMMITTED
                                                     : WORLD_LET_GO_ABORTED);
    }
    fate->verdict = verdict;
    for (int i = 0; i < DISKS; i++) {
        GPtrArray *bitmaps = world->disks[i].oracle.bitmaps;

        for (guint k = 0; k < bitmaps->len; k++) {
            prune(g_ptr_array_index(bitmaps, k));
        }
    }
}

/*
 * After recovery.
 */

struct found {
    struct dirty_bitmap *bitmap; /* NULL: there is none */
    struct bitmap_base base;
    GBytes *content;
};

static struct found look(struct disk *disk, const char *name, GBytes *content)
{
    struct found found = {
        .bitmap = dirty_bitmap_find(disk->node, name),
        .base = { .kind = BITMAP_BASE_NONE },
        .content = content,
    };

    if (g_hash_table_contains(disk->leftovers, name)) {
        found.bitmap = NULL;
    }
    if (found.bitmap != NULL && tracker_of(disk->node) != NULL) {
        (void)tracker_base(tracker_of(disk->node), found.bitmap, &found.base);
    }
    return found;
}

static bool fits(const struct oracle_bitmap *bitmap,
                 guint index,
                 const struct found *found)
{
    return oracle_is_in(g_ptr_array_index(bitmap->states, index), found->bitmap,
                        &found->base, found->content, NULL);
}

/* If the bitmap tells how a transaction ended. */
static void decide_by(struct disk *disk,
                      const struct oracle_bitmap *bitmap,
                      const struct found *found)
{
    guint after = bitmap->states->len;
    struct fate *fate = NULL;
    bool is_after, is_before;

    while (fate == NULL && --after > 0) {
        const struct oracle_state *state =
            g_ptr_array_index(bitmap->states, after);

        fate = state->by;
    }
    if (fate == NULL) {
        return;
    }
    is_after = fits(bitmap, after, found);
    is_before = fits(bitmap, after - 1, found);
    for (guint i = after + 1; i < bitmap->states->len; i++) {
        if (fits(bitmap, i, found)) {
            return; /* it was said that nobody knows */
        }
    }
    if (is_after != is_before) {
        world_count(disk->world, WORLD_VERDICTS_FOUND);
        world_decide(disk->world, fate,
                     is_after ? FATE_COMMITTED : FATE_ABORTED, disk->name);
    }
}

static void tell_base(GString *text, const struct bitmap_base *base)
{
    char id[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&base->points[0].txid, id);
    g_string_append_printf(text, "base %d %.8s", base->kind, id);
}

static void fail_bitmap(struct disk *disk,
                        const struct oracle_bitmap *bitmap,
                        const struct found *found)
{
    g_autoptr(GString) text = g_string_new(NULL);

    if (found->bitmap == NULL) {
        g_string_append(text, "it is not there");
    } else {
        tell_base(text, &found->base);
        g_string_append(text, dirty_bitmap_is_enabled(found->bitmap)
                                  ? ", records"
                                  : ", does not record");
    }
    for (guint i = 0; i < bitmap->states->len; i++) {
        const struct oracle_state *state = g_ptr_array_index(bitmap->states, i);
        uint64_t missed;

        g_string_append(text, "; it may be: ");
        if (state->absent) {
            g_string_append(text, "absent");
            continue;
        }
        tell_base(text, &state->base);
        g_string_append(text, state->until == NULL ? ", records"
                                                   : ", does not record");
        (void)oracle_is_in(state, found->bitmap, &found->base, found->content,
                           &missed);
        if (missed != UINT64_MAX) {
            g_string_append_printf(text,
                                   ", but it is clean at %" G_GUINT64_FORMAT
                                   ", where the disk has changed",
                                   missed);
        }
    }
    world_fail(disk->world, "bitmap '%s' of %s: %s", bitmap->name, disk->name,
               text->str);
}

/* The newest of what it may be becomes what it is. */
static void settle_on(struct disk *disk,
                      struct oracle_bitmap *bitmap,
                      const struct found *found)
{
    world_count(disk->world, WORLD_BITMAPS_COMPARED);
    for (guint i = bitmap->states->len; i-- > 0;) {
        struct oracle_state *state = g_ptr_array_index(bitmap->states, i);

        if (fits(bitmap, i, found)) {
            state->by = NULL;
            if (i + 1 < bitmap->states->len) {
                g_ptr_array_remove_range(bitmap->states, i + 1,
                                         bitmap->states->len - i - 1);
            }
            g_ptr_array_remove_range(bitmap->states, 0, i);
            return;
        }
    }
    fail_bitmap(disk, bitmap, found);
}

/* A bitmap whose addition was in doubt at the shut-down was stored in the image,
 * and then its tracking file was not closed: it comes as what nobody knows. */
static bool may_be_left(struct disk *disk, const struct oracle_bitmap *bitmap)
{
    bool is_left = g_hash_table_contains(disk->leftovers, bitmap->name);

    for (guint i = 0; bitmap->states->len > 2 && i < bitmap->states->len; i++) {
        const struct oracle_state *state = g_ptr_array_index(bitmap->states, i);

        is_left |= state->absent;
    }
    return is_left;
}

static void check_inconsistent(struct disk *disk,
                               const struct dirty_bitmap *found)
{
    struct oracle_bitmap *bitmap =
        oracle_bitmap(&disk->oracle, dirty_bitmap_name(found));

    if (may_be_left(disk, bitmap)) {
        world_count(disk->world, WORLD_LEFTOVERS);
        g_hash_table_add(disk->leftovers, g_strdup(bitmap->name));
        oracle_forget(bitmap);
    } else {
        world_fail(disk->world, "bitmap '%s' of %s is inconsistent: %s",
                   bitmap->name, disk->name, dirty_bitmap_reason(found));
    }
}

void disk_check(struct disk *disk, GBytes *content)
{
    GPtrArray *bitmaps = disk->oracle.bitmaps;
    struct dirty_bitmap *stranger = NULL;

    if (durability_lost(disk)) {
        return;
    }
    modes_count_found(disk);
    while ((stranger = dirty_bitmap_next(disk->node, stranger)) != NULL) {
        (void)oracle_bitmap(&disk->oracle, dirty_bitmap_name(stranger));
        if (dirty_bitmap_reason(stranger) != NULL) {
            check_inconsistent(disk, stranger);
        }
    }
    for (guint i = 0; i < bitmaps->len; i++) {
        struct oracle_bitmap *bitmap = g_ptr_array_index(bitmaps, i);
        struct found found = look(disk, bitmap->name, content);

        decide_by(disk, bitmap, &found);
    }
    for (guint i = 0; i < bitmaps->len; i++) {
        struct oracle_bitmap *bitmap = g_ptr_array_index(bitmaps, i);
        struct found found = look(disk, bitmap->name, content);

        settle_on(disk, bitmap, &found);
    }
}
