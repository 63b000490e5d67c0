/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/chain.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "repo/durable.h"
#include "repo/fd.h"

struct layer {
    struct image *image;
    char *point;
};

struct chain {
    GPtrArray *layers; /* struct layer *, topmost first; owned */
};

static void layer_free(void *pointer)
{
    struct layer *layer = pointer;

    image_close(layer->image);
    g_free(layer->point);
    g_free(layer);
}

void chain_close(struct chain *chain)
{
    if (chain != NULL) {
        g_ptr_array_unref(chain->layers);
        g_free(chain);
    }
}

char *chain_backing_name(const struct manifest *previous, const char *node)
{
    const struct manifest_disk *disk = manifest_find_disk(previous, node);
    g_autofree char *image = manifest_image_name(disk);

    return g_strdup_printf("../%s/%s", previous->point, image);
}

static struct image *open_image(const struct repository *repository,
                                const struct manifest *point,
                                const struct manifest_disk *disk,
                                GError **err)
{
    g_autofree char *name = manifest_image_name(disk);
    auto_fd int fd =
        durable_open_directory(repository->fd, point->directory, err);

    if (fd < 0) {
        return NULL;
    }
    return disk->raw ? image_open_raw(fd, name, disk->size, err)
                     : image_open_qcow2(fd, name, disk->size, err);
}

/* The image below must be the one that the manifest says. */
static int check_below(const struct manifest *point,
                       const struct manifest_disk *disk,
                       const struct manifest *below,
                       const struct image *image,
                       GError **err)
{
    const struct manifest_disk *base =
        below == NULL ? NULL : manifest_find_disk(below, disk->node);

    if (base == NULL) {
        return error_set(err, -ENOENT,
                         "disk '%s' builds on point %s, which is missing or "
                         "does not hold it",
                         disk->node, disk->previous);
    }
    if (base->size != disk->size || below->sequence >= point->sequence) {
        return error_set(err, -EINVAL,
                         "disk '%s' builds on point %s, which is newer or has "
                         "another size of it",
                         disk->node, disk->previous);
    }
    g_autofree char *expected = chain_backing_name(below, disk->node);
    const char *found = image_backing_name(image);
    if (g_strcmp0(found, expected) != 0) {
        return error_set(err, -EINVAL,
                         "the image of disk '%s' names '%s' as its backing "
                         "file, the manifest '%s'",
                         disk->node, found == NULL ? "nothing" : found,
                         expected);
    }
    return 0;
}

/* Adds the layer of `point`; `*ret_below` is the point below, NULL at the
 * end. */
static int add_layer(struct chain *chain,
                     const struct repository *repository,
                     const struct manifest *point,
                     const char *node,
                     const struct manifest **ret_below,
                     GError **err)
{
    const struct manifest_disk *disk = manifest_find_disk(point, node);

    if (disk == NULL) {
        return error_set(err, -ENOENT, "there is no disk '%s'", node);
    }
    struct layer *layer = g_new0(struct layer, 1);
    g_ptr_array_add(chain->layers, layer);
    layer->point = g_strdup(point->point);
    layer->image = open_image(repository, point, disk, err);
    if (layer->image == NULL) {
        return -EIO;
    }
    *ret_below = NULL;
    if (!disk->incremental) {
        return image_backing_name(layer->image) == NULL
                   ? 0
                   : error_set(err, -EINVAL,
                               "the image of disk '%s' is a full one and "
                               "names a backing file",
                               node);
    }
    *ret_below = repository_find(repository, disk->previous);
    return check_below(point, disk, *ret_below, layer->image, err);
}

struct chain *chain_open(const struct repository *repository,
                         const struct manifest *point,
                         const char *node,
                         GError **err)
{
    g_autoptr(chain_auto) chain = g_new0(struct chain, 1);

    chain->layers = g_ptr_array_new_with_free_func(layer_free);
    /* Ends: the sequence numbers fall from layer to layer. */
    while (point != NULL) {
        const struct manifest *below = NULL;
        if (add_layer(chain, repository, point, node, &below, err) < 0) {
            g_prefix_error(err, "point %s: ", point->point);
            return NULL;
        }
        point = below;
    }
    return g_steal_pointer(&chain);
}

static struct layer *map_layers(struct chain *chain,
                                uint64_t offset,
                                uint64_t bytes,
                                struct image_run *ret_run,
                                GError **err)
{
    struct layer *layer = NULL;

    for (guint i = 0; i < chain->layers->len; i++) {
        layer = chain->layers->pdata[i];
        if (image_map(layer->image, offset, bytes, ret_run, err) < 0) {
            g_prefix_error(err, "point %s: ", layer->point);
            return NULL;
        }
        if (ret_run->kind != IMAGE_UNALLOCATED) {
            return layer;
        }
        bytes = ret_run->bytes;
    }
    /* Only an increment can be unallocated, and the lowest is a full image. */
    ret_run->kind = IMAGE_ZERO;
    return layer;
}

int chain_map(struct chain *chain,
              uint64_t offset,
              uint64_t bytes,
              struct image_run *ret_run,
              const char **ret_point,
              GError **err)
{
    const struct layer *layer = map_layers(chain, offset, bytes, ret_run, err);

    if (layer == NULL) {
        return -EIO;
    }
    *ret_point = layer->point;
    return 0;
}

int chain_map_top(struct chain *chain,
                  uint64_t offset,
                  uint64_t bytes,
                  struct image_run *ret_run,
                  GError **err)
{
    const struct layer *layer = chain->layers->pdata[0];

    return image_map(layer->image, offset, bytes, ret_run, err);
}

int chain_read(struct chain *chain,
               uint64_t offset,
               void *buffer,
               size_t bytes,
               bool *ret_is_zero,
               GError **err)
{
    char *to = buffer;
    const size_t whole = bytes;
    bool is_zero = true;

    while (bytes > 0) {
        struct image_run run;
        const struct layer *layer = map_layers(chain, offset, bytes, &run, err);
        if (layer == NULL) {
            return -EIO;
        }
        if (run.kind != IMAGE_DATA && run.bytes == whole) {
            break;
        }
        if (run.kind == IMAGE_DATA) {
            is_zero = false;
            int ret =
                image_read(layer->image, &run, to, (size_t)run.bytes, err);
            if (ret < 0) {
                g_prefix_error(err, "point %s: ", layer->point);
                return ret;
            }
        } else {
            memset(to, 0, (size_t)run.bytes);
        }
        to += run.bytes;
        offset += run.bytes;
        bytes -= (size_t)run.bytes;
    }
    *ret_is_zero = is_zero;
    return 0;
}
