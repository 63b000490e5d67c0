/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "loop/coroutine.h"
#include "qmp/actions.h"

#define VIEW_KEY "bitmaps"

static void entry_free(void *value)
{
    struct bitmap_view_entry *entry = value;

    g_clear_error(&entry->busy);
    g_clear_error(&entry->useless);
    g_free(entry);
}

static void view_free(void *value)
{
    g_hash_table_unref(value);
}

static GHashTable *view_of(struct transaction *transaction)
{
    GHashTable *view = transaction_get_view(transaction, VIEW_KEY);

    if (view == NULL) {
        view =
            g_hash_table_new_full(g_str_hash, g_str_equal, g_free, entry_free);
        transaction_set_view(transaction, VIEW_KEY, view, view_free);
    }
    return view;
}

/* One of the image's that its tracker does not have is inconsistent, and nothing
 * is done with it but to remove it. */
static bool is_kept(struct block_node *node, const struct dirty_bitmap *bitmap)
{
    const struct tracker *tracker = tracker_of(node);

    return dirty_bitmap_is_persistent(bitmap) &&
           (tracker == NULL || tracker_has(tracker, bitmap));
}

/* Bitmaps belong to the node's home thread: go there to look. */
static struct bitmap_view_entry *co_look_up(struct block_node *node,
                                            const char *bitmap_name)
{
    struct bitmap_view_entry *entry = g_new0(struct bitmap_view_entry, 1);
    struct loop *main = loop_current();

    entry->node = node;
    co_move(block_home(node));
    entry->bitmap = dirty_bitmap_find(node, bitmap_name);
    if (entry->bitmap != NULL) {
        entry->granularity_bytes =
            dirty_bitmap_granularity_bytes(entry->bitmap);
        entry->is_persistent = is_kept(node, entry->bitmap);
        dirty_bitmap_check_free(entry->bitmap, &entry->busy);
        dirty_bitmap_check_usable(entry->bitmap, &entry->useless);
    }
    co_move(main);
    return entry;
}

int co_bitmap_view_get(struct engine *engine,
                       struct transaction *transaction,
                       const char *node_name,
                       const char *bitmap_name,
                       struct bitmap_view_entry **ret_entry,
                       GError **err)
{
    GHashTable *view = view_of(transaction);
    struct block_node *node = block_find(engine->graph, node_name, err);
    struct bitmap_view_entry *entry;
    g_autofree char *key = NULL;

    if (node == NULL) {
        return -ENOENT;
    }
    /* Node names hold no '/'. */
    key = g_strdup_printf("%s/%s", node_name, bitmap_name);
    entry = g_hash_table_lookup(view, key);
    if (entry == NULL) {
        entry = co_look_up(node, bitmap_name);
        g_hash_table_insert(view, g_steal_pointer(&key), entry);
        transaction_add_node(transaction, node);
    }
    *ret_entry = entry;
    return 0;
}

int co_bitmap_view_get_usable(struct engine *engine,
                              struct transaction *transaction,
                              const char *node_name,
                              const char *bitmap_name,
                              struct bitmap_view_entry **ret_entry,
                              GError **err)
{
    int ret = co_bitmap_view_get_free(engine, transaction, node_name,
                                      bitmap_name, ret_entry, err);

    if (ret == 0 && (*ret_entry)->useless != NULL) {
        if (err != NULL) {
            *err = g_error_copy((*ret_entry)->useless);
        }
        return -ESTALE;
    }
    return ret;
}

int co_bitmap_view_get_free(struct engine *engine,
                            struct transaction *transaction,
                            const char *node_name,
                            const char *bitmap_name,
                            struct bitmap_view_entry **ret_entry,
                            GError **err)
{
    struct bitmap_view_entry *entry;
    int ret = co_bitmap_view_get(engine, transaction, node_name, bitmap_name,
                                 &entry, err);

    if (ret < 0) {
        return ret;
    }
    if (entry->bitmap == NULL) {
        return error_set(err, -ENOENT, "Node '%s' has no dirty bitmap '%s'",
                         node_name, bitmap_name);
    }
    if (entry->busy != NULL) {
        if (err != NULL) {
            *err = g_error_copy(entry->busy);
        }
        return -EBUSY;
    }
    *ret_entry = entry;
    return 0;
}

int bitmap_view_check_changeable(const struct bitmap_view_entry *entry,
                                 GError **err)
{
    if (!entry->is_persistent || !block_is_read_only(entry->node)) {
        return 0;
    }
    return error_set(err, -EROFS,
                     "Bitmap '%s' on node '%s' is read-only, as the node is, "
                     "and cannot be changed",
                     dirty_bitmap_name(entry->bitmap), block_name(entry->node));
}

void bitmap_view_claim(struct bitmap_view_entry *entry, const char *holder)
{
    g_assert(entry->busy == NULL);
    error_set(&entry->busy, -EBUSY,
              "Dirty bitmap '%s' of node '%s' is in use by '%s'",
              dirty_bitmap_name(entry->bitmap), block_name(entry->node),
              holder);
}
