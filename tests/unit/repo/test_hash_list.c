/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of hashes: pieces, zeroes, storing, and every changed byte found. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "repo/durable.h"
#include "repo/hash_list.h"
#include "scratch.h"

/* Two whole pieces and 512 bytes. */
#define DISK_BYTES (2 * HASH_PIECE_BYTES + 512)

static void a_new_list_is_of_zeroes(void **state)
{
    g_autoptr(hash_list_auto) list = hash_list_new(DISK_BYTES);
    g_autofree uint8_t *zeroes = g_malloc0(HASH_PIECE_BYTES);

    (void)state;
    assert_int_equal(hash_list_count(list), 3);
    assert_int_equal(hash_list_piece_bytes(list, 0), HASH_PIECE_BYTES);
    assert_int_equal(hash_list_piece_bytes(list, 2), 512);
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(hash_list_is_zero(list, i));
        assert_true(hash_list_matches(list, i, zeroes));
    }
}

static void a_hash_is_the_sha256_of_the_piece(void **state)
{
    /* SHA-256 of "abc", from FIPS 180-2, appendix B.1. */
    static const uint8_t expected[HASH_BYTES] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
        0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
        0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
    };
    g_autoptr(hash_list_auto) list = hash_list_new(3);

    (void)state;
    hash_list_set(list, 0, "abc");
    assert_memory_equal(hash_list_get(list, 0), expected, HASH_BYTES);
    assert_true(hash_list_matches(list, 0, "abc"));
    assert_false(hash_list_matches(list, 0, "abd"));
    assert_false(hash_list_is_zero(list, 0));
}

static void what_is_stored_loads(void **state)
{
    struct scratch *scratch = *state;
    g_autoptr(hash_list_auto) list = hash_list_new(DISK_BYTES);
    g_autofree uint8_t *data = g_malloc0(HASH_PIECE_BYTES);
    g_autofree char *root = NULL;

    data[5] = 1;
    hash_list_set(list, 1, data);
    assert_int_equal(
        hash_list_store(list, scratch->fd, "x.hashes", &root, NULL), 0);
    g_autoptr(hash_list_auto) read =
        hash_list_load(scratch->fd, "x.hashes", DISK_BYTES, root, NULL);
    assert_non_null(read);
    assert_true(hash_list_is_zero(read, 0));
    assert_true(hash_list_matches(read, 1, data));
    assert_null(
        hash_list_load(scratch->fd, "x.hashes", DISK_BYTES + 1, root, NULL));
    assert_null(
        hash_list_load(scratch->fd, "y.hashes", DISK_BYTES, root, NULL));
}

static void every_changed_byte_is_found(void **state)
{
    struct scratch *scratch = *state;
    g_autoptr(hash_list_auto) list = hash_list_new(DISK_BYTES);
    g_autofree char *root = NULL;
    struct stat status;

    assert_int_equal(
        hash_list_store(list, scratch->fd, "x.hashes", &root, NULL), 0);
    assert_int_equal(fstatat(scratch->fd, "x.hashes", &status, 0), 0);
    int fd = openat(scratch->fd, "x.hashes", O_RDWR | O_CLOEXEC);
    for (off_t at = 0; at < status.st_size; at++) {
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_null(
            hash_list_load(scratch->fd, "x.hashes", DISK_BYTES, root, NULL));
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    assert_int_equal(ftruncate(fd, status.st_size - 1), 0);
    assert_null(
        hash_list_load(scratch->fd, "x.hashes", DISK_BYTES, root, NULL));
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_list_is_of_zeroes),
        cmocka_unit_test(a_hash_is_the_sha256_of_the_piece),
        cmocka_unit_test_setup_teardown(what_is_stored_loads, scratch_setup,
                                        scratch_teardown),
        cmocka_unit_test_setup_teardown(every_changed_byte_is_found,
                                        scratch_setup, scratch_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
