/* SPDX-License-Identifier: BSD-3-Clause */
/* Compressed clusters: there and back, and what is not whole is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "base/bytes.h"
#include "drivers/qcow2/codec.h"

static const enum qcow2_compression types[] = { QCOW2_COMPRESSION_ZLIB,
                                                QCOW2_COMPRESSION_ZSTD };

/* Half of it repeats, half does not; the same each time. */
static uint8_t *content(size_t bytes)
{
    uint8_t *made = g_malloc(bytes);
    uint32_t state = 1;

    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        made[i] = i % 64 < 32 ? (uint8_t)(state >> 24) : (uint8_t)(i / 4096);
    }
    return made;
}

static void what_is_compressed_comes_back(void **state)
{
    (void)state;
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        for (size_t bytes = 512; bytes <= 2 * MIB; bytes *= 16) {
            g_autofree uint8_t *in = content(bytes);
            g_autofree uint8_t *packed = g_malloc(bytes);
            g_autofree uint8_t *out = g_malloc(bytes);
            size_t packed_bytes = 0;

            assert_int_equal(qcow2_compress(types[t], in, bytes, packed, bytes,
                                            &packed_bytes),
                             0);
            assert_in_range(packed_bytes, 1, bytes - 1);
            /* Behind a stream is whatever the last sector holds. */
            memset(packed + packed_bytes, 0xa5, bytes - packed_bytes);
            assert_int_equal(
                qcow2_decompress(types[t], packed, bytes, out, bytes), 0);
            assert_memory_equal(in, out, bytes);
        }
    }
}

static void what_cannot_be_made_shorter_is_refused(void **state)
{
    (void)state;
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        g_autofree uint8_t *in = content(65536);
        g_autofree uint8_t *packed = g_malloc(65536);
        size_t packed_bytes = 7;

        assert_int_equal(
            qcow2_compress(types[t], in, 65536, packed, 20000, &packed_bytes),
            -ENOSPC);
        assert_int_equal(packed_bytes, 7);
    }
}

static void a_stream_that_is_cut_off_is_refused(void **state)
{
    (void)state;
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        g_autofree uint8_t *in = content(4096);
        g_autofree uint8_t *packed = g_malloc(4096);
        g_autofree uint8_t *out = g_malloc(8192);
        size_t packed_bytes = 0;

        assert_int_equal(
            qcow2_compress(types[t], in, 4096, packed, 4096, &packed_bytes), 0);
        for (size_t left = 0; left < packed_bytes - 8; left += 13) {
            g_autofree uint8_t *exact = g_memdup2(packed, left);

            assert_int_equal(qcow2_decompress(types[t], exact, left, out, 4096),
                             -EIO);
        }
        /* Whole, but less than a cluster. */
        assert_int_equal(
            qcow2_decompress(types[t], packed, packed_bytes, out, 8192), -EIO);
    }
}

static void a_stream_that_is_longer_than_a_cluster_is_cut_or_refused(
    void **state)
{
    (void)state;
    g_autofree uint8_t *in = content(65536);
    g_autofree uint8_t *packed = g_malloc(65536);
    g_autofree uint8_t *out = g_malloc(4096);
    size_t packed_bytes = 0;

    assert_int_equal(qcow2_compress(QCOW2_COMPRESSION_ZLIB, in, 65536, packed,
                                    65536, &packed_bytes),
                     0);
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZLIB, packed,
                                      packed_bytes, out, 4096),
                     0);
    assert_memory_equal(in, out, 4096);
    assert_int_equal(qcow2_compress(QCOW2_COMPRESSION_ZSTD, in, 65536, packed,
                                    65536, &packed_bytes),
                     0);
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZSTD, packed,
                                      packed_bytes, out, 4096),
                     -EIO);
}

static void noise_is_refused(void **state)
{
    (void)state;
    g_autofree uint8_t *noise = content(4096);
    g_autofree uint8_t *out = g_malloc(65536);

    memset(noise, 0xff, 16);
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        assert_int_equal(qcow2_decompress(types[t], noise, 4096, out, 65536),
                         -EIO);
        assert_int_equal(qcow2_decompress(types[t], noise, 0, out, 65536),
                         -EIO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_compressed_comes_back),
        cmocka_unit_test(what_cannot_be_made_shorter_is_refused),
        cmocka_unit_test(a_stream_that_is_cut_off_is_refused),
        cmocka_unit_test(
            a_stream_that_is_longer_than_a_cluster_is_cut_or_refused),
        cmocka_unit_test(noise_is_refused),
    };

    return cmocka_run_group_tests_name("drivers/qcow2/codec", tests, NULL,
                                       NULL);
}
