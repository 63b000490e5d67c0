/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort list`: the restore points of a repository. */
#include <stdio.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/table.h"
#include "repo/repository.h"

static const char description[] =
    "Lists the restore points, oldest first. Each can be restored by itself.\n"
    "\n"
    "Example:\n"
    "  cohort list /backups/web\n";

static uint64_t held_bytes(const struct manifest *point)
{
    uint64_t total = 0;

    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        total += disk->changed_bytes;
    }
    return total;
}

/* "full", "incremental", or how many of each. */
static char *describe_kind(const struct manifest *point)
{
    guint full = 0;

    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        full += disk->incremental ? 0 : 1;
    }
    if (full == point->disks->len) {
        return g_strdup("full");
    }
    return full == 0
               ? g_strdup("incremental")
               : g_strdup_printf("%u of %u full", full, point->disks->len);
}

static char *join_disks(const struct manifest *point)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        g_string_append_printf(text, "%s%s", i == 0 ? "" : " ", disk->node);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void print_table(const struct repository *repository)
{
    static const char *const columns[] = { "POINT", "INSTANT", "KIND",
                                           "HELD>", "DISKS",   NULL };
    struct table *table = table_new(columns);

    for (guint i = 0; i < repository->points->len; i++) {
        const struct manifest *point = repository->points->pdata[i];
        g_autofree char *kind = describe_kind(point);
        g_autofree char *disks = join_disks(point);
        g_autofree char *held =
            g_format_size_full(held_bytes(point), G_FORMAT_SIZE_IEC_UNITS);
        const char *const cells[] = { point->point, point->not_after, kind,
                                      held, disks };
        table_add(table, cells);
    }
    table_print(table);
}

static void print_json(const struct repository *repository)
{
    json_t *points = json_array();

    for (guint i = 0; i < repository->points->len; i++) {
        g_autofree char *text = manifest_write(repository->points->pdata[i]);
        g_assert(json_array_append_new(points, json_loads(text, 0, NULL)) == 0);
    }
    command_print_json(json_pack("{s:s, s:s, s:o}", "repository",
                                 repository->path, "id", repository->id,
                                 "points", points));
}

int command_list(int argc, char **argv)
{
    gboolean as_json = FALSE;
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) words = NULL;
    g_autoptr(repository_auto) repository = NULL;
    int code =
        command_parse(argc, argv, entries, "REPO", description, 1, 1, &words);

    if (code != EXIT_OK) {
        return code;
    }
    int ret = repository_open(words[0], &repository, &err);
    if (ret < 0) {
        return command_fail(ret, &err);
    }
    if (as_json) {
        print_json(repository);
    } else {
        print_table(repository);
    }
    for (guint i = 0; i < repository->broken->len; i++) {
        (void)fprintf(stderr, "cohort: %s\n",
                      (char *)repository->broken->pdata[i]);
    }
    return repository->broken->len > 0 ? EXIT_DAMAGED : EXIT_OK;
}
