/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tells an image from another, cheapest first: size and times, inode, and
 * only where these leave doubt a hash of some of its blocks.
 *
 * A file that was moved or copied has another inode or change time. If it was
 * closed cleanly and its size, modification time and samples are the same, it is
 * the same for us: the base of its bitmaps still has to match, which is what
 * catches a copy that lives beside its origin.
 */
#include "journal/identity.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "block/driver.h"

#define SAMPLE_BYTES UINT64_C(4096)

static int co_add_sample(struct block_node *node,
                         uint64_t offset,
                         uint8_t *buffer,
                         GChecksum *checksum)
{
    uint64_t bytes = min_u64(SAMPLE_BYTES, block_size(node) - offset);
    struct iovec iov = { .iov_base = buffer, .iov_len = bytes };
    int ret = co_block_child_preadv(node, offset, bytes, &iov, 1);

    if (ret == 0) {
        g_checksum_update(checksum, buffer, (gssize)bytes);
    }
    return ret;
}

/* The first block, the last one, and others evenly between. */
static int co_take_samples(struct block_node *node,
                           uint8_t ret_samples[IDENTITY_SAMPLE_BYTES])
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree uint8_t *buffer = g_malloc(SAMPLE_BYTES);
    uint64_t blocks = divide_round_up(block_size(node), SAMPLE_BYTES);
    uint64_t count = min_u64(blocks, IDENTITY_SAMPLES);
    gsize digest_bytes = IDENTITY_SAMPLE_BYTES;
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        uint64_t block = count == 1 ? 0 : (blocks - 1) / (count - 1) * i;

        if (i == count - 1) {
            block = blocks - 1;
        }
        ret = co_add_sample(node, block * SAMPLE_BYTES, buffer, checksum);
    }
    g_checksum_get_digest(checksum, ret_samples, &digest_bytes);
    return ret;
}

int co_identity_take(struct storage *storage,
                     const char *image_path,
                     struct block_node *node,
                     struct identity *ret_identity,
                     GError **err)
{
    struct identity identity = { .durable_modified_ns = INT64_MIN };
    struct storage_stat found;
    int ret = co_storage_stat(storage, image_path, &found);

    if (ret < 0) {
        return error_set_errno(err, ret, "cannot examine '%s'", image_path);
    }
    identity.kind =
        found.kind == STORAGE_BLOCK_DEVICE ? IDENTITY_DEVICE : IDENTITY_FILE;
    identity.size_bytes = found.size_bytes;
    identity.modified_ns = found.modified_ns;
    identity.changed_ns = found.changed_ns;
    identity.device = found.device;
    identity.inode = found.inode;
    identity.born_ns = found.born_ns;
    identity.sectors_written = found.sectors_written;
    if (node != NULL) {
        ret = co_take_samples(node, identity.samples);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot read samples of '%s'",
                               image_path);
    }
    *ret_identity = identity;
    return 0;
}

static bool has_samples(const struct identity *identity)
{
    static const uint8_t none[IDENTITY_SAMPLE_BYTES];

    return memcmp(identity->samples, none, sizeof(none)) != 0;
}

/* Of a file: the same one, and nobody has touched it. */
static bool is_untouched(const struct identity *kept,
                         const struct identity *found)
{
    return kept->inode == found->inode && kept->born_ns == found->born_ns &&
           kept->changed_ns == found->changed_ns;
}

static int check_samples(const struct identity *kept,
                         const struct identity *found,
                         GError **err)
{
    if (!has_samples(found)) {
        return -EAGAIN; /* the caller takes them */
    }
    if (memcmp(kept->samples, found->samples, IDENTITY_SAMPLE_BYTES) != 0) {
        return error_set(err, -ESTALE,
                         "the image's content is not what it was when it was "
                         "closed");
    }
    return 0;
}

int identity_check_clean(const struct identity *kept,
                         const struct identity *found,
                         bool same_boot,
                         GError **err)
{
    if (kept->kind == IDENTITY_NONE) {
        return 0;
    }
    if (kept->kind != found->kind || kept->size_bytes != found->size_bytes) {
        return error_set(err, -ESTALE,
                         "the image has another size than when it was closed");
    }
    if (kept->kind == IDENTITY_DEVICE) {
        if (same_boot && kept->device == found->device &&
            kept->sectors_written != 0 &&
            kept->sectors_written == found->sectors_written) {
            return 0;
        }
        if (same_boot && kept->device == found->device &&
            kept->sectors_written < found->sectors_written) {
            return error_set(err, -ESTALE,
                             "someone else has written to the device since it "
                             "was closed");
        }
        return check_samples(kept, found, err);
    }
    if (kept->modified_ns != found->modified_ns) {
        return error_set(err, -ESTALE,
                         "someone else has written to the image since it was "
                         "closed");
    }
    return is_untouched(kept, found) ? 0 : check_samples(kept, found, err);
}

int identity_check_crashed(const struct identity *kept,
                           const struct identity *found,
                           GError **err)
{
    if (kept->kind == IDENTITY_NONE) {
        return 0;
    }
    if (kept->kind != found->kind) {
        return error_set(err, -ESTALE, "the image is of another kind");
    }
    if (kept->kind == IDENTITY_DEVICE) {
        return 0; /* its size is compared by the caller */
    }
    if (kept->inode != found->inode || kept->born_ns != found->born_ns) {
        return error_set(err, -ESTALE,
                         "the image was replaced by another file after a "
                         "crash");
    }
    if (kept->durable_modified_ns != INT64_MIN &&
        found->modified_ns < kept->durable_modified_ns) {
        return error_set(err, -ESTALE,
                         "the image is older than it was before a crash: it "
                         "was rolled back");
    }
    return 0;
}

/*
 * What lies below an image.
 */

struct below {
    struct storage *storage;
    uint32_t checksum;
    unsigned int files;
};

static void add_bytes(struct below *below, const void *bytes, size_t length)
{
    below->checksum = crc32c(below->checksum, bytes, length);
}

static void add_number(struct below *below, uint64_t number)
{
    uint8_t bytes[8];

    store_le64(bytes, number);
    add_bytes(below, bytes, sizeof(bytes));
}

/* A node without children. One that is in no file is what it says. */
static int co_add_file(struct below *below,
                       struct block_node *node,
                       GError **err)
{
    const char *path = block_filename(node);
    uint8_t samples[IDENTITY_SAMPLE_BYTES] = { 0 };
    struct storage_stat found;
    int ret;

    below->files++;
    if (path == NULL) {
        return 0;
    }
    ret = co_storage_stat(below->storage, path, &found);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot examine '%s'", path);
    }
    add_number(below, found.size_bytes);
    if (found.kind != STORAGE_BLOCK_DEVICE) {
        add_number(below, (uint64_t)found.modified_ns);
        return 0;
    }
    ret = co_take_samples(node, samples);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot read samples of '%s'", path);
    }
    add_bytes(below, samples, sizeof(samples));
    return 0;
}

static bool is_below(const char *role, bool with_file, bool with_data)
{
    return strcmp(role, "data-file") == 0
               ? with_data
               : strcmp(role, "backing") != 0 && with_file;
}

/* One layer: the node, and what it has but for its backing file. */
static int co_add_layer(struct below *below,
                        struct block_node *node,
                        bool with_file,
                        bool with_data,
                        GError **err)
{
    const struct block_child_role *role = block_driver_of(node)->children;
    bool has_children = false;
    int ret = 0;

    add_number(below, block_size(node));
    for (; role != NULL && role->name != NULL && ret == 0; role++) {
        struct block_node *child = block_child(node, role->name);

        has_children = has_children || child != NULL;
        if (child != NULL && is_below(role->name, with_file, with_data)) {
            ret = co_add_layer(below, child, true, true, err);
        }
    }
    return ret == 0 && !has_children ? co_add_file(below, node, err) : ret;
}

int co_identity_below(struct storage *storage,
                      struct block_node *node,
                      bool with_data,
                      uint32_t *ret_below,
                      GError **err)
{
    struct below below = { .storage = storage };
    struct block_node *layer = block_child(node, "backing");
    int ret = 0;

    if (with_data && block_child(node, "data-file") != NULL) {
        ret = co_add_layer(&below, node, false, true, err);
    }
    for (; ret == 0 && layer != NULL; layer = block_child(layer, "backing")) {
        if (!block_is_read_only(layer)) {
            *ret_below = 0; /* a disk of ours until its snapshot was taken: it
                               changes once more, when it is closed after this */
            return 0;
        }
        ret = co_add_layer(&below, layer, true, true, err);
    }
    if (ret == 0) {
        *ret_below = below.files == 0 ? 0 : MAX(below.checksum, 1);
    }
    return ret;
}

/*
 * Where tracking files lie.
 */

/* A name for a device that does not change from boot to boot: what the kernel
 * knows of the medium, or the file behind a loop device; else its path. */
static char *device_id(uint64_t device, const char *image_path)
{
    static const char *const places[] = { "dm/uuid", "wwid", "device/wwid",
                                          "loop/backing_file", NULL };
    g_autofree char *base =
        g_strdup_printf("/sys/dev/block/%u:%u",
                        (unsigned int)(device >> 8 & 0xfff) |
                            (unsigned int)(device >> 32 & ~UINT64_C(0xfff)),
                        (unsigned int)(device & 0xff) |
                            (unsigned int)(device >> 12 & ~UINT64_C(0xff)));

    for (int i = 0; places[i] != NULL; i++) {
        g_autofree char *path = g_build_filename(base, places[i], NULL);
        g_autofree char *text = NULL;

        if (g_file_get_contents(path, &text, NULL, NULL) &&
            *g_strstrip(text) != '\0') {
            return g_steal_pointer(&text);
        }
    }
    return g_strdup(image_path);
}

char *co_tracking_path(struct storage *storage,
                       const char *image_path,
                       const char *state_directory,
                       bool by_option,
                       GError **err)
{
    g_autofree char *id = NULL;
    g_autofree char *digest = NULL;
    struct storage_stat found;
    int ret = co_storage_stat(storage, image_path, &found);

    if (ret < 0) {
        error_set_errno(err, ret, "cannot examine '%s'", image_path);
        return NULL;
    }
    if (found.kind != STORAGE_BLOCK_DEVICE && !by_option) {
        return g_strconcat(image_path, ".cbt", NULL);
    }
    if (state_directory == NULL) {
        error_set(err, -ENOENT,
                  "the persistent bitmaps of '%s' belong in the state "
                  "directory, and there is none: use --state-dir",
                  image_path);
        return NULL;
    }
    id = found.kind == STORAGE_BLOCK_DEVICE
             ? device_id(found.device, image_path)
             : g_strdup(image_path);
    digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, id, -1);
    digest[32] = '\0';
    return g_strdup_printf("%s/disk-%s.cbt", state_directory, digest);
}
