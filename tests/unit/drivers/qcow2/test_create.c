/* SPDX-License-Identifier: BSD-3-Clause */
/* Layout and tables of new qcow2 images, for shapes of all kinds. */
#include "block_test.h"

#include <errno.h>
#include <limits.h>

#include "base/bytes.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/create_layout.h"
#include "drivers/qcow2/header.h"

/* A table as it would be written, whole. */
static uint8_t *table_of(const struct qcow2_layout *layout,
                         const struct qcow2_area *area,
                         qcow2_layout_fill *fill)
{
    uint64_t bytes = area->clusters * layout->shape.cluster_bytes;
    uint8_t *table = g_malloc0(bytes);
    size_t half = bytes / 2;

    /* In two pieces: one must go on where the other ends. */
    fill(layout, 0, table, half);
    fill(layout, half, table + half, bytes - half);
    return table;
}

static uint64_t refcount_at(const uint8_t *blocks,
                            unsigned int order,
                            uint64_t index)
{
    uint64_t width = UINT64_C(1) << order;
    uint64_t value = 0;

    if (order < 3) {
        return (blocks[index * width / 8] >> (index * width % 8)) &
               ((1U << width) - 1);
    }
    for (uint64_t i = 0; i < width / 8; i++) {
        value = value << 8 | blocks[index * (width / 8) + i];
    }
    return value;
}

static void assert_refcounts(const struct qcow2_layout *layout)
{
    g_autofree uint8_t *blocks = table_of(layout, &layout->refcount_blocks,
                                          qcow2_layout_fill_refcount_blocks);
    g_autofree uint8_t *table = table_of(layout, &layout->refcount_table,
                                         qcow2_layout_fill_refcount_table);
    uint64_t cluster = layout->shape.cluster_bytes;
    uint64_t used = layout->file_bytes / cluster;
    uint64_t counted = (layout->refcount_blocks.clusters * cluster * 8) >>
                       layout->shape.refcount_order;

    assert_true(counted >= used);
    for (uint64_t i = 0; i < counted; i++) {
        assert_int_equal(refcount_at(blocks, layout->shape.refcount_order, i),
                         i < used);
    }
    for (uint64_t i = 0; i < layout->refcount_table.clusters * cluster / 8;
         i++) {
        assert_int_equal(load_be64(table + i * 8),
                         i < layout->refcount_blocks.clusters
                             ? layout->refcount_blocks.offset_bytes +
                                   i * cluster
                             : 0);
    }
}

/* Areas follow each other without gap or overlap, to the end of the file. */
static void assert_areas(const struct qcow2_layout *layout)
{
    const struct qcow2_area *areas[] = {
        &layout->refcount_table,
        &layout->refcount_blocks,
        &layout->l1,
        &layout->l2,
        &layout->data,
    };
    uint64_t end = layout->shape.cluster_bytes;

    for (size_t i = 0; i < G_N_ELEMENTS(areas); i++) {
        if (areas[i] == &layout->data && layout->shape.external_data) {
            continue;
        }
        assert_int_equal(areas[i]->offset_bytes, end);
        end += areas[i]->clusters * layout->shape.cluster_bytes;
    }
    assert_int_equal(layout->file_bytes, end);
}

static void every_cluster_is_counted_once(void **state)
{
    (void)state;
    for (unsigned int bits = 9; bits <= 16; bits++) {
        for (unsigned int order = 0; order <= 6; order++) {
            for (unsigned int kind = 0; kind < 2; kind++) {
                struct qcow2_layout layout;
                const struct qcow2_shape shape = {
                    .size_bytes = 3 * MIB + 512,
                    .cluster_bytes = UINT64_C(1) << bits,
                    .refcount_order = order,
                    .preallocated = kind == 1,
                };

                assert_int_equal(qcow2_layout_init(&layout, &shape, NULL), 0);
                assert_areas(&layout);
                assert_refcounts(&layout);
            }
        }
    }
}

static void check_mapping(const struct qcow2_shape *shape)
{
    uint64_t words = shape->extended_l2 ? 2 : 1;
    uint64_t per_table = shape->cluster_bytes / 8 / words;
    struct qcow2_layout layout;

    assert_int_equal(qcow2_layout_init(&layout, shape, NULL), 0);
    g_autofree uint8_t *l1 =
        table_of(&layout, &layout.l1, qcow2_layout_fill_l1);
    g_autofree uint8_t *l2 =
        table_of(&layout, &layout.l2, qcow2_layout_fill_l2);

    for (uint64_t i = 0; i < layout.l2.clusters; i++) {
        assert_int_equal(load_be64(l1 + i * 8),
                         (layout.l2.offset_bytes + i * shape->cluster_bytes) |
                             QCOW2_ENTRY_COPIED);
    }
    for (uint64_t i = 0; i < layout.l2.clusters * per_table; i++) {
        uint64_t entry = load_be64(l2 + i * 8 * words);
        uint64_t offset = i * shape->cluster_bytes;
        bool used = offset < shape->size_bytes;

        offset += shape->external_data ? 0 : layout.data.offset_bytes;
        assert_int_equal(entry, used ? offset | QCOW2_ENTRY_COPIED : 0);
        if (words == 2) {
            assert_int_equal(load_be64(l2 + i * 16 + 8),
                             used && !shape->has_backing ? UINT32_MAX : 0);
        }
    }
}

static void preallocated_clusters_are_mapped_in_a_row(void **state)
{
    (void)state;
    check_mapping(&(struct qcow2_shape){ .size_bytes = 5 * MIB + 512,
                                         .cluster_bytes = 4096,
                                         .refcount_order = 4,
                                         .preallocated = true });
    check_mapping(&(struct qcow2_shape){ .size_bytes = 40 * MIB,
                                         .cluster_bytes = 16 * KIB,
                                         .refcount_order = 4,
                                         .extended_l2 = true,
                                         .preallocated = true });
}

static void external_data_lies_where_the_guest_sees_it(void **state)
{
    (void)state;
    check_mapping(&(struct qcow2_shape){ .size_bytes = 5 * MIB + 512,
                                         .cluster_bytes = 4096,
                                         .refcount_order = 4,
                                         .preallocated = true,
                                         .external_data = true });
}

static void preallocation_hides_no_backing_file(void **state)
{
    (void)state;
    check_mapping(&(struct qcow2_shape){ .size_bytes = 40 * MIB,
                                         .cluster_bytes = 16 * KIB,
                                         .refcount_order = 4,
                                         .extended_l2 = true,
                                         .preallocated = true,
                                         .has_backing = true });
}

static void what_the_tables_cannot_hold_is_refused(void **state)
{
    struct qcow2_layout layout;
    struct qcow2_shape shape = { .size_bytes = 128 * GIB,
                                 .cluster_bytes = 512,
                                 .refcount_order = 4 };
    g_autoptr(GError) err = NULL;

    (void)state;
    assert_int_equal(qcow2_layout_init(&layout, &shape, NULL), 0);
    shape.size_bytes++;
    assert_int_equal(qcow2_layout_init(&layout, &shape, &err), -EFBIG);
    assert_error(&err, "larger clusters");
    /* Here the refcount table is what is full. */
    shape.size_bytes = 100 * GIB;
    shape.refcount_order = 6;
    shape.preallocated = true;
    assert_int_equal(qcow2_layout_init(&layout, &shape, NULL), -EFBIG);
}

static void an_empty_disk_has_no_table(void **state)
{
    struct qcow2_layout layout;

    (void)state;
    assert_int_equal(
        qcow2_layout_init(&layout,
                          &(struct qcow2_shape){ .cluster_bytes = 65536,
                                                 .refcount_order = 4,
                                                 .preallocated = true },
                          NULL),
        0);
    assert_int_equal(layout.l1_count, 0);
    assert_int_equal(layout.file_bytes, 3 * 65536);
}

/* --- Creating ----------------------------------------------------------------- */

static void co_test_failed_write(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,size=1M");
    const struct qcow2_create_options options = { .size_bytes = MIB };
    g_autoptr(GError) err = NULL;
    uint8_t start[4];

    (void)opaque;
    co_go_home(node);
    assert_int_equal(co_block_pwrite(node, 0, 4, "QFI\xfb", 0), 0);
    memory_of(node)->write_error = -EIO;
    assert_int_equal(co_qcow2_create(node, &options, &err), -EIO);
    assert_error(&err, "'m'");
    memory_of(node)->write_error = 0;
    memory_of(node)->flush_error = -ENOSPC;
    assert_int_equal(co_qcow2_create(node, &options, NULL), -ENOSPC);
    /* Nothing takes what is there for an image. */
    assert_int_equal(co_block_pread(node, 0, sizeof(start), start), 0);
    assert_false(qcow2_magic_matches(start, sizeof(start)));
    co_go_main(node);
}

static void half_an_image_is_none(void **state)
{
    (void)state;
    run_in_graph(test_drivers, 0, co_test_failed_write, NULL);
}

static bool stop_later(void *opaque)
{
    unsigned int *left = opaque;

    return (*left)-- == 0;
}

static void co_test_stop(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,size=1M");
    unsigned int left = 3;
    const struct preallocation_stop stop = { stop_later, &left };
    const struct qcow2_create_options options = {
        .size_bytes = 16 * MIB,
        .preallocation = PREALLOCATION_FULL,
        .stop = &stop,
    };
    uint8_t start[4];

    (void)opaque;
    co_go_home(node);
    assert_int_equal(co_qcow2_create(node, &options, NULL), -ECANCELED);
    assert_int_equal(left, UINT_MAX);
    assert_int_equal(co_block_pread(node, 0, sizeof(start), start), 0);
    assert_false(qcow2_magic_matches(start, sizeof(start)));
    co_go_main(node);
}

static void a_preallocation_that_is_stopped_leaves_no_image(void **state)
{
    (void)state;
    run_in_graph(test_drivers, 0, co_test_stop, NULL);
}

static void co_test_fixed_size(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,size=1M");
    struct qcow2_create_options options = { .size_bytes = GIB };
    g_autoptr(qcow2_header) header = NULL;
    g_autofree uint8_t *cluster = g_malloc(65536);
    g_autoptr(GError) err = NULL;

    (void)opaque;
    co_go_home(node);
    memset(memory_of(node)->bytes, 0xaa, MIB);
    assert_int_equal(co_qcow2_create(node, &options, &err), 0);
    assert_int_equal(co_block_pread(node, 0, 65536, cluster), 0);
    header = qcow2_header_parse(cluster, 65536, "m", NULL);
    assert_non_null(header);
    assert_int_equal(header->size_bytes, GIB);
    assert_int_equal(co_block_pread(node, header->l1_offset, 65536, cluster),
                     0);
    assert_int_equal(cluster[0], 0);
    options.preallocation = PREALLOCATION_METADATA;
    assert_int_equal(co_qcow2_create(node, &options, &err), -ENOSPC);
    assert_error(&err, "cannot grow");
    co_go_main(node);
}

static void a_device_must_be_large_enough(void **state)
{
    struct block_driver fixed = *test_drivers[0];
    const struct block_driver *const drivers[] = { &fixed, NULL };

    (void)state;
    fixed.co_truncate = NULL;
    run_in_graph(drivers, 0, co_test_fixed_size, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cluster_is_counted_once),
        cmocka_unit_test(preallocated_clusters_are_mapped_in_a_row),
        cmocka_unit_test(external_data_lies_where_the_guest_sees_it),
        cmocka_unit_test(preallocation_hides_no_backing_file),
        cmocka_unit_test(what_the_tables_cannot_hold_is_refused),
        cmocka_unit_test(an_empty_disk_has_no_table),
        cmocka_unit_test(half_an_image_is_none),
        cmocka_unit_test(a_preallocation_that_is_stopped_leaves_no_image),
        cmocka_unit_test(a_device_must_be_large_enough),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
