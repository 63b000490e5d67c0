/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One round:
 *
 *     carry out what is ripe to be freed
 *     copy all that is dirty                            at one instant
 *     write refcounts; if blocks are new: sync, write the table of blocks
 *     sync file and data                                if L2 or L1 follow
 *     write L2 slices and L1
 *     sync
 *     what was gathered to be freed is named by nothing any more
 *
 * Refcounts that went down go out with those that went up: a count is lowered
 * only after a whole round has made its cluster nameless (free_later.h).
 *
 * A write that fails ends the round; its copies are dirty again, and whoever
 * asked is told. A sync that fails makes every later round fail: the kernel may
 * have dropped any of what was written since the last good one.
 */
#include "drivers/qcow2/metadata_commit.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/refcount_priv.h"
#include "drivers/qcow2/sector_set.h"

#define BACKGROUND_DELAY_NS (UINT64_C(5) * 1000 * 1000 * 1000)
#define VECTORS_MAX         256

struct qcow2_commit {
    struct qcow2_image *image;
    bool running;    /* a round, or somebody holds them off */
    uint64_t begun;  /* rounds */
    uint64_t ended;  /* ... */
    int last_result; /* of the last round that ended */
    int failure;     /* final; 0: none */
    struct co_queue changed;
    struct sector_set l1;             /* dirty parts of the L1 table ... */
    struct sector_set refcount_table; /* ... and of the refcount table */
    struct loop_timer timer;
    bool paused;
    bool background; /* one has been started, or runs */
};

/* What one round writes. */
struct round {
    GArray *refcounts; /* struct table_copy */
    GArray *l2;        /* ... */
    struct sector_set l1;
    struct sector_set refcount_table;
    uint8_t *l1_bytes; /* the dirty sectors, in the order of the set; owned */
    uint8_t *refcount_table_bytes;
};

static void timer_fired(struct loop_timer *timer);

struct qcow2_commit *qcow2_commit_new(struct qcow2_image *image)
{
    struct qcow2_commit *commit = g_new0(struct qcow2_commit, 1);

    commit->image = image;
    co_queue_init(&commit->changed);
    sector_set_init(&commit->l1);
    sector_set_init(&commit->refcount_table);
    loop_timer_init(&commit->timer, timer_fired);
    return commit;
}

void qcow2_commit_free(struct qcow2_commit *commit)
{
    if (commit == NULL) {
        return;
    }
    g_assert(!commit->running && !commit->background);
    loop_timer_cancel(&commit->timer);
    sector_set_release(&commit->l1);
    sector_set_release(&commit->refcount_table);
    g_free(commit);
}

/* The dirty sectors of a table of 64-bit entries, as the file has them. */
static uint8_t *copy_sectors(const struct sector_set *set,
                             const uint64_t *table,
                             uint64_t count)
{
    uint8_t *bytes = g_malloc0(set->numbers->len * QCOW2_SECTOR_BYTES + 1);

    for (guint i = 0; i < set->numbers->len; i++) {
        uint64_t first = sector_set_get(set, i) * SECTOR_ENTRIES;
        uint8_t *sector = bytes + i * QCOW2_SECTOR_BYTES;

        for (uint64_t k = 0; k < SECTOR_ENTRIES && first + k < count; k++) {
            store_be64(sector + k * 8, table[first + k]);
        }
    }
    return bytes;
}

static int round_take(struct qcow2_image *image, struct round *round)
{
    struct qcow2_commit *commit = image->commit;
    int ret;

    round->refcounts = g_array_new(FALSE, FALSE, sizeof(struct table_copy));
    round->l2 = g_array_new(FALSE, FALSE, sizeof(struct table_copy));
    sector_set_init(&round->l1);
    sector_set_init(&round->refcount_table);
    ret = table_cache_take_dirty(image->refcounts->slices, round->refcounts);
    if (ret == 0) {
        ret = table_cache_take_dirty(image->l2_slices, round->l2);
    }
    if (ret == 0) {
        sector_set_move(&round->l1, &commit->l1);
        sector_set_move(&round->refcount_table, &commit->refcount_table);
        qcow2_frees_take(image);
    }
    round->l1_bytes =
        copy_sectors(&round->l1, image->l1, image->header->l1_count);
    round->refcount_table_bytes =
        copy_sectors(&round->refcount_table, image->refcounts->table,
                     image->refcounts->table_count);
    return ret;
}

static void release_copies(GArray *copies, bool written)
{
    for (guint i = 0; i < copies->len; i++) {
        table_copy_release(&g_array_index(copies, struct table_copy, i),
                           written);
    }
    g_array_unref(copies);
}

static void round_settle(struct qcow2_image *image,
                         struct round *round,
                         bool written)
{
    struct qcow2_commit *commit = image->commit;

    release_copies(round->refcounts, written);
    release_copies(round->l2, written);
    if (!written) {
        sector_set_move(&commit->l1, &round->l1);
        sector_set_move(&commit->refcount_table, &round->refcount_table);
    }
    sector_set_release(&round->l1);
    sector_set_release(&round->refcount_table);
    g_free(round->l1_bytes);
    g_free(round->refcount_table_bytes);
    qcow2_frees_settle(image, written);
}

static int co_sync(struct qcow2_image *image, struct block_node *node)
{
    int ret = co_block_child_flush(node);

    if (ret < 0) {
        qcow2_commit_fail(image, ret);
    }
    return ret;
}

static int compare_copies(const void *a, const void *b)
{
    uint64_t left = ((const struct table_copy *)a)->host_offset;
    uint64_t right = ((const struct table_copy *)b)->host_offset;

    return (left > right) - (left < right);
}

/* Neighbours go out together. */
static int co_write_copies(struct qcow2_image *image, GArray *copies)
{
    g_autofree struct iovec *iov = g_new(struct iovec, VECTORS_MAX);
    guint next = 0;

    g_array_sort(copies, compare_copies);
    while (next < copies->len) {
        uint64_t start =
            g_array_index(copies, struct table_copy, next).host_offset;
        uint64_t end = start;
        int count = 0;
        int ret;

        while (next < copies->len && count < VECTORS_MAX) {
            const struct table_copy *copy =
                &g_array_index(copies, struct table_copy, next);

            if (copy->host_offset != end) {
                break;
            }
            iov[count++] = (struct iovec){ copy->content, copy->bytes };
            end += copy->bytes;
            next++;
        }
        ret = co_qcow2_write_metadata(image, start, end - start, iov, count);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int co_write_sectors(struct qcow2_image *image,
                            const struct sector_set *set,
                            uint8_t *bytes,
                            uint64_t table_offset)
{
    for (guint i = 0; i < set->numbers->len; i++) {
        struct iovec iov = { bytes + i * QCOW2_SECTOR_BYTES,
                             QCOW2_SECTOR_BYTES };
        int ret = co_qcow2_write_metadata(
            image, table_offset + sector_set_get(set, i) * QCOW2_SECTOR_BYTES,
            QCOW2_SECTOR_BYTES, &iov, 1);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int co_write_refcounts(struct qcow2_image *image, struct round *round)
{
    int ret = co_write_copies(image, round->refcounts);

    if (ret < 0 || sector_set_is_empty(&round->refcount_table)) {
        return ret;
    }
    ret = co_sync(image, image->file);
    if (ret < 0) {
        return ret;
    }
    return co_write_sectors(image, &round->refcount_table,
                            round->refcount_table_bytes,
                            image->header->refcount_table_offset);
}

/* In any order: a table that an L1 entry names for the first time was durable
 * with the last sync, as zeroes or as a whole copy, and every entry written now
 * is right by itself. */
static int co_write_mapping(struct qcow2_image *image, struct round *round)
{
    int ret = co_write_copies(image, round->l2);

    return ret < 0 ? ret
                   : co_write_sectors(image, &round->l1, round->l1_bytes,
                                      image->header->l1_offset);
}

static int co_write_round(struct qcow2_image *image, struct round *round)
{
    bool maps = round->l2->len > 0 || !sector_set_is_empty(&round->l1);
    int ret = co_write_refcounts(image, round);

    if (ret == 0 && image->external_data) {
        ret = co_sync(image, image->data);
    }
    if (ret == 0 && maps) {
        ret = co_sync(image, image->file);
    }
    if (ret == 0 && maps) {
        ret = co_write_mapping(image, round);
    }
    if (ret == 0) {
        ret = co_sync(image, image->file);
    }
    return ret;
}

static int co_run_round(struct qcow2_image *image)
{
    struct round round = { 0 };
    int ret;

    if (image->commit->failure < 0 || image->corrupt) {
        return -EIO;
    }
    co_qcow2_frees_carry_out(image);
    ret = round_take(image, &round);
    if (ret == 0) {
        ret = co_write_round(image, &round);
    }
    round_settle(image, &round, ret == 0);
    return ret;
}

static bool is_dirty(const struct qcow2_image *image)
{
    return table_cache_dirty_bytes(image->refcounts->slices) > 0 ||
           table_cache_dirty_bytes(image->l2_slices) > 0 ||
           !sector_set_is_empty(&image->commit->l1) ||
           !sector_set_is_empty(&image->commit->refcount_table) ||
           qcow2_frees_pending(image);
}

/* Keeps others off and runs a round. `running` stays set. */
static int co_begin_round(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;
    uint64_t number;

    g_assert(!commit->running);
    commit->running = true;
    number = ++commit->begun;
    commit->last_result = co_run_round(image);
    commit->ended = number;
    return commit->last_result;
}

static void end_round(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;

    commit->running = false;
    co_queue_wake_all(&commit->changed);
    /* What is on its way to being free needs another one, some time. */
    if (commit->failure == 0 && is_dirty(image)) {
        qcow2_commit_dirtied(image);
    }
}

int co_qcow2_commit(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;
    uint64_t ticket = commit->begun + 1;

    while (commit->ended < ticket) {
        if (commit->running) {
            co_queue_wait(&commit->changed);
            continue;
        }
        (void)co_begin_round(image); /* read below */
        end_round(image);
    }
    return commit->last_result;
}

int co_qcow2_commit_and_hold(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;
    int ret;

    while (commit->running) {
        co_queue_wait(&commit->changed);
    }
    ret = co_begin_round(image);
    if (ret < 0) {
        end_round(image);
    }
    return ret;
}

void qcow2_commit_release(struct qcow2_image *image)
{
    end_round(image);
}

void qcow2_commit_fail(struct qcow2_image *image, int error)
{
    if (image->commit->failure == 0) {
        image->commit->failure = error;
    }
}

int qcow2_commit_failure(const struct qcow2_image *image)
{
    return image->commit->failure;
}

void qcow2_commit_l1_dirty(struct qcow2_image *image, uint32_t index)
{
    sector_set_add(&image->commit->l1, index / SECTOR_ENTRIES);
    qcow2_commit_dirtied(image);
}

void qcow2_commit_refcount_table_dirty(struct qcow2_image *image,
                                       uint64_t index)
{
    sector_set_add(&image->commit->refcount_table, index / SECTOR_ENTRIES);
    qcow2_commit_dirtied(image);
}

/*
 * Of its own accord.
 */
static void co_background(void *opaque)
{
    struct qcow2_image *image = opaque;
    struct qcow2_commit *commit = image->commit;
    struct block_node *node = image->node;

    /* A failure stays: the next flush comes upon it, too. */
    (void)co_qcow2_commit(image);
    commit->background = false;
    co_queue_wake_all(&commit->changed);
    if (commit->failure == 0 && is_dirty(image)) {
        qcow2_commit_dirtied(image);
    }
    block_background_end(node);
}

static void start_background(struct qcow2_commit *commit)
{
    commit->background = true;
    block_background_begin(commit->image->node);
    co_spawn(loop_current(), co_background, commit->image);
}

static void timer_fired(struct loop_timer *timer)
{
    struct qcow2_commit *commit = LIST_ENTRY(timer, struct qcow2_commit, timer);

    if (!commit->background) {
        start_background(commit);
    }
}

/* So much that waiting would soon make requests wait for room. */
static bool is_much_dirty(const struct table_cache *cache)
{
    return table_cache_dirty_bytes(cache) > table_cache_max_bytes(cache) / 2;
}

void qcow2_commit_dirtied(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;

    if (commit->paused || commit->background || commit->failure < 0 ||
        image->corrupt) {
        return;
    }
    /* After a failure there is time: the next one would come at once. */
    if (commit->last_result == 0 && (is_much_dirty(image->l2_slices) ||
                                     is_much_dirty(image->refcounts->slices))) {
        loop_timer_cancel(&commit->timer);
        start_background(commit);
    } else if (commit->timer.loop == NULL) {
        loop_timer_start(&commit->timer, loop_now_ns() + BACKGROUND_DELAY_NS);
    }
}

void qcow2_commit_pause(struct qcow2_image *image)
{
    image->commit->paused = true;
    loop_timer_cancel(&image->commit->timer);
}

void qcow2_commit_resume(struct qcow2_image *image)
{
    image->commit->paused = false;
    if (is_dirty(image)) {
        qcow2_commit_dirtied(image);
    }
}

void co_qcow2_commit_settle(struct qcow2_image *image)
{
    struct qcow2_commit *commit = image->commit;

    while (commit->running || commit->background) {
        co_queue_wait(&commit->changed);
    }
}
