/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: the main loop runs one coroutine, which makes the engine, lets
 * the options act in order, says that it is ready, waits for quit or a signal,
 * and takes everything down again. Nothing is left open or allocated.
 *
 * Failures: an option that fails ends the start; what the ones before it have
 * made goes the same way down as at a normal end.
 *
 * Down: see shutdown.c. A signal begins it, a second one ends the process.
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "backup/filter_drivers.h"
#include "base/error.h"
#include "base/trace.h"
#include "daemon/apply.h"
#include "drivers/drivers.h"
#include "loop/coroutine.h"
#include "qmp/server.h"

static struct daemon *daemon_of(struct engine *engine)
{
    return (struct daemon *)(void *)engine;
}

static const struct daemon *daemon_of_const(const struct engine *engine)
{
    return (const struct daemon *)(const void *)engine;
}

static void engine_quit(struct engine *engine)
{
    struct daemon *daemon = daemon_of(engine);

    daemon->quitting = true;
    shutdown_begin(daemon);
    io_cancel(&daemon->start_canceller);
    co_queue_wake_all(&daemon->quit);
}

static int co_engine_object_add(struct engine *engine,
                                const struct json_value *options,
                                GError **err)
{
    return co_iothread_add(&daemon_of(engine)->iothreads,
                           json_dict_string(options, "id", NULL), err);
}

static int co_engine_object_del(struct engine *engine,
                                const char *id,
                                GError **err)
{
    int rc;

    co_block_graph_lock(engine->graph);
    rc = iothread_del(&daemon_of(engine)->iothreads, id, err);
    block_graph_unlock(engine->graph);
    return rc;
}

static struct json_value *engine_iothreads(const struct engine *engine)
{
    return iothread_query(&daemon_of_const(engine)->iothreads);
}

static struct json_value *engine_chardevs(const struct engine *engine)
{
    const struct daemon *daemon = daemon_of_const(engine);
    struct json_value *infos = json_list_new();

    LIST_FOREACH(link, &daemon->chardevs.chardevs) {
        const struct chardev *chardev = LIST_ENTRY(link, struct chardev, link);
        struct json_value *info = json_dict_new();
        g_autofree char *filename =
            g_strdup_printf("%s,server=on", chardev->address);

        json_dict_set_string(info, "label", chardev->id);
        json_dict_set_string(info, "filename", filename);
        json_dict_set_bool(info, "frontend-open",
                           qmp_server_clients(engine->qmp, chardev->fd) > 0);
        json_list_append(infos, info);
    }
    return infos;
}

/* An event from the engine, on its way to the clients. */
static void engine_event(void *opaque,
                         const char *name,
                         struct json_value *data)
{
    struct daemon *daemon = opaque;

    qmp_server_event(daemon->engine.qmp, name, data);
}

/* Persistent bitmaps of a node have been lost. */
static void tell_trouble(void *opaque,
                         const char *node,
                         const char *reason,
                         bool is_durable)
{
    struct json_value *data = json_dict_new();

    g_warning("The persistent bitmaps of node '%s' are inconsistent: %s%s",
              node, reason,
              is_durable ? ""
                         : ". Nor could that be stored: after a crash they "
                           "must not be believed");
    json_dict_set_string(data, "node-name", node);
    json_dict_set_string(data, "reason", reason);
    json_dict_set_bool(data, "durable", is_durable);
    engine_event(opaque, "X_COHORT_TRACKING_FAILED", data);
}

static void engine_init(struct daemon *daemon,
                        const struct tracking_settings *tracking,
                        struct loop *main_loop)
{
    struct engine *engine = &daemon->engine;

    engine->main = main_loop;
    engine->graph = block_graph_new(main_loop, block_drivers);
    block_graph_add_drivers(engine->graph, backup_drivers);
    engine->jobs = job_list_new(engine_event, daemon);
    daemon_state_init(&daemon->state, daemon->settings->state_directory,
                      tracking, main_loop, engine_event, daemon);
    engine->coordinator = daemon->state.coordinator;
    daemon->state.tracking.on_trouble = tell_trouble;
    daemon->state.tracking.opaque = daemon;
    engine->tracking = &daemon->state.tracking;
    block_graph_set_watcher(engine->graph, &daemon->state.tracking.watcher);
    engine->exports = export_list_new(engine->graph, engine_event, daemon);
    engine->qmp = qmp_server_new(engine);
    engine->quit = engine_quit;
    engine->co_object_add = co_engine_object_add;
    engine->co_object_del = co_engine_object_del;
    engine->iothreads = engine_iothreads;
    engine->chardevs = engine_chardevs;
    chardev_list_init(&daemon->chardevs);
    iothread_list_init(&daemon->iothreads, engine->graph);
    shutdown_init(&daemon->shutdown);
    co_queue_init(&daemon->quit);
    io_canceller_init(&daemon->start_canceller);
    io_canceller_init(&daemon->signal_canceller);
}

static void engine_release(struct daemon *daemon)
{
    struct engine *engine = &daemon->engine;

    chardev_list_release(&daemon->chardevs);
    qmp_server_free(engine->qmp);
    export_list_free(engine->exports);
    job_list_free(engine->jobs);
    block_graph_free(engine->graph);
}

/* The first signal asks for the end, a second one insists. SIGHUP does not
 * count: it comes with another one, in any order, when a terminal is closed or a
 * service ends. */
static void take_signal(struct daemon *daemon, uint32_t number)
{
    if (daemon->signalled && number != SIGHUP) {
        shutdown_force(daemon);
    }
    daemon->signalled |= number != SIGHUP;
    engine_quit(&daemon->engine);
}

static void co_watch_signals(void *opaque)
{
    struct daemon *daemon = opaque;

    while (co_poll(daemon->signal_fd, POLLIN, &daemon->signal_canceller) > 0) {
        struct signalfd_siginfo info;

        /* Does not wait: the descriptor is ready. */
        if (read(daemon->signal_fd, &info, sizeof(info)) > 0) {
            take_signal(daemon, info.ssi_signo);
        }
    }
    daemon->watches_signals = false;
    co_queue_wake_all(&daemon->quit);
}

static int watch_signals(struct daemon *daemon, GError **err)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    daemon->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (daemon->signal_fd < 0) {
        return error_set_errno(err, -errno, "cannot watch for signals");
    }
    daemon->watches_signals = true;
    co_spawn(daemon->engine.main, co_watch_signals, daemon);
    return 0;
}

static bool has_iothread_option(const struct daemon_settings *settings)
{
    for (guint i = 0; i < settings->steps->len; i++) {
        if (g_array_index(settings->steps, struct daemon_step, i)
                .option->co_apply == co_apply_object) {
            return true;
        }
    }
    return false;
}

static int co_start(struct daemon *daemon, GError **err)
{
    const struct daemon_settings *settings = daemon->settings;
    int rc = watch_signals(daemon, err);

    if (rc == 0 && !has_iothread_option(settings)) {
        rc = co_iothread_add_defaults(&daemon->iothreads, err);
    }
    for (guint i = 0; rc == 0 && i < settings->steps->len; i++) {
        const struct daemon_step *step =
            &g_array_index(settings->steps, struct daemon_step, i);

        if (daemon->quitting) {
            return 0;
        }
        daemon->step = step;
        rc = step->option->co_apply(daemon, step->text, err);
        daemon->step = NULL;
        if (rc == -ECANCELED && daemon->quitting) {
            g_clear_error(err);
            return 0;
        }
        if (rc < 0) {
            g_prefix_error(err, "--%s %s: ", step->option->name, step->text);
        }
    }
    if (rc == 0 && !daemon->quitting) {
        rc = daemon->ready->call(daemon->ready, err);
    }
    return rc;
}

static void co_stop(struct daemon *daemon)
{
    co_shutdown(daemon);
    io_cancel(&daemon->signal_canceller);
    while (daemon->watches_signals) {
        co_queue_wait(&daemon->quit);
    }
}

static void co_daemon(void *opaque)
{
    struct daemon *daemon = opaque;

    if (co_start(daemon, &daemon->error) == 0) {
        while (!daemon->quitting) {
            co_queue_wait(&daemon->quit);
        }
    }
    co_stop(daemon);
    loop_stop(daemon->engine.main);
}

int daemon_run(const struct daemon_settings *settings,
               struct daemon_ready *ready,
               GError **err)
{
    struct daemon daemon = {
        .settings = settings,
        .ready = ready,
        .signal_fd = -1,
    };
    struct tracking_settings tracking = { .stop_on_error = false };
    struct loop *main_loop;
    int rc = apply_tracking_defaults(settings->tracking, &tracking, err);

    if (rc < 0) {
        return rc;
    }
    main_loop = loop_new(&loop_uring_backend, "main", err);
    if (main_loop == NULL) {
        return -ENOSYS;
    }
    (void)trace_switch("group_end", NULL); /* there is such an event */
    engine_init(&daemon, &tracking, main_loop);
    co_spawn(main_loop, co_daemon, &daemon);
    loop_run(main_loop);
    engine_release(&daemon);
    loop_free(main_loop);
    if (daemon.signal_fd >= 0) {
        close(daemon.signal_fd);
    }
    if (daemon.error != NULL) {
        g_propagate_error(err, daemon.error);
        return -EIO;
    }
    return 0;
}
