/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening a node whose image stores bitmaps, so that a crash in between finds
 * what the one before has left, or more:
 *
 *     the tracking file is recovered; it names the old stamp and the new one
 *     what only the image has is loaded, and becomes durable in the tracking file
 *     the image gets the new stamp; its bitmaps are marked in_use
 *     the tracking file names only the new stamp
 *
 * Closing: the bitmaps are stored in the image, which is then complete; the tracker
 * is closed last, and remembers how the image looks.
 */
#include "journal/image_bitmaps.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "drivers/qcow2/bitmaps.h"

_Static_assert(QCOW2_STAMP_BYTES == JOURNAL_ID_BYTES, "a stamp is an id");

/*
 * From the image to the node.
 */

static void take_words(void *opaque,
                       uint64_t first_word,
                       const uint64_t *words,
                       uint64_t word_count)
{
    bitmap_or_words(opaque, first_word, words, word_count);
}

/* A new bitmap of that name, not on the node, clear. */
static struct dirty_bitmap *make(struct block_node *node,
                                 const struct qcow2_stored_bitmap *stored,
                                 uint64_t granularity_bytes,
                                 GError **err)
{
    bool disabled = (stored->flags & QCOW2_BITMAP_AUTO) == 0;

    return dirty_bitmap_new(node, stored->name, granularity_bytes, disabled,
                            err);
}

static struct dirty_bitmap *co_load(struct block_node *node,
                                    const struct qcow2_stored_bitmap *stored,
                                    GError **err)
{
    g_autoptr(dirty_bitmap) bitmap =
        make(node, stored, UINT64_C(1) << stored->granularity_bits, err);

    if (bitmap == NULL ||
        co_qcow2_bitmap_load(node, stored, take_words,
                             dirty_bitmap_bits(bitmap), err) < 0) {
        return NULL;
    }
    return g_steal_pointer(&bitmap);
}

/* Shows one that is not to be believed. What cannot even be shown (a name that is
 * no text, a granularity that nobody can have) is left out. */
static void show_inconsistent(struct block_node *node,
                              const struct qcow2_stored_bitmap *stored,
                              const char *reason)
{
    struct dirty_bitmap *bitmap;

    if (!g_utf8_validate(stored->name, -1, NULL) ||
        stored->granularity_bits >= 64) {
        return;
    }
    bitmap = make(node, stored, UINT64_C(1) << stored->granularity_bits, NULL);
    if (bitmap == NULL) {
        return;
    }
    dirty_bitmap_set_persistent(bitmap, true);
    dirty_bitmap_set_inconsistent(bitmap, reason);
    dirty_bitmap_attach(node, &bitmap);
}

static void show_loaded(struct block_node *node, struct dirty_bitmap *bitmap)
{
    dirty_bitmap_set_persistent(bitmap, true);
    qcow2_bitmap_adopt(node, dirty_bitmap_name(bitmap));
    dirty_bitmap_attach(node, &bitmap);
}

struct opening {
    struct block_node *node;
    struct tracker *tracker; /* NULL: there was no tracking file */
    bool has_stamp;
    struct journal_id found;
    GPtrArray *loaded; /* struct dirty_bitmap, owned: the image's count */
};

/* Why the image's own bitmap does not count; NULL: it does. */
static const char *find_problem(const struct opening *opening,
                                const struct qcow2_stored_bitmap *stored)
{
    const char *problem = qcow2_bitmap_problem(opening->node, stored);

    if (problem == NULL && opening->has_stamp) {
        return opening->tracker == NULL ? "its tracking file is missing"
                                        : "its tracking file does not know it";
    }
    return problem;
}

static void co_look_at(struct opening *opening,
                       const struct qcow2_stored_bitmap *stored)
{
    struct block_node *node = opening->node;
    const char *problem = find_problem(opening, stored);
    struct dirty_bitmap *known = dirty_bitmap_find(node, stored->name);
    g_autoptr(GError) error = NULL;
    struct dirty_bitmap *bitmap;

    if (known != NULL && (opening->has_stamp || problem != NULL)) {
        qcow2_bitmap_adopt(node, stored->name);
        return;
    }
    if (problem != NULL) {
        show_inconsistent(node, stored, problem);
        return;
    }
    bitmap = co_load(node, stored, &error);
    if (bitmap == NULL && known == NULL) {
        show_inconsistent(node, stored, error->message);
    }
    if (bitmap != NULL) {
        g_ptr_array_add(opening->loaded, bitmap);
    }
}

static void co_look_at_all(struct opening *opening)
{
    const GPtrArray *list = qcow2_bitmaps_list(opening->node);

    for (guint i = 0; i < list->len; i++) {
        co_look_at(opening, list->pdata[i]);
    }
}

/*
 * Into the tracking file.
 */

static int co_reserve_all(struct opening *opening, GError **err)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < opening->loaded->len; i++) {
        ret = co_tracker_reserve(
            opening->tracker,
            dirty_bitmap_granularity_bytes(opening->loaded->pdata[i]), err);
    }
    return ret;
}

/* Puts them on the node, in the place of what the tracking file had. */
static void tell_all(struct opening *opening)
{
    struct block_node *node = opening->node;

    for (guint i = 0; i < opening->loaded->len; i++) {
        struct dirty_bitmap *bitmap = opening->loaded->pdata[i];
        struct dirty_bitmap *known =
            dirty_bitmap_find(node, dirty_bitmap_name(bitmap));
        struct dirty_bitmap *told = bitmap;

        if (known != NULL) {
            tracker_change(opening->tracker, known, TRACKER_CHANGE_REMOVE, NULL,
                           NULL);
            dirty_bitmap_free(dirty_bitmap_detach(known));
        }
        qcow2_bitmap_adopt(node, dirty_bitmap_name(bitmap));
        dirty_bitmap_attach(node, &told);
        tracker_change(opening->tracker, bitmap, TRACKER_CHANGE_ADD, NULL,
                       NULL);
    }
    g_ptr_array_set_size(opening->loaded, 0);
}

static int co_track_loaded(struct opening *opening, GError **err)
{
    int ret;

    co_tracker_begin(opening->tracker);
    ret = co_reserve_all(opening, err);
    if (ret == 0) {
        tell_all(opening);
        ret = co_tracker_commit(opening->tracker, err);
    }
    co_tracker_end(opening->tracker);
    return ret;
}

/* They are on the node all the same, as QEMU would have them. */
static void go_without(struct opening *opening, const GError *cause)
{
    g_warning("Node '%s': the bitmaps of its image cannot be tracked, and will "
              "not survive a crash: %s",
              block_name(opening->node), cause->message);
    for (guint i = 0; i < opening->loaded->len; i++) {
        struct dirty_bitmap *bitmap = opening->loaded->pdata[i];

        if (dirty_bitmap_find(opening->node, dirty_bitmap_name(bitmap)) ==
            NULL) {
            show_loaded(opening->node, bitmap);
        } else {
            dirty_bitmap_free(bitmap);
        }
    }
    g_ptr_array_set_size(opening->loaded, 0);
}

static void co_adopt_loaded(struct opening *opening,
                            const struct tracker_options *options)
{
    g_autoptr(GError) error = NULL;
    int ret = 0;

    if (opening->loaded->len == 0) {
        return;
    }
    if (opening->tracker == NULL) {
        ret = options == NULL ? error_set(&error, -ENOTSUP,
                                          "it has no place for a tracking file")
                              : co_tracker_create(opening->node, options,
                                                  &opening->tracker, &error);
    }
    if (ret == 0) {
        ret = co_track_loaded(opening, &error);
    }
    if (opening->loaded->len > 0) {
        go_without(opening, error);
    }
}

/* The image says that it is in use, by whom. */
static int co_begin(struct opening *opening,
                    const struct journal_id *fresh,
                    GError **err)
{
    int ret = 0;

    if (opening->tracker != NULL && !journal_id_is_none(fresh)) {
        ret = co_qcow2_bitmaps_begin(opening->node, fresh->bytes, err);
        if (ret == 0) {
            ret = co_tracker_stamped(opening->tracker, err);
        }
    } else if (qcow2_bitmaps_list(opening->node)->len > 0) {
        ret = co_qcow2_bitmaps_begin(opening->node, NULL, err);
    }
    return ret;
}

static int co_open_tracker(struct opening *opening,
                           const struct tracker_options *options,
                           GError **err)
{
    if (options == NULL) {
        return 0;
    }
    return co_tracker_open(opening->node, options, &opening->tracker, err);
}

static int co_open_image(struct opening *opening,
                         const struct tracker_options *given,
                         struct tracker **ret_tracker,
                         GError **err)
{
    struct tracker_stamp stamp = {
        .found = opening->found,
    };
    struct tracker_options options;
    int ret;

    if (qcow2_can_store(opening->node)) {
        stamp.fresh = journal_id_new();
    }
    if (given != NULL) {
        options = *given;
        options.stamp = &stamp;
    }
    ret = co_open_tracker(opening, given == NULL ? NULL : &options, err);
    if (ret < 0) {
        return ret;
    }
    co_look_at_all(opening);
    co_adopt_loaded(opening, given == NULL ? NULL : &options);
    ret = co_begin(opening, &stamp.fresh, err);
    if (ret < 0) {
        (void)co_tracker_close(&opening->tracker, NULL); /* err tells more */
        return ret;
    }
    *ret_tracker = opening->tracker;
    return 0;
}

int co_image_bitmaps_open(struct block_node *node,
                          const struct tracker_options *options,
                          struct tracker **ret_tracker,
                          GError **err)
{
    struct opening opening = { .node = node };
    int ret;

    if (!qcow2_is_node(node)) {
        *ret_tracker = NULL;
        return options == NULL
                   ? 0
                   : co_tracker_open(node, options, ret_tracker, err);
    }
    opening.has_stamp = qcow2_stamp(node, opening.found.bytes);
    opening.loaded = g_ptr_array_new();
    ret = co_open_image(&opening, options, ret_tracker, err);
    g_ptr_array_unref(opening.loaded);
    return ret;
}

int co_image_bitmaps_create(struct block_node *node,
                            const struct tracker_options *options,
                            struct tracker **ret_tracker,
                            GError **err)
{
    struct tracker_options stamped = *options;
    struct tracker_stamp stamp = { .fresh = journal_id_new() };
    int ret;

    if (!qcow2_is_node(node)) {
        return co_tracker_create(node, options, ret_tracker, err);
    }
    /* Before there is a file: a stamp alone does no harm. */
    ret = co_qcow2_bitmaps_begin(node, stamp.fresh.bytes, err);
    if (ret < 0) {
        return ret;
    }
    stamped.stamp = &stamp;
    return co_tracker_create(node, &stamped, ret_tracker, err);
}

void co_image_bitmaps_show(struct block_node *node)
{
    const GPtrArray *list;

    if (!qcow2_is_node(node)) {
        return;
    }
    list = qcow2_bitmaps_list(node);
    for (guint i = 0; i < list->len; i++) {
        const struct qcow2_stored_bitmap *stored = list->pdata[i];
        const char *problem = qcow2_bitmap_problem(node, stored);
        g_autoptr(GError) error = NULL;
        struct dirty_bitmap *bitmap = NULL;

        if (problem == NULL) {
            bitmap = co_load(node, stored, &error);
        }
        if (bitmap != NULL) {
            show_loaded(node, bitmap);
        } else {
            show_inconsistent(node, stored,
                              problem != NULL ? problem : error->message);
        }
    }
}

/*
 * From the node to the image.
 */

/* One that is busy now is in a change that nobody has decided: as after a crash,
 * the image does not know it. */
static bool is_to_be_stored(struct dirty_bitmap *bitmap)
{
    return dirty_bitmap_is_persistent(bitmap) &&
           dirty_bitmap_reason(bitmap) == NULL && !dirty_bitmap_is_busy(bitmap);
}

int co_image_bitmaps_store(struct block_node *node, GError **err)
{
    g_autoptr(GArray) contents = NULL;
    struct dirty_bitmap *bitmap = NULL;

    if (!qcow2_is_node(node) || block_is_read_only(node)) {
        return 0;
    }
    contents = g_array_new(FALSE, FALSE, sizeof(struct qcow2_bitmap_content));
    while ((bitmap = dirty_bitmap_next(node, bitmap)) != NULL) {
        struct qcow2_bitmap_content content = {
            .name = dirty_bitmap_name(bitmap),
            .granularity_bits = (unsigned int)__builtin_ctzll(
                dirty_bitmap_granularity_bytes(bitmap)),
            .enabled = dirty_bitmap_is_enabled(bitmap),
        };

        if (is_to_be_stored(bitmap)) {
            content.words =
                bitmap_words(dirty_bitmap_bits(bitmap), &content.word_count);
            g_array_append_val(contents, content);
        }
    }
    return co_qcow2_bitmaps_store(node, (const void *)contents->data,
                                  contents->len, err);
}

void co_image_bitmaps_finish(struct block_node *node)
{
    if (qcow2_is_node(node) && co_qcow2_finish(node) < 0) {
        g_warning("Node '%s': its image could not be written completely when "
                  "it was closed",
                  block_name(node));
    }
}

int image_bitmaps_check_new(struct block_node *node,
                            const char *name,
                            uint64_t granularity_bytes,
                            GError **err)
{
    return qcow2_is_node(node)
               ? qcow2_bitmap_check_new(node, name, granularity_bytes, err)
               : 0;
}

int co_image_bitmaps_forget(struct block_node *node,
                            const char *name,
                            GError **err)
{
    return qcow2_is_node(node) && !block_is_read_only(node)
               ? co_qcow2_bitmap_remove(node, name, err)
               : 0;
}
