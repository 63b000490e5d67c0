/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: no command starts any more; exports go (their clients with them),
 * jobs are cancelled, which gives bitmaps back what they lost to a running
 * backup (what is in doubt ends undecided, as in a crash), nodes close, clients of the monitors get what is still to be said
 * (events of the end, the reply to `quit`), threads end.
 *
 * A disk that hangs holds each of these up for as long as it does: its requests
 * cannot be taken back, and what they would do to memory and files after we
 * said that all is over nobody may see. So we wait, and say what for; who knows
 * better ends the process by force.
 */
#include "daemon/shutdown.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "loop/coroutine.h"
#include "qmp/server.h"

#define REPORT_NS (UINT64_C(5) * 1000 * 1000 * 1000)

void shutdown_init(struct shutdown *shutdown)
{
    *shutdown = (struct shutdown){ .stage = SHUTDOWN_START };
    co_queue_init(&shutdown->wake);
}

static char *describe_start(const struct daemon *daemon)
{
    if (daemon->step == NULL) {
        return NULL;
    }
    return g_strdup_printf("--%s %s", daemon->step->option->name,
                           daemon->step->text);
}

static char *describe_jobs(struct job_list *jobs)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (struct job *job = NULL; (job = job_next(jobs, job)) != NULL;) {
        enum job_state state = job_state_of(job);

        if (state == JOB_CONCLUDED) {
            continue;
        }
        g_string_append_printf(text, "%sjob '%s' (%s)",
                               text->len > 0 ? ", " : "", job_id(job),
                               job_state_name(state));
    }
    return text->len > 0 ? g_strdup(text->str) : NULL;
}

static char *describe_node(const struct block_graph *graph)
{
    const char *name = block_closing(graph);

    return name != NULL ? g_strdup_printf("node '%s' to close", name) : NULL;
}

/* What is waited for, for a person; owned by the caller, NULL: nothing that
 * has a name. */
static char *describe(const struct daemon *daemon)
{
    const struct engine *engine = &daemon->engine;

    switch (daemon->shutdown.stage) {
    case SHUTDOWN_START: return describe_start(daemon);
    case SHUTDOWN_COMMANDS: return g_strdup("a QMP command that runs");
    case SHUTDOWN_EXPORTS: return export_list_describe(engine->exports);
    case SHUTDOWN_JOBS: return describe_jobs(engine->jobs);
    case SHUTDOWN_NODES: return describe_node(engine->graph);
    case SHUTDOWN_CLIENTS: return g_strdup("clients of the monitor to read");
    }
    return NULL;
}

static void co_report(void *opaque)
{
    struct daemon *daemon = opaque;
    struct shutdown *shutdown = &daemon->shutdown;

    while (!shutdown->over) {
        g_autofree char *what = NULL;

        if (co_queue_wait_until(&shutdown->wake, loop_now_ns() + REPORT_NS)) {
            continue;
        }
        what = describe(daemon);
        fprintf(stderr,
                "cohortd: shutting down, waiting for %s; one more SIGTERM "
                "ends it by force\n",
                what != NULL ? what : "what is left");
    }
    shutdown->reporting = false;
    co_queue_wake_all(&shutdown->wake);
}

void shutdown_begin(struct daemon *daemon)
{
    if (!daemon->shutdown.reporting && !daemon->shutdown.over) {
        daemon->shutdown.reporting = true;
        co_spawn(daemon->engine.main, co_report, daemon);
    }
}

void co_shutdown(struct daemon *daemon)
{
    struct engine *engine = &daemon->engine;
    struct shutdown *shutdown = &daemon->shutdown;

    shutdown_begin(daemon); /* when it was a start that failed */
    shutdown->stage = SHUTDOWN_COMMANDS;
    co_qmp_server_quiesce(engine->qmp);
    shutdown->stage = SHUTDOWN_EXPORTS;
    co_export_shutdown(engine->exports);
    shutdown->stage = SHUTDOWN_JOBS;
    coordinator_let_go(engine->coordinator);
    co_job_cancel_all(engine->jobs);
    co_coordinator_drain(engine->coordinator);
    shutdown->stage = SHUTDOWN_NODES;
    co_block_graph_lock(engine->graph);
    co_block_del_all(engine->graph);
    block_graph_unlock(engine->graph);
    co_daemon_state_close(&daemon->state);
    engine->coordinator = NULL;
    shutdown->stage = SHUTDOWN_CLIENTS;
    co_qmp_server_close(engine->qmp);
    iothread_list_release(&daemon->iothreads);
    shutdown->over = true;
    co_queue_wake_all(&shutdown->wake);
    while (shutdown->reporting) {
        co_queue_wait(&shutdown->wake);
    }
}

void shutdown_force(struct daemon *daemon)
{
    g_autofree char *what = describe(daemon);

    fprintf(stderr, "cohortd: ended by force, while waiting for %s\n",
            what != NULL ? what : "what was left");
    _exit(EXIT_FAILURE);
}
