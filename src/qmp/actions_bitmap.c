/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bitmap actions. Prepare settles, in the transaction's view, what each name
 * will stand for and makes what is new; commit, with every node fenced, does
 * the thing itself in memory. Nothing is visible before, so abort has only to
 * free what prepare made.
 *
 * In a grouped transaction commit makes a change that can be undone, and hands
 * it to the group (qmp/bitmap_change.h). A bitmap that the same transaction adds
 * needs no such care: if the group fails, it goes as a whole.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/trace.h"
#include "bitmap/dirty_bitmap.h"
#include "journal/image_bitmaps.h"
#include "loop/coroutine.h"
#include "qmp/action_record.h"
#include "qmp/action_tracking.h"
#include "qmp/actions.h"
#include "qmp/bitmap_change.h"

struct bitmap_action {
    struct transaction_action action;
    struct action_context *context;
    const struct json_value *data; /* borrowed */
    struct dirty_bitmap *bitmap;   /* whom commit changes; borrowed */
    struct dirty_bitmap *owned;    /* made by add, or taken off by remove */
    struct block_node *node;
    GPtrArray *sources;           /* merge: struct dirty_bitmap, borrowed */
    struct bitmap_change *change; /* NULL: there is no group to wait for */
    bool made;
    bool removed; /* `owned` was on the node */
};

static struct bitmap_action *action_of(struct transaction_action *action)
{
    return LIST_ENTRY(action, struct bitmap_action, action);
}

static void co_clean(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (self->made) {
        g_ptr_array_add(self->context->companions,
                        bitmap_change_companion(self->change));
    } else {
        bitmap_change_free(self->change);
    }
    if (self->removed) {
        co_bitmap_forget(self->node, self->owned);
    }
    dirty_bitmap_free(self->owned);
    if (self->sources != NULL) {
        g_ptr_array_unref(self->sources);
    }
    g_free(self);
}

static struct transaction_action *create(
    const struct transaction_action_ops *ops,
    struct action_context *context,
    const struct json_value *data)
{
    struct bitmap_action *self = g_new0(struct bitmap_action, 1);

    self->action.ops = ops;
    self->context = context;
    self->data = data;
    return &self->action;
}

static const char *argument(const struct bitmap_action *self, const char *key)
{
    return json_dict_string(self->data, key, NULL);
}

/* In a group, or where a record decides: prepares the change of a bitmap, which
 * later actions find in use. A persistent bitmap's own change: its tracker holds
 * still. Else there is nothing more to prepare. */
static int co_prepare_change(struct bitmap_action *self,
                             struct bitmap_view_entry *entry,
                             enum bitmap_change_kind kind,
                             GError **err)
{
    bool is_recorded = action_record_takes(self->context, entry);

    if (action_tracking_takes(self->context, entry)) {
        return co_action_tracking_begin(self->context, entry->node, 0, err);
    }
    if ((!self->context->grouped && !is_recorded) || entry->is_new) {
        return 0;
    }
    self->change =
        bitmap_change_new(kind, entry->node, entry->granularity_bytes,
                          self->context->group_name, err);
    if (self->change == NULL) {
        return -EBUSY;
    }
    bitmap_view_claim(entry, self->context->group_name);
    return is_recorded ? action_record_change(self->context, self->change,
                                              entry, kind, err)
                       : 0;
}

/* At the instant. Returns false when it is to be done for good, here. */
static bool make_change(struct bitmap_action *self)
{
    if (self->change == NULL) {
        return false;
    }
    bitmap_change_make(self->change, self->bitmap, self->sources);
    self->made = true;
    return true;
}

/* --- add ------------------------------------------------------------------ */

static int co_check_count(struct block_node *node, GError **err)
{
    struct loop *main = loop_current();
    struct dirty_bitmap *bitmap = NULL;
    size_t count = 0;

    co_move(block_home(node));
    while ((bitmap = dirty_bitmap_next(node, bitmap)) != NULL) {
        count++;
    }
    co_move(main);
    if (count >= LIMIT_BITMAPS_PER_NODE) {
        return error_set(err, -ENOSPC,
                         "Node '%s' has %d dirty bitmaps, and can have no more",
                         block_name(node), LIMIT_BITMAPS_PER_NODE);
    }
    return 0;
}

/* What will be undone when the group fails; and room in the tracking file. */
static int co_prepare_new(struct bitmap_action *self,
                          struct bitmap_view_entry *entry,
                          GError **err)
{
    bool is_recorded = action_record_takes(self->context, entry);

    if (action_tracking_takes(self->context, entry)) {
        return co_action_tracking_begin(self->context, entry->node,
                                        entry->granularity_bytes, err);
    }
    if (!self->context->grouped && !is_recorded) {
        return 0;
    }
    self->change = bitmap_change_new(BITMAP_CHANGE_ADD, entry->node,
                                     entry->granularity_bytes,
                                     self->context->group_name, err);
    if (self->change == NULL) {
        return -EBUSY;
    }
    entry->is_new = true;
    return is_recorded ? action_record_change(self->context, self->change,
                                              entry, BITMAP_CHANGE_ADD, err)
                       : 0;
}

/* Its own file, and a place to write down what becomes of its changes: every
 * job that consumes it needs one. */
static int co_ensure_kept(struct engine *engine,
                          struct block_node *node,
                          GError **err)
{
    int ret = engine->coordinator == NULL
                  ? 0
                  : co_coordinator_ensure(engine->coordinator, err);

    return ret < 0 ? ret : co_tracking_ensure(engine->tracking, node, err);
}

static int co_prepare_add(struct transaction_action *action,
                          struct transaction *transaction,
                          GError **err)
{
    struct bitmap_action *self = action_of(action);
    const char *name = argument(self, "name");
    uint64_t granularity = json_dict_uint(self->data, "granularity", 0);
    struct bitmap_view_entry *entry;
    int ret;

    ret = co_bitmap_view_get(self->context->engine, transaction,
                             argument(self, "node"), name, &entry, err);
    if (ret < 0) {
        return ret;
    }
    if (entry->bitmap != NULL) {
        return error_set(err, -EEXIST,
                         "Node '%s' already has a dirty bitmap '%s'",
                         argument(self, "node"), name);
    }
    if (json_dict_get(self->data, "granularity") != NULL && granularity == 0) {
        return error_set(err, -EINVAL,
                         "A bitmap's granularity cannot be 0; leave it out "
                         "for the default");
    }
    ret = co_check_count(entry->node, err);
    if (ret < 0) {
        return ret;
    }
    self->owned =
        dirty_bitmap_new(entry->node, name, granularity,
                         json_dict_bool(self->data, "disabled", false), err);
    if (self->owned == NULL) {
        return -EINVAL;
    }
    self->node = entry->node;
    self->bitmap = self->owned;
    entry->bitmap = self->owned;
    entry->granularity_bytes = dirty_bitmap_granularity_bytes(self->owned);
    if (json_dict_bool(self->data, "persistent", false)) {
        ret = image_bitmaps_check_new(self->node, name,
                                      entry->granularity_bytes, err);
        if (ret == 0) {
            ret = co_ensure_kept(self->context->engine, self->node, err);
        }
        entry->is_persistent = ret == 0;
    }
    return ret < 0 ? ret : co_prepare_new(self, entry, err);
}

static void commit_add(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    dirty_bitmap_attach(self->node, &self->owned);
    if (!make_change(self)) {
        action_tracking_tell(self->context, self->bitmap, TRACKER_CHANGE_ADD);
    }
}

static const struct transaction_action_ops add_ops = {
    .name = "block-dirty-bitmap-add",
    .co_prepare = co_prepare_add,
    .commit = commit_add,
    .co_clean = co_clean,
};

static struct transaction_action *create_add(struct action_context *context,
                                             const struct json_value *data)
{
    return create(&add_ops, context, data);
}

/* --- What changes one bitmap that is there -------------------------------- */

static int co_find(struct bitmap_action *self,
                   struct transaction *transaction,
                   const char *name,
                   struct bitmap_view_entry **ret_entry,
                   GError **err)
{
    int ret =
        co_bitmap_view_get_usable(self->context->engine, transaction,
                                  argument(self, "node"), name, ret_entry, err);

    if (ret == 0) {
        self->bitmap = (*ret_entry)->bitmap;
        self->node = (*ret_entry)->node;
    }
    return ret;
}

static int co_prepare_remove(struct transaction_action *action,
                             struct transaction *transaction,
                             GError **err)
{
    struct bitmap_action *self = action_of(action);
    struct bitmap_view_entry *entry;
    int ret = co_bitmap_view_get_free(self->context->engine, transaction,
                                      argument(self, "node"),
                                      argument(self, "name"), &entry, err);

    if (ret < 0) {
        return ret;
    }
    self->bitmap = entry->bitmap; /* an inconsistent one, too */
    self->node = entry->node;
    ret = bitmap_view_check_changeable(entry, err);
    if (ret < 0) {
        return ret;
    }
    if (entry->is_new) {
        return error_set(err, -EINVAL,
                         "Dirty bitmap '%s' of node '%s' is added by the same "
                         "grouped transaction, and cannot be removed in it",
                         argument(self, "name"), argument(self, "node"));
    }
    ret = co_prepare_change(self, entry, BITMAP_CHANGE_REMOVE, err);
    if (ret == 0 && entry->is_persistent) {
        /* Before it is gone from the tracking file: a crash in between must not
         * leave one that nobody knows. The image gets it again if it stays. */
        co_bitmap_forget(self->node, self->bitmap);
    }
    if (ret == 0 && self->change == NULL) {
        entry->bitmap = NULL;
    }
    return ret;
}

static void commit_remove(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (!make_change(self)) {
        action_tracking_tell(self->context, self->bitmap,
                             TRACKER_CHANGE_REMOVE);
        self->owned = dirty_bitmap_detach(self->bitmap);
        self->removed = true;
    }
}

static void commit_clear(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (!make_change(self)) {
        bitmap_clear_all(dirty_bitmap_bits(self->bitmap));
        action_tracking_tell(self->context, self->bitmap, TRACKER_CHANGE_CLEAR);
        trace_bitmap_clear(block_name(self->node),
                           dirty_bitmap_name(self->bitmap));
    }
}

static void commit_enable(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (!make_change(self) && !dirty_bitmap_is_enabled(self->bitmap)) {
        dirty_bitmap_set_enabled(self->bitmap, true);
        action_tracking_tell(self->context, self->bitmap,
                             TRACKER_CHANGE_ENABLE);
    }
}

static void commit_disable(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (!make_change(self)) {
        dirty_bitmap_set_enabled(self->bitmap, false);
        action_tracking_tell(self->context, self->bitmap,
                             TRACKER_CHANGE_DISABLE);
    }
}

#define PREPARE_DEFINE(verb, kind)                                           \
 static int co_prepare_##verb(struct transaction_action *action,             \
                              struct transaction *transaction, GError **err) \
 {                                                                           \
  struct bitmap_action *self = action_of(action);                            \
  struct bitmap_view_entry *entry;                                           \
  int ret = co_find(self, transaction, argument(self, "name"), &entry, err); \
  if (ret == 0 && (kind) == BITMAP_CHANGE_CLEAR) {                           \
   ret = bitmap_view_check_changeable(entry, err);                           \
  }                                                                          \
  return ret < 0 ? ret : co_prepare_change(self, entry, kind, err);          \
 }

PREPARE_DEFINE(clear, BITMAP_CHANGE_CLEAR)
PREPARE_DEFINE(enable, BITMAP_CHANGE_ENABLE)
PREPARE_DEFINE(disable, BITMAP_CHANGE_DISABLE)

#define CHANGE_DEFINE(verb)                                         \
 static const struct transaction_action_ops verb##_ops = {          \
     .name = "block-dirty-bitmap-" #verb,                           \
     .co_prepare = co_prepare_##verb,                               \
     .commit = commit_##verb,                                       \
     .co_clean = co_clean,                                          \
 };                                                                 \
 static struct transaction_action *create_##verb(                   \
     struct action_context *context, const struct json_value *data) \
 {                                                                  \
  return create(&verb##_ops, context, data);                        \
 }

CHANGE_DEFINE(remove)
CHANGE_DEFINE(clear)
CHANGE_DEFINE(enable)
CHANGE_DEFINE(disable)

/* --- merge ------------------------------------------------------------------ */

/* A source is a name on the target's node, or {node, name}. */
static int co_add_source(struct bitmap_action *self,
                         struct transaction *transaction,
                         const struct json_value *source,
                         GError **err)
{
    const char *node_name = argument(self, "node");
    const char *name;
    struct bitmap_view_entry *entry;
    int ret;

    if (json_type_of(source) == JSON_STRING) {
        name = json_get_string(source);
    } else {
        node_name = json_dict_string(source, "node", NULL);
        name = json_dict_string(source, "name", NULL);
    }
    ret = co_bitmap_view_get_usable(self->context->engine, transaction,
                                    node_name, name, &entry, err);
    if (ret < 0) {
        return ret;
    }
    if (block_size(entry->node) != block_size(self->node)) {
        return error_set(err, -EINVAL,
                         "Cannot merge dirty bitmap '%s' of node '%s' into "
                         "one of node '%s': the nodes differ in size",
                         name, node_name, block_name(self->node));
    }
    g_ptr_array_add(self->sources, entry->bitmap);
    return 0;
}

static int co_prepare_merge(struct transaction_action *action,
                            struct transaction *transaction,
                            GError **err)
{
    struct bitmap_action *self = action_of(action);
    const struct json_value *list = json_dict_get(self->data, "bitmaps");
    struct bitmap_view_entry *entry;
    int ret = co_find(self, transaction, argument(self, "target"), &entry, err);

    if (ret == 0) {
        ret = bitmap_view_check_changeable(entry, err);
    }
    if (ret < 0) {
        return ret;
    }
    self->sources = g_ptr_array_new();
    for (size_t i = 0; i < json_list_length(list); i++) {
        ret = co_add_source(self, transaction, json_list_get(list, i), err);
        if (ret < 0) {
            return ret;
        }
    }
    return co_prepare_change(self, entry, BITMAP_CHANGE_MERGE, err);
}

static void commit_merge(struct transaction_action *action)
{
    struct bitmap_action *self = action_of(action);

    if (make_change(self)) {
        return;
    }
    for (guint i = 0; i < self->sources->len; i++) {
        struct dirty_bitmap *source = g_ptr_array_index(self->sources, i);

        if (source != self->bitmap) {
            bitmap_merge(dirty_bitmap_bits(self->bitmap),
                         dirty_bitmap_bits(source));
            trace_bitmap_merge(block_name(self->node),
                               dirty_bitmap_name(self->bitmap),
                               block_name(dirty_bitmap_node(source)),
                               dirty_bitmap_name(source));
        }
    }
    action_tracking_tell(self->context, self->bitmap, TRACKER_CHANGE_MERGE);
}

static const struct transaction_action_ops merge_ops = {
    .name = "block-dirty-bitmap-merge",
    .co_prepare = co_prepare_merge,
    .commit = commit_merge,
    .co_clean = co_clean,
};

static struct transaction_action *create_merge(struct action_context *context,
                                               const struct json_value *data)
{
    return create(&merge_ops, context, data);
}

/* --- Types ------------------------------------------------------------------ */

#define NODE_MEMBER                                         \
 {                                                          \
  .name = "node", .type = &schema_string, .required = true, \
  .doc = "Name of the node that the bitmap is on."          \
 }
#define NAME_MEMBER                                         \
 {                                                          \
  .name = "name", .type = &schema_string, .required = true, \
  .doc = "Name of the bitmap, unique on its node."          \
 }

static const struct schema_member add_members[] = {
    NODE_MEMBER,
    NAME_MEMBER,
    { .name = "granularity",
      .type = &schema_uint32,
      .fallback = "the node's cluster size, within 4k and 64k; else 64k",
      .doc = "Bytes per bit, a power of two from 512 to 2G." },
    { .name = "persistent",
      .type = &schema_bool,
      .fallback = "false",
      .doc = "Keep it over restarts. Refused where it cannot be stored." },
    { .name = "disabled",
      .type = &schema_bool,
      .fallback = "false",
      .doc = "Do not record writes until it is enabled." },
    { .name = NULL },
};

static const struct schema_member name_members[] = {
    NODE_MEMBER,
    NAME_MEMBER,
    { .name = NULL },
};

const struct schema_type bitmap_add_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDirtyBitmapAdd",
    .members = add_members,
};

const struct schema_type bitmap_name_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDirtyBitmap",
    .doc = "A bitmap by node and name.",
    .members = name_members,
};

static const struct schema_type or_string_type = {
    .kind = SCHEMA_ALTERNATE,
    .name = "BlockDirtyBitmapOrStr",
    .branches =
        (const struct schema_branch[]){
            { .type = &schema_string },
            { .type = &bitmap_name_type },
            { .type = NULL },
        },
};

static const struct schema_type source_list_type = {
    .kind = SCHEMA_LIST,
    .element = &or_string_type,
};

static const struct schema_member merge_members[] = {
    NODE_MEMBER,
    { .name = "target",
      .type = &schema_string,
      .required = true,
      .doc = "Name of the bitmap that gets the bits, on `node`." },
    { .name = "bitmaps",
      .type = &source_list_type,
      .required = true,
      .doc = "Whose bits: names of bitmaps on `node`, or {node, name}." },
    { .name = NULL },
};

const struct schema_type bitmap_merge_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDirtyBitmapMerge",
    .members = merge_members,
};

const struct action_type bitmap_action_types[] = {
    { .name = "block-dirty-bitmap-add", .create = create_add },
    { .name = "block-dirty-bitmap-remove", .create = create_remove },
    { .name = "block-dirty-bitmap-clear", .create = create_clear },
    { .name = "block-dirty-bitmap-enable", .create = create_enable },
    { .name = "block-dirty-bitmap-disable", .create = create_disable },
    { .name = "block-dirty-bitmap-merge", .create = create_merge },
    { .name = NULL },
};
