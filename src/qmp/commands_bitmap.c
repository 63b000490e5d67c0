/* SPDX-License-Identifier: BSD-3-Clause */
/* Bitmap commands: each is a transaction of one action. */
#include <errno.h>

#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "loop/coroutine.h"
#include "qmp/actions.h"
#include "qmp/command.h"

#define ACTION_COMMAND(function, action)                    \
 static int function(struct engine *engine,                 \
                     const struct json_value *arguments,    \
                     struct json_value **ret, GError **err) \
 {                                                          \
  (void)ret; /* {} */                                       \
  return co_action_run(engine, action, arguments, err);     \
 }

ACTION_COMMAND(co_run_add, "block-dirty-bitmap-add")
ACTION_COMMAND(co_run_remove, "block-dirty-bitmap-remove")
ACTION_COMMAND(co_run_clear, "block-dirty-bitmap-clear")
ACTION_COMMAND(co_run_enable, "block-dirty-bitmap-enable")
ACTION_COMMAND(co_run_disable, "block-dirty-bitmap-disable")
ACTION_COMMAND(co_run_merge, "block-dirty-bitmap-merge")

static int co_hash_bitmap(struct engine *engine,
                          const struct json_value *arguments,
                          char **ret_sha256,
                          GError **err)
{
    const char *name = json_dict_string(arguments, "name", "");
    struct block_node *node =
        block_find(engine->graph, json_dict_string(arguments, "node", ""), err);
    struct dirty_bitmap *found;

    if (node == NULL) {
        return -ENOENT;
    }
    co_move(block_home(node));
    found = dirty_bitmap_find(node, name);
    if (found != NULL) {
        *ret_sha256 = bitmap_sha256(dirty_bitmap_bits(found));
    }
    co_move(engine->main);
    if (*ret_sha256 == NULL) {
        return error_set(err, -ENOENT, "Node '%s' has no dirty bitmap '%s'",
                         block_name(node), name);
    }
    return 0;
}

/* With the lock, as no job that ends meanwhile may take its target away. */
static int co_run_sha256(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    g_autofree char *sha256 = NULL;
    int rc;

    co_block_graph_lock(engine->graph);
    rc = co_hash_bitmap(engine, arguments, &sha256, err);
    block_graph_unlock(engine->graph);
    if (rc < 0) {
        return rc;
    }
    *ret = json_dict_new();
    json_dict_set_string(*ret, "sha256", sha256);
    return 0;
}

static const struct schema_type sha256_result_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDirtyBitmapSha256",
    .members =
        (const struct schema_member[]){
            { .name = "sha256",
              .type = &schema_string,
              .required = true,
              .doc = "Hash of the bits, in hexadecimal digits." },
            { .name = NULL },
        },
};

static const char *const unstable[] = { "unstable", NULL };

const struct qmp_command qmp_commands_bitmap[] = {
    { .name = "block-dirty-bitmap-add",
      .doc = "Adds a dirty bitmap to a node. It is clean, and records from "
             "now on unless it is disabled.",
      .arguments = &bitmap_add_type,
      .co_run = co_run_add },
    { .name = "block-dirty-bitmap-remove",
      .doc = "Removes a dirty bitmap that nothing uses.",
      .arguments = &bitmap_name_type,
      .co_run = co_run_remove },
    { .name = "block-dirty-bitmap-clear",
      .doc = "Makes every segment of a bitmap clean.",
      .arguments = &bitmap_name_type,
      .co_run = co_run_clear },
    { .name = "block-dirty-bitmap-enable",
      .doc = "Lets a bitmap record writes again.",
      .arguments = &bitmap_name_type,
      .co_run = co_run_enable },
    { .name = "block-dirty-bitmap-disable",
      .doc = "Stops a bitmap from recording. What is written then is missing "
             "from it.",
      .arguments = &bitmap_name_type,
      .co_run = co_run_disable },
    { .name = "block-dirty-bitmap-merge",
      .doc = "Adds the dirty segments of some bitmaps to those of a target, "
             "which is not cleared first. If one cannot be merged, none is.",
      .arguments = &bitmap_merge_type,
      .co_run = co_run_merge },
    { .name = "x-debug-block-dirty-bitmap-sha256",
      .doc = "Hash of a bitmap's bits, to compare bitmaps of equal size and "
             "granularity.",
      .arguments = &bitmap_name_type,
      .returns = &sha256_result_type,
      .features = unstable,
      .co_run = co_run_sha256 },
    { .name = NULL },
};
