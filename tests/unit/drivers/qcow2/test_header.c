/* SPDX-License-Identifier: BSD-3-Clause */
/* Headers: what is written reads back, what must be kept is kept, and every
 * way of being wrong is refused with a sentence that names it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "drivers/qcow2/header.h"

/* A sound header of a 1 GiB disk. */
static struct qcow2_header *sound(void)
{
    struct qcow2_header *header = qcow2_header_new();

    header->size_bytes = GIB;
    header->l1_count = 2;
    header->l1_offset = 0x30000;
    header->refcount_table_offset = 0x10000;
    header->refcount_table_clusters = 1;
    return header;
}

static GByteArray *format(const struct qcow2_header *header)
{
    GByteArray *cluster = NULL;
    g_autoptr(GError) err = NULL;

    if (qcow2_header_format(header, &cluster, &err) != 0) {
        fail_msg("%s", err->message);
    }
    assert_int_equal(cluster->len, 1U << header->cluster_bits);
    return cluster;
}

static struct qcow2_header *parse(const GByteArray *cluster)
{
    g_autoptr(GError) err = NULL;
    struct qcow2_header *header =
        qcow2_header_parse(cluster->data, cluster->len, "a.qcow2", &err);

    if (header == NULL) {
        fail_msg("%s", err->message);
    }
    return header;
}

/* Refused, with a sentence that contains `why`. */
static void assert_refused(const uint8_t *bytes, size_t length, const char *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(qcow2_header) header = NULL;
    /* A copy of exact size, so that the sanitizer sees a read behind it. */
    g_autofree uint8_t *copy = g_malloc(length);

    memcpy(copy, bytes, length);
    header = qcow2_header_parse(copy, length, "a.qcow2", &err);
    assert_null(header);
    assert_non_null(err);
    if (strstr(err->message, why) == NULL) {
        fail_msg("'%s' is not in '%s'", why, err->message);
    }
    assert_non_null(strstr(err->message, "a.qcow2"));
}

static void a_formatted_header_parses_to_the_same(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->l1_count = 4;
    header->snapshot_count = 3;
    header->snapshots_offset = 0x90000;
    header->incompatible =
        QCOW2_INCOMPATIBLE_COMPRESSION | QCOW2_INCOMPATIBLE_EXTENDED_L2;
    header->compatible = QCOW2_COMPATIBLE_LAZY;
    header->autoclear = QCOW2_AUTOCLEAR_BITMAPS;
    header->compression = QCOW2_COMPRESSION_ZSTD;
    header->refcount_order = 6;
    header->backing_file = g_strdup("base.qcow2");
    header->backing_format = g_strdup("qcow2");
    header->data_file = g_strdup("data.raw");
    header->bitmaps.count = 2;
    header->bitmaps.directory_bytes = 64;
    header->bitmaps.directory_offset = 0x50000;
    g_autoptr(GByteArray) cluster = format(header);
    g_autoptr(qcow2_header) read = parse(cluster);

    assert_int_equal(read->version, 3);
    assert_int_equal(read->cluster_bits, 16);
    assert_int_equal(read->refcount_order, 6);
    assert_int_equal(read->size_bytes, GIB);
    assert_int_equal(read->l1_count, 4);
    assert_int_equal(read->l1_offset, 0x30000);
    assert_int_equal(read->refcount_table_offset, 0x10000);
    assert_int_equal(read->refcount_table_clusters, 1);
    assert_int_equal(read->snapshot_count, 3);
    assert_int_equal(read->snapshots_offset, 0x90000);
    assert_int_equal(read->incompatible, header->incompatible);
    assert_int_equal(read->compatible, header->compatible);
    assert_int_equal(read->autoclear, header->autoclear);
    assert_int_equal(read->compression, QCOW2_COMPRESSION_ZSTD);
    assert_string_equal(read->backing_file, "base.qcow2");
    assert_string_equal(read->backing_format, "qcow2");
    assert_string_equal(read->data_file, "data.raw");
    assert_memory_equal(&read->bitmaps, &header->bitmaps,
                        sizeof(read->bitmaps));
    assert_int_equal(read->extensions->len, 0);
}

static void version_2_has_neither_bits_nor_widths(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->version = 2;
    header->backing_file = g_strdup("base");
    header->backing_format = g_strdup("raw");
    g_autoptr(GByteArray) cluster = format(header);
    g_autoptr(qcow2_header) read = parse(cluster);

    assert_int_equal(read->version, 2);
    assert_int_equal(read->refcount_order, 4);
    assert_int_equal(read->incompatible, 0);
    assert_string_equal(read->backing_file, "base");
    assert_string_equal(read->backing_format, "raw");
}

static void what_it_does_not_know_is_written_back(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();
    struct qcow2_extension *extension = g_new(struct qcow2_extension, 1);

    extension->type = 0x12345678;
    extension->data = g_bytes_new("thirteen byte", 13);
    g_ptr_array_add(header->extensions, extension);
    header->unknown_fields = g_bytes_new("\0\0\0\0\0\0\0\7future", 14);
    header->compatible = UINT64_C(1) << 40;
    header->autoclear = UINT64_C(1) << 41;
    g_autoptr(GByteArray) first = format(header);
    g_autoptr(qcow2_header) read = parse(first);
    g_autoptr(qcow2_header) copy = qcow2_header_copy(read);
    g_autoptr(GByteArray) second = format(copy);

    assert_int_equal(read->extensions->len, 1);
    assert_true(g_bytes_equal(read->unknown_fields, header->unknown_fields));
    assert_int_equal(first->len, second->len);
    assert_memory_equal(first->data, second->data, first->len);
}

static void a_small_cluster_does_without_feature_names(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->cluster_bits = 9;
    header->size_bytes = 32 * KIB;
    header->backing_file = g_strnfill(380, 'x');
    g_autoptr(GByteArray) cluster = format(header);
    g_autoptr(qcow2_header) read = parse(cluster);
    assert_string_equal(read->backing_file, header->backing_file);
}

static void names_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) too_long = NULL;
    GByteArray *cluster = NULL;

    header->cluster_bits = 9;
    header->backing_file = g_strnfill(500, 'x');
    assert_int_equal(qcow2_header_format(header, &cluster, &err), -ENOSPC);
    assert_non_null(err);
    g_free(header->backing_file);
    header->cluster_bits = 16;
    header->backing_file = g_strnfill(1024, 'x');
    assert_int_equal(qcow2_header_format(header, &cluster, &too_long), -ENOSPC);
    assert_non_null(too_long);
    assert_null(cluster);
}

/* One field of a sound header, overwritten. */
struct wrong_field {
    size_t offset;
    unsigned int bytes; /* 4 or 8 */
    uint64_t value;
    const char *why;
};

static void each_wrong_field_is_refused_by_name(void **state)
{
    (void)state;
    static const struct wrong_field wrong[] = {
        { QCOW2_MAGIC, 4, 0, "magic" },
        { QCOW2_VERSION, 4, 1, "version 1" },
        { QCOW2_VERSION, 4, 4, "version 4" },
        { QCOW2_CLUSTER_BITS, 4, 8, "cluster size" },
        { QCOW2_CLUSTER_BITS, 4, 22, "cluster size" },
        { QCOW2_CLUSTER_BITS, 4, UINT32_MAX, "cluster size" },
        { QCOW2_CRYPT_METHOD, 4, 1, "AES" },
        { QCOW2_CRYPT_METHOD, 4, 2, "LUKS" },
        { QCOW2_CRYPT_METHOD, 4, 3, "encryption method 3" },
        { QCOW2_SIZE, 8, UINT64_MAX, "too large" },
        { QCOW2_SIZE, 8, GIB + 1, "needs 3" },
        { QCOW2_L1_COUNT, 4, 1, "needs 2" },
        { QCOW2_L1_COUNT, 4, UINT32_MAX, "L1 table has" },
        { QCOW2_L1_OFFSET, 8, 0, "L1 table cannot" },
        { QCOW2_L1_OFFSET, 8, 0x30200, "L1 table cannot" },
        { QCOW2_L1_OFFSET, 8, UINT64_C(1) << 60, "L1 table cannot" },
        { QCOW2_L1_OFFSET, 8, -UINT64_C(0x10000), "L1 table cannot" },
        { QCOW2_REFCOUNT_TABLE_CLUSTERS, 4, 0, "no refcount table" },
        { QCOW2_REFCOUNT_TABLE_CLUSTERS, 4, UINT32_MAX, "refcount table has" },
        { QCOW2_REFCOUNT_TABLE_OFFSET, 8, 0, "refcount table cannot" },
        { QCOW2_REFCOUNT_TABLE_OFFSET, 8, 1, "refcount table cannot" },
        { QCOW2_SNAPSHOT_COUNT, 4, 65537, "65537 snapshots" },
        { QCOW2_SNAPSHOT_COUNT, 4, 1, "snapshot table cannot" },
        { QCOW2_BACKING_OFFSET, 8, 8, "backing file's name" },
        { QCOW2_BACKING_OFFSET, 8, UINT64_MAX, "backing file's name" },
        { QCOW2_INCOMPATIBLE, 8, UINT64_C(1) << 5, "bit 5" },
        { QCOW2_INCOMPATIBLE, 8, UINT64_C(1) << 63, "bit 63" },
        { QCOW2_INCOMPATIBLE, 8, 8, "compression type 0" },
        { QCOW2_COMPRESSION_TYPE, 4, UINT32_C(1) << 24, "compression type 1" },
        { QCOW2_AUTOCLEAR, 8, 1, "bitmaps" },
        { QCOW2_REFCOUNT_ORDER, 4, 7, "2^7" },
        { QCOW2_HEADER_LENGTH, 4, 96, "header of 96" },
        { QCOW2_HEADER_LENGTH, 4, 105, "header of 105" },
        { QCOW2_HEADER_LENGTH, 4, 0x10008, "header of 65544" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(qcow2_header) header = sound();
        header->backing_file = g_strdup("base");
        g_autoptr(GByteArray) cluster = format(header);

        if (wrong[i].bytes == 4) {
            store_be32(cluster->data + wrong[i].offset,
                       (uint32_t)wrong[i].value);
        } else {
            store_be64(cluster->data + wrong[i].offset, wrong[i].value);
        }
        assert_refused(cluster->data, cluster->len, wrong[i].why);
    }
}

static void an_unknown_feature_is_refused_by_the_images_name_for_it(
    void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();
    struct qcow2_extension *extension = g_new(struct qcow2_extension, 1);
    uint8_t table[48] = { 0, 17, 'w', 'a', 'r', 'p' };

    extension->type = QCOW2_EXTENSION_FEATURE_NAMES;
    extension->data = g_bytes_new(table, sizeof(table));
    g_ptr_array_add(header->extensions, extension);
    header->incompatible = UINT64_C(1) << 17 | UINT64_C(1) << 18;
    g_autoptr(GByteArray) cluster = format(header);
    assert_refused(cluster->data, cluster->len, "'warp' (bit 17), bit 18");
}

static void subclusters_in_small_clusters_are_refused(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->cluster_bits = 13;
    header->size_bytes = MIB;
    header->incompatible = QCOW2_INCOMPATIBLE_EXTENDED_L2;
    g_autoptr(GByteArray) cluster = format(header);
    assert_refused(cluster->data, cluster->len, "16 KiB");
}

static void a_raw_data_file_excludes_a_backing_file(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->incompatible = QCOW2_INCOMPATIBLE_DATA_FILE;
    header->autoclear = QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    header->backing_file = g_strdup("base");
    g_autoptr(GByteArray) cluster = format(header);
    assert_refused(cluster->data, cluster->len, "exclude each other");
}

/* Where an extension begins in the cluster of a sound() header. */
#define EXTENSIONS 112

static void wrong_extensions_are_refused(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();
    g_autoptr(GByteArray) cluster = format(header);

    store_be32(cluster->data + EXTENSIONS, 0x1234);
    store_be32(cluster->data + EXTENSIONS + 4, UINT32_MAX);
    assert_refused(cluster->data, cluster->len, "more than fit");
    store_be32(cluster->data + EXTENSIONS, QCOW2_EXTENSION_ENCRYPTION);
    store_be32(cluster->data + EXTENSIONS + 4, 16);
    assert_refused(cluster->data, cluster->len, "encryption");
    store_be32(cluster->data + EXTENSIONS, QCOW2_EXTENSION_BACKING_FORMAT);
    store_be32(cluster->data + EXTENSIONS + 4, 2000);
    assert_refused(cluster->data, cluster->len, "backing format has 2000");
    store_be32(cluster->data + EXTENSIONS + 4, 8);
    memcpy(cluster->data + EXTENSIONS + 8, "qcow2\0xx", 8);
    assert_refused(cluster->data, cluster->len, "NUL");
    memcpy(cluster->data + EXTENSIONS + 8, "qcow2222", 8);
    memcpy(cluster->data + EXTENSIONS + 16, cluster->data + EXTENSIONS, 16);
    assert_refused(cluster->data, cluster->len, "twice");
}

static void bitmaps_are_judged_only_while_their_bit_is_set(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->bitmaps.count = 1;
    header->bitmaps.directory_bytes = 32;
    header->bitmaps.directory_offset = 0x50001;
    g_autoptr(GByteArray) cluster = format(header);
    g_autoptr(qcow2_header) read = parse(cluster);
    assert_int_equal(read->bitmaps.count, 0);
    store_be64(cluster->data + QCOW2_AUTOCLEAR, QCOW2_AUTOCLEAR_BITMAPS);
    assert_refused(cluster->data, cluster->len, "bitmaps extension is invalid");
}

static void every_length_of_file_is_judged(void **state)
{
    (void)state;
    g_autoptr(qcow2_header) header = sound();

    header->backing_file = g_strdup("base");
    g_autoptr(GByteArray) cluster = format(header);
    for (size_t length = 1; length < 600; length++) {
        g_autofree uint8_t *copy = g_malloc(length);
        g_autoptr(GError) err = NULL;
        g_autoptr(qcow2_header) read = NULL;

        memcpy(copy, cluster->data, length);
        read = qcow2_header_parse(copy, length, "a.qcow2", &err);
        assert_true((read == NULL) == (err != NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_formatted_header_parses_to_the_same),
        cmocka_unit_test(version_2_has_neither_bits_nor_widths),
        cmocka_unit_test(what_it_does_not_know_is_written_back),
        cmocka_unit_test(a_small_cluster_does_without_feature_names),
        cmocka_unit_test(names_that_do_not_fit_are_refused),
        cmocka_unit_test(each_wrong_field_is_refused_by_name),
        cmocka_unit_test(
            an_unknown_feature_is_refused_by_the_images_name_for_it),
        cmocka_unit_test(subclusters_in_small_clusters_are_refused),
        cmocka_unit_test(a_raw_data_file_excludes_a_backing_file),
        cmocka_unit_test(wrong_extensions_are_refused),
        cmocka_unit_test(bitmaps_are_judged_only_while_their_bit_is_set),
        cmocka_unit_test(every_length_of_file_is_judged),
    };

    return cmocka_run_group_tests_name("drivers/qcow2/header", tests, NULL,
                                       NULL);
}
