/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options that every node has, and what a nested child inherits.
 *
 * A child that is opened with its parent takes over the parent's cache mode
 * and access mode, unless its own options say otherwise. `discard` is decided
 * by the parent, so for the child it is on. A child that is only read from (a
 * backing file) is read-only instead.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/node_priv.h"

static enum block_detect_zeroes parse_detect_zeroes(const char *word)
{
    if (strcmp(word, "on") == 0) {
        return BLOCK_DETECT_ZEROES_ON;
    }
    if (strcmp(word, "unmap") == 0) {
        return BLOCK_DETECT_ZEROES_UNMAP;
    }
    return BLOCK_DETECT_ZEROES_OFF;
}

int block_common_parse(struct block_common *ret_common,
                       const struct json_value *options,
                       GError **err)
{
    const struct json_value *cache = json_dict_get(options, "cache");
    struct block_common common = {
        .read_only = json_dict_bool(options, "read-only", false),
        .auto_read_only = json_dict_bool(options, "auto-read-only", false),
        .force_share = json_dict_bool(options, "force-share", false),
        .discard_unmap = strcmp(json_dict_string(options, "discard", "ignore"),
                                "unmap") == 0,
        .detect_zeroes = parse_detect_zeroes(
            json_dict_string(options, "detect-zeroes", "off")),
    };

    if (cache != NULL) {
        common.direct = json_dict_bool(cache, "direct", false);
        common.no_flush = json_dict_bool(cache, "no-flush", false);
    }
    if (common.force_share && !common.read_only) {
        return error_set(err, -EINVAL,
                         "force-share=on needs read-only=on: an image that "
                         "others may write to cannot be written to here");
    }
    if (common.detect_zeroes == BLOCK_DETECT_ZEROES_UNMAP &&
        !common.discard_unmap) {
        return error_set(err, -EINVAL,
                         "detect-zeroes=unmap needs discard=unmap");
    }
    *ret_common = common;
    return 0;
}

static void inherit_bool(struct json_value *options,
                         const char *key,
                         bool parent)
{
    if (json_dict_get(options, key) == NULL && parent) {
        json_dict_set_bool(options, key, true);
    }
}

struct json_value *block_common_inherit(const struct block_common *parent,
                                        const struct block_child_role *role,
                                        const struct json_value *child_options)
{
    struct json_value *options = json_copy(child_options);
    struct json_value *cache;

    if (json_dict_get(options, "cache") == NULL) {
        json_dict_set(options, "cache", json_dict_new());
    }
    cache = json_dict_get_mutable(options, "cache");
    inherit_bool(cache, "direct", parent->direct);
    inherit_bool(cache, "no-flush", parent->no_flush);
    inherit_bool(options, "read-only", parent->read_only || role->read_only);
    inherit_bool(options, "auto-read-only",
                 parent->auto_read_only && !role->read_only);
    inherit_bool(options, "force-share",
                 parent->force_share &&
                     json_dict_bool(options, "read-only", false));
    if (json_dict_get(options, "discard") == NULL && !role->read_only) {
        json_dict_set_string(options, "discard", "unmap");
    }
    return options;
}

void block_take_over_options(const struct block_node *node,
                             struct json_value *options)
{
    struct json_value *cache = json_dict_new();

    json_dict_set_bool(cache, "direct", node->common.direct);
    json_dict_set_bool(cache, "no-flush", node->common.no_flush);
    json_dict_set(options, "cache", cache);
    json_dict_set_string(options, "discard",
                         node->common.discard_unmap ? "unmap" : "ignore");
    if (node->tracking != NULL) {
        json_dict_set(options, "x-cohort-tracking", json_copy(node->tracking));
    }
}
