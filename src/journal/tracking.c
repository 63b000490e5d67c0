/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which nodes can be tracked: writable ones whose bytes are, at the same offsets,
 * those of one file or block device: that file's own node, and raw over it. And
 * qcow2 over one file, which tells by a stamp who else wrote.
 */
#include "journal/tracking.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "drivers/qcow2/bitmaps.h"
#include "journal/identity.h"
#include "journal/image_bitmaps.h"
#include "journal/tracking_peek.h"
#include "loop/coroutine.h"

/* The node that keeps the bytes; NULL: they are not those of one file, one to
 * one. */
static struct block_node *find_image(struct block_node *node)
{
    const char *driver = block_driver_of(node)->name;
    struct block_node *file;

    if (strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0) {
        return node;
    }
    file = block_child(node, "file");
    if (file != NULL && qcow2_is_node(node)) {
        return find_image(file);
    }
    if (strcmp(driver, "raw") != 0) {
        return NULL;
    }
    return file == NULL || block_size(file) != block_size(node)
               ? NULL
               : find_image(file);
}

/* New; NULL: it has none. */
static char *co_image_path(struct block_node *image)
{
    g_autoptr(json_value) info = co_block_info(image, true);
    const struct json_value *described = json_dict_get(info, "image");
    const char *path = described == NULL
                           ? NULL
                           : json_dict_string(described, "filename", NULL);

    return path == NULL ? NULL : g_canonicalize_filename(path, NULL);
}

/* A message from a node's thread to the main thread. */
struct trouble {
    struct loop_message message;
    struct tracking *tracking;
    char *node;
    char *reason;
    bool is_durable;
};

static void tell_trouble(struct loop_message *message)
{
    struct trouble *trouble = LIST_ENTRY(message, struct trouble, message);
    struct tracking *tracking = trouble->tracking;

    if (tracking->on_trouble != NULL) {
        tracking->on_trouble(tracking->opaque, trouble->node, trouble->reason,
                             trouble->is_durable);
    }
    g_free(trouble->node);
    g_free(trouble->reason);
    g_free(trouble);
}

static void on_trouble(void *opaque,
                       struct block_node *node,
                       const char *reason,
                       bool is_durable)
{
    struct tracking *tracking = opaque;
    struct trouble *trouble = g_new0(struct trouble, 1);

    trouble->message.run = tell_trouble;
    trouble->tracking = tracking;
    trouble->node = g_strdup(block_name(node));
    trouble->reason = g_strdup(reason);
    trouble->is_durable = is_durable;
    loop_post(tracking->main, &trouble->message);
}

typedef int (*open_fn)(struct block_node *node,
                       const struct tracker_options *options,
                       struct tracker **ret_tracker,
                       GError **err);

/* Where the image's tracking file is, or is to be made: a file that is there at
 * the other place counts, or a change of options would hide it, and it would not
 * see what is written. New; NULL with err set. */
static char *co_choose_path(struct tracking *tracking,
                            const char *image_path,
                            bool in_state_directory,
                            GError **err)
{
    g_autofree char *path =
        co_tracking_path(tracking->storage, image_path,
                         tracking->state_directory, in_state_directory, err);
    g_autofree char *other = NULL;
    struct storage_stat found;

    if (path == NULL) {
        return NULL;
    }
    other =
        co_tracking_path(tracking->storage, image_path,
                         tracking->state_directory, !in_state_directory, NULL);
    if (other == NULL || strcmp(path, other) == 0 ||
        co_storage_stat(tracking->storage, other, &found) < 0) {
        return g_steal_pointer(&path);
    }
    if (co_storage_stat(tracking->storage, path, &found) == 0) {
        error_set(err, -EEXIST,
                  "'%s' has two tracking files, '%s' and '%s': remove the one "
                  "that is out of date (or both; then the next backup is full)",
                  image_path, path, other);
        return NULL;
    }
    return g_steal_pointer(&other);
}

/* Opens or makes the tracker, on the node's home thread. `image_path` NULL: there
 * can be no tracking file. */
static int co_call(struct tracking *tracking,
                   struct block_node *node,
                   char *image_path,
                   const struct tracking_settings *settings,
                   open_fn co_function,
                   GError **err)
{
    g_autofree char *path =
        image_path == NULL ? NULL
                           : co_choose_path(tracking, image_path,
                                            settings->in_state_directory, err);
    const struct tracker_options options = {
        .storage = tracking->storage,
        .path = path,
        .image_path = image_path,
        .state_directory = tracking->state_directory,
        .durability = settings->durability,
        .stop_on_error = settings->stop_on_error,
        .over_marking_bytes = settings->over_marking_bytes,
        .checkpoint_ns = settings->checkpoint_ns,
        .outcomes = tracking->outcomes,
        .region_bytes = tracking->region_bytes,
        .on_trouble = on_trouble,
        .opaque = tracking,
    };
    struct loop *main = loop_current();
    struct tracker *tracker;
    int ret;

    if (image_path != NULL && path == NULL) {
        return -ENOENT;
    }
    co_move(block_home(node));
    ret = co_function(node, path == NULL ? NULL : &options, &tracker, err);
    co_move(main);
    return ret;
}

/* New; NULL: the node cannot have a tracking file. */
static char *co_trackable_path(const struct tracking *tracking,
                               struct block_node *node)
{
    struct block_node *image = find_image(node);

    if (image == NULL ||
        (strcmp(block_driver_of(image)->name, "host_device") == 0 &&
         tracking->state_directory == NULL)) {
        return NULL; /* there is no place where a tracking file could be */
    }
    return co_image_path(image);
}

/* Options that would have no effect. `image_path` as co_trackable_path() says. */
static int refuse_options(struct block_node *node,
                          const char *image_path,
                          GError **err)
{
    const char *why = NULL;

    if (block_tracking_options(node) == NULL) {
        return 0;
    }
    if (!block_is_named_by_user(node)) {
        why = "it is opened for another node, which the option belongs to";
    } else if (block_is_read_only(node)) {
        why = "it is read-only";
    } else if (find_image(node) == NULL) {
        why = "its driver cannot store dirty bitmaps";
    } else if (image_path == NULL) {
        why =
            "the bitmaps of a block device belong in the state directory, and "
            "there is none: use --state-dir";
    }
    return why == NULL ? 0
                       : error_set(err, -EINVAL,
                                   "node '%s' takes no x-cohort-tracking: %s",
                                   block_name(node), why);
}

/* A disk that is never flushed may lose anything at any time, and say nothing. Those
 * that have a tracking file are not opened so: it would not hold. */
static int co_refuse_unflushed(struct tracking *tracking,
                               struct block_node *node,
                               char **image_path,
                               GError **err)
{
    g_autofree char *path = NULL;
    struct storage_stat found;

    if (*image_path == NULL || !block_ignores_flushes(node)) {
        return 0;
    }
    path = co_choose_path(tracking, *image_path, false, err);
    if (path == NULL) {
        return -EINVAL;
    }
    if (block_tracking_options(node) != NULL ||
        co_storage_stat(tracking->storage, path, &found) == 0) {
        return error_set(err, -EINVAL,
                         "node '%s' has cache.no-flush=on, with which no "
                         "persistent bitmap can be kept: leave that out, or "
                         "x-cohort-tracking and '%s'",
                         block_name(node), path);
    }
    g_clear_pointer(image_path, g_free);
    return 0;
}

static int co_open_tracked(struct tracking *tracking,
                           struct block_node *node,
                           GError **err)
{
    g_autofree char *image_path = co_trackable_path(tracking, node);
    struct tracking_settings settings = tracking->defaults;
    int ret = refuse_options(node, image_path, err);

    if (ret == 0) {
        ret = co_refuse_unflushed(tracking, node, &image_path, err);
    }
    if (ret == 0) {
        ret = tracking_settings_read_node(
            &tracking->defaults, block_tracking_options(node), &settings, err);
    }
    return ret < 0 ? ret
                   : co_call(tracking, node, image_path, &settings,
                             co_image_bitmaps_open, err);
}

/* Where an image that is one file was not closed cleanly, its bytes are read anew,
 * before the node above looks at them;
 * see docs/decisions/035-a-crash-costs-the-cache.md. */
static void co_distrust_cache(struct tracking *tracking,
                              struct block_node *node)
{
    g_autofree char *image_path = NULL;
    g_autofree char *path = NULL;
    int ret;

    if (find_image(node) != node) {
        return;
    }
    image_path = co_trackable_path(tracking, node);
    path = image_path == NULL
               ? NULL
               : co_choose_path(tracking, image_path, false, NULL);
    if (path == NULL || !co_tracking_was_cut_off(tracking->storage, path)) {
        return;
    }
    co_move(block_home(node));
    ret = co_block_forget_cache(node);
    co_move(tracking->main);
    if (ret < 0) {
        g_warning("Node '%s': writes of an earlier process to '%s' were lost: "
                  "%s",
                  block_name(node), image_path, g_strerror(-ret));
    }
}

/* Only what the user has named: a child that was opened for a node is that
 * node's, and whoever opens it by itself later meets its tracking file. */
static int co_opened(struct block_watcher *watcher,
                     struct block_node *node,
                     GError **err)
{
    struct tracking *tracking = LIST_ENTRY(watcher, struct tracking, watcher);
    int ret;

    co_distrust_cache(tracking, node);
    if (block_is_named_by_user(node) && !block_is_read_only(node)) {
        return co_open_tracked(tracking, node, err);
    }
    ret = refuse_options(node, NULL, err);
    if (ret == 0 && block_is_named_by_user(node)) {
        co_move(block_home(node));
        co_image_bitmaps_show(node);
        co_move(tracking->main);
    }
    return ret;
}

static void co_close_tracker(struct block_node *node)
{
    struct tracker *tracker = tracker_of(node);
    g_autoptr(GError) error = NULL;

    if (co_tracker_close(&tracker, &error) < 0) {
        g_warning("Node '%s' could not be closed cleanly: its persistent "
                  "bitmaps will be recovered when it is opened again: %s",
                  block_name(node), error->message);
    }
}

/* The image first: the tracker remembers how it looks. */
static int co_closing(struct block_watcher *watcher,
                      struct block_node *node,
                      bool may_stay,
                      GError **err)
{
    struct tracking *tracking = LIST_ENTRY(watcher, struct tracking, watcher);
    g_autoptr(GError) error = NULL;
    struct tracker *tracker = tracker_of(node);
    bool stays;
    int ret;

    co_move(block_home(node));
    if (tracker != NULL) {
        /* No checkpoint may wait for the image while it is finished. */
        co_tracker_begin(tracker);
    }
    ret = co_image_bitmaps_store(node, &error);
    /* A corrupt image would not take them later either. */
    stays = ret < 0 && ret != -EIO && may_stay;
    if (!stays) {
        co_image_bitmaps_finish(node);
    }
    if (tracker != NULL) {
        co_tracker_end(tracker);
    }
    if (!stays) {
        co_close_tracker(node);
    }
    co_move(tracking->main);
    if (stays) {
        g_propagate_prefixed_error(err, g_steal_pointer(&error),
                                   "Node '%s' stays open. Make room, or remove "
                                   "what cannot be stored, and try again: ",
                                   block_name(node));
    } else if (ret < 0) {
        g_warning(
            "The bitmaps of node '%s' were not stored in its image, where "
            "they stay marked as being in use: %s",
            block_name(node), error->message);
    }
    return stays || !may_stay ? ret : 0;
}

void tracking_init(struct tracking *tracking,
                   struct storage *storage,
                   const char *state_directory,
                   const struct tracking_settings *defaults,
                   struct tracker_outcomes *outcomes,
                   struct loop *main)
{
    *tracking = (struct tracking){
        .watcher = { .co_opened = co_opened, .co_closing = co_closing },
        .storage = storage,
        .state_directory = g_strdup(state_directory),
        .outcomes = outcomes,
        .defaults = *defaults,
        .main = main,
    };
}

void tracking_release(struct tracking *tracking)
{
    g_clear_pointer(&tracking->state_directory, g_free);
}

/* Nobody knows how those ended who wrote to the image before us. */
static int co_begin_trust(struct tracking *tracking,
                          struct block_node *node,
                          struct block_node *image,
                          GError **err)
{
    int ret;

    co_move(block_home(node));
    ret = co_block_child_flush(node);
    if (ret == 0) {
        ret = co_block_forget_cache(image);
    }
    co_move(tracking->main);
    return ret == 0 ? 0
                    : error_set_errno(err, ret,
                                      "Node '%s' cannot get a persistent "
                                      "bitmap: what was written to it may not "
                                      "be on the disk",
                                      block_name(node));
}

int co_tracking_ensure(struct tracking *tracking,
                       struct block_node *node,
                       GError **err)
{
    struct block_node *image = find_image(node);
    g_autofree char *image_path = NULL;
    struct tracking_settings settings;
    int ret;

    if (tracker_of(node) != NULL) {
        return 0;
    }
    if (tracking == NULL || image == NULL) {
        return error_set(err, -ENOTSUP,
                         "Driver '%s' of node '%s' cannot store dirty bitmaps; "
                         "leave out 'persistent'",
                         block_driver_of(node)->name, block_name(node));
    }
    if (block_is_read_only(node)) {
        return error_set(err, -EROFS,
                         "Node '%s' is read-only, and so are its persistent "
                         "bitmaps",
                         block_name(node));
    }
    if (block_ignores_flushes(node)) {
        return error_set(err, -ENOTSUP,
                         "Node '%s' has cache.no-flush=on: what is written to "
                         "it may be lost at any time, and so would be its "
                         "persistent bitmaps",
                         block_name(node));
    }
    image_path = co_image_path(image);
    if (image_path == NULL) {
        return error_set(err, -ENOTSUP,
                         "Node '%s' has no file beside which dirty bitmaps "
                         "could be stored",
                         block_name(node));
    }
    ret = tracking_settings_read_node(
        &tracking->defaults, block_tracking_options(node), &settings, err);
    if (ret == 0) {
        ret = co_begin_trust(tracking, node, image, err);
    }
    return ret < 0 ? ret
                   : co_call(tracking, node, image_path, &settings,
                             co_image_bitmaps_create, err);
}
