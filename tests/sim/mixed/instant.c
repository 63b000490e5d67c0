/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The instants. The linker puts these functions before those of the engine, which
 * knows nothing of it: when a tracker is told of a change, the node is fenced, and
 * what the disk holds now is what the bitmap will be a difference to.
 */
#include <errno.h>
#include <string.h>

#include "drivers/qcow2/image.h"
#include "mixed/world.h"

void __real_tracker_change(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           enum tracker_change change,
                           const struct journal_id *change_txid,
                           const struct bitmap *merged);
void __wrap_tracker_change(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           enum tracker_change change,
                           const struct journal_id *change_txid,
                           const struct bitmap *merged);
void __real_tracker_freeze(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           const struct journal_id *txid,
                           enum tracker_mode mode);
void __wrap_tracker_freeze(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           const struct journal_id *txid,
                           enum tracker_mode mode);
void __real_tracker_settle(struct tracker *tracker,
                           const struct journal_id *txid,
                           enum tracker_outcome outcome);
void __wrap_tracker_settle(struct tracker *tracker,
                           const struct journal_id *txid,
                           enum tracker_outcome outcome);
int __real_co_qcow2_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count,
                            unsigned int flags);
int __wrap_co_qcow2_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count,
                            unsigned int flags);
int __wrap_qcow2_try_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count);

static struct disk *disk_of_node(const struct block_node *node)
{
    struct world *world = world_current();

    for (unsigned int i = 0; i < DISKS; i++) {
        if (world->disks[i].node == node) {
            return &world->disks[i];
        }
    }
    return NULL;
}

static struct disk *disk_of_tracker(const struct tracker *tracker)
{
    struct world *world = world_current();

    for (unsigned int i = 0; i < DISKS; i++) {
        struct disk *disk = &world->disks[i];

        if (disk->node != NULL && tracker_of(disk->node) == tracker) {
            return disk;
        }
    }
    return NULL;
}

/*
 * What bitmaps may be from now on.
 */

static void begin_anew(struct oracle_state *state, GBytes *cut)
{
    oracle_state_forget_past(state);
    state->since = g_bytes_ref(cut);
    state->absent = false;
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
}

/* The bits come to those that it must have anyway. */
static void add_bits(struct oracle_state *state, const struct bitmap *bits)
{
    uint64_t sectors = bitmap_size_bytes(bits) / 512;
    uint8_t *flags = g_malloc0(sectors);
    gsize old_bytes = 0;
    const uint8_t *old =
        state->must == NULL ? NULL : g_bytes_get_data(state->must, &old_bytes);

    for (uint64_t i = 0; i < sectors; i++) {
        flags[i] = bitmap_get(bits, i * 512) || (i < old_bytes && old[i] != 0);
    }
    g_clear_pointer(&state->must, g_bytes_unref);
    state->must = g_bytes_new_take(flags, sectors);
}

static void change_state(struct oracle_state *state,
                         enum tracker_change change,
                         GBytes *cut,
                         const struct bitmap *bits)
{
    switch (change) {
    case TRACKER_CHANGE_ADD:
    case TRACKER_CHANGE_ENABLE:
        begin_anew(state, cut);
        g_clear_pointer(&state->until, g_bytes_unref);
        break;
    case TRACKER_CHANGE_CLEAR:
        begin_anew(state, cut);
        if (state->until != NULL) {
            g_clear_pointer(&state->until, g_bytes_unref);
            state->until = g_bytes_ref(cut);
        }
        break;
    case TRACKER_CHANGE_REMOVE: state->absent = true; break;
    case TRACKER_CHANGE_DISABLE:
        if (state->until == NULL) {
            state->until = g_bytes_ref(cut);
        }
        break;
    case TRACKER_CHANGE_MERGE: add_bits(state, bits); break;
    case TRACKER_CHANGE_JOB:
    case TRACKER_CHANGE_NONE: break;
    }
}

void __wrap_tracker_change(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           enum tracker_change change,
                           const struct journal_id *change_txid,
                           const struct bitmap *merged)
{
    struct disk *disk = disk_of_tracker(tracker);
    struct oracle_bitmap *expected =
        disk == NULL ? NULL
                     : oracle_bitmap(&disk->oracle, dirty_bitmap_name(bitmap));

    if (expected != NULL &&
        (change_txid != NULL || !world_is_dead(disk->world))) {
        struct oracle_state *state = oracle_copy(expected);
        g_autoptr(GBytes) cut = disk_content(disk);

        change_state(state, change, cut,
                     merged != NULL ? merged : dirty_bitmap_bits(bitmap));
        if (change == TRACKER_CHANGE_ADD && !dirty_bitmap_is_enabled(bitmap)) {
            state->until = g_bytes_ref(cut);
        }
        oracle_may(expected, state);
        if (change_txid != NULL) {
            state->by = world_fate(disk->world, change_txid);
        } else {
            g_ptr_array_add(disk->world->told, expected);
        }
        coverage_tell(&disk->world->coverage, disk->index, change);
        world_trace(disk->world, "  %s/%s is changed (%d)", disk->name,
                    expected->name, change);
    }
    __real_tracker_change(tracker, bitmap, change, change_txid, merged);
}

void world_answered(struct world *world, bool stands)
{
    for (guint i = 0; stands && i < world->told->len; i++) {
        oracle_decide(g_ptr_array_index(world->told, i), true);
    }
    g_ptr_array_set_size(world->told, 0);
}

/* If it commits, the bitmap is a difference to what the disk holds now. */
static void expect_consumed(struct disk *disk,
                            const struct tracker *tracker,
                            const struct dirty_bitmap *bitmap,
                            struct fate *fate)
{
    struct oracle_bitmap *expected =
        oracle_bitmap(&disk->oracle, dirty_bitmap_name(bitmap));
    struct oracle_state *state = oracle_copy(expected);
    GBytes *cut = fate->cut[disk->index];

    begin_anew(state, cut);
    if (state->until != NULL) {
        g_clear_pointer(&state->until, g_bytes_unref);
        state->until = g_bytes_ref(cut);
    }
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_ONE };
    state->base.points[0].txid = fate->txid;
    state->base.points[0].disk = *tracker_disk_id(tracker);
    state->by = fate;
    oracle_may(expected, state);
}

void __wrap_tracker_freeze(struct tracker *tracker,
                           struct dirty_bitmap *bitmap,
                           const struct journal_id *txid,
                           enum tracker_mode mode)
{
    struct disk *disk = disk_of_tracker(tracker);

    __real_tracker_freeze(tracker, bitmap, txid, mode);
    if (disk != NULL) {
        struct fate *fate = world_fate(disk->world, txid);
        g_autoptr(GBytes) cut = disk_content(disk);

        modes_note(fate, disk, dirty_bitmap_name(bitmap), mode);
        if (fate->cut[disk->index] == NULL) {
            fate->cut[disk->index] = g_bytes_ref(cut);
        }
        if (mode != TRACKER_NEVER) {
            expect_consumed(disk, tracker, bitmap, fate);
        }
        world_trace(disk->world, "  %s/%s is frozen (mode %d)", disk->name,
                    dirty_bitmap_name(bitmap), mode);
    }
}

/*
 * Verdicts.
 */

/* A job's bitmap is a difference to both points, if there is room for two. */
static void make_either(struct oracle_state *state,
                        const struct oracle_state *after)
{
    if (state->base.kind == BITMAP_BASE_EITHER) {
        state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    } else {
        state->base.kind = BITMAP_BASE_EITHER;
        state->base.points[1] = after->base.points[0];
    }
    g_clear_pointer(&state->also, g_bytes_unref);
    g_clear_pointer(&state->also_until, g_bytes_unref);
    state->also = g_bytes_ref(after->since);
    if (after->until != NULL) {
        state->also_until = g_bytes_ref(after->until);
    }
}

/* Nobody knows how it ended. What a job consumed is a difference to both; what a
 * command changed is as before or as after, without a base. */
static void add_unknown(struct oracle_bitmap *expected, const struct fate *fate)
{
    guint last = expected->states->len - 1;
    const struct oracle_state *after =
        g_ptr_array_index(expected->states, last);
    struct oracle_state *one, *other;

    if (last == 0 || after->by != fate) {
        return;
    }
    one = oracle_state_copy(g_ptr_array_index(expected->states, last - 1));
    if (after->base.kind == BITMAP_BASE_ONE &&
        journal_id_equal(&after->base.points[0].txid, &fate->txid)) {
        make_either(one, after);
    } else {
        other = oracle_state_copy(after);
        one->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
        other->base = one->base;
        oracle_may(expected, other);
    }
    oracle_may(expected, one);
}

void __wrap_tracker_settle(struct tracker *tracker,
                           const struct journal_id *txid,
                           enum tracker_outcome outcome)
{
    struct disk *disk = disk_of_tracker(tracker);

    if (disk != NULL) {
        struct fate *fate = world_fate(disk->world, txid);

        world_trace(disk->world, "  %s: settled, %s", disk->name,
                    outcome == TRACKER_COMMITTED ? "committed"
                    : outcome == TRACKER_ABORTED ? "aborted"
                                                 : "unknown");
        if (outcome == TRACKER_COMMITTED) {
            world_decide(disk->world, fate, FATE_COMMITTED, disk->name);
        } else if (outcome == TRACKER_ABORTED && world_is_dead(disk->world)) {
            /* Nobody hears of it: the step that died may have been taken. */
        } else if (outcome == TRACKER_ABORTED) {
            world_decide(disk->world, fate, FATE_ABORTED, disk->name);
        } else {
            faults_let_go(disk->world, fate);
            for (guint i = 0; i < disk->oracle.bitmaps->len; i++) {
                add_unknown(g_ptr_array_index(disk->oracle.bitmaps, i), fate);
            }
        }
        modes_settled(disk, fate, outcome);
    }
    __real_tracker_settle(tracker, txid, outcome);
}

/*
 * What a qcow2 image holds, for its guests.
 */

int __wrap_co_qcow2_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count,
                            unsigned int flags)
{
    int ret =
        __real_co_qcow2_pwritev(node, offset, bytes, iov, iov_count, flags);
    struct disk *disk = disk_of_node(node);

    for (int i = 0; ret == 0 && disk != NULL && i < iov_count && bytes > 0;
         i++) {
        uint64_t part = MIN(bytes, iov[i].iov_len);

        memcpy(disk->shadow->data + offset, iov[i].iov_base, part);
        offset += part;
        bytes -= part;
    }
    return ret;
}

/* Always the way above. */
int __wrap_qcow2_try_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count)
{
    (void)node;
    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    return -EAGAIN;
}
