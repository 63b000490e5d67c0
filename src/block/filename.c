/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a name in an image's header to options.
 *
 * A path is looked at on the offload pool: what kind of file it is, and, where
 * no format is given, how it begins. A json: text is read, its dotted keys are
 * taken apart, and it is coerced as command-line options are. Both are checked
 * against the schema of BlockdevOptions in the end, so a name from a hostile
 * image gives what a client could have given, or an error; only nodes of this
 * daemon cannot be named or created by one.
 */
#include "block/filename.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json_reader.h"
#include "base/limits.h"
#include "block/driver.h"
#include "loop/coroutine.h"
#include "loop/io.h"

/* qcow2 specification, "Header": the first four bytes. */
static const char qcow2_magic[4] = { 'Q', 'F', 'I', '\xfb' };

/* The length of "protocol:" at the start of a name; 0: it is a path. */
static size_t protocol_length(const char *name)
{
    size_t length = strcspn(name, ":/");

    return name[length] == ':' ? length + 1 : 0;
}

static bool is_relative(const char *name)
{
    return name[0] != '/' && protocol_length(name) == 0;
}

char *block_filename_resolve(const char *name,
                             const char *base_filename,
                             GError **err)
{
    const char *slash;

    if (!is_relative(name)) {
        return g_strdup(name);
    }
    if (base_filename == NULL) {
        error_set(err, -EINVAL,
                  "'%s' is a relative name, and the image that gives it has "
                  "no directory that it could be relative to",
                  name);
        return NULL;
    }
    slash = strrchr(base_filename, '/');
    if (slash == NULL) {
        return g_strdup(name);
    }
    return g_strdup_printf("%.*s%s", (int)(slash + 1 - base_filename),
                           base_filename, name);
}

/* What the offload pool is asked to look at. */
struct filename_probe {
    const char *path;
    bool want_format;
    int fd; /* open for reading, if the format is wanted */
    bool is_device;
    bool is_qcow2;
};

static int run_probe(void *opaque)
{
    struct filename_probe *probe = opaque;
    struct stat found;

    if (stat(probe->path, &found) < 0) {
        return -errno;
    }
    probe->is_device = S_ISBLK(found.st_mode);
    if (!probe->want_format) {
        return 0;
    }
    /* Not waiting for the other end of a FIFO. */
    probe->fd = open(probe->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return probe->fd < 0 ? -errno : 0;
}

static int run_close(void *opaque)
{
    const struct filename_probe *probe = opaque;

    return close(probe->fd);
}

static int co_probe(struct filename_probe *probe)
{
    char start[sizeof(qcow2_magic)] = { 0 };
    struct iovec iov = { start, sizeof(start) };
    int ret = co_offload(run_probe, probe);
    ssize_t got;

    if (ret < 0 || !probe->want_format) {
        return ret;
    }
    got = co_file_preadv(probe->fd, &iov, 1, 0);
    (void)co_offload(run_close, probe); /* nothing was written */
    probe->is_qcow2 = memcmp(start, qcow2_magic, sizeof(start)) == 0;
    return got < 0 ? (int)got : 0;
}

static struct json_value *path_options(const struct filename_probe *probe,
                                       const char *format)
{
    const char *protocol = probe->is_device ? "host_device" : "file";
    struct json_value *file = json_dict_new();
    struct json_value *options;

    json_dict_set_string(file, "driver", protocol);
    json_dict_set_string(file, "filename", probe->path);
    if (format == NULL) {
        format = probe->is_qcow2 ? "qcow2" : "raw";
    }
    if (strcmp(format, "file") == 0 || strcmp(format, "host_device") == 0) {
        return file;
    }
    options = json_dict_new();
    json_dict_set_string(options, "driver", format);
    json_dict_set(options, "file", file);
    return options;
}

static struct json_value *co_path_to_options(const char *path,
                                             const char *format,
                                             GError **err)
{
    struct filename_probe probe = { .path = path,
                                    .want_format = format == NULL,
                                    .fd = -1 };
    int ret = co_probe(&probe);

    if (ret < 0) {
        error_set_errno(err, ret, "cannot open '%s'", path);
        return NULL;
    }
    return path_options(&probe, format);
}

static int expand_into(struct json_value *target,
                       const struct json_value *source,
                       unsigned int level,
                       GError **err);

/* Puts a value where its key's dots lead to. */
static int expand_key(struct json_value *target,
                      const char *key,
                      const struct json_value *value,
                      unsigned int level,
                      GError **err)
{
    g_auto(GStrv) pieces = g_strsplit(key, ".", -1);
    guint last = g_strv_length(pieces);
    struct json_value *below;

    if (last == 0 || level + last > SCHEMA_NESTING_MAX) {
        return error_set(err, -EINVAL, "its options nest too deep, at '%s'",
                         key);
    }
    last--;
    for (guint i = 0; i <= last; i++) {
        bool goes_on = i < last || json_type_of(value) == JSON_DICT;

        below = json_dict_get_mutable(target, pieces[i]);
        if (below != NULL && (!goes_on || json_type_of(below) != JSON_DICT)) {
            return error_set(err, -EINVAL, "it gives '%s' twice", key);
        }
        if (below == NULL) {
            json_dict_set(target, pieces[i],
                          goes_on ? json_dict_new() : json_copy(value));
            below = json_dict_get_mutable(target, pieces[i]);
        }
        target = below;
    }
    if (json_type_of(value) != JSON_DICT) {
        return 0;
    }
    return expand_into(target, value, level + last + 1, err);
}

static int expand_into(struct json_value *target,
                       const struct json_value *source,
                       unsigned int level,
                       GError **err)
{
    for (size_t i = 0; i < json_dict_length(source); i++) {
        const char *key;
        const struct json_value *value = json_dict_entry(source, i, &key);
        int ret;

        if (strcmp(key, "node-name") == 0 ||
            g_str_has_suffix(key, ".node-name")) {
            return error_set(err, -EINVAL,
                             "it gives a '%s', which an image cannot", key);
        }
        ret = expand_key(target, key, value, level, err);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* A driver other than the format asked for is what the format lies on. */
static struct json_value *apply_format(struct json_value *options,
                                       const char *format)
{
    const struct json_value *driver = json_dict_get(options, "driver");
    struct json_value *wrapped;

    if (format == NULL ||
        (driver != NULL && json_type_of(driver) == JSON_STRING &&
         strcmp(json_get_string(driver), format) == 0)) {
        return options;
    }
    if (driver == NULL) {
        json_dict_set_string(options, "driver", format);
        return options;
    }
    wrapped = json_dict_new();
    json_dict_set_string(wrapped, "driver", format);
    json_dict_set(wrapped, "file", options);
    return wrapped;
}

static struct json_value *json_to_options(const char *text,
                                          const char *format,
                                          GError **err)
{
    g_autoptr(json_value) read = json_read_text(text, err);
    g_autoptr(json_value) options = NULL;

    if (read == NULL) {
        return NULL;
    }
    if (json_type_of(read) != JSON_DICT) {
        error_set(err, -EINVAL, "it is no object");
        return NULL;
    }
    options = json_dict_new();
    if (expand_into(options, read, 0, err) < 0) {
        return NULL;
    }
    return apply_format(g_steal_pointer(&options), format);
}

static struct json_value *co_path_name_to_options(const char *name,
                                                  const char *format,
                                                  const char *base_filename,
                                                  GError **err)
{
    size_t protocol = protocol_length(name);
    g_autofree char *path = NULL;

    if (g_str_has_prefix(name, "file:")) {
        return co_path_to_options(name + protocol, format, err);
    }
    if (protocol > 0) {
        error_set(err, -ENOTSUP, "protocol '%.*s' is not supported",
                  (int)(protocol - 1), name);
        return NULL;
    }
    path = block_filename_resolve(name, base_filename, err);
    return path == NULL ? NULL : co_path_to_options(path, format, err);
}

struct json_value *co_block_filename_to_options(const char *name,
                                                const char *format,
                                                const char *base_filename,
                                                GError **err)
{
    g_autoptr(json_value) options = NULL;
    struct json_value *checked = NULL;

    if (*name == 0 || strlen(name) > LIMIT_IMAGE_NAME_BYTES) {
        error_set(err, -EINVAL,
                  "the name of an image has 1 to %d bytes, not %zu",
                  LIMIT_IMAGE_NAME_BYTES, strlen(name));
        return NULL;
    }
    if (g_str_has_prefix(name, "json:")) {
        options = json_to_options(name + strlen("json:"), format, err);
    } else {
        options = co_path_name_to_options(name, format, base_filename, err);
    }
    if (options != NULL) {
        checked = schema_coerce(&blockdev_options_type, options, NULL, err);
    }
    if (checked == NULL) {
        g_prefix_error(err, "image name '%s': ", name);
    }
    return checked;
}
