/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image of any content: checked, opened and read (it and its snapshots), opened
 * and written to (also compressed, with bitmaps, resized), repaired. Alone, or
 * above a backing file. Promises:
 * - each of these ends, with an error or without;
 * - a check of a sound image after writing to it finds no corruption, and what
 *   it holds is what was written;
 * - what a repair has left is what the next check finds, and the next repair
 *   has nothing to do; what it made sound is as good as any sound image.
 */
#include <errno.h>
#include <string.h>

#include <glib.h>

#include "base/bytes.h"
#include "disk_window.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/snapshot.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "memory_file.h"

#include "target.h"

#define INPUT_BYTES_MAX  (1024 * 1024)
#define ACTIONS          16
#define DATA_FILE_FLAGS  79 /* the byte of the header that has the bit */
#define DATA_FILE_BIT    4
#define DATA_FILE_BYTES  (128 * 1024)
#define STATUS_CALLS_MAX 4096
#define L2_SLICE_BYTES   512
#define L2_CACHE_BYTES   (64 * 1024)
#define SNAPSHOTS_MAX    4
#define BASE_BYTES       (40 * 1024 + 512) /* ends within the window */
#define BITMAP_WORDS     1024
#define BITMAP_BITS_MAX  9 /* of its granularity */

struct session {
    struct loop *loop;
    struct block_graph *graph;
    const uint8_t *data;
    size_t size;
    struct disk_window window;
    bool has_base;
    uint64_t l2_cache_bytes;
};

static struct block_node *co_add_file(struct session *session, const char *name)
{
    g_autoptr(json_value) options = json_dict_new();
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", driver_memory_file.name);
    json_dict_set_string(options, "node-name", name);
    g_assert(co_block_add(session->graph, options, true, &node, NULL) == 0);
    return node;
}

/* The file that an image names would be looked up in the file system: instead it
 * has the base, or none. */
static struct block_node *co_open(struct session *session,
                                  bool read_only,
                                  const char *snapshot)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", "qcow2");
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set_string(options, "file", "file");
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_bool(options, "read-only", read_only);
    json_dict_set_uint(options, "l2-cache-size", session->l2_cache_bytes);
    json_dict_set_uint(options, "l2-cache-entry-size", L2_SLICE_BYTES);
    json_dict_set_uint(options, "refcount-cache-size", L2_SLICE_BYTES);
    if (session->has_base) {
        json_dict_set_string(options, "backing", "base");
    } else {
        json_dict_set(options, "backing", json_null_new());
    }
    if (session->size > DATA_FILE_FLAGS &&
        (session->data[DATA_FILE_FLAGS] & DATA_FILE_BIT) != 0) {
        json_dict_set_string(options, "data-file", "data");
    }
    if (snapshot != NULL) {
        json_dict_set_string(options, "x-cohort-snapshot", snapshot);
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

/* Shows the first few, by their ids. */
static void co_use_snapshots(struct session *session)
{
    struct block_node *file = block_find(session->graph, "file", NULL);
    g_autoptr(qcow2_header) header =
        qcow2_header_parse(session->data, session->size, "fuzz", NULL);
    struct qcow2_snapshots *snapshots = NULL;

    if (header == NULL ||
        co_qcow2_snapshots_load(file, header, "fuzz", &snapshots, NULL) < 0) {
        return;
    }
    for (uint32_t i = 0; i < MIN(snapshots->count, SNAPSHOTS_MAX); i++) {
        const char *id = snapshots->snapshots[i].id;
        struct block_node *node =
            g_utf8_validate(id, -1, NULL) ? co_open(session, true, id) : NULL;

        if (node != NULL) {
            co_walk(node);
            co_window_read(&session->window, node);
            g_assert(co_block_del(session->graph, "disk", NULL) == 0);
        }
    }
    qcow2_snapshots_free(snapshots);
}

/* As who keeps bitmaps begins, or as who does not. */
static void co_change(struct session *session, struct block_node *node)
{
    static const uint8_t stamp[QCOW2_STAMP_BYTES] = { 1, 2, 3 };
    uint64_t kind = window_random(&session->window) % 3;

    if (kind != 0) {
        (void)co_qcow2_bitmaps_begin(node, kind == 1 ? stamp : NULL, NULL);
    }
    for (unsigned int i = 0; i < ACTIONS; i++) {
        co_window_change(&session->window, node);
    }
}

static void co_use(struct session *session, bool read_only)
{
    bool was_sound = co_is_sound(session);
    struct block_node *node = co_open(session, read_only, NULL);

    if (node == NULL) {
        return;
    }
    co_walk(node);
    co_window_read(&session->window, node);
    if (!read_only) {
        co_change(session, node);
    }
    co_use_bitmaps(node, read_only);
    if (was_sound) {
        co_window_compare(&session->window, node);
    }
    g_assert(co_block_del(session->graph, "disk", NULL) == 0);
    if (!was_sound) {
        return;
    }
    g_assert(co_is_sound(session));
    node = co_open(session, true, NULL);
    g_assert(node != NULL);
    co_window_compare(&session->window, node);
    g_assert(co_block_del(session->graph, "disk", NULL) == 0);
}

static int co_repair(struct session *session,
                     enum qcow2_repair repair,
                     struct qcow2_check_result *result)
{
    struct block_node *file = block_find(session->graph, "file", NULL);

    return co_qcow2_check(file, "fuzz", repair, NULL, NULL, result, NULL);
}

static void co_repair_twice(struct session *session, enum qcow2_repair repair)
{
    struct qcow2_check_result first;
    struct qcow2_check_result second;
    struct block_node *file = block_find(session->graph, "file", NULL);
    g_autoptr(GBytes) after = NULL;

    memory_file_fill(file, session->data, session->size);
    if (co_repair(session, repair, &first) < 0) {
        return;
    }
    after = memory_file_copy(file);
    if (co_repair(session, repair, &second) == 0) {
        g_autoptr(GBytes) again = memory_file_copy(file);

        g_assert(second.corruptions == first.corruptions);
        g_assert(second.leaks == first.leaks);
        g_assert(g_bytes_equal(after, again));
    }
}

static const uint8_t *base_bytes(void)
{
    static uint8_t bytes[BASE_BYTES];

    for (unsigned int i = 0; i < BASE_BYTES; i++) {
        bytes[i] = (uint8_t)(i / 512 + 1);
    }
    return bytes;
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
    memory_file_fill(co_add_file(session, "base"), base_bytes(), BASE_BYTES);
    memory_file_fill(file, session->data, session->size);
    co_use(session, true);
    co_use_snapshots(session);
    co_use(session, false);
    co_repair_twice(session, QCOW2_REPAIR_LEAKS);
    co_repair_twice(session, QCOW2_REPAIR_ALL);
    co_use(session, false);
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

static uint64_t hash_of(const uint8_t *data, size_t size)
{
    uint64_t hash = size;

    for (size_t i = 0; i < size; i++) {
        hash = hash * 31 + data[i];
    }
    return hash;
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
    g_assert(loop != NULL);
    memset(&session, 0, sizeof(session));
    session.loop = loop;
    session.data = data;
    session.size = size;
    session.window.random = hash_of(data, size);
    session.has_base = window_random(&session.window) % 2 == 0;
    session.l2_cache_bytes = window_random(&session.window) % 2 == 0
                                 ? L2_SLICE_BYTES
                                 : L2_CACHE_BYTES;
    co_spawn(loop, co_session, &session);
    loop_run(loop);
    g_log_remove_handler(NULL, handler);
    return 0;
}
