/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image of any content: checked, opened and read, opened and written to,
 * repaired. Promises:
 * - each of these ends, with an error or without;
 * - a check of a sound image after writing to it finds no corruption, and what
 *   it holds is what was written;
 * - what a repair has left is what the next check finds, and the next repair
 *   has nothing to do.
 */
#include <errno.h>
#include <string.h>

#include <glib.h>

#include "base/bytes.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/check.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "memory_file.h"

#include "target.h"

#define INPUT_BYTES_MAX  (1024 * 1024)
#define WINDOW_BYTES     (96 * 1024)
#define UNIT_BYTES       512
#define UNITS            (WINDOW_BYTES / UNIT_BYTES)
#define ACTIONS          16
#define DATA_FILE_FLAGS  79 /* the byte of the header that has the bit */
#define DATA_FILE_BIT    4
#define DATA_FILE_BYTES  (128 * 1024)
#define STATUS_CALLS_MAX 4096
#define BITMAP_WORDS     1024
#define BITMAP_BITS_MAX  9 /* of its granularity */

struct session {
    struct loop *loop;
    struct block_graph *graph;
    const uint8_t *data;
    size_t size;
    uint64_t random;
    uint8_t window[WINDOW_BYTES]; /* what the disk begins with */
    bool known[UNITS];
};

static uint64_t next_random(struct session *session)
{
    session->random = session->random * UINT64_C(6364136223846793005) +
                      UINT64_C(1442695040888963407);
    return session->random >> 33;
}

static struct block_node *co_add_file(struct session *session, const char *name)
{
    g_autoptr(json_value) options = json_dict_new();
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", driver_memory_file.name);
    json_dict_set_string(options, "node-name", name);
    g_assert(co_block_add(session->graph, options, true, &node, NULL) == 0);
    return node;
}

/* Without a backing file: its name would be looked up in the file system. */
static struct block_node *co_open(struct session *session, bool read_only)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", "qcow2");
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set_string(options, "file", "file");
    json_dict_set_bool(options, "read-only", read_only);
    json_dict_set(options, "backing", json_null_new());
    if (session->size > DATA_FILE_FLAGS &&
        (session->data[DATA_FILE_FLAGS] & DATA_FILE_BIT) != 0) {
        json_dict_set_string(options, "data-file", "data");
    }
    g_assert((co_block_add(session->graph, options, true, &node, &err) == 0) ==
             (err == NULL));
    return node;
}

static void co_walk(struct block_node *node)
{
    uint64_t size = block_size(node);
    uint64_t offset = 0;

    for (unsigned int i = 0; offset < size && i < STATUS_CALLS_MAX; i++) {
        struct block_extent extent = { 0 };

        if (co_block_status(node, offset, size - offset, &extent) < 0) {
            break;
        }
        g_assert(extent.bytes > 0 && extent.bytes <= size - offset);
        offset += extent.bytes;
    }
}

/* The first bytes unit by unit, and the last ones. */
static void co_read_window(struct session *session, struct block_node *node)
{
    uint64_t size = block_size(node);
    uint8_t last[1000];

    memset(session->known, 0, sizeof(session->known));
    for (unsigned int i = 0; i < UNITS && (i + 1) * UNIT_BYTES <= size; i++) {
        session->known[i] =
            co_block_pread(node, i * UNIT_BYTES, UNIT_BYTES,
                           session->window + i * UNIT_BYTES) == 0;
    }
    if (size >= sizeof(last)) {
        (void)co_block_pread(node, size - sizeof(last), sizeof(last), last);
    }
}

static void co_compare_window(struct session *session, struct block_node *node)
{
    uint8_t bytes[UNIT_BYTES];

    for (unsigned int i = 0; i < UNITS; i++) {
        if (session->known[i]) {
            g_assert(co_block_pread(node, i * UNIT_BYTES, UNIT_BYTES, bytes) ==
                     0);
            g_assert(memcmp(bytes, session->window + i * UNIT_BYTES,
                            UNIT_BYTES) == 0);
        }
    }
}

/* One request within the window, or at the end of the disk. What it wrote is
 * known afterwards; what it failed to write is not. */
static void co_act(struct session *session, struct block_node *node)
{
    static uint8_t bytes[WINDOW_BYTES];
    uint64_t size = min_u64(block_size(node), WINDOW_BYTES) / UNIT_BYTES;
    uint64_t first = size == 0 ? 0 : next_random(session) % size;
    uint64_t units =
        size == 0
            ? 0
            : min_u64(size - first, UINT64_C(1) << (next_random(session) % 8));
    uint64_t offset = first * UNIT_BYTES;
    uint64_t length = units * UNIT_BYTES;
    uint64_t kind = next_random(session) % 8;
    uint8_t fill = kind < 5 ? (uint8_t)next_random(session) : 0;
    int ret;

    memset(bytes, fill, length);
    switch (kind) {
    case 5: ret = co_block_write_zeroes(node, offset, length, 0); break;
    case 6:
        ret = co_block_write_zeroes(node, offset, length, BLOCK_MAY_UNMAP);
        break;
    case 7:
        (void)co_block_discard(node, offset, length);
        ret = -EIO; /* what is there now is not said */
        break;
    default: ret = co_block_pwrite(node, offset, length, bytes, 0); break;
    }
    memset(session->window + offset, fill, length);
    for (uint64_t i = first; i < first + units; i++) {
        session->known[i] = ret == 0;
    }
    if (next_random(session) % 4 == 0) {
        (void)co_block_flush(node);
    }
}

/* A complete check that has found no corruption, and each table has its own
 * place. */
static bool co_is_sound(struct session *session)
{
    struct qcow2_check_result result;
    g_autoptr(GError) err = NULL;
    struct block_node *file = block_find(session->graph, "file", NULL);
    int ret = co_qcow2_check(file, "fuzz", QCOW2_REPAIR_NOTHING, NULL, NULL,
                             &result, &err);

    g_assert((ret < 0) == (err != NULL));
    return ret == 0 && result.corruptions == 0 && result.check_errors == 0 &&
           !result.tables_overlap;
}

static void count_words(void *opaque,
                        uint64_t first_word,
                        const uint64_t *words,
                        uint64_t word_count)
{
    uint64_t *next = opaque;

    g_assert(first_word >= *next && word_count > 0 && words != NULL);
    *next = first_word + word_count;
}

/* Loads each; takes the first one out and stores one of ours. */
static void co_use_bitmaps(struct block_node *node, bool read_only)
{
    static const uint64_t words[BITMAP_WORDS] = { 1, 2, 3 };
    const struct qcow2_bitmap_content content = {
        .name = "fuzz",
        .granularity_bits = BITMAP_BITS_MAX,
        .words = words,
        .word_count = BITMAP_WORDS,
    };
    const GPtrArray *list = qcow2_bitmaps_list(node);

    for (guint i = 0; i < list->len; i++) {
        uint64_t next = 0;

        if (qcow2_bitmap_problem(node, list->pdata[i]) == NULL) {
            (void)co_qcow2_bitmap_load(node, list->pdata[i], count_words, &next,
                                       NULL);
        }
    }
    if (read_only) {
        return;
    }
    if (list->len > 0) {
        const struct qcow2_stored_bitmap *first = list->pdata[0];
        g_autofree char *name = g_strdup(first->name);

        (void)co_qcow2_bitmap_remove(node, name, NULL);
    }
    if (block_size(node) <= (BITMAP_WORDS * UINT64_C(64)) << BITMAP_BITS_MAX) {
        (void)co_qcow2_bitmaps_store(node, &content, 1, NULL);
    }
}

static void co_use(struct session *session, bool read_only)
{
    bool was_sound = co_is_sound(session);
    struct block_node *node = co_open(session, read_only);

    if (node == NULL) {
        return;
    }
    co_walk(node);
    co_read_window(session, node);
    for (unsigned int i = 0; !read_only && i < ACTIONS; i++) {
        co_act(session, node);
    }
    co_use_bitmaps(node, read_only);
    if (was_sound) {
        co_compare_window(session, node);
    }
    g_assert(co_block_del(session->graph, "disk", NULL) == 0);
    if (!was_sound) {
        return;
    }
    g_assert(co_is_sound(session));
    node = co_open(session, true);
    g_assert(node != NULL);
    co_compare_window(session, node);
    g_assert(co_block_del(session->graph, "disk", NULL) == 0);
}

static int co_repair(struct session *session, struct qcow2_check_result *result)
{
    struct block_node *file = block_find(session->graph, "file", NULL);

    return co_qcow2_check(file, "fuzz", QCOW2_REPAIR_ALL, NULL, NULL, result,
                          NULL);
}

static void co_repair_twice(struct session *session)
{
    struct qcow2_check_result first;
    struct qcow2_check_result second;
    struct block_node *file = block_find(session->graph, "file", NULL);
    g_autoptr(GBytes) after = NULL;

    memory_file_fill(file, session->data, session->size);
    if (co_repair(session, &first) < 0) {
        return;
    }
    after = memory_file_copy(file);
    if (co_repair(session, &second) == 0) {
        g_autoptr(GBytes) again = memory_file_copy(file);

        g_assert(second.corruptions == first.corruptions);
        g_assert(second.leaks == first.leaks);
        g_assert(g_bytes_equal(after, again));
    }
}

static void co_session(void *opaque)
{
    static const struct block_driver *const drivers[] = { &driver_memory_file,
                                                          &driver_qcow2, NULL };
    struct session *session = opaque;
    struct block_node *file;

    session->graph = block_graph_new(session->loop, drivers);
    file = co_add_file(session, "file");
    memory_file_fill(co_add_file(session, "data"), NULL, DATA_FILE_BYTES);
    memory_file_fill(file, session->data, session->size);
    co_use(session, true);
    co_use(session, false);
    co_repair_twice(session);
    co_block_del_all(session->graph);
    block_graph_free(session->graph);
    loop_stop(session->loop);
}

/* That an image is corrupt is a warning, and no news here. */
static void drop_message(const gchar *domain,
                         GLogLevelFlags level,
                         const gchar *message,
                         gpointer opaque)
{
    (void)domain;
    (void)level;
    (void)message;
    (void)opaque;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct loop *loop; /* making one takes longer than all the rest */
    static struct session session;
    guint handler;

    if (size > INPUT_BYTES_MAX) {
        return 0;
    }
    g_log_set_always_fatal(G_LOG_FATAL_MASK | G_LOG_LEVEL_CRITICAL);
    handler = g_log_set_handler(NULL, G_LOG_LEVEL_WARNING, drop_message, NULL);
    if (loop == NULL) {
        loop = loop_new(&loop_uring_backend, "fuzz", NULL);
    }
    session = (struct session){
        .loop = loop,
        .data = data,
        .size = size,
        .random = size,
    };
    for (size_t i = 0; i < size; i++) {
        session.random = session.random * 31 + data[i];
    }
    g_assert(session.loop != NULL);
    co_spawn(session.loop, co_session, &session);
    loop_run(session.loop);
    g_log_remove_handler(NULL, handler);
    return 0;
}
