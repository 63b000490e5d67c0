/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O under way is counted in two epochs, the current one and the one before.
 * When clusters are out of the file's tables a new epoch begins; once nothing of
 * the old one is under way, whoever could still read them has ended. What
 * becomes ready meanwhile waits for the next change of epochs, so two counters
 * are enough, and no I/O ever waits.
 */
#include "drivers/qcow2/free_later.h"

#include "base/bytes.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount.h"

struct freed_range {
    uint64_t host_offset; /* of a cluster */
    uint64_t bytes;       /* whole clusters */
    enum qcow2_free_cause cause;
};

struct qcow2_frees {
    GArray *gathered;  /* struct freed_range, each */
    GArray *committed; /* taken by the commit under way */
    GArray *durable;   /* wait for a change of epochs */
    GArray *in_use;    /* wait for the end of the old epoch */
    GArray *ripe;
    unsigned int epoch;
    unsigned int under_way[2]; /* I/O, by epoch modulo 2 */
};

struct qcow2_frees *qcow2_frees_new(struct qcow2_image *image)
{
    struct qcow2_frees *frees = g_new0(struct qcow2_frees, 1);
    GArray **lists[] = { &frees->gathered, &frees->committed, &frees->durable,
                         &frees->in_use, &frees->ripe };

    (void)image;
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        *lists[i] = g_array_new(FALSE, FALSE, sizeof(struct freed_range));
    }
    return frees;
}

void qcow2_frees_free(struct qcow2_frees *frees)
{
    if (frees == NULL) {
        return;
    }
    g_array_unref(frees->gathered);
    g_array_unref(frees->committed);
    g_array_unref(frees->durable);
    g_array_unref(frees->in_use);
    g_array_unref(frees->ripe);
    g_free(frees);
}

static void move_all(GArray *from, GArray *to)
{
    if (from->len > 0) {
        g_array_append_vals(to, from->data, from->len);
        g_array_set_size(from, 0);
    }
}

/* Begins a new epoch if someone needs it and the one before the current has
 * ended; what waited for the end of that one is ripe. */
static void turn_epoch(struct qcow2_frees *frees)
{
    if (frees->under_way[(frees->epoch + 1) % 2] > 0) {
        return;
    }
    move_all(frees->in_use, frees->ripe);
    if (frees->durable->len == 0) {
        return;
    }
    frees->epoch++;
    if (frees->under_way[(frees->epoch + 1) % 2] == 0) {
        move_all(frees->durable, frees->ripe);
    } else {
        move_all(frees->durable, frees->in_use);
    }
}

void qcow2_io_begin(struct qcow2_image *image, struct qcow2_io *io)
{
    struct qcow2_frees *frees = image->frees;

    if (frees != NULL) {
        io->epoch = frees->epoch;
        frees->under_way[io->epoch % 2]++;
    }
}

void qcow2_io_end(struct qcow2_image *image, struct qcow2_io *io)
{
    struct qcow2_frees *frees = image->frees;

    if (frees == NULL) {
        return;
    }
    g_assert(frees->under_way[io->epoch % 2] > 0);
    frees->under_way[io->epoch % 2]--;
    if (io->epoch != frees->epoch) {
        turn_epoch(frees);
    }
}

void qcow2_free_later(struct qcow2_image *image,
                      uint64_t host_offset,
                      uint64_t bytes,
                      enum qcow2_free_cause cause)
{
    GArray *gathered = image->frees->gathered;
    uint64_t start = round_down(host_offset, image->cluster_bytes);
    uint64_t end = round_up(host_offset + bytes, image->cluster_bytes);
    struct freed_range range = { start, end - start, cause };

    if (gathered->len > 0) {
        struct freed_range *last =
            &g_array_index(gathered, struct freed_range, gathered->len - 1);

        if (last->host_offset + last->bytes == start && last->cause == cause) {
            last->bytes += range.bytes;
            return;
        }
    }
    g_array_append_val(gathered, range);
    qcow2_commit_dirtied(image);
}

void qcow2_frees_take(struct qcow2_image *image)
{
    move_all(image->frees->gathered, image->frees->committed);
}

void qcow2_frees_settle(struct qcow2_image *image, bool durable)
{
    struct qcow2_frees *frees = image->frees;

    if (!durable) {
        move_all(frees->committed, frees->gathered);
        return;
    }
    move_all(frees->committed, frees->durable);
    turn_epoch(frees);
}

static bool wants_discard(const struct qcow2_image *image,
                          enum qcow2_free_cause cause)
{
    return cause == QCOW2_FREE_DISCARDED ? image->pass_discard_request
                                         : image->pass_discard_other;
}

/* A cluster is punched out while it is still counted: once it is free someone
 * may write to it. A failure leaks what is left, which does no harm. */
static void co_free_range(struct qcow2_image *image,
                          const struct freed_range *range)
{
    uint64_t clusters = range->bytes / image->cluster_bytes;
    uint64_t file_bytes = block_size(image->file);

    if (wants_discard(image, range->cause) && range->host_offset < file_bytes &&
        co_qcow2_refcount_last_use(image, range->host_offset, clusters)) {
        (void)co_block_child_discard(
            image->file, range->host_offset,
            min_u64(range->bytes, file_bytes - range->host_offset));
    }
    (void)co_qcow2_refcount_decrease(image, range->host_offset, clusters);
}

void co_qcow2_frees_carry_out(struct qcow2_image *image)
{
    struct qcow2_frees *frees = image->frees;
    GArray *ripe;

    turn_epoch(frees);
    if (frees->ripe->len == 0) {
        return;
    }
    ripe = frees->ripe;
    frees->ripe = g_array_new(FALSE, FALSE, sizeof(struct freed_range));
    for (guint i = 0; i < ripe->len; i++) {
        co_free_range(image, &g_array_index(ripe, struct freed_range, i));
    }
    g_array_unref(ripe);
}

bool qcow2_frees_pending(const struct qcow2_image *image)
{
    const struct qcow2_frees *frees = image->frees;

    return frees->gathered->len + frees->committed->len + frees->durable->len +
               frees->in_use->len + frees->ripe->len >
           0;
}
