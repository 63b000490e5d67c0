/* SPDX-License-Identifier: BSD-3-Clause */
#include "rig.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/driver.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

#define PATIENCE_S 10

struct rig {
    struct loop *main;
    struct loop *threads[2];
    struct block_graph *graph;
    struct block_node *node;
    struct export_list *exports;
    char *folder;
    char *socket;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned int deleted; /* under lock */
    unsigned int hung;    /* under lock */
    /* The disk; `mood` is set by the test, read by the home. */
    uint8_t *content;
    gint mood;
    gint flushes;
    struct co_queue waiting;
};

/* The driver has no way to tell one rig from another: there is one at a time. */
static struct rig *the_rig;

static enum rig_mood mood(void)
{
    return (enum rig_mood)g_atomic_int_get(&the_rig->mood);
}

static void copy(bool writing, uint64_t offset, const struct iovec *iov, int n)
{
    uint8_t *at = the_rig->content + offset;

    for (int i = 0; i < n; i++) {
        memcpy(writing ? at : iov[i].iov_base, writing ? iov[i].iov_base : at,
               iov[i].iov_len);
        at += iov[i].iov_len;
    }
}

static int try_access(bool writing,
                      uint64_t offset,
                      const struct iovec *iov,
                      int n)
{
    switch (mood()) {
    case RIG_QUICK: copy(writing, offset, iov, n); return 0;
    case RIG_BROKEN: return -EIO;
    case RIG_SLOW:
    case RIG_HUNG: break;
    }
    return -EAGAIN;
}

static int memory_try_preadv(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int n)
{
    (void)node;
    (void)bytes;
    return try_access(false, offset, iov, n);
}

static int memory_try_pwritev(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int n)
{
    (void)node;
    (void)bytes;
    return try_access(true, offset, iov, n);
}

/* Waits as the mood has it. */
static int co_suffer(void)
{
    co_reschedule();
    if (mood() == RIG_HUNG) {
        pthread_mutex_lock(&the_rig->lock);
        the_rig->hung++;
        pthread_cond_broadcast(&the_rig->changed);
        pthread_mutex_unlock(&the_rig->lock);
        while (mood() == RIG_HUNG) {
            co_queue_wait(&the_rig->waiting);
        }
    }
    return mood() == RIG_BROKEN ? -EIO : 0;
}

static int memory_co_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int n)
{
    int ret = co_suffer();

    (void)node;
    (void)bytes;
    if (ret == 0) {
        copy(false, offset, iov, n);
    }
    return ret;
}

static int memory_co_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int n,
                             unsigned int flags)
{
    int ret = co_suffer();

    (void)node;
    (void)bytes;
    (void)flags;
    if (ret == 0) {
        copy(true, offset, iov, n);
    }
    return ret;
}

static int memory_co_flush(struct block_node *node)
{
    (void)node;
    g_atomic_int_inc(&the_rig->flushes);
    return co_suffer();
}

/* The second quarter is a hole that reads as zeroes, all else is data. */
static int memory_co_status(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            struct block_extent *ret)
{
    uint64_t quarter = RIG_DISK_BYTES / 4;
    bool hole = offset / quarter == 1;
    uint64_t end = (offset / quarter + 1) * quarter;

    (void)node;
    ret->bytes = MIN(bytes, end - offset);
    ret->status = hole ? BLOCK_STATUS_HOLE | BLOCK_STATUS_ZERO : 0U;
    return co_suffer();
}

static int memory_co_open(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    struct block_limits limits = { .request_alignment_bytes = 1 };

    (void)options;
    (void)err;
    block_set_size(node, RIG_DISK_BYTES);
    block_set_limits(node, &limits);
    return 0;
}

static void memory_co_close(struct block_node *node)
{
    (void)node;
}

static const struct block_driver memory_driver = {
    .name = "memory",
    .co_open = memory_co_open,
    .co_close = memory_co_close,
    .try_preadv = memory_try_preadv,
    .try_pwritev = memory_try_pwritev,
    .co_preadv = memory_co_preadv,
    .co_pwritev = memory_co_pwritev,
    .co_flush = memory_co_flush,
    .co_status = memory_co_status,
};
static const struct block_driver *const drivers[] = { &memory_driver, NULL };

struct call {
    struct rig *rig;
    int (*co_call)(void *opaque);
    void *opaque;
    int result;
    bool done;
};

static void co_run_call(void *opaque)
{
    struct call *call = opaque;
    struct rig *rig = call->rig;
    int result = call->co_call(call->opaque);

    pthread_mutex_lock(&rig->lock);
    call->result = result;
    call->done = true;
    pthread_cond_broadcast(&rig->changed);
    pthread_mutex_unlock(&rig->lock);
}

/* With the lock held; fails the test when patience ends. */
static void wait_changed(struct rig *rig, const struct timespec *deadline)
{
    if (pthread_cond_timedwait(&rig->changed, &rig->lock, deadline) != 0) {
        g_error("nothing happened for %d seconds", PATIENCE_S);
    }
}

static struct timespec patience(void)
{
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_S;
    return deadline;
}

int rig_run(struct rig *rig, int (*co_call)(void *opaque), void *opaque)
{
    struct call call = { .rig = rig, .co_call = co_call, .opaque = opaque };
    struct timespec deadline = patience();

    co_spawn(rig->main, co_run_call, &call);
    pthread_mutex_lock(&rig->lock);
    while (!call.done) {
        wait_changed(rig, &deadline);
    }
    pthread_mutex_unlock(&rig->lock);
    return call.result;
}

static void on_event(void *opaque, const char *name, struct json_value *data)
{
    struct rig *rig = opaque;

    assert_string_equal(name, "BLOCK_EXPORT_DELETED");
    json_free(data);
    pthread_mutex_lock(&rig->lock);
    rig->deleted++;
    pthread_cond_broadcast(&rig->changed);
    pthread_mutex_unlock(&rig->lock);
}

static int co_set_up(void *opaque)
{
    struct rig *rig = opaque;
    g_autoptr(json_value) options = json_dict_new();

    rig->graph = block_graph_new(rig->main, drivers);
    block_graph_add_loop(rig->graph, rig->threads[0]);
    block_graph_add_loop(rig->graph, rig->threads[1]);
    rig->exports = export_list_new(rig->graph, on_event, rig);
    json_dict_set_string(options, "driver", "memory");
    json_dict_set_string(options, "node-name", "disk");
    return co_block_add(rig->graph, options, true, &rig->node, NULL);
}

struct rig *rig_new(void)
{
    struct rig *rig = g_new0(struct rig, 1);

    the_rig = rig;
    pthread_mutex_init(&rig->lock, NULL);
    pthread_cond_init(&rig->changed, NULL);
    co_queue_init(&rig->waiting);
    rig->content = g_malloc0(RIG_DISK_BYTES);
    rig->folder = g_dir_make_tmp("nbd-XXXXXX", NULL);
    rig->socket = g_build_filename(rig->folder, "s", NULL);
    rig->main = loop_thread_start(&loop_uring_backend, "main", NULL);
    rig->threads[0] = loop_thread_start(&loop_uring_backend, "one", NULL);
    rig->threads[1] = loop_thread_start(&loop_uring_backend, "two", NULL);
    assert_non_null(rig->main);
    assert_int_equal(rig_run(rig, co_set_up, rig), 0);
    return rig;
}

static int co_tear_down(void *opaque)
{
    struct rig *rig = opaque;

    co_export_shutdown(rig->exports);
    export_list_free(rig->exports);
    co_block_del_all(rig->graph);
    block_graph_free(rig->graph);
    return 0;
}

void rig_free(struct rig *rig)
{
    rig_set_mood(rig, RIG_QUICK);
    assert_int_equal(rig_run(rig, co_tear_down, rig), 0);
    loop_thread_join(rig->threads[0]);
    loop_thread_join(rig->threads[1]);
    loop_thread_join(rig->main);
    assert_int_not_equal(g_access(rig->socket, F_OK), 0);
    g_rmdir(rig->folder);
    g_free(rig->folder);
    g_free(rig->socket);
    g_free(rig->content);
    pthread_mutex_destroy(&rig->lock);
    pthread_cond_destroy(&rig->changed);
    g_free(rig);
    the_rig = NULL;
}

struct block_node *rig_node(struct rig *rig)
{
    return rig->node;
}

uint8_t *rig_content(struct rig *rig)
{
    return rig->content;
}

unsigned int rig_flushes(struct rig *rig)
{
    return (unsigned int)g_atomic_int_get(&rig->flushes);
}

static void co_wake_hung(void *opaque)
{
    struct rig *rig = opaque;

    co_queue_wake_all(&rig->waiting);
}

static int co_wake_at_home(void *opaque)
{
    struct rig *rig = opaque;

    co_move(block_home(rig->node));
    co_wake_hung(rig);
    co_move(rig->main);
    return 0;
}

void rig_set_mood(struct rig *rig, enum rig_mood mood)
{
    g_atomic_int_set(&rig->mood, mood);
    if (mood != RIG_HUNG) {
        assert_int_equal(rig_run(rig, co_wake_at_home, rig), 0);
    }
}

void rig_wait_for_hung(struct rig *rig, unsigned int count)
{
    struct timespec deadline = patience();

    pthread_mutex_lock(&rig->lock);
    while (rig->hung < count) {
        wait_changed(rig, &deadline);
    }
    pthread_mutex_unlock(&rig->lock);
}

void rig_wait_for_deleted(struct rig *rig, unsigned int count)
{
    struct timespec deadline = patience();

    pthread_mutex_lock(&rig->lock);
    while (rig->deleted < count) {
        wait_changed(rig, &deadline);
    }
    pthread_mutex_unlock(&rig->lock);
}

struct export_list *rig_exports(struct rig *rig)
{
    return rig->exports;
}

const char *rig_socket(struct rig *rig)
{
    return rig->socket;
}

struct rig_options {
    struct rig *rig;
    struct json_value *options;
    const char *id;
    bool hard;
    GError **err;
};

static int co_start(void *opaque)
{
    struct rig_options *call = opaque;

    return co_nbd_server_start(call->rig->exports, call->options, call->err);
}

void rig_start_server(struct rig *rig, uint32_t connections_max)
{
    g_autoptr(json_value) options = json_dict_new();
    struct json_value *address = json_dict_new();
    struct rig_options call = { .rig = rig, .options = options };

    json_dict_set_string(address, "type", "unix");
    json_dict_set_string(address, "path", rig->socket);
    json_dict_set(options, "addr", address);
    json_dict_set_uint(options, "max-connections", connections_max);
    assert_int_equal(rig_run(rig, co_start, &call), 0);
}

static int co_export(void *opaque)
{
    struct rig_options *call = opaque;
    int ret;

    co_block_graph_lock(call->rig->graph);
    ret = co_export_add(call->rig->exports, call->options, call->err);
    block_graph_unlock(call->rig->graph);
    return ret;
}

int rig_export(struct rig *rig, const char *id, bool writable, GError **err)
{
    g_autoptr(json_value) options = json_dict_new();
    struct rig_options call = { .rig = rig, .options = options, .err = err };

    json_dict_set_string(options, "type", "nbd");
    json_dict_set_string(options, "id", id);
    json_dict_set_string(options, "name", id);
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set_bool(options, "writable", writable);
    return rig_run(rig, co_export, &call);
}

static int co_delete(void *opaque)
{
    struct rig_options *call = opaque;

    return export_delete(call->rig->exports, call->id, call->hard, call->err);
}

int rig_delete(struct rig *rig, const char *id, bool hard, GError **err)
{
    struct rig_options call = {
        .rig = rig, .id = id, .hard = hard, .err = err
    };

    return rig_run(rig, co_delete, &call);
}

static int co_move_node(void *opaque)
{
    struct rig *rig = opaque;
    bool at_first = block_home(rig->node) == rig->threads[0];
    int ret;

    co_block_graph_lock(rig->graph);
    ret = co_block_move(rig->node, rig->threads[at_first ? 1 : 0], NULL);
    block_graph_unlock(rig->graph);
    return ret;
}

int rig_try_move(struct rig *rig)
{
    return rig_run(rig, co_move_node, rig);
}

void rig_move(struct rig *rig)
{
    assert_int_equal(rig_try_move(rig), 0);
}
