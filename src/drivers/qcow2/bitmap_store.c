/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another set of bitmaps in the file:
 *
 *     data, tables and directory in clusters of their own     |sync|
 *     the header names the directory, and sets the bit        |sync|
 *     what the old directory named is on its way to being free
 *
 * so a crash leaves the old bitmaps or the new ones, and at worst leaked clusters.
 * What fails before the header is written takes its clusters back.
 *
 * Clusters of bits that are all clear or all set take no room. Data of bitmaps that
 * stay is not touched: the new directory names what the old one named.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "drivers/qcow2/bitmaps_priv.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount.h"

#define RUN_CLUSTERS 64 /* that are asked for at a time, for data */

struct storing {
    struct qcow2_image *image;
    GPtrArray *stored;     /* struct qcow2_stored_bitmap: the new directory;
                              those that stay are borrowed from the old one */
    GPtrArray *made;       /* those of them that are new; owned */
    GArray *runs;          /* struct qcow2_run: what was allocated */
    struct qcow2_run rest; /* of one of them: what is not in use yet */
    guint rest_index;      /* ... which */
    uint8_t *cluster;      /* one of data */
    struct qcow2_bitmaps_extension place;
};

static void storing_init(struct storing *storing, struct qcow2_image *image)
{
    *storing = (struct storing){
        .image = image,
        .stored = g_ptr_array_new(),
        .made = qcow2_stored_bitmaps_new(),
        .runs = g_array_new(FALSE, FALSE, sizeof(struct qcow2_run)),
        .cluster = g_malloc(image->cluster_bytes),
    };
}

static void storing_release(struct storing *storing)
{
    g_ptr_array_unref(storing->stored);
    g_ptr_array_unref(storing->made);
    g_array_unref(storing->runs);
    g_free(storing->cluster);
}

static void co_give_back(struct storing *storing)
{
    for (guint i = 0; i < storing->runs->len; i++) {
        const struct qcow2_run *run =
            &g_array_index(storing->runs, struct qcow2_run, i);

        /* What cannot be given back is leaked. */
        (void)co_qcow2_give_back(storing->image, run->host_offset,
                                 run->clusters);
    }
}

/*
 * Writing.
 */

static int co_take_cluster(struct storing *storing, uint64_t *ret_offset)
{
    struct qcow2_run *rest = &storing->rest;

    if (rest->clusters == 0) {
        int ret = co_qcow2_allocate(storing->image, RUN_CLUSTERS, rest);

        if (ret < 0) {
            rest->clusters = 0;
            return ret;
        }
        storing->rest_index = storing->runs->len;
        g_array_append_val(storing->runs, *rest);
    }
    *ret_offset = rest->host_offset;
    rest->host_offset += storing->image->cluster_bytes;
    rest->clusters--;
    return 0;
}

/* What was asked for and not needed. */
static void co_trim_rest(struct storing *storing)
{
    struct qcow2_run *run;

    if (storing->rest.clusters == 0) {
        return;
    }
    run = &g_array_index(storing->runs, struct qcow2_run, storing->rest_index);
    run->clusters -= storing->rest.clusters;
    (void)co_qcow2_give_back(storing->image, storing->rest.host_offset,
                             storing->rest.clusters); /* or it is leaked */
    storing->rest.clusters = 0;
}

static int co_write_new(struct storing *storing,
                        const void *bytes,
                        uint64_t count,
                        uint64_t *ret_offset)
{
    struct qcow2_image *image = storing->image;
    uint64_t clusters = divide_round_up(count, image->cluster_bytes);
    g_autofree uint8_t *padded = g_try_malloc0(clusters * image->cluster_bytes);
    struct iovec iov = { padded, clusters * image->cluster_bytes };
    struct qcow2_run run;
    int ret;

    if (padded == NULL) {
        return -ENOMEM;
    }
    memcpy(padded, bytes, count);
    ret = co_qcow2_allocate_contiguous(image, clusters, &run);
    if (ret < 0) {
        return ret;
    }
    g_array_append_val(storing->runs, run);
    *ret_offset = run.host_offset;
    return co_qcow2_write_new_metadata(image, run.host_offset, iov.iov_len,
                                       &iov, 1);
}

/* Copies the bits of one cluster of data. Returns their entry, if they are all
 * clear or, in a whole cluster, all set; else UINT64_MAX. */
static uint64_t copy_bits(struct storing *storing,
                          const struct qcow2_bitmap_content *content,
                          uint64_t index)
{
    uint64_t words = storing->image->cluster_bytes / 8;
    uint64_t first = index * words;
    uint64_t count = min_u64(words, content->word_count - first);
    uint64_t all = UINT64_MAX;
    uint64_t any = 0;

    memset(storing->cluster, 0, storing->image->cluster_bytes);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t word = content->words[first + i];

        all &= word;
        any |= word;
        store_le64(storing->cluster + i * 8, word);
    }
    if (any == 0) {
        return 0;
    }
    return all == UINT64_MAX && count == words ? QCOW2_BITMAP_ALL_ONES
                                               : UINT64_MAX;
}

static int co_write_data(struct storing *storing,
                         const struct qcow2_bitmap_content *content,
                         uint64_t *table,
                         uint64_t table_count)
{
    struct qcow2_image *image = storing->image;
    struct iovec iov = { storing->cluster, image->cluster_bytes };
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < table_count; i++) {
        uint64_t entry = copy_bits(storing, content, i);

        if (entry == UINT64_MAX) {
            ret = co_take_cluster(storing, &entry);
        }
        if (ret == 0 && entry >= image->cluster_bytes) {
            ret = co_qcow2_write_new_metadata(image, entry,
                                              image->cluster_bytes, &iov, 1);
        }
        table[i] = htobe64(entry);
    }
    return ret;
}

/* One bitmap: its data and its table. */
static int co_write_bitmap(struct storing *storing,
                           const struct qcow2_bitmap_content *content)
{
    struct qcow2_image *image = storing->image;
    uint64_t bytes = qcow2_bitmap_bytes(image->header->size_bytes,
                                        content->granularity_bits);
    uint64_t count = max_u64(divide_round_up(bytes, image->cluster_bytes), 1);
    g_autofree uint64_t *table = g_try_malloc0(count * sizeof(uint64_t));
    struct qcow2_stored_bitmap *bitmap;
    int ret = table == NULL ? -ENOMEM : 0;

    g_assert(content->word_count >= divide_round_up(bytes, 8));
    bitmap = g_new0(struct qcow2_stored_bitmap, 1);
    bitmap->name = g_strdup(content->name);
    bitmap->table_count = (uint32_t)count;
    bitmap->flags = content->enabled ? QCOW2_BITMAP_AUTO : 0;
    bitmap->type = QCOW2_BITMAP_TYPE_DIRTY_TRACKING;
    bitmap->granularity_bits = (uint8_t)content->granularity_bits;
    bitmap->is_adopted = true;
    g_ptr_array_add(storing->made, bitmap);
    g_ptr_array_add(storing->stored, bitmap);
    if (ret == 0 && bytes > 0) {
        ret = co_write_data(storing, content, table, count);
    }
    return ret == 0 ? co_write_new(storing, table, count * sizeof(uint64_t),
                                   &bitmap->table_offset)
                    : ret;
}

/* As the entries are in the file; new ones are not marked. */
static uint32_t flags_in_file(const struct qcow2_stored_bitmap *bitmap)
{
    return bitmap->flags | (bitmap->is_marked ? QCOW2_BITMAP_IN_USE : 0);
}

static int co_write_directory(struct storing *storing)
{
    g_autoptr(GByteArray) directory =
        qcow2_bitmaps_format(storing->stored, flags_in_file);

    storing->place = (struct qcow2_bitmaps_extension){ 0 };
    if (storing->stored->len == 0) {
        return 0;
    }
    if (storing->stored->len > LIMIT_BITMAPS_PER_NODE ||
        directory->len > QCOW2_BITMAP_DIRECTORY_BYTES_MAX) {
        return -EFBIG;
    }
    storing->place.count = storing->stored->len;
    storing->place.directory_bytes = directory->len;
    return co_write_new(storing, directory->data, directory->len,
                        &storing->place.directory_offset);
}

/*
 * Switching.
 */

static int co_free_cluster(void *opaque, uint64_t host_offset)
{
    struct qcow2_image *image = opaque;

    qcow2_free_later(image, host_offset, image->cluster_bytes,
                     QCOW2_FREE_REPLACED);
    return 0;
}

/* The rest of a table that is not valid is leaked. */
static void co_free_bitmap(struct qcow2_image *image,
                           const struct qcow2_stored_bitmap *bitmap)
{
    uint64_t bytes = bitmap->table_count * sizeof(uint64_t);

    (void)co_qcow2_bitmap_visit(image, bitmap, co_free_cluster, image);
    if (bytes > 0 &&
        bytes_range_within(bitmap->table_offset, bytes,
                           block_size(image->file)) &&
        !cluster_set_meets(image->metadata, bitmap->table_offset, bytes)) {
        qcow2_free_later(image, bitmap->table_offset, bytes,
                         QCOW2_FREE_REPLACED);
    }
}

/* The new list owns what stays of the old one; what does not is freed, in the file,
 * too. */
static void co_switch_lists(struct storing *storing)
{
    struct qcow2_image *image = storing->image;
    GPtrArray *old = image->bitmaps->stored;

    for (guint i = 0; i < old->len; i++) {
        if (!g_ptr_array_find(storing->stored, old->pdata[i], NULL)) {
            co_free_bitmap(image, old->pdata[i]);
            qcow2_stored_bitmap_free(old->pdata[i]);
        }
    }
    g_ptr_array_set_free_func(old, NULL);
    g_ptr_array_unref(old);
    image->bitmaps->stored = qcow2_stored_bitmaps_new();
    g_ptr_array_extend(image->bitmaps->stored, storing->stored, NULL, NULL);
    g_ptr_array_set_free_func(storing->made, NULL);
}

static void move_directory(struct qcow2_image *image,
                           const struct qcow2_bitmaps_extension *from,
                           const struct qcow2_bitmaps_extension *to)
{
    if (from->count > 0) {
        cluster_set_remove(image->metadata, from->directory_offset,
                           from->directory_bytes);
        qcow2_free_later(image, from->directory_offset, from->directory_bytes,
                         QCOW2_FREE_REPLACED);
    }
    if (to->count > 0) {
        cluster_set_add(image->metadata, to->directory_offset,
                        to->directory_bytes);
    }
}

static int co_switch_header(struct storing *storing, GError **err)
{
    struct qcow2_image *image = storing->image;
    struct qcow2_header *header = image->header;
    struct qcow2_bitmaps_extension old = header->bitmaps;
    uint64_t old_autoclear = header->autoclear;
    int ret;

    header->bitmaps = storing->place;
    header->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    if (storing->place.count > 0) {
        header->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
    }
    ret = co_qcow2_rewrite_header(image, err);
    if (ret == 0) {
        move_directory(image, &old, &storing->place);
        return 0;
    }
    header->bitmaps = old;
    header->autoclear = old_autoclear;
    if (ret != -EFBIG) {
        /* Nobody knows which of the two the file has. */
        qcow2_commit_fail(image, ret);
    }
    return ret;
}

/* The new directory becomes that of the image. */
static int co_switch(struct storing *storing, GError **err)
{
    struct qcow2_image *image = storing->image;
    int ret = co_write_directory(storing);

    co_trim_rest(storing);
    if (ret == 0) {
        ret = co_qcow2_commit(image);
    }
    if (ret < 0) {
        return error_set_errno(err, ret,
                               "the bitmaps of node '%s' cannot be stored in "
                               "its image",
                               block_name(image->node));
    }
    ret = co_switch_header(storing, err);
    if (ret == 0) {
        co_switch_lists(storing);
    }
    return ret;
}

static int co_end(struct storing *storing, int ret)
{
    co_trim_rest(storing);
    if (ret < 0 && qcow2_commit_failure(storing->image) == 0) {
        co_give_back(storing);
    }
    storing_release(storing);
    return ret;
}

/*
 * What is to be in it.
 */

static const struct qcow2_bitmap_content *find_content(
    const struct qcow2_bitmap_content *contents,
    size_t count,
    const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(contents[i].name, name) == 0) {
            return &contents[i];
        }
    }
    return NULL;
}

static int check_contents(struct block_node *node,
                          const struct qcow2_bitmap_content *contents,
                          size_t count,
                          GError **err)
{
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < count; i++) {
        ret = qcow2_bitmap_check_new(
            node, contents[i].name, UINT64_C(1) << contents[i].granularity_bits,
            err);
    }
    return ret;
}

static int co_store(struct storing *storing,
                    const struct qcow2_bitmap_content *contents,
                    size_t count,
                    GError **err)
{
    const GPtrArray *old = storing->image->bitmaps->stored;

    for (guint i = 0; i < old->len; i++) {
        struct qcow2_stored_bitmap *bitmap = old->pdata[i];

        if (find_content(contents, count, bitmap->name) == NULL) {
            g_ptr_array_add(storing->stored, bitmap);
        }
    }
    for (size_t i = 0; i < count; i++) {
        int ret = co_write_bitmap(storing, &contents[i]);

        if (ret < 0) {
            return error_set_errno(err, ret,
                                   "bitmap '%s' of node '%s' cannot be stored "
                                   "in its image",
                                   contents[i].name,
                                   block_name(storing->image->node));
        }
    }
    return co_switch(storing, err);
}

int co_qcow2_bitmaps_store(struct block_node *node,
                           const struct qcow2_bitmap_content *contents,
                           size_t count,
                           GError **err)
{
    struct qcow2_image *image = block_state(node);
    struct storing storing;
    int ret = check_contents(node, contents, count, err);

    g_assert(image->writable);
    if (ret < 0) {
        return ret;
    }
    if (image->corrupt) {
        return error_set(err, -EIO,
                         "the bitmaps of node '%s' cannot be stored: its image "
                         "is corrupt",
                         block_name(node));
    }
    if (count == 0) {
        return 0;
    }
    co_mutex_lock(&image->bitmaps->lock);
    storing_init(&storing, image);
    ret = co_end(&storing, co_store(&storing, contents, count, err));
    if (ret == 0) {
        /* What writes on, after all, has to begin anew. */
        image->untouched = true;
    }
    co_mutex_unlock(&image->bitmaps->lock);
    return ret;
}

int co_qcow2_bitmap_remove(struct block_node *node,
                           const char *name,
                           GError **err)
{
    struct qcow2_image *image = block_state(node);
    struct storing storing;
    const GPtrArray *old;
    int ret = 0;

    g_assert(image->writable);
    co_mutex_lock(&image->bitmaps->lock);
    old = image->bitmaps->stored;
    storing_init(&storing, image);
    for (guint i = 0; i < old->len; i++) {
        struct qcow2_stored_bitmap *bitmap = old->pdata[i];

        if (strcmp(bitmap->name, name) != 0) {
            g_ptr_array_add(storing.stored, bitmap);
        }
    }
    if (storing.stored->len < old->len) {
        ret = co_switch(&storing, err);
    }
    ret = co_end(&storing, ret);
    co_mutex_unlock(&image->bitmaps->lock);
    return ret;
}
