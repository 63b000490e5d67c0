/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bitmaps of an image, step by step, with a power cut at every write and sync:
 * what is left is a sound image with the bitmaps, the stamp and the backing name
 * of before the step or of after it, whole.
 */
#include "block_test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "crash_disk.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/image.h"

#define DISK_BYTES      (8 * MIB)
#define GRANULARITY     9
#define WORDS           (DISK_BYTES >> GRANULARITY >> 6)
#define CUTS_PER_MOMENT 2
#define BACKING_NAME    "a/name/that/has/to/move/when/there/is/more/before/it.raw"

static const uint8_t stamp_a[QCOW2_STAMP_BYTES] = { 1, 2, 3 };
static const uint8_t stamp_b[QCOW2_STAMP_BYTES] = { 9, 8, 7 };

struct world {
    struct block_graph *graph;
    struct block_node *disk;
    struct block_node *image;
    GRand *chance;
    GPtrArray *cuts; /* GByteArray */
    unsigned int checked;
};

static void free_bytes(void *opaque)
{
    g_byte_array_unref(opaque);
}

static void take_cuts(struct crash_disk *disk, void *opaque)
{
    struct world *world = opaque;

    for (int i = 0; i < CUTS_PER_MOMENT; i++) {
        g_ptr_array_add(world->cuts, crash_disk_cut(disk));
    }
}

/*
 * What an image says: "stamp|name=digest of the bits|...". Bits of a bitmap in use
 * are "?".
 */

static void take_words(void *opaque,
                       uint64_t first_word,
                       const uint64_t *words,
                       uint64_t word_count)
{
    uint64_t *bits = opaque;

    for (uint64_t i = 0; i < word_count && first_word + i < WORDS; i++) {
        bits[first_word + i] |= words[i];
    }
}

static void co_describe_bitmap(struct block_node *image,
                               const struct qcow2_stored_bitmap *stored,
                               GString *text)
{
    g_autofree uint64_t *bits = g_new0(uint64_t, WORDS);
    g_autofree char *digest = NULL;
    g_autoptr(GError) err = NULL;

    g_string_append_printf(text, "|%s%s=", stored->name,
                           stored->flags & QCOW2_BITMAP_AUTO ? "+" : "");
    if (qcow2_bitmap_problem(image, stored) != NULL) {
        g_string_append_c(text, '?');
        return;
    }
    if (co_qcow2_bitmap_load(image, stored, take_words, bits, &err) < 0) {
        fail_msg("%s", err->message);
    }
    digest = g_compute_checksum_for_data(G_CHECKSUM_MD5, (const guchar *)bits,
                                         WORDS * sizeof(uint64_t));
    g_string_append(text, digest);
}

static char *co_describe(struct block_node *image)
{
    const GPtrArray *list = qcow2_bitmaps_list(image);
    GString *text = g_string_new(NULL);
    uint8_t stamp[QCOW2_STAMP_BYTES];

    if (qcow2_stamp(image, stamp)) {
        g_string_append_printf(text, "%u", stamp[0]);
    }
    for (guint i = 0; i < list->len; i++) {
        co_describe_bitmap(image, list->pdata[i], text);
    }
    return g_string_free(text, FALSE);
}

/* Checks an image as it was left, and describes it. */
static char *co_look(struct world *world, const GByteArray *bytes)
{
    struct block_node *file =
        co_add(world->graph, "driver=crash-disk,node-name=left");
    struct qcow2_check_result result;
    g_autoptr(GError) err = NULL;
    struct block_node *image;
    struct qcow2_image *state;
    char *text;

    crash_disk_load(file, bytes);
    if (co_qcow2_check(file, "left", QCOW2_REPAIR_NOTHING, NULL, NULL, &result,
                       &err) < 0) {
        fail_msg("%s", err->message);
    }
    assert_int_equal(result.corruptions + result.check_errors, 0);
    image = co_add(world->graph, "driver=qcow2,node-name=left-image,file=left,"
                                 "backing=base,read-only=true");
    state = block_state(image);
    assert_string_equal(state->header->backing_file, BACKING_NAME);
    assert_string_equal(state->header->backing_format, "raw");
    text = co_describe(image);
    assert_int_equal(co_block_del(world->graph, "left-image", NULL), 0);
    assert_int_equal(co_block_del(world->graph, "left", NULL), 0);
    return text;
}

static char *co_look_now(struct world *world)
{
    return co_look(world, crash_disk_of(world->disk)->durable);
}

/* Bits that are not known match any. */
static bool matches(const char *found, const char *expected)
{
    while (*found != '\0' && *expected != '\0') {
        if (*found == '?' || *expected == '?') {
            found += strcspn(found, "|");
            expected += strcspn(expected, "|");
        } else if (*found++ != *expected++) {
            return false;
        }
    }
    return *found == *expected;
}

/* Bits that are not in use count in an image without a stamp. */
static bool has_bits_that_count(const char *found)
{
    const char *bits = found[0] == '|' ? strchr(found, '=') : NULL;

    while (bits != NULL && bits[1] == '?') {
        bits = strchr(bits + 1, '=');
    }
    return bits != NULL;
}

/* Begins: the stamp, then the marks, one by one; a stamp that ends is the last,
 * for what it has kept from counting must not count now. */
static bool is_on_the_way(const char *found, const char *before)
{
    return !has_bits_that_count(found) &&
           matches(found + strcspn(found, "|"), before + strcspn(before, "|"));
}

static void co_check_cuts(struct world *world,
                          const char *before,
                          const char *after,
                          bool is_begin)
{
    for (guint i = 0; i < world->cuts->len; i++) {
        g_autofree char *found = co_look(world, world->cuts->pdata[i]);
        bool is_right =
            is_begin ? is_on_the_way(found, before)
                     : strcmp(found, before) == 0 || strcmp(found, after) == 0;

        if (!is_right) {
            fail_msg("a crash between '%s' and '%s' leaves '%s'", before, after,
                     found);
        }
        world->checked++;
    }
    g_ptr_array_set_size(world->cuts, 0);
}

/*
 * The steps.
 */

/* Some words of all kinds, and whole clusters of ones and of zeroes. */
static uint64_t *make_words(struct world *world)
{
    uint64_t *words = g_new(uint64_t, WORDS);

    for (uint64_t i = 0; i < WORDS; i++) {
        words[i] = i < WORDS / 2 ? g_rand_int(world->chance) : 0;
    }
    memset(words + WORDS / 4, 0xff, WORDS / 4 * sizeof(*words));
    return words;
}

static void co_store(struct world *world, const char *name, const char *other)
{
    g_autofree uint64_t *words = make_words(world);
    g_autofree uint64_t *more = make_words(world);
    const struct qcow2_bitmap_content contents[] = {
        { .name = name,
          .granularity_bits = GRANULARITY,
          .enabled = true,
          .words = words,
          .word_count = WORDS },
        { .name = other,
          .granularity_bits = GRANULARITY,
          .words = more,
          .word_count = WORDS },
    };
    g_autoptr(GError) err = NULL;

    if (co_qcow2_bitmaps_store(world->image, contents, other == NULL ? 1 : 2,
                               &err) < 0) {
        fail_msg("%s", err->message);
    }
}

enum step {
    BEGIN_A,
    STORE_TWO,
    BEGIN_B,
    STORE_ONE,
    REMOVE,
    BEGIN_WITHOUT,
    REMOVE_LAST,
    STEPS,
};

static bool is_begin(enum step step)
{
    return step == BEGIN_A || step == BEGIN_B || step == BEGIN_WITHOUT;
}

static void co_take_step(struct world *world, enum step step)
{
    int ret = 0;

    switch (step) {
    case BEGIN_A:
        ret = co_qcow2_bitmaps_begin(world->image, stamp_a, NULL);
        break;
    case STORE_TWO: co_store(world, "a", "b"); break;
    case BEGIN_B:
        ret = co_qcow2_bitmaps_begin(world->image, stamp_b, NULL);
        break;
    case STORE_ONE: co_store(world, "a", NULL); break;
    case REMOVE: ret = co_qcow2_bitmap_remove(world->image, "b", NULL); break;
    case BEGIN_WITHOUT:
        ret = co_qcow2_bitmaps_begin(world->image, NULL, NULL);
        break;
    case REMOVE_LAST:
        ret = co_qcow2_bitmap_remove(world->image, "a", NULL);
        break;
    case STEPS: g_assert_not_reached();
    }
    assert_int_equal(ret, 0);
}

static void co_open(struct world *world)
{
    world->image = co_add(world->graph, "driver=qcow2,node-name=image,"
                                        "file=disk,backing=base");
}

static void co_make(struct world *world, uint32_t cluster_bytes)
{
    const struct qcow2_create_options options = {
        .size_bytes = DISK_BYTES,
        .cluster_bytes = cluster_bytes,
        .backing_file = BACKING_NAME,
        .backing_format = "raw",
    };

    world->disk = co_add(world->graph, "driver=crash-disk,node-name=disk");
    assert_int_equal(co_qcow2_create(world->disk, &options, NULL), 0);
    co_add(world->graph, "driver=null-co,node-name=base,size=8388608");
    co_open(world);
}

static void co_crash_at_each_step(struct block_graph *graph, void *opaque)
{
    struct world world = {
        .graph = graph,
        .chance = g_rand_new_with_seed(7),
        .cuts = g_ptr_array_new_with_free_func(free_bytes),
    };
    struct crash_disk *disk;
    g_autofree char *before = NULL;

    co_make(&world, *(const uint32_t *)opaque);
    disk = crash_disk_of(world.disk);
    disk->chance = world.chance;
    before = co_look_now(&world);
    assert_string_equal(before, "");
    for (int step = 0; step < STEPS; step++) {
        g_autofree char *after = NULL;

        disk->moment = take_cuts;
        disk->opaque = &world;
        co_take_step(&world, (enum step)step);
        disk->moment = NULL;
        after = co_look_now(&world);
        co_check_cuts(&world, before, after, is_begin((enum step)step));
        g_free(before);
        before = g_steal_pointer(&after);
    }
    assert_string_equal(before, "");
    assert_true(world.checked > 100);
    assert_int_equal(co_block_del(graph, "image", NULL), 0);
    assert_int_equal(co_block_del(graph, "disk", NULL), 0);
    assert_int_equal(co_block_del(graph, "base", NULL), 0);
    g_ptr_array_unref(world.cuts);
    g_rand_free(world.chance);
}

/* Whatever the header's size, it is replaced at one instant. */
static void each_step_survives_a_crash(void **state)
{
    static const struct block_driver *const drivers[] = {
        &driver_crash_disk,
        &driver_qcow2,
        &driver_null,
        NULL,
    };

    (void)state;
    for (uint32_t cluster_bytes = 512; cluster_bytes <= 32768;
         cluster_bytes *= 4) {
        run_in_graph(drivers, 0, co_crash_at_each_step, &cluster_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_survives_a_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
