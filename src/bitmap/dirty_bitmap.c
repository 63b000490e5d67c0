/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A node's bitmaps are one hook: every write walks the list and sets what is
 * not set yet. Which bits a bitmap sets depends on whether it is frozen:
 *
 *                 writes                       writes
 *                   v                            v
 *     free:   P [ bits ]      frozen:  P [ bits ] S [ successor ]
 *                                          ^ job reads
 *
 * A disabled bitmap sets none, and neither does its successor. Nothing here
 * waits, and nothing that happens on the way of a write can fail. When a disk
 * grows, the new part is dirty: a device may hold old data there. If there is no
 * memory for the longer bitmap it gets coarser until there is, so that it may
 * say too much but never too little.
 */
#include "bitmap/dirty_bitmap.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/trace.h"
#include "block/hook.h"
#include "block/request.h"

struct dirty_bitmap_set {
    struct block_hook hook;
    struct block_node *node;
    struct list bitmaps; /* oldest first */
};

struct dirty_bitmap {
    struct list link;
    struct dirty_bitmap_set *set; /* NULL while not on a node */
    const struct block_node *made_for;
    char *name;
    struct bitmap *bits;      /* what the name stands for */
    struct bitmap *successor; /* NULL unless frozen */
    bool enabled;             /* records, here or in the successor */
    const char *holder;       /* borrowed; NULL: not busy */
    const char *reserver;     /* borrowed; NULL: not reserved */
    bool persistent;
    char *reason;                           /* owned; NULL: consistent */
    struct json_value *details;             /* owned; NULL: none */
    struct dirty_bitmap_observer *observer; /* borrowed; NULL: none */
};

static struct dirty_bitmap *bitmap_of(struct list *link)
{
    return LIST_ENTRY(link, struct dirty_bitmap, link);
}

/*
 * The hook.
 */

static bool record_write(struct block_hook *hook,
                         uint64_t offset,
                         uint64_t bytes)
{
    struct dirty_bitmap_set *set =
        LIST_ENTRY(hook, struct dirty_bitmap_set, hook);

    LIST_FOREACH(link, &set->bitmaps) {
        struct dirty_bitmap *bitmap = bitmap_of(link);
        if (!bitmap->enabled) {
            continue;
        }
        struct bitmap *bits =
            bitmap->successor != NULL ? bitmap->successor : bitmap->bits;
        if (!bitmap_is_set(bits, offset, bytes)) {
            bitmap_set(bits, offset, bytes);
        }
    }
    return true;
}

/* How much coarser at a time: then there is room to grow on. */
#define COARSER 64

/* Resizes, at the cost of granularity when memory is short. */
static void resize_bits(struct bitmap **bits,
                        uint64_t size_bytes,
                        bool grown_is_set)
{
    uint64_t old_bytes = bitmap_size_bytes(*bits);
    uint64_t granularity = bitmap_granularity_bytes(*bits);

    while (bitmap_resize(*bits, size_bytes, grown_is_set, NULL) < 0) {
        g_assert(granularity < LIMIT_BITMAP_GRANULARITY_MAX);
        granularity =
            min_u64(granularity * COARSER, LIMIT_BITMAP_GRANULARITY_MAX);
        struct bitmap *coarser = bitmap_new(old_bytes, granularity, NULL);
        if (coarser != NULL) {
            bitmap_merge(coarser, *bits);
            bitmap_free(*bits);
            *bits = coarser;
        }
    }
}

static void resize_all(struct block_hook *hook,
                       uint64_t old_bytes,
                       uint64_t new_bytes)
{
    struct dirty_bitmap_set *set =
        LIST_ENTRY(hook, struct dirty_bitmap_set, hook);

    (void)old_bytes;
    LIST_FOREACH(link, &set->bitmaps) {
        struct dirty_bitmap *bitmap = bitmap_of(link);
        bool frozen = bitmap->successor != NULL;
        /* A frozen one keeps still: its successor knows of what is new. */
        resize_bits(&bitmap->bits, new_bytes, !frozen);
        if (frozen) {
            resize_bits(&bitmap->successor, new_bytes, true);
        }
    }
}

/* The node has let go of the hook. */
static void free_set(struct block_hook *hook, struct block_node *node)
{
    struct dirty_bitmap_set *set =
        LIST_ENTRY(hook, struct dirty_bitmap_set, hook);
    struct list *link;

    while ((link = list_take_first(&set->bitmaps)) != NULL) {
        struct dirty_bitmap *bitmap = bitmap_of(link);
        g_assert(!dirty_bitmap_is_busy(bitmap));
        bitmap->set = NULL;
        trace_bitmap_remove(block_name(node), bitmap->name);
        dirty_bitmap_free(bitmap);
    }
    g_free(set);
}

static struct dirty_bitmap_set *set_of(struct block_node *node)
{
    struct block_hook *hook = block_hook_find(node, BLOCK_HOOK_BITMAP);

    return hook == NULL ? NULL
                        : LIST_ENTRY(hook, struct dirty_bitmap_set, hook);
}

void dirty_bitmap_prepare_node(struct block_node *node)
{
    if (set_of(node) != NULL) {
        return;
    }
    struct dirty_bitmap_set *set = g_new0(struct dirty_bitmap_set, 1);
    set->hook.stage = BLOCK_HOOK_BITMAP;
    set->hook.try_before_write = record_write;
    set->hook.resized = resize_all;
    set->hook.node_closing = free_set;
    set->node = node;
    list_init(&set->bitmaps);
    block_hook_add(node, &set->hook);
}

void dirty_bitmap_release_node(struct block_node *node)
{
    struct dirty_bitmap_set *set = set_of(node);

    if (set != NULL) {
        block_hook_remove(&set->hook);
        free_set(&set->hook, node);
    }
}

/*
 * One bitmap.
 */

static int check_name(const struct block_node *node,
                      const char *name,
                      GError **err)
{
    if (name[0] == '\0') {
        return error_set(err, -EINVAL,
                         "A bitmap on node '%s' needs a name that is not empty",
                         block_name(node));
    }
    if (strlen(name) > LIMIT_BITMAP_NAME_BYTES) {
        return error_set(err, -EINVAL,
                         "The name of the bitmap on node '%s' has more than %d "
                         "bytes",
                         block_name(node), LIMIT_BITMAP_NAME_BYTES);
    }
    return 0;
}

static uint64_t default_granularity(const struct block_node *node)
{
    uint64_t cluster_bytes = block_limits(node)->cluster_bytes;

    if (cluster_bytes == 0) {
        return 64 * KIB;
    }
    return min_u64(max_u64(cluster_bytes, 4 * KIB), 64 * KIB);
}

struct dirty_bitmap *dirty_bitmap_new(const struct block_node *node,
                                      const char *name,
                                      uint64_t granularity_bytes,
                                      bool disabled,
                                      GError **err)
{
    if (check_name(node, name, err) < 0) {
        return NULL;
    }
    if (granularity_bytes == 0) {
        granularity_bytes = default_granularity(node);
    }
    struct bitmap *bits = bitmap_new(block_size(node), granularity_bytes, err);
    if (bits == NULL) {
        g_prefix_error(err, "Bitmap '%s' on node '%s' cannot be made: ", name,
                       block_name(node));
        return NULL;
    }
    struct dirty_bitmap *bitmap = g_new0(struct dirty_bitmap, 1);
    list_init(&bitmap->link);
    bitmap->made_for = node;
    bitmap->name = g_strdup(name);
    bitmap->bits = bits;
    bitmap->enabled = !disabled;
    return bitmap;
}

void dirty_bitmap_free(struct dirty_bitmap *bitmap)
{
    if (bitmap == NULL) {
        return;
    }
    g_assert(bitmap->set == NULL);
    g_assert(bitmap->successor == NULL);
    bitmap_free(bitmap->bits);
    json_free(bitmap->details);
    g_free(bitmap->reason);
    g_free(bitmap->name);
    g_free(bitmap);
}

void dirty_bitmap_attach(struct block_node *node, struct dirty_bitmap **bitmap)
{
    struct dirty_bitmap *taken = g_steal_pointer(bitmap);

    g_assert(taken->set == NULL && taken->made_for == node);
    g_assert(bitmap_size_bytes(taken->bits) == block_size(node));
    g_assert(dirty_bitmap_find(node, taken->name) == NULL);
    dirty_bitmap_prepare_node(node);
    taken->set = set_of(node);
    list_append(&taken->set->bitmaps, &taken->link);
    trace_bitmap_add(block_name(node), taken->name);
}

struct dirty_bitmap *dirty_bitmap_detach(struct dirty_bitmap *bitmap)
{
    g_assert(bitmap->set != NULL && bitmap->successor == NULL);
    list_remove(&bitmap->link);
    bitmap->set = NULL;
    trace_bitmap_remove(block_name(bitmap->made_for), bitmap->name);
    return bitmap;
}

struct dirty_bitmap *dirty_bitmap_find(struct block_node *node,
                                       const char *name)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_next(node, NULL);

    while (bitmap != NULL && strcmp(bitmap->name, name) != 0) {
        bitmap = dirty_bitmap_next(node, bitmap);
    }
    return bitmap;
}

struct dirty_bitmap *dirty_bitmap_next(struct block_node *node,
                                       struct dirty_bitmap *bitmap)
{
    struct dirty_bitmap_set *set = set_of(node);

    if (set == NULL) {
        return NULL;
    }
    struct list *link = bitmap == NULL ? set->bitmaps.next : bitmap->link.next;
    return link == &set->bitmaps ? NULL : bitmap_of(link);
}

const char *dirty_bitmap_name(const struct dirty_bitmap *bitmap)
{
    return bitmap->name;
}

struct block_node *dirty_bitmap_node(const struct dirty_bitmap *bitmap)
{
    return bitmap->set == NULL ? NULL : bitmap->set->node;
}

uint64_t dirty_bitmap_granularity_bytes(const struct dirty_bitmap *bitmap)
{
    return bitmap_granularity_bytes(bitmap->bits);
}

bool dirty_bitmap_is_enabled(const struct dirty_bitmap *bitmap)
{
    return bitmap->enabled;
}

static void tell(struct dirty_bitmap *bitmap, enum dirty_bitmap_step step)
{
    if (bitmap->observer != NULL) {
        bitmap->observer->changed(bitmap->observer, bitmap, step);
    }
}

void dirty_bitmap_set_enabled(struct dirty_bitmap *bitmap, bool enabled)
{
    g_assert(bitmap->successor == NULL);
    bitmap->enabled = enabled;
    if (enabled) {
        trace_bitmap_enable(block_name(bitmap->made_for), bitmap->name);
    } else {
        trace_bitmap_disable(block_name(bitmap->made_for), bitmap->name);
    }
    tell(bitmap, DIRTY_BITMAP_SWITCHED);
}

struct bitmap *dirty_bitmap_bits(struct dirty_bitmap *bitmap)
{
    return bitmap->bits;
}

bool dirty_bitmap_is_busy(const struct dirty_bitmap *bitmap)
{
    return bitmap->holder != NULL || bitmap->reserver != NULL;
}

void dirty_bitmap_set_busy(struct dirty_bitmap *bitmap, const char *holder)
{
    g_assert(bitmap->successor == NULL);
    g_assert(holder == NULL || bitmap->holder == NULL);
    bitmap->holder = holder;
}

void dirty_bitmap_reserve(struct dirty_bitmap *bitmap, const char *holder)
{
    g_assert(bitmap->reserver == NULL);
    bitmap->reserver = holder;
}

void dirty_bitmap_unreserve(struct dirty_bitmap *bitmap)
{
    bitmap->reserver = NULL;
}

int dirty_bitmap_check_free(const struct dirty_bitmap *bitmap, GError **err)
{
    if (!dirty_bitmap_is_busy(bitmap)) {
        return 0;
    }
    return error_set(err, -EBUSY,
                     "Bitmap '%s' on node '%s' is busy: '%s' uses it until it "
                     "ends or is deleted",
                     bitmap->name, block_name(bitmap->made_for),
                     bitmap->holder != NULL ? bitmap->holder
                                            : bitmap->reserver);
}

void dirty_bitmap_set_persistent(struct dirty_bitmap *bitmap, bool persistent)
{
    bitmap->persistent = persistent;
}

bool dirty_bitmap_is_persistent(const struct dirty_bitmap *bitmap)
{
    return bitmap->persistent;
}

void dirty_bitmap_set_inconsistent(struct dirty_bitmap *bitmap,
                                   const char *reason)
{
    g_free(bitmap->reason);
    bitmap->reason = g_strdup(reason);
    bitmap->enabled = false;
}

const char *dirty_bitmap_reason(const struct dirty_bitmap *bitmap)
{
    return bitmap->reason;
}

int dirty_bitmap_check_usable(const struct dirty_bitmap *bitmap, GError **err)
{
    if (bitmap->reason != NULL) {
        return error_set(err, -ESTALE,
                         "Bitmap '%s' on node '%s' is inconsistent and cannot "
                         "be used: %s. Remove it, add it again, and make a "
                         "full backup",
                         bitmap->name, block_name(bitmap->made_for),
                         bitmap->reason);
    }
    return dirty_bitmap_check_free(bitmap, err);
}

void dirty_bitmap_set_details(struct dirty_bitmap *bitmap,
                              struct json_value **details)
{
    json_free(bitmap->details);
    bitmap->details = g_steal_pointer(details);
}

void dirty_bitmap_set_observer(struct dirty_bitmap *bitmap,
                               struct dirty_bitmap_observer *observer)
{
    bitmap->observer = observer;
}

/*
 * Freezing and the two ways out.
 */

static uint64_t dirty_bytes(const struct dirty_bitmap *bitmap)
{
    return bitmap_count(bitmap->bits) * bitmap_granularity_bytes(bitmap->bits);
}

void dirty_bitmap_freeze(struct dirty_bitmap *bitmap,
                         struct bitmap **successor,
                         const char *holder)
{
    g_assert(bitmap->holder == NULL && bitmap->successor == NULL);
    g_assert(bitmap_size_bytes(*successor) == bitmap_size_bytes(bitmap->bits));
    g_assert(bitmap_granularity_bytes(*successor) ==
             bitmap_granularity_bytes(bitmap->bits));
    g_assert(bitmap_count(*successor) == 0);
    bitmap->successor = g_steal_pointer(successor);
    bitmap->holder = holder;
    trace_bitmap_freeze(block_name(bitmap->made_for), bitmap->name, holder,
                        dirty_bytes(bitmap));
    tell(bitmap, DIRTY_BITMAP_FROZEN);
}

struct bitmap *dirty_bitmap_successor(struct dirty_bitmap *bitmap)
{
    return bitmap->successor;
}

bool dirty_bitmap_is_frozen(const struct dirty_bitmap *bitmap)
{
    return bitmap->successor != NULL;
}

static void thaw(struct dirty_bitmap *bitmap)
{
    bitmap_free(g_steal_pointer(&bitmap->successor));
    bitmap->holder = NULL;
}

void dirty_bitmap_abdicate(struct dirty_bitmap *bitmap)
{
    g_assert(bitmap->successor != NULL);
    /* Swapped, so that dirty_bitmap_bits() stays the same for who borrowed it;
     * unless resizing with memory short has made the one coarser. */
    if (bitmap_granularity_bytes(bitmap->bits) ==
        bitmap_granularity_bytes(bitmap->successor)) {
        bitmap_swap(bitmap->bits, bitmap->successor);
    } else {
        bitmap_free(bitmap->bits);
        bitmap->bits = g_steal_pointer(&bitmap->successor);
    }
    thaw(bitmap);
    trace_bitmap_abdicate(block_name(bitmap->made_for), bitmap->name,
                          dirty_bytes(bitmap));
    tell(bitmap, DIRTY_BITMAP_ABDICATED);
}

void dirty_bitmap_reclaim(struct dirty_bitmap *bitmap)
{
    g_assert(bitmap->successor != NULL);
    bitmap_merge(bitmap->bits, bitmap->successor);
    thaw(bitmap);
    trace_bitmap_reclaim(block_name(bitmap->made_for), bitmap->name,
                         dirty_bytes(bitmap));
    tell(bitmap, DIRTY_BITMAP_RECLAIMED);
}

/*
 * Showing.
 */

static struct json_value *describe(const struct dirty_bitmap *bitmap,
                                   const char *name,
                                   const struct bitmap *bits,
                                   bool busy)
{
    struct json_value *info = json_dict_new();
    uint64_t dirty_bytes = bitmap_count(bits) * bitmap_granularity_bytes(bits);

    if (name != NULL) {
        json_dict_set_string(info, "name", name);
    }
    json_dict_set_uint(info, "count", dirty_bytes);
    json_dict_set_uint(info, "granularity", bitmap_granularity_bytes(bits));
    json_dict_set_bool(info, "recording", bitmap->enabled);
    json_dict_set_bool(info, "busy", busy);
    json_dict_set_bool(info, "persistent", bitmap->persistent);
    return info;
}

/* What only the entry with the name shows. */
static void describe_more(const struct dirty_bitmap *bitmap,
                          struct json_value *info)
{
    if (bitmap->reason != NULL) {
        json_dict_set_bool(info, "inconsistent", true);
        json_dict_set_string(info, "x-cohort-reason", bitmap->reason);
    }
    for (size_t i = 0;
         bitmap->details != NULL && i < json_dict_length(bitmap->details);
         i++) {
        const char *key;
        const struct json_value *value =
            json_dict_entry(bitmap->details, i, &key);

        json_dict_set(info, key, json_copy(value));
    }
}

struct json_value *dirty_bitmap_query(struct block_node *node)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_next(node, NULL);

    if (bitmap == NULL) {
        return NULL;
    }
    struct json_value *bitmaps = json_list_new();
    for (; bitmap != NULL; bitmap = dirty_bitmap_next(node, bitmap)) {
        struct json_value *info = describe(bitmap, bitmap->name, bitmap->bits,
                                           dirty_bitmap_is_busy(bitmap));

        describe_more(bitmap, info);
        json_list_append(bitmaps, info);
        if (bitmap->successor != NULL) {
            json_list_append(bitmaps,
                             describe(bitmap, NULL, bitmap->successor, false));
        }
    }
    return bitmaps;
}
