/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort restore`: a point's disks as raw files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/point_argument.h"
#include "cli/table.h"
#include "repo/fd.h"

static const char description[] =
    "Writes the disks of the restore point (the newest, if none is named) to\n"
    "DIR/NODE.raw, and checks every byte on the way. A file appears only when it\n"
    "is whole.\n"
    "\n"
    "Example:\n"
    "  cohort restore /backups/web --to /var/tmp/web\n";

struct restore_arguments {
    char *to;
    char **disks;
    gboolean force;
    gboolean json;
    gboolean quiet;
};

static bool is_wanted(char *const *disks, const char *node)
{
    return disks == NULL || g_strv_contains((const gchar *const *)disks, node);
}

static int check_disks(const struct manifest *point,
                       char *const *disks,
                       GError **err)
{
    for (size_t i = 0; disks != NULL && disks[i] != NULL; i++) {
        if (manifest_find_disk(point, disks[i]) == NULL) {
            return error_set(err, -ENOENT, "point %s has no disk '%s'",
                             point->point, disks[i]);
        }
    }
    return 0;
}

static int open_target(const char *to, GError **err)
{
    if (g_mkdir_with_parents(to, 0700) < 0) {
        return error_set_errno(err, -errno, "cannot make '%s'", to);
    }
    int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, -errno, "cannot open '%s'", to) : fd;
}

/* All are refused before the first is written. */
static int check_targets(const struct manifest *point,
                         const struct restore_arguments *arguments,
                         int directory_fd,
                         GError **err)
{
    for (guint i = 0; !arguments->force && i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        g_autofree char *name = g_strconcat(disk->node, ".raw", NULL);
        if (is_wanted(arguments->disks, disk->node) &&
            faccessat(directory_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            return error_set(err, -EEXIST,
                             "'%s/%s' exists already; --force replaces it",
                             arguments->to, name);
        }
    }
    return 0;
}

static int restore_disks(const struct repository *repository,
                         const struct manifest *point,
                         const struct restore_arguments *arguments,
                         const struct content_watch *watch,
                         GError **err)
{
    auto_fd int fd = open_target(arguments->to, err);
    int ret = fd < 0 ? fd : check_targets(point, arguments, fd, err);

    for (guint i = 0; ret == 0 && i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        if (is_wanted(arguments->disks, disk->node)) {
            ret = content_restore(repository, point, disk, fd, arguments->force,
                                  watch, err);
        }
    }
    return ret;
}

static json_t *describe(const struct manifest *point,
                        const struct restore_arguments *arguments)
{
    json_t *disks = json_array();

    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        g_autofree char *file =
            g_strdup_printf("%s/%s.raw", arguments->to, disk->node);
        if (is_wanted(arguments->disks, disk->node)) {
            json_t *item =
                json_pack("{s:s, s:s, s:I}", "node", disk->node, "file", file,
                          "size", (json_int_t)disk->size);
            g_assert(item != NULL && json_array_append_new(disks, item) == 0);
        }
    }
    return json_pack("{s:s, s:s, s:o}", "point", point->point, "instant",
                     point->not_after, "disks", disks);
}

static void report(const struct manifest *point,
                   const struct restore_arguments *arguments)
{
    static const char *const columns[] = { "DISK", "SIZE>", "FILE", NULL };

    if (arguments->json) {
        command_print_json(describe(point, arguments));
        return;
    }
    (void)printf("point %s, as of %s\n", point->point, point->not_after);
    struct table *table = table_new(columns);
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        g_autofree char *file =
            g_strdup_printf("%s/%s.raw", arguments->to, disk->node);
        g_autofree char *size =
            g_format_size_full(disk->size, G_FORMAT_SIZE_IEC_UNITS);
        const char *const cells[] = { disk->node, size, file };
        if (is_wanted(arguments->disks, disk->node)) {
            table_add(table, cells);
        }
    }
    table_print(table);
}

static int restore_point(char **words,
                         const struct restore_arguments *arguments)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(repository_auto) repository = NULL;
    struct interrupt interrupt = { .fd = -1 };
    struct content_show show = { .interrupt = &interrupt, .phase = "restore" };
    const struct content_watch watch = { content_show_step, &show };
    const struct manifest *point = NULL;
    int ret = repository_open(words[0], &repository, &err);

    if (ret == 0) {
        point = point_argument(repository, words[1], &err);
        ret = point == NULL ? -ENOENT
                            : check_disks(point, arguments->disks, &err);
    }
    if (ret == 0) {
        ret = interrupt_begin(&interrupt, &err);
    }
    show.progress = progress_new(arguments->quiet);
    if (ret == 0) {
        ret = restore_disks(repository, point, arguments, &watch, &err);
    }
    progress_free(show.progress);
    interrupt_end(&interrupt);
    if (ret < 0) {
        return command_fail(ret, &err);
    }
    report(point, arguments);
    return EXIT_OK;
}

int command_restore(int argc, char **argv)
{
    struct restore_arguments arguments = { 0 };
    const GOptionEntry entries[] = {
        { "to", 't', 0, G_OPTION_ARG_FILENAME, &arguments.to,
          "The directory to write to (made if it is missing)", "DIR" },
        { "disk", 'd', 0, G_OPTION_ARG_STRING_ARRAY, &arguments.disks,
          "Restore this disk only (may be repeated)", "NODE" },
        { "force", 0, 0, G_OPTION_ARG_NONE, &arguments.force,
          "Replace files that exist", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments.json, "Print JSON",
          NULL },
        { "quiet", 0, 0, G_OPTION_ARG_NONE, &arguments.quiet,
          "Show no progress", NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_auto(GStrv) words = NULL;
    int code = command_parse(argc, argv, entries, "REPO [POINT] --to DIR",
                             description, 1, 2, &words);

    if (code == EXIT_OK && arguments.to == NULL) {
        (void)fputs("cohort: restore: --to DIR is needed\n", stderr);
        code = EXIT_USAGE;
    }
    if (code == EXIT_OK) {
        code = restore_point(words, &arguments);
    }
    g_free(arguments.to);
    g_strfreev(arguments.disks);
    return code;
}
