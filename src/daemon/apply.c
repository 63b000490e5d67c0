/* SPDX-License-Identifier: BSD-3-Clause */
#include "daemon/apply.h"

#include <errno.h>

#include "base/error.h"
#include "base/json_reader.h"
#include "base/trace.h"
#include "block/driver.h"
#include "daemon/background.h"
#include "daemon/daemon.h"
#include "drivers/drivers.h"
#include "qmp/server.h"

/* The argument as a checked value of `type`; NULL with err set. */
static struct json_value *parse_argument(const struct schema_type *type,
                                         const char *text,
                                         const char *implied_key,
                                         GError **err)
{
    g_autoptr(json_value) value = NULL;

    if (text[0] == '{') {
        value = json_read_text(text, err);
        if (value == NULL || schema_check(type, value, type->name, err) < 0) {
            return NULL;
        }
        return g_steal_pointer(&value);
    }
    value = keyval_parse(text, implied_key, err);
    return value != NULL ? schema_coerce(type, value, type->name, err) : NULL;
}

int apply_tracking_defaults(const char *text,
                            struct tracking_settings *settings,
                            GError **err)
{
    g_autoptr(json_value) options = NULL;
    int rc = -EINVAL;

    if (text == NULL) {
        return 0;
    }
    options = parse_argument(&tracking_options_type, text, "durability", err);
    if (options != NULL) {
        rc = tracking_settings_read(settings, options, err);
    }
    if (rc < 0) {
        g_prefix_error(err, "--tracking %s: ", text);
    }
    return rc;
}

int co_apply_blockdev(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&blockdev_options_type, text, "driver", err);
    int rc;

    if (options == NULL) {
        return -EINVAL;
    }
    co_block_graph_lock(daemon->engine.graph);
    rc = co_block_add(daemon->engine.graph, options, true, NULL, err);
    block_graph_unlock(daemon->engine.graph);
    return rc;
}

int co_apply_chardev(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&chardev_options_type, text, "backend", err);

    if (options == NULL) {
        return -EINVAL;
    }
    return co_chardev_add(&daemon->chardevs, options, &daemon->start_canceller,
                          err);
}

static const char *const monitor_mode_values[] = { "control", NULL };
static const struct schema_type monitor_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "MonitorMode",
    .values = monitor_mode_values,
};
static const struct schema_member monitor_members[] = {
    { .name = "chardev", .type = &schema_string, .required = true },
    { .name = "mode", .type = &monitor_mode_type },
    { .name = "pretty", .type = &schema_bool },
    { .name = NULL },
};
static const struct schema_type monitor_type = {
    .kind = SCHEMA_STRUCT,
    .name = "MonitorOptions",
    .members = monitor_members,
};

int co_apply_monitor(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&monitor_type, text, "chardev", err);
    struct chardev *chardev;

    if (options == NULL) {
        return -EINVAL;
    }
    chardev = chardev_find(&daemon->chardevs,
                           json_dict_string(options, "chardev", NULL), err);
    if (chardev == NULL) {
        return -ENOENT;
    }
    if (chardev->has_monitor) {
        return error_set(err, -EBUSY,
                         "character device '%s' has a monitor already",
                         chardev->id);
    }
    chardev->has_monitor = true;
    qmp_server_listen(daemon->engine.qmp, chardev->fd,
                      json_dict_bool(options, "pretty", false));
    return 0;
}

int co_apply_nbd_server(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&nbd_server_options_type, text, NULL, err);

    if (options == NULL) {
        return -EINVAL;
    }
    return co_nbd_server_start(daemon->engine.exports, options, err);
}

int co_apply_export(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&block_export_options_type, text, "type", err);
    int rc;

    if (options == NULL) {
        return -EINVAL;
    }
    co_block_graph_lock(daemon->engine.graph);
    rc = co_export_add(daemon->engine.exports, options, err);
    block_graph_unlock(daemon->engine.graph);
    return rc;
}

int co_apply_object(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&qmp_object_options_type, text, "qom-type", err);

    if (options == NULL) {
        return -EINVAL;
    }
    return daemon->engine.co_object_add(&daemon->engine, options, err);
}

static const struct schema_member trace_members[] = {
    { .name = "enable", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type trace_type = {
    .kind = SCHEMA_STRUCT,
    .name = "TraceOptions",
    .members = trace_members,
};

int co_apply_trace(struct daemon *daemon, const char *text, GError **err)
{
    g_autoptr(json_value) options =
        parse_argument(&trace_type, text, "enable", err);

    if (options == NULL) {
        return -EINVAL;
    }
    if (daemon->settings->daemonize && !background_keeps_errors()) {
        return error_set(err, -EINVAL,
                         "nobody would see the events: with --daemonize, "
                         "standard error must be a file (2>>FILE)");
    }
    return trace_switch(json_dict_string(options, "enable", ""), err);
}
