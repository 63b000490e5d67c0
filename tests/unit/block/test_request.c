/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests against a byte array, alignment, zeroes, flags, sizes. */
#include "block_test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define REQUEST_TEST(name)                                       \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(test_drivers, 0, co_##name, NULL);                \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

#define DISK_BYTES 65536
#define WRITERS    8
#define ROUNDS     150

/* One disk that many coroutines write to at once, each in a region of its own,
 * whose borders lie within blocks: only a lost update can break it. */
struct writers {
    struct block_node *node;
    uint8_t expected[DISK_BYTES];
    GRand *random;
    unsigned int left;
    struct co_queue done;
    unsigned int next;
};

static void check_region(struct writers *writers,
                         uint64_t start,
                         uint64_t bytes)
{
    uint8_t *buffer = g_malloc(bytes);

    assert_int_equal(co_block_pread(writers->node, start, bytes, buffer), 0);
    assert_memory_equal(buffer, writers->expected + start, bytes);
    g_free(buffer);
}

static void co_write_region(void *opaque)
{
    struct writers *writers = opaque;
    uint64_t region = DISK_BYTES / WRITERS;
    uint64_t first = writers->next++ * region + 100;

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = first + (uint64_t)g_rand_int_range(writers->random, 0,
                                                            (int)region - 1);
        uint64_t wanted = (uint64_t)g_rand_int_range(writers->random, 1, 6000);
        uint64_t end = min_u64(first + region, DISK_BYTES);
        uint64_t bytes = start < end ? min_u64(wanted, end - start) : 0;
        int kind = g_rand_int_range(writers->random, 0, 10);
        uint8_t *buffer;

        if (bytes == 0) {
            continue;
        }
        if (kind == 0) {
            memset(writers->expected + start, 0, bytes);
            assert_int_equal(
                co_block_write_zeroes(writers->node, start, bytes, 0), 0);
            continue;
        }
        if (kind == 1) {
            check_region(writers, start, bytes);
            continue;
        }
        buffer = g_malloc(bytes);
        memset(buffer, g_rand_int_range(writers->random, 1, 255), bytes);
        memcpy(writers->expected + start, buffer, bytes);
        assert_int_equal(
            co_block_pwrite(writers->node, start, bytes, buffer, 0), 0);
        g_free(buffer);
    }
    writers->left--;
    co_queue_wake_all(&writers->done);
}

static void co_hammer(struct block_graph *graph, const char *options)
{
    guint32 seed = g_random_int();
    struct writers *writers = g_new0(struct writers, 1);

    print_message("seed %u for %s\n", seed, options);
    writers->node = co_add(graph, options);
    writers->random = g_rand_new_with_seed(seed);
    writers->left = WRITERS;
    co_queue_init(&writers->done);
    for (int i = 0; i < WRITERS; i++) {
        co_enter(co_write_region, writers);
    }
    while (writers->left > 0) {
        co_queue_wait(&writers->done);
    }
    check_region(writers, 0, DISK_BYTES);
    check_region(writers, 1, DISK_BYTES - 2);
    g_rand_free(writers->random);
    g_free(writers);
}

/* Random unaligned writes from many sides lose nothing, whatever the blocks. */
REQUEST_TEST(unaligned_writes_lose_nothing)
{
    static const unsigned int alignments[] = { 1, 512, 4096 };

    (void)opaque;
    for (size_t i = 0; i < G_N_ELEMENTS(alignments); i++) {
        g_autofree char *options = g_strdup_printf(
            "filter,node-name=f%zu,file.driver=memory,"
            "file.node-name=m%zu,file.size=%d,file.alignment=%u",
            i, i, DISK_BYTES, alignments[i]);
        g_autofree char *name = g_strdup_printf("m%zu", i);

        co_hammer(graph, options);
        assert_false(memory_of(block_find(graph, name, NULL))->misaligned);
    }
}

/* More vectors than the kernel takes with two added still arrive in order. */
REQUEST_TEST(many_vectors_on_blocks)
{
    struct block_node *node =
        co_add(graph, "memory,node-name=m,alignment=4096");
    struct iovec *iov = g_new(struct iovec, 1024);
    uint8_t *bytes = g_malloc(1024 * 3);
    uint8_t *back = g_malloc0(1024 * 3);

    (void)opaque;
    for (int i = 0; i < 1024 * 3; i++) {
        bytes[i] = (uint8_t)(i * 7 + 1);
    }
    for (int i = 0; i < 1024; i++) {
        iov[i] = (struct iovec){ bytes + i * 3, 3 };
    }
    assert_int_equal(co_block_pwritev(node, 5, 3072, iov, 1024, 0), 0);
    for (int i = 0; i < 1024; i++) {
        iov[i].iov_base = back + i * 3;
    }
    assert_int_equal(co_block_preadv(node, 5, 3072, iov, 1024), 0);
    assert_memory_equal(bytes, back, 3072);
    g_free(iov);
    g_free(bytes);
    g_free(back);
}

/* What leaves the node is refused, also where offset + bytes overflows. */
REQUEST_TEST(ranges_are_checked)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,size=4096");
    struct block_extent extent;
    uint8_t byte = 1;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    assert_int_equal(co_block_pread(node, 4096, 1, &byte), -EINVAL);
    assert_int_equal(co_block_pread(node, UINT64_MAX, 2, &byte), -EINVAL);
    assert_int_equal(co_block_pwrite(node, 4096, 1, &byte, 0), -ENOSPC);
    assert_int_equal(co_block_write_zeroes(node, 1, UINT64_MAX, 0), -ENOSPC);
    assert_int_equal(co_block_discard(node, 4000, 100), -ENOSPC);
    assert_int_equal(block_try_preadv(node, 4096, 1, &iov, 1), -EINVAL);
    assert_int_equal(block_try_pwritev(node, 4096, 1, &iov, 1), -ENOSPC);
    assert_int_equal(co_block_status(node, 4096, 1, &extent), -EINVAL);
    assert_int_equal(co_block_pread(node, 4096, 0, &byte), 0);
    assert_int_equal(co_block_pwrite(node, 4096, 0, &byte, 0), 0);
}

/* Nothing changes a read-only node. */
REQUEST_TEST(read_only_nodes_are_not_written)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,read-only=on");
    g_autoptr(GError) err = NULL;
    uint8_t byte = 1;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), -EROFS);
    assert_int_equal(co_block_write_zeroes(node, 0, 1, 0), -EROFS);
    assert_int_equal(co_block_discard(node, 0, 1), -EROFS);
    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), -EROFS);
    assert_int_equal(co_block_truncate(node, 1 << 20, false, &err), -EROFS);
    assert_error(&err, "read-only");
}

/* FUA on a driver without it is a flush after the write; cache.no-flush drops
 * both it and flushes. */
REQUEST_TEST(durability_is_made_or_dropped)
{
    struct block_node *node =
        co_add(graph, "filter,node-name=f,file.driver=memory,file.node-name=m");
    struct memory_state *memory = memory_of(block_find(graph, "m", NULL));
    uint8_t byte = 1;

    (void)opaque;
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), 0);
    assert_int_equal(memory->flushes, 0);
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, BLOCK_FUA), 0);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(memory->last_flags, 0);
    assert_int_equal(co_block_write_zeroes(node, 0, 9, BLOCK_FUA), 0);
    assert_int_equal(memory->flushes, 2);
    memory->flush_error = -EIO;
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, BLOCK_FUA), -EIO);
    assert_int_equal(co_block_flush(node), -EIO);

    node = co_add(graph, "filter,node-name=n,no-flush=on,"
                         "file.driver=memory,file.node-name=o");
    memory = memory_of(block_find(graph, "o", NULL));
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, BLOCK_FUA), 0);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(memory->flushes, 0);
}

/* Zeroes that must be fast are refused where they would be written. */
REQUEST_TEST(fast_zeroes_are_refused_where_slow)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");

    (void)opaque;
    assert_int_equal(co_block_write_zeroes(node, 0, 4096, BLOCK_FAST_ZERO),
                     -ENOTSUP);
    assert_int_equal(memory_of(node)->writes, 0);
}

/* Buffers of zeroes are found, whatever their shape. */
REQUEST_TEST(large_zeroes_and_detection)
{
    struct block_node *node =
        co_add(graph, "memory,node-name=m,size=4M,detect-zeroes=on");
    uint8_t *zeroes = g_malloc0(8192);
    struct iovec iov = { zeroes, 8192 };

    (void)opaque;
    memset(memory_of(node)->bytes, 0xff, 4 * MIB);
    assert_int_equal(co_block_write_zeroes(node, 1, 3 * MIB, 0), 0);
    assert_int_equal(memory_of(node)->bytes[0], 0xff);
    assert_int_equal(memory_of(node)->bytes[1], 0);
    assert_int_equal(memory_of(node)->bytes[3 * MIB], 0);
    assert_int_equal(memory_of(node)->bytes[3 * MIB + 1], 0xff);
    /* The fast way leaves zeroes to the slow one, which knows of zeroing. */
    assert_int_equal(block_try_pwritev(node, 0, 8192, &iov, 1), -EAGAIN);
    zeroes[8191] = 1;
    assert_int_equal(block_try_pwritev(node, 0, 8192, &iov, 1), 0);
    zeroes[8191] = 0;
    zeroes[0] = 1;
    assert_int_equal(block_try_pwritev(node, 0, 8192, &iov, 1), 0);
    g_free(zeroes);
}

struct resize_hook {
    struct block_hook hook;
    uint64_t from;
    uint64_t to;
};

static bool say_yes(struct block_hook *hook, uint64_t offset, uint64_t bytes)
{
    (void)hook;
    (void)offset;
    (void)bytes;
    return true;
}

static void note_resize(struct block_hook *hook, uint64_t from, uint64_t to)
{
    struct resize_hook *self = LIST_ENTRY(hook, struct resize_hook, hook);

    self->from = from;
    self->to = to;
}

/* A new size reaches the child, the node's size and the hooks of both. */
REQUEST_TEST(resizing_is_told_to_hooks)
{
    struct resize_hook hook = { .hook = { .stage = BLOCK_HOOK_BITMAP,
                                          .try_before_write = say_yes,
                                          .resized = note_resize } };
    struct block_node *node =
        co_add(graph, "filter,node-name=f,file.driver=memory,"
                      "file.node-name=m,file.size=4096,file.alignment=512");
    struct block_node *child = block_find(graph, "m", NULL);
    g_autoptr(GError) err = NULL;

    (void)opaque;
    block_hook_add(child, &hook.hook);
    assert_int_equal(co_block_truncate(node, 8192, false, &err), 0);
    assert_int_equal(block_size(node), 8192);
    assert_int_equal(block_size(child), 8192);
    assert_int_equal(hook.from, 4096);
    assert_int_equal(hook.to, 8192);
    assert_int_equal(co_block_truncate(node, 4096, false, &err), -EINVAL);
    assert_error(&err, "dropping its end was not asked for");
    assert_int_equal(co_block_truncate(child, 1000, true, &err), -EINVAL);
    assert_error(&err, "multiples of 512");
    assert_int_equal(co_block_truncate(node, UINT64_MAX, false, &err), -EINVAL);
    g_clear_error(&err);
    assert_int_equal(co_block_truncate(node, 4096, true, &err), 0);
    assert_int_equal(block_size(child), 4096);
    block_hook_remove(&hook.hook);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unaligned_writes_lose_nothing),
        cmocka_unit_test(many_vectors_on_blocks),
        cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(read_only_nodes_are_not_written),
        cmocka_unit_test(durability_is_made_or_dropped),
        cmocka_unit_test(fast_zeroes_are_refused_where_slow),
        cmocka_unit_test(large_zeroes_and_detection),
        cmocka_unit_test(resizing_is_told_to_hooks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
