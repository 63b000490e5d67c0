/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one context: what a daemon is made of. There are no other globals.
 */
#ifndef QMP_ENGINE_H
#define QMP_ENGINE_H

#include "base/schema.h"
#include "block/node.h"
#include "job/job.h"
#include "journal/group_commit.h"
#include "journal/tracking.h"
#include "loop/loop.h"
#include "nbd/export.h"

struct qmp_server;

/* ObjectOptions: arguments of object-add and of --object. */
extern const struct schema_type qmp_object_options_type;

struct engine {
    struct loop *main;
    struct block_graph *graph;
    struct tracking *tracking; /* NULL: no bitmaps are kept */
    struct job_list *jobs;
    /* Of durable transactions; NULL: no bitmap is persistent. */
    struct coordinator *coordinator;
    struct export_list *exports;
    struct qmp_server *qmp;
    uint64_t transactions; /* how many there have been; numbers them */
    /* Begins the shut-down; returns at once. Any callback of the main thread. */
    void (*quit)(struct engine *engine);
    /* object-add / object-del iothread: by id; owned by the daemon. */
    int (*co_object_add)(struct engine *engine,
                         const struct json_value *options,
                         GError **err);
    int (*co_object_del)(struct engine *engine, const char *id, GError **err);
    /* query-iothreads and query-chardev: a new list each. */
    struct json_value *(*iothreads)(const struct engine *engine);
    struct json_value *(*chardevs)(const struct engine *engine);
};

#endif
