/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A repair that is cut off: images of tests/corpus/qcow2 are repaired in a file
 * that remembers each write and sync. Then the power fails, at every moment:
 * what was synced is there, and of what was written since, the first few, or
 * one alone, or all but one.
 */
#include "block_test.h"

#include <stdlib.h>
#include <string.h>

#include "drivers/qcow2/check.h"

struct step {
    GBytes *data; /* NULL: the file got the size `offset` */
    uint64_t offset;
    unsigned int epoch; /* how many syncs there were before */
};

struct recorded_file {
    GByteArray *bytes;
    GPtrArray *steps; /* struct step */
    unsigned int epoch;
};

static void step_free(void *opaque)
{
    struct step *step = opaque;

    g_clear_pointer(&step->data, g_bytes_unref);
    g_free(step);
}

static void apply(GByteArray *bytes, const struct step *step)
{
    if (step->data == NULL) {
        guint old = bytes->len;

        g_byte_array_set_size(bytes, (guint)step->offset);
        if (bytes->len > old) {
            memset(bytes->data + old, 0, bytes->len - old);
        }
        return;
    }
    gsize length;
    const void *data = g_bytes_get_data(step->data, &length);
    if (step->offset + length <= bytes->len) { /* else its growth is lost */
        memcpy(bytes->data + step->offset, data, length);
    }
}

static void record(struct block_node *node, uint64_t offset, GBytes *data)
{
    struct recorded_file *file = block_state(node);
    struct step *step = g_new0(struct step, 1);

    step->data = data;
    step->offset = offset;
    step->epoch = file->epoch;
    g_ptr_array_add(file->steps, step);
    apply(file->bytes, step);
}

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    struct recorded_file *file = g_new0(struct recorded_file, 1);

    (void)options;
    (void)err;
    file->bytes = g_byte_array_new();
    file->steps = g_ptr_array_new_with_free_func(step_free);
    block_set_state(node, file);
    return 0;
}

static void co_close(struct block_node *node)
{
    struct recorded_file *file = block_state(node);

    g_byte_array_unref(file->bytes);
    g_ptr_array_unref(file->steps);
    g_free(file);
}

static int co_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    const struct recorded_file *file = block_state(node);

    (void)bytes;
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, file->bytes->data + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    (void)bytes;
    (void)flags;
    for (int i = 0; i < iov_count; i++) {
        record(node, offset, g_bytes_new(iov[i].iov_base, iov[i].iov_len));
        offset += iov[i].iov_len;
    }
    return 0;
}

static int co_flush(struct block_node *node)
{
    struct recorded_file *file = block_state(node);

    file->epoch++;
    return 0;
}

static int co_truncate(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err)
{
    (void)shrink;
    (void)err;
    record(node, size_bytes, NULL);
    return 0;
}

static const struct block_driver driver_recorded = {
    .name = "recorded",
    .co_open = co_open,
    .co_close = co_close,
    .co_preadv = co_preadv,
    .co_pwritev = co_pwritev,
    .co_flush = co_flush,
    .co_truncate = co_truncate,
};

static const struct block_driver *const drivers[] = { &driver_recorded, NULL };

static struct block_node *co_file(struct block_graph *graph,
                                  const void *data,
                                  gsize bytes)
{
    struct block_node *node = co_add(graph, "recorded,node-name=f");
    struct recorded_file *file = block_state(node);

    g_byte_array_append(file->bytes, data, (guint)bytes);
    block_set_size(node, bytes);
    return node;
}

static struct qcow2_check_result co_check(struct block_node *node,
                                          enum qcow2_repair repair)
{
    struct qcow2_check_result result;

    assert_int_equal(
        co_qcow2_check(node, "image", repair, NULL, NULL, &result, NULL), 0);
    return result;
}

/* What a crash left is no worse than before, and can be repaired. */
static void co_after_crash(struct block_graph *graph,
                           const GByteArray *bytes,
                           uint64_t corruptions_max)
{
    struct block_node *node = co_file(graph, bytes->data, bytes->len);
    struct qcow2_check_result result = co_check(node, QCOW2_REPAIR_NOTHING);

    assert_in_range(result.corruptions, 0, corruptions_max);
    result = co_check(node, QCOW2_REPAIR_ALL);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
}

struct crash {
    guint written; /* steps that were begun */
    guint odd;     /* of the last epoch: this one alone ... */
    bool lost;     /* ... or all but this one */
    bool in_order; /* neither: all of them */
};

static void co_crash(struct block_graph *graph,
                     GBytes *original,
                     const GPtrArray *steps,
                     struct crash crash,
                     uint64_t corruptions_max)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    const struct step *last =
        crash.written == 0 ? NULL : steps->pdata[crash.written - 1];
    gsize length;
    const void *data = g_bytes_get_data(original, &length);

    g_byte_array_append(bytes, data, (guint)length);
    for (guint i = 0; i < crash.written; i++) {
        const struct step *step = steps->pdata[i];

        if (step->epoch < last->epoch || crash.in_order ||
            (i == crash.odd) != crash.lost) {
            apply(bytes, step);
        }
    }
    co_after_crash(graph, bytes, corruptions_max);
}

static void co_crash_everywhere(struct block_graph *graph,
                                GBytes *original,
                                const GPtrArray *steps,
                                uint64_t corruptions_max)
{
    for (guint written = 0; written <= steps->len; written++) {
        struct crash crash = { .written = written, .in_order = true };

        co_crash(graph, original, steps, crash, corruptions_max);
        crash.in_order = false;
        for (crash.odd = 0; crash.odd < written; crash.odd++) {
            crash.lost = false;
            co_crash(graph, original, steps, crash, corruptions_max);
            crash.lost = true;
            co_crash(graph, original, steps, crash, corruptions_max);
        }
    }
}

struct subject {
    const char *name;
    /* When a cluster's refcount goes up, the flags of all entries that name it
     * are found to be wrong, and mended next. */
    uint64_t flags;
};

static void co_repair_and_crash(struct block_graph *graph, void *opaque)
{
    const struct subject *subject = opaque;
    g_autofree char *path =
        g_build_filename(g_getenv("QCOW2_CORPUS"), subject->name, NULL);
    g_autofree char *data = NULL;
    gsize bytes;

    assert_true(g_file_get_contents(path, &data, &bytes, NULL));

    g_autoptr(GBytes) original = g_bytes_new(data, bytes);
    struct block_node *node = co_file(graph, data, bytes);
    struct recorded_file *file = block_state(node);
    struct qcow2_check_result before = co_check(node, QCOW2_REPAIR_NOTHING);
    struct qcow2_check_result after = co_check(node, QCOW2_REPAIR_ALL);
    g_autoptr(GPtrArray) steps = g_ptr_array_ref(file->steps);

    assert_true(before.leaks > 0 || before.corruptions > 0);
    assert_int_equal(after.leaks + after.corruptions, 0);
    assert_true(steps->len > 0);
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    co_crash_everywhere(graph, original, steps,
                        before.corruptions + subject->flags);
}

static void check_crashes_of(const char *name, uint64_t flags)
{
    struct subject subject = { .name = name, .flags = flags };

    run_in_graph(drivers, 0, co_repair_and_crash, &subject);
}

/* New refcounts are complete before the header names them. */
static void making_refcounts_anew_survives_a_crash(void **state)
{
    (void)state;
    check_crashes_of("refcount_block_behind_end.qcow2", 0);
    check_crashes_of("refcount_block_is_table.qcow2", 0);
    check_crashes_of("refcount_blocks_equal.qcow2", 0);
    check_crashes_of("refcount_block_unaligned.qcow2", 0);
}

/* Counts and flags are mended in steps, each of which leaves less to do. */
static void mending_refcounts_survives_a_crash(void **state)
{
    (void)state;
    check_crashes_of("refcounts_zero.qcow2", 0);
    check_crashes_of("refcounts_of_tables_zero.qcow2", 0);
    check_crashes_of("refcounts_largest.qcow2", 0);
    check_crashes_of("l2_entries_equal.qcow2", 128);
    check_crashes_of("dirty.qcow2", 0);
}

/* Where there were leaks, there is never anything worse. */
static void mending_leaks_makes_no_corruption(void **state)
{
    (void)state;
    check_crashes_of("leaks.qcow2", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_refcounts_anew_survives_a_crash),
        cmocka_unit_test(mending_refcounts_survives_a_crash),
        cmocka_unit_test(mending_leaks_makes_no_corruption),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
