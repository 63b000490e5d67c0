/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands on exports and on the NBD server that carries them. */
#include "qmp/command.h"

#include <errno.h>

#include "base/error.h"

static int co_server_start(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    int rc;

    (void)ret;
    co_block_graph_lock(engine->graph);
    rc = co_nbd_server_start(engine->exports, arguments, err);
    block_graph_unlock(engine->graph);
    return rc;
}

static int co_server_stop(struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    int rc;

    (void)arguments;
    (void)ret;
    co_block_graph_lock(engine->graph);
    rc = co_nbd_server_stop(engine->exports, err);
    block_graph_unlock(engine->graph);
    return rc;
}

static int co_add(struct engine *engine,
                  const struct json_value *options,
                  GError **err)
{
    int rc;

    co_block_graph_lock(engine->graph);
    rc = co_export_add(engine->exports, options, err);
    block_graph_unlock(engine->graph);
    return rc;
}

static int co_block_export_add(struct engine *engine,
                               const struct json_value *arguments,
                               struct json_value **ret,
                               GError **err)
{
    (void)ret;
    return co_add(engine, arguments, err);
}

static const char *const mode_values[] = { "safe", "hard", NULL };
static const struct schema_type mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockExportRemoveMode",
    .doc = "safe: refused while a client is connected; hard: clients are "
           "dropped.",
    .values = mode_values,
};

static int remove_export(struct engine *engine,
                         const char *id,
                         const struct json_value *arguments,
                         GError **err)
{
    const char *mode = json_dict_string(arguments, "mode", "safe");

    return export_delete(engine->exports, id, g_str_equal(mode, "hard"), err);
}

static const struct schema_member export_del_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "mode", .type = &mode_type, .fallback = "safe" },
    { .name = NULL },
};
static const struct schema_type export_del_type = {
    .kind = SCHEMA_STRUCT,
    .members = export_del_members,
};

static int co_block_export_del(struct engine *engine,
                               const struct json_value *arguments,
                               struct json_value **ret,
                               GError **err)
{
    (void)ret;
    return remove_export(engine, json_dict_string(arguments, "id", NULL),
                         arguments, err);
}

static const char *const export_kinds[] = { "nbd", NULL };
static const struct schema_type export_kind_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockExportType",
    .values = export_kinds,
};
static const struct schema_member export_info_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "type", .type = &export_kind_type, .required = true },
    { .name = "node-name", .type = &schema_string, .required = true },
    { .name = "shutting-down",
      .type = &schema_bool,
      .doc = "It takes no new client and is about to go.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type export_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockExportInfo",
    .doc = "An export.",
    .members = export_info_members,
};
static const struct schema_type export_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &export_info_type,
};

static int co_query_exports(struct engine *engine,
                            const struct json_value *arguments,
                            struct json_value **ret,
                            GError **err)
{
    (void)arguments;
    (void)err;
    *ret = export_query(engine->exports);
    return 0;
}

/* The older commands, which know an export by its NBD name alone. */
static const struct schema_member server_add_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "The node's name.",
      .required = true },
    { .name = "name",
      .type = &schema_string,
      .doc = "The export's name and id.",
      .fallback = "the node's name" },
    { .name = "description", .type = &schema_string },
    { .name = "writable",
      .type = &schema_bool,
      .doc = "Ignored for a read-only node, which is exported read-only.",
      .fallback = "false" },
    { .name = "bitmap",
      .type = &schema_string,
      .doc = "A dirty bitmap that clients may read." },
    { .name = NULL },
};
static const struct schema_type server_add_type = {
    .kind = SCHEMA_STRUCT,
    .members = server_add_members,
};

/* nbd-server-add in terms of block-export-add. */
static struct json_value *export_options_of(struct block_node *node,
                                            const struct json_value *arguments)
{
    const char *device = json_dict_string(arguments, "device", NULL);
    const char *name = json_dict_string(arguments, "name", device);
    const char *description = json_dict_string(arguments, "description", NULL);
    const char *bitmap = json_dict_string(arguments, "bitmap", NULL);
    bool writable = json_dict_bool(arguments, "writable", false);
    struct json_value *options = json_dict_new();

    json_dict_set_string(options, "type", "nbd");
    json_dict_set_string(options, "id", name);
    json_dict_set_string(options, "node-name", device);
    json_dict_set_string(options, "name", name);
    json_dict_set_bool(options, "writable",
                       writable && !block_is_read_only(node));
    if (description != NULL) {
        json_dict_set_string(options, "description", description);
    }
    if (bitmap != NULL) {
        struct json_value *bitmaps = json_list_new();

        json_list_append(bitmaps, json_string_new(bitmap));
        json_dict_set(options, "bitmaps", bitmaps);
    }
    return options;
}

static int co_server_add(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    const char *device = json_dict_string(arguments, "device", NULL);
    struct block_node *node = block_find(engine->graph, device, err);
    g_autoptr(json_value) options = NULL;
    int rc;

    (void)ret;
    if (node == NULL) {
        return -ENOENT;
    }
    options = export_options_of(node, arguments);
    rc = schema_check(&block_export_options_type, options, "nbd-server-add",
                      err);
    if (rc < 0) {
        return rc;
    }
    return co_add(engine, options, err);
}

static const struct schema_member server_remove_members[] = {
    { .name = "name", .type = &schema_string, .required = true },
    { .name = "mode", .type = &mode_type, .fallback = "safe" },
    { .name = NULL },
};
static const struct schema_type server_remove_type = {
    .kind = SCHEMA_STRUCT,
    .members = server_remove_members,
};

static int co_server_remove(struct engine *engine,
                            const struct json_value *arguments,
                            struct json_value **ret,
                            GError **err)
{
    (void)ret;
    return remove_export(engine, json_dict_string(arguments, "name", NULL),
                         arguments, err);
}

static const char *const deprecated[] = { "deprecated", NULL };

const struct qmp_command qmp_commands_export[] = {
    { .name = "nbd-server-start",
      .doc = "Starts the NBD server; there is one at most.",
      .arguments = &nbd_server_start_type,
      .co_run = co_server_start },
    { .name = "nbd-server-stop",
      .doc = "Drops all NBD clients, removes all NBD exports, then returns. "
             "When a disk keeps requests for more than 5 seconds: an error "
             "that names its export, which goes when they end, and the server "
             "with it.",
      .co_run = co_server_stop },
    { .name = "block-export-add",
      .doc = "Offers a node to clients.",
      .arguments = &block_export_options_type,
      .co_run = co_block_export_add },
    { .name = "block-export-del",
      .doc = "Removes an export. BLOCK_EXPORT_DELETED tells when it is gone.",
      .arguments = &export_del_type,
      .co_run = co_block_export_del },
    { .name = "query-block-exports",
      .doc = "All exports.",
      .returns = &export_info_list_type,
      .co_run = co_query_exports },
    { .name = "nbd-server-add",
      .doc = "As block-export-add, in an older form.",
      .arguments = &server_add_type,
      .features = deprecated,
      .co_run = co_server_add },
    { .name = "nbd-server-remove",
      .doc = "As block-export-del, in an older form.",
      .arguments = &server_remove_type,
      .features = deprecated,
      .co_run = co_server_remove },
    { .name = NULL },
};
