/* SPDX-License-Identifier: BSD-3-Clause */
#include "rig.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "block/driver.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "nbd/protocol.h"

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

void rig_move(struct rig *rig)
{
    assert_int_equal(rig_run(rig, co_move_node, rig), 0);
}

int client_connect(struct rig *rig)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval patience_time = { .tv_sec = PATIENCE_S };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, rig->socket, sizeof(address.sun_path));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)),
                     0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience_time,
               sizeof(patience_time));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience_time,
               sizeof(patience_time));
    return fd;
}

void client_send(int fd, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;

    while (count > 0) {
        ssize_t n = send(fd, at, count, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail_msg("cannot send: %s", g_strerror(errno));
        }
        at += n;
        count -= (size_t)n;
    }
}

void client_receive(int fd, void *bytes, size_t count)
{
    uint8_t *at = bytes;

    while (count > 0) {
        ssize_t n = recv(fd, at, count, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail_msg("%zu bytes are missing: %s", count,
                     n == 0 ? "the stream has ended" : g_strerror(errno));
        }
        at += n;
        count -= (size_t)n;
    }
}

void client_expect_end(int fd)
{
    uint8_t byte;
    ssize_t n;

    do {
        n = recv(fd, &byte, 1, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        fail_msg("there is a byte: %#x", byte);
    }
    if (n < 0) {
        assert_int_equal(errno, ECONNRESET);
    }
}

void client_greet(int fd, uint32_t flags)
{
    uint8_t greeting[NBD_GREETING_BYTES];
    uint8_t answer[4];

    client_receive(fd, greeting, sizeof(greeting));
    assert_true(load_be64(greeting) == NBD_INIT_MAGIC);
    assert_true(load_be64(greeting + 8) == NBD_OPTION_MAGIC);
    store_be32(answer, flags);
    client_send(fd, answer, sizeof(answer));
}

void client_option(int fd, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t header[NBD_OPTION_BYTES];

    store_be64(header, NBD_OPTION_MAGIC);
    store_be32(header + 8, option);
    store_be32(header + 12, bytes);
    client_send(fd, header, sizeof(header));
    client_send(fd, data, bytes);
}

uint32_t client_reply(int fd, uint32_t option, void *data, size_t *ret_bytes)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    uint8_t scratch[1024];
    size_t bytes;

    client_receive(fd, header, sizeof(header));
    assert_true(load_be64(header) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(load_be32(header + 8), option);
    bytes = load_be32(header + 16);
    assert_true(bytes <= sizeof(scratch));
    client_receive(fd, data ? data : scratch, bytes);
    if (ret_bytes) {
        *ret_bytes = bytes;
    }
    return load_be32(header + 12);
}

static void select_allocation(int fd, const char *name)
{
    static const char context[] = NBD_CONTEXT_ALLOCATION;
    uint8_t data[256];
    size_t name_bytes = strlen(name);

    store_be32(data, (uint32_t)name_bytes);
    memcpy(data + 4, name, name_bytes);
    store_be32(data + 4 + name_bytes, 1);
    store_be32(data + 8 + name_bytes, sizeof(context) - 1);
    memcpy(data + 12 + name_bytes, context, sizeof(context) - 1);
    client_option(fd, NBD_OPTION_SET_META_CONTEXT, data,
                  (uint32_t)(12 + name_bytes + sizeof(context) - 1));
    assert_int_equal(client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
                     NBD_REPLY_META_CONTEXT);
    assert_int_equal(client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
                     NBD_REPLY_ACK);
}

int client_open(struct rig *rig, const char *name, bool structured)
{
    int fd = client_connect(rig);
    uint8_t data[256];
    size_t name_bytes = strlen(name);

    client_greet(fd, NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
    if (structured) {
        client_option(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
        assert_int_equal(
            client_reply(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, NULL),
            NBD_REPLY_ACK);
        select_allocation(fd, name);
    }
    store_be32(data, (uint32_t)name_bytes);
    memcpy(data + 4, name, name_bytes);
    store_be16(data + 4 + name_bytes, 0);
    client_option(fd, NBD_OPTION_GO, data, (uint32_t)(6 + name_bytes));
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, NULL, NULL),
                     NBD_REPLY_INFO);
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, NULL, NULL),
                     NBD_REPLY_ACK);
    return fd;
}

void client_request(int fd, const struct client_request *request)
{
    uint8_t raw[NBD_REQUEST_BYTES];

    store_be32(raw, NBD_REQUEST_MAGIC);
    store_be16(raw + 4, request->flags);
    store_be16(raw + 6, request->type);
    store_be64(raw + 8, request->cookie);
    store_be64(raw + 16, request->offset);
    store_be32(raw + 24, request->length);
    client_send(fd, raw, sizeof(raw));
}

uint32_t client_simple(int fd, uint64_t cookie)
{
    uint8_t raw[NBD_SIMPLE_BYTES];

    client_receive(fd, raw, sizeof(raw));
    assert_int_equal(load_be32(raw), NBD_SIMPLE_MAGIC);
    assert_true(load_be64(raw + 8) == cookie);
    return load_be32(raw + 4);
}

uint16_t client_chunk(int fd, uint64_t cookie, uint32_t *ret_bytes)
{
    uint8_t raw[NBD_STRUCTURED_BYTES];

    client_receive(fd, raw, sizeof(raw));
    assert_int_equal(load_be32(raw), NBD_STRUCTURED_MAGIC);
    assert_int_equal(load_be16(raw + 4), NBD_CHUNK_DONE);
    assert_true(load_be64(raw + 8) == cookie);
    *ret_bytes = load_be32(raw + 16);
    return load_be16(raw + 6);
}
