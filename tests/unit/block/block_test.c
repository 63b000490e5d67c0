/* SPDX-License-Identifier: BSD-3-Clause */
#include "block_test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"

const struct schema_type *test_options_type;

static const struct schema_member test_members[] = {
    { .name = "driver", .type = &schema_string, .required = true },
    { .name = "node-name", .type = &schema_string },
    { .name = "file", .type = &schema_any },
    { .name = "backing", .type = &schema_any },
    { .name = "size", .type = &schema_size },
    { .name = "alignment", .type = &schema_size },
    { .name = "read-only", .type = &schema_bool },
    { .name = "force-share", .type = &schema_bool },
    { .name = "discard", .type = &schema_string },
    { .name = "detect-zeroes", .type = &schema_string },
    { .name = "no-flush", .type = &schema_bool },
    { .name = NULL },
};

static const struct schema_type test_type = {
    .kind = SCHEMA_STRUCT,
    .name = "TestOptions",
    .members = test_members,
};

struct memory_state *memory_of(struct block_node *node)
{
    return block_state(node);
}

static int co_memory_open(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    struct memory_state *memory;
    struct block_limits limits = {
        .request_alignment_bytes =
            (uint32_t)json_dict_uint(options, "alignment", 1),
    };

    if (json_dict_uint(options, "size", 0) == 666) {
        return error_set(err, -EIO, "this memory never opens");
    }
    memory = g_new0(struct memory_state, 1);
    memory->size_bytes = json_dict_uint(options, "size", 65536);
    memory->bytes = g_malloc0(memory->size_bytes);
    co_queue_init(&memory->held);
    block_set_state(node, memory);
    block_set_limits(node, &limits);
    block_set_size(node, memory->size_bytes);
    return 0;
}

static void co_memory_close(struct block_node *node)
{
    struct memory_state *memory = memory_of(node);

    g_free(memory->bytes);
    g_free(memory->written);
    g_free(memory);
}

static void check_alignment(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes)
{
    uint32_t alignment = block_limits(node)->request_alignment_bytes;

    if (offset % alignment != 0 || bytes % alignment != 0) {
        memory_of(node)->misaligned = true;
    }
}

static int co_memory_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    struct memory_state *memory = memory_of(node);

    check_alignment(node, offset, bytes);
    memory->reads++;
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, memory->bytes + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    /* Others run between a read and the write that follows from it. */
    co_reschedule();
    return 0;
}

static int co_memory_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count,
                             unsigned int flags)
{
    struct memory_state *memory = memory_of(node);

    check_alignment(node, offset, bytes);
    co_reschedule();
    while (memory->hold_writes) {
        co_queue_wait(&memory->held);
    }
    if (memory->write_error < 0) {
        return memory->write_error;
    }
    memory->writes++;
    memory->last_flags = flags;
    for (int i = 0; i < iov_count; i++) {
        memcpy(memory->bytes + offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int co_memory_flush(struct block_node *node)
{
    struct memory_state *memory = memory_of(node);

    memory->flushes++;
    return memory->flush_error;
}

static int co_memory_truncate(struct block_node *node,
                              uint64_t size_bytes,
                              bool shrink,
                              GError **err)
{
    struct memory_state *memory = memory_of(node);

    (void)shrink;
    (void)err;
    memory->bytes = g_realloc(memory->bytes, size_bytes);
    if (size_bytes > memory->size_bytes) {
        memset(memory->bytes + memory->size_bytes, 0,
               size_bytes - memory->size_bytes);
    }
    memory->size_bytes = size_bytes;
    return 0;
}

static int memory_try_preadv(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count)
{
    struct memory_state *memory = memory_of(node);

    check_alignment(node, offset, bytes);
    memory->reads++;
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, memory->bytes + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int memory_try_pwritev(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count)
{
    struct memory_state *memory = memory_of(node);

    check_alignment(node, offset, bytes);
    if (memory->hold_writes || memory->write_error < 0) {
        return -EAGAIN;
    }
    memory->writes++;
    for (int i = 0; i < iov_count; i++) {
        memcpy(memory->bytes + offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static const struct block_driver driver_memory = {
    .name = "memory",
    .co_open = co_memory_open,
    .co_close = co_memory_close,
    .try_preadv = memory_try_preadv,
    .try_pwritev = memory_try_pwritev,
    .co_preadv = co_memory_preadv,
    .co_pwritev = co_memory_pwritev,
    .co_flush = co_memory_flush,
    .co_truncate = co_memory_truncate,
};

/* --- overlay: memory, and below it what was never written ------------------- */

static int co_overlay_open(struct block_node *node,
                           const struct json_value *options,
                           GError **err)
{
    int ret = co_memory_open(node, options, err);

    if (ret == 0) {
        memory_of(node)->written = g_new0(bool, memory_of(node)->size_bytes);
    }
    return ret;
}

static int co_overlay_preadv(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count)
{
    struct memory_state *memory = memory_of(node);
    struct block_node *backing = block_child(node, "backing");
    int ret = 0;

    assert_int_equal(iov_count, 1);
    memset(iov->iov_base, 0, bytes);
    if (backing != NULL) {
        ret = co_block_child_preadv(backing, offset, bytes, iov, 1);
    }
    for (uint64_t i = 0; i < bytes; i++) {
        if (memory->written[offset + i]) {
            ((uint8_t *)iov->iov_base)[i] = memory->bytes[offset + i];
        }
    }
    return ret;
}

static int co_overlay_pwritev(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count,
                              unsigned int flags)
{
    int ret = co_memory_pwritev(node, offset, bytes, iov, iov_count, flags);

    if (ret == 0) {
        memset(memory_of(node)->written + offset, true, bytes);
    }
    return ret;
}

static void overlay_children_changed(struct block_node *node)
{
    (void)node; /* the child is looked up at each request */
}

static const struct block_child_role overlay_children[] = {
    { .name = "backing", .read_only = true },
    { .name = NULL },
};

static const struct block_driver driver_overlay = {
    .name = "overlay",
    .children = overlay_children,
    .co_open = co_overlay_open,
    .co_close = co_memory_close,
    .co_preadv = co_overlay_preadv,
    .co_pwritev = co_overlay_pwritev,
    .co_flush = co_memory_flush,
    .children_changed = overlay_children_changed,
};

/* --- filter ------------------------------------------------------------------ */

static struct block_node *below(struct block_node *node)
{
    return block_child(node, "file");
}

static int co_filter_open(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    if (json_dict_uint(options, "size", 0) == 666) {
        return error_set(err, -EIO, "this filter never opens");
    }
    block_set_size(node, block_size(below(node)));
    return 0;
}

static int filter_try_pwritev(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count)
{
    return block_child_try_pwritev(below(node), offset, bytes, iov, iov_count);
}

static int co_filter_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    return co_block_child_preadv(below(node), offset, bytes, iov, iov_count);
}

static int co_filter_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count,
                             unsigned int flags)
{
    return co_block_child_pwritev(below(node), offset, bytes, iov, iov_count,
                                  flags);
}

static int co_filter_flush(struct block_node *node)
{
    return co_block_child_flush(below(node));
}

static int co_filter_truncate(struct block_node *node,
                              uint64_t size_bytes,
                              bool shrink,
                              GError **err)
{
    return co_block_child_truncate(below(node), size_bytes, shrink, err);
}

static const struct block_child_role filter_children[] = {
    { .name = "file", .required = true },
    { .name = NULL },
};

static const struct block_driver driver_filter = {
    .name = "filter",
    .children = filter_children,
    .co_open = co_filter_open,
    .try_pwritev = filter_try_pwritev,
    .co_preadv = co_filter_preadv,
    .co_pwritev = co_filter_pwritev,
    .co_flush = co_filter_flush,
    .co_truncate = co_filter_truncate,
    .children_changed = overlay_children_changed,
};

const struct block_driver *const test_drivers[] = { &driver_memory,
                                                    &driver_filter,
                                                    &driver_overlay, NULL };

struct graph_threads {
    struct graph_run run;
    struct loop *loops[8];
};

static void co_run_threads(void *opaque)
{
    struct graph_threads *threads = opaque;
    struct graph_run *run = &threads->run;

    run->graph = block_graph_new(loop_current(), run->drivers);
    for (unsigned int i = 0; i < run->iothreads; i++) {
        threads->loops[i] = loop_thread_start(&loop_uring_backend, "io", NULL);
        assert_non_null(threads->loops[i]);
        block_graph_add_loop(run->graph, threads->loops[i]);
    }
    run->co_test(run->graph, run->opaque);
    co_block_del_all(run->graph);
    block_graph_free(run->graph);
    loop_stop(loop_current());
}

void run_in_graph(const struct block_driver *const *drivers,
                  unsigned int iothreads,
                  void (*co_test)(struct block_graph *graph, void *opaque),
                  void *opaque)
{
    struct graph_threads threads = {
        .run = { .drivers = drivers,
                 .co_test = co_test,
                 .opaque = opaque,
                 .iothreads = iothreads },
    };
    struct loop *main = loop_new(&loop_uring_backend, "main", NULL);

    assert_true(iothreads <= 8);
    assert_non_null(main);
    co_spawn(main, co_run_threads, &threads);
    loop_run(main);
    for (unsigned int i = 0; i < iothreads; i++) {
        loop_thread_join(threads.loops[i]);
    }
    loop_free(main);
}

/* Nested children of the test drivers are coerced as their parents are. */
static struct json_value *coerce_test(const struct json_value *tree)
{
    g_autoptr(GError) err = NULL;
    struct json_value *options =
        schema_coerce(&test_type, tree, "options", &err);
    const struct json_value *file;

    if (options == NULL) {
        print_message("%s\n", err->message);
    }
    assert_non_null(options);
    file = json_dict_get(options, "file");
    if (file != NULL && json_type_of(file) == JSON_DICT) {
        json_dict_set(options, "file", coerce_test(file));
    }
    if (json_dict_bool(options, "no-flush", false)) {
        json_dict_set(options, "cache", json_dict_new());
        json_dict_set_bool(json_dict_get_mutable(options, "cache"), "no-flush",
                           true);
    }
    return options;
}

static struct json_value *parse_options(const char *text)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) tree = keyval_parse(text, "driver", &err);
    struct json_value *options;

    if (tree == NULL) {
        print_message("%s\n", err->message);
    }
    assert_non_null(tree);
    if (test_options_type == NULL) {
        return coerce_test(tree);
    }
    options = schema_coerce(test_options_type, tree, "options", &err);
    if (options == NULL) {
        print_message("%s\n", err->message);
    }
    assert_non_null(options);
    return options;
}

struct block_node *co_add(struct block_graph *graph, const char *text)
{
    g_autoptr(json_value) options = parse_options(text);
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    if (co_block_add(graph, options, false, &node, &err) < 0) {
        print_message("%s\n", err->message);
    }
    assert_non_null(node);
    return node;
}

void co_add_fails(struct block_graph *graph, const char *text, const char *part)
{
    g_autoptr(json_value) options = parse_options(text);
    g_autoptr(GError) err = NULL;

    assert_true(co_block_add(graph, options, false, NULL, &err) < 0);
    assert_error(&err, part);
}

void co_go_home(struct block_node *node)
{
    co_move(block_home(node));
}

void co_go_main(struct block_node *node)
{
    co_move(block_graph_main(block_graph_of(node)));
}

bool can_do_direct_io(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

    if (fd < 0) {
        print_message("left out: no O_DIRECT for %s\n", path);
        return false;
    }
    close(fd);
    return true;
}

void assert_error(GError **err, const char *part)
{
    assert_non_null(*err);
    if (strstr((*err)->message, part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, (*err)->message);
    }
    g_clear_error(err);
}
