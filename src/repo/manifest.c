/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "repo/names.h"

#define FORMAT_NAME    "cohort-point"
#define FORMAT_VERSION 1
/* Of the daemon's ids of transactions and disks. */
#define ID_DIGITS 32

static void base_clear(struct manifest_base *base)
{
    g_clear_pointer(&base->txid, g_free);
    g_clear_pointer(&base->disk, g_free);
}

void manifest_base_set(struct manifest_base *base,
                       const char *txid,
                       const char *disk)
{
    base_clear(base);
    base->txid = g_strdup(txid);
    base->disk = g_strdup(disk);
}

bool manifest_base_equal(const struct manifest_base *one,
                         const struct manifest_base *other)
{
    return one->txid != NULL && other->txid != NULL &&
           strcmp(one->txid, other->txid) == 0 &&
           strcmp(one->disk, other->disk) == 0;
}

static void disk_free(void *pointer)
{
    struct manifest_disk *disk = pointer;

    g_free(disk->node);
    g_free(disk->reason);
    g_free(disk->previous);
    g_free(disk->bitmap);
    g_free(disk->previous_bitmap);
    g_free(disk->job);
    g_free(disk->hash_root);
    base_clear(&disk->base);
    base_clear(&disk->previous_base);
    g_free(disk);
}

struct manifest *manifest_new(void)
{
    struct manifest *manifest = g_new0(struct manifest, 1);

    manifest->disks = g_ptr_array_new_with_free_func(disk_free);
    return manifest;
}

void manifest_free(struct manifest *manifest)
{
    if (manifest == NULL) {
        return;
    }
    g_free(manifest->point);
    g_free(manifest->directory);
    g_free(manifest->repository);
    g_free(manifest->label);
    g_free(manifest->txid);
    g_free(manifest->not_before);
    g_free(manifest->not_after);
    g_free(manifest->tool);
    g_free(manifest->daemon);
    g_ptr_array_unref(manifest->disks);
    g_free(manifest);
}

struct manifest_disk *manifest_add_disk(struct manifest *manifest,
                                        const char *node)
{
    struct manifest_disk *disk = g_new0(struct manifest_disk, 1);

    disk->node = g_strdup(node);
    g_ptr_array_add(manifest->disks, disk);
    return disk;
}

struct manifest_disk *manifest_find_disk(const struct manifest *manifest,
                                         const char *node)
{
    for (guint i = 0; i < manifest->disks->len; i++) {
        struct manifest_disk *disk = manifest->disks->pdata[i];
        if (strcmp(disk->node, node) == 0) {
            return disk;
        }
    }
    return NULL;
}

char *manifest_image_name(const struct manifest_disk *disk)
{
    return g_strconcat(disk->node, disk->raw ? ".raw" : ".qcow2", NULL);
}

char *manifest_hashes_name(const struct manifest_disk *disk)
{
    return g_strconcat(disk->node, ".hashes", NULL);
}

static void set_string(json_t *object, const char *key, const char *value)
{
    json_t *item = value == NULL ? json_null() : json_string(value);

    g_assert(item != NULL && json_object_set_new(object, key, item) == 0);
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
    g_assert(
        json_object_set_new(object, key, json_integer((json_int_t)value)) == 0);
}

static void set_base(json_t *object,
                     const char *key,
                     const struct manifest_base *base)
{
    json_t *item =
        base->txid == NULL
            ? json_null()
            : json_pack("{s:s, s:s}", "txid", base->txid, "disk", base->disk);

    g_assert(item != NULL && json_object_set_new(object, key, item) == 0);
}

static json_t *disk_to_json(const struct manifest_disk *disk)
{
    g_autofree char *image = manifest_image_name(disk);
    g_autofree char *hashes = manifest_hashes_name(disk);
    json_t *object = json_object();

    set_string(object, "node", disk->node);
    set_number(object, "size", disk->size);
    set_string(object, "kind", disk->incremental ? "incremental" : "full");
    set_string(object, "reason", disk->reason);
    set_string(object, "previous", disk->previous);
    set_string(object, "image", image);
    set_string(object, "hashes", hashes);
    set_string(object, "hash-root", disk->hash_root);
    set_number(object, "changed-bytes", disk->changed_bytes);
    set_string(object, "bitmap", disk->bitmap);
    set_string(object, "previous-bitmap", disk->previous_bitmap);
    set_base(object, "base", &disk->base);
    set_base(object, "previous-base", &disk->previous_base);
    set_string(object, "job", disk->job);
    return object;
}

char *manifest_write(const struct manifest *manifest)
{
    json_t *root = json_object();
    json_t *disks = json_array();
    char *text;

    set_string(root, "format", FORMAT_NAME);
    set_number(root, "version", FORMAT_VERSION);
    set_string(root, "point", manifest->point);
    set_string(root, "repository", manifest->repository);
    set_number(root, "sequence", manifest->sequence);
    set_string(root, "label", manifest->label);
    set_string(root, "txid", manifest->txid);
    set_string(root, "not-before", manifest->not_before);
    set_string(root, "not-after", manifest->not_after);
    set_string(root, "tool", manifest->tool);
    set_string(root, "daemon", manifest->daemon);
    for (guint i = 0; i < manifest->disks->len; i++) {
        json_t *disk = disk_to_json(manifest->disks->pdata[i]);
        g_assert(json_array_append_new(disks, disk) == 0);
    }
    g_assert(json_object_set_new(root, "disks", disks) == 0);
    char *compact = json_dumps(root, JSON_INDENT(2));
    g_assert(compact != NULL);
    text = g_strconcat(compact, "\n", NULL);
    free(compact);
    json_decref(root);
    return text;
}

/* A member that must be a string (or, if `nullable`, null). */
static bool take_string(const json_t *object,
                        const char *key,
                        bool nullable,
                        char **ret_value,
                        GError **err)
{
    const json_t *value = json_object_get(object, key);

    if (json_is_string(value) && json_string_length(value) <= 4096) {
        *ret_value = g_strdup(json_string_value(value));
        return true;
    }
    if (nullable && json_is_null(value)) {
        return true;
    }
    (void)error_set(err, -EINVAL, "its '%s' is missing or no short string",
                    key);
    return false;
}

/* As take_string(); an id of the daemon's, or what older points lack. */
static bool take_id(const json_t *object,
                    const char *key,
                    char **ret_value,
                    GError **err)
{
    const json_t *value = json_object_get(object, key);

    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (!json_is_string(value) ||
        !hex_is_legal(json_string_value(value), ID_DIGITS)) {
        (void)error_set(err, -EINVAL, "its '%s' is no id of %d digits", key,
                        ID_DIGITS);
        return false;
    }
    *ret_value = g_strdup(json_string_value(value));
    return true;
}

static bool take_base(const json_t *object,
                      const char *key,
                      struct manifest_base *base,
                      GError **err)
{
    const json_t *value = json_object_get(object, key);

    if (!take_id(value, "txid", &base->txid, err) ||
        !take_id(value, "disk", &base->disk, err)) {
        return false;
    }
    if ((base->txid == NULL) != (base->disk == NULL)) {
        (void)error_set(err, -EINVAL, "its '%s' is half a base", key);
        return false;
    }
    return true;
}

static bool take_number(const json_t *object,
                        const char *key,
                        uint64_t maximum,
                        uint64_t *ret_value,
                        GError **err)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > maximum) {
        (void)error_set(err, -EINVAL,
                        "its '%s' is missing or no number up to "
                        "%" G_GUINT64_FORMAT,
                        key, maximum);
        return false;
    }
    *ret_value = (uint64_t)json_integer_value(value);
    return true;
}

static bool member_equals(const json_t *object,
                          const char *key,
                          const char *expected,
                          GError **err)
{
    const char *value = json_string_value(json_object_get(object, key));

    if (g_strcmp0(value, expected) != 0) {
        (void)error_set(err, -EINVAL, "its '%s' is '%s', not '%s'", key,
                        value == NULL ? "(no string)" : value, expected);
        return false;
    }
    return true;
}

static bool take_kind(const json_t *object,
                      struct manifest_disk *disk,
                      GError **err)
{
    const char *kind = json_string_value(json_object_get(object, "kind"));

    disk->incremental = g_strcmp0(kind, "incremental") == 0;
    if (!disk->incremental && g_strcmp0(kind, "full") != 0) {
        (void)error_set(err, -EINVAL,
                        "its 'kind' is neither full nor "
                        "incremental");
        return false;
    }
    if (disk->incremental != (disk->previous != NULL)) {
        (void)error_set(err, -EINVAL,
                        "an increment, and nothing else, names a previous "
                        "point");
        return false;
    }
    if (disk->previous != NULL && !point_id_is_legal(disk->previous)) {
        (void)error_set(err, -EINVAL, "'%s' is no point id", disk->previous);
        return false;
    }
    return true;
}

/* The file name tells the format; nothing in it is free. */
static bool take_image(const json_t *object,
                       struct manifest_disk *disk,
                       GError **err)
{
    const char *name = json_string_value(json_object_get(object, "image"));

    disk->raw =
        !disk->incremental && name != NULL && g_str_has_suffix(name, ".raw");
    g_autofree char *image = manifest_image_name(disk);
    return member_equals(object, "image", image, err);
}

static bool disk_from_json(const json_t *object,
                           struct manifest *manifest,
                           GError **err)
{
    g_autofree char *node = NULL;
    struct manifest_disk *disk;

    if (!take_string(object, "node", false, &node, err)) {
        return false;
    }
    if (!disk_name_is_legal(node)) {
        (void)error_set(err, -EINVAL, "'%s' is no legal disk name", node);
        return false;
    }
    if (manifest_find_disk(manifest, node) != NULL) {
        (void)error_set(err, -EINVAL, "disk '%s' is in it twice", node);
        return false;
    }
    disk = manifest_add_disk(manifest, node);
    if (!take_number(object, "size", REPO_DISK_BYTES_MAX, &disk->size, err) ||
        !take_string(object, "reason", false, &disk->reason, err) ||
        !take_string(object, "previous", true, &disk->previous, err) ||
        !take_string(object, "bitmap", true, &disk->bitmap, err) ||
        !take_string(object, "previous-bitmap", true, &disk->previous_bitmap,
                     err) ||
        !take_base(object, "base", &disk->base, err) ||
        !take_base(object, "previous-base", &disk->previous_base, err) ||
        !take_string(object, "job", false, &disk->job, err) ||
        !take_string(object, "hash-root", false, &disk->hash_root, err) ||
        !take_number(object, "changed-bytes", REPO_DISK_BYTES_MAX,
                     &disk->changed_bytes, err) ||
        !take_kind(object, disk, err)) {
        return false;
    }
    if (!hex_is_legal(disk->hash_root, HASH_HEX_BYTES)) {
        (void)error_set(err, -EINVAL, "its 'hash-root' is no SHA-256");
        return false;
    }
    g_autofree char *hashes = manifest_hashes_name(disk);
    return take_image(object, disk, err) &&
           member_equals(object, "hashes", hashes, err);
}

static bool check_names(struct manifest *manifest,
                        const char *directory,
                        GError **err)
{
    const char *id = directory;

    if (g_str_has_prefix(id, PARTIAL_PREFIX)) {
        id += strlen(PARTIAL_PREFIX);
    }
    if (!point_id_is_legal(manifest->point) ||
        strcmp(manifest->point, id) != 0) {
        (void)error_set(err, -EINVAL, "it calls itself point '%s'",
                        manifest->point);
        return false;
    }
    manifest->directory = g_strdup(directory);
    return true;
}

static bool disks_from_json(const json_t *disks,
                            struct manifest *manifest,
                            GError **err)
{
    if (!json_is_array(disks) || json_array_size(disks) == 0) {
        (void)error_set(err, -EINVAL, "it lists no disks");
        return false;
    }
    for (size_t i = 0; i < json_array_size(disks); i++) {
        if (!disk_from_json(json_array_get(disks, i), manifest, err)) {
            g_prefix_error(err, "disk %zu: ", i);
            return false;
        }
    }
    return true;
}

static bool check_version(const json_t *root, GError **err)
{
    const json_t *version = json_object_get(root, "version");

    if (!member_equals(root, "format", FORMAT_NAME, err)) {
        return false;
    }
    if (!json_is_integer(version) ||
        json_integer_value(version) != FORMAT_VERSION) {
        (void)error_set(err, -EINVAL,
                        "it is of a version that this cohort does not read "
                        "(it reads version %d)",
                        FORMAT_VERSION);
        return false;
    }
    return true;
}

static bool from_json(const json_t *root,
                      struct manifest *manifest,
                      const char *directory,
                      GError **err)
{
    return check_version(root, err) &&
           take_string(root, "point", false, &manifest->point, err) &&
           take_string(root, "repository", false, &manifest->repository, err) &&
           take_number(root, "sequence", INT64_MAX, &manifest->sequence, err) &&
           take_string(root, "label", false, &manifest->label, err) &&
           take_id(root, "txid", &manifest->txid, err) &&
           take_string(root, "not-before", false, &manifest->not_before, err) &&
           take_string(root, "not-after", false, &manifest->not_after, err) &&
           take_string(root, "tool", false, &manifest->tool, err) &&
           take_string(root, "daemon", false, &manifest->daemon, err) &&
           check_names(manifest, directory, err) &&
           disks_from_json(json_object_get(root, "disks"), manifest, err);
}

struct manifest *manifest_parse(const char *text,
                                size_t bytes,
                                const char *directory,
                                GError **err)
{
    g_autoptr(manifest_auto) manifest = manifest_new();
    json_error_t where;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    bool good;

    if (root == NULL) {
        (void)error_set(err, -EINVAL, "%s/%s is no JSON: %s at line %d",
                        directory, MANIFEST_FILE, where.text, where.line);
        return NULL;
    }
    good = from_json(root, manifest, directory, err);
    json_decref(root);
    if (!good) {
        g_prefix_error(err, "%s/%s is damaged: ", directory, MANIFEST_FILE);
        return NULL;
    }
    return g_steal_pointer(&manifest);
}
