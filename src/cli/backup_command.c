/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort backup`: options, the order of locks and connections, the report. */
#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "cli/backup.h"
#include "cli/command.h"
#include "cli/daemon_nodes.h"
#include "cli/plan.h"
#include "cli/settle.h"
#include "cli/table.h"

#define TIMEOUT_S_MAX 3600

struct backup_arguments {
    char *address;
    char **disks;
    char *freeze_command;
    char *thaw_command;
    int freeze_timeout_s;
    int timeout_s;
    gboolean full;
    gboolean compress;
    gboolean json;
    gboolean quiet;
};

static const char description[] =
    "Takes one backup of all disks at the same instant, as a new restore point.\n"
    "A disk's first backup is full, those after hold what changed. Either all\n"
    "disks succeed, or nothing is left of the run and the next one is complete.\n"
    "\n"
    "Example:\n"
    "  cohort backup /backups/web --qmp /run/cohortd.sock \\\n"
    "      --freeze-cmd 'virsh domfsfreeze web' --thaw-cmd 'virsh domfsthaw web'\n";

static int parse(int argc,
                 char **argv,
                 struct backup_arguments *arguments,
                 char ***ret_words)
{
    const GOptionEntry entries[] = {
        { "qmp", 'q', 0, G_OPTION_ARG_FILENAME, &arguments->address,
          "The daemon's QMP socket: a path, or HOST:PORT", "SOCKET" },
        { "disk", 'd', 0, G_OPTION_ARG_STRING_ARRAY, &arguments->disks,
          "Back up this disk only (may be repeated)", "NODE" },
        { "full", 'f', 0, G_OPTION_ARG_NONE, &arguments->full,
          "Back up all disks in full", NULL },
        { "compress", 'c', 0, G_OPTION_ARG_NONE, &arguments->compress,
          "Store the images of this point compressed", NULL },
        { "freeze-cmd", 0, 0, G_OPTION_ARG_STRING, &arguments->freeze_command,
          "Run CMD (with sh) right before the instant", "CMD" },
        { "thaw-cmd", 0, 0, G_OPTION_ARG_STRING, &arguments->thaw_command,
          "Run CMD right after the instant, whatever happens", "CMD" },
        { "freeze-timeout", 0, 0, G_OPTION_ARG_INT,
          &arguments->freeze_timeout_s,
          "How long freezing, the instant and thawing may take each "
          "(default: 10)",
          "SECONDS" },
        { "timeout", 0, 0, G_OPTION_ARG_INT, &arguments->timeout_s,
          "How long the daemon may take to answer (default: 60)", "SECONDS" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &arguments->json,
          "Print the new point as JSON", NULL },
        { "quiet", 0, 0, G_OPTION_ARG_NONE, &arguments->quiet,
          "Show no progress", NULL },
        G_OPTION_ENTRY_NULL,
    };
    int code = command_parse(argc, argv, entries, "REPO --qmp SOCKET",
                             description, 1, 1, ret_words);

    if (code != EXIT_OK) {
        return code;
    }
    if (arguments->address == NULL) {
        (void)fputs("cohort: backup: --qmp SOCKET is needed\n", stderr);
        return EXIT_USAGE;
    }
    if (arguments->freeze_timeout_s < 1 || arguments->timeout_s < 1 ||
        arguments->freeze_timeout_s > TIMEOUT_S_MAX ||
        arguments->timeout_s > TIMEOUT_S_MAX) {
        (void)fprintf(stderr,
                      "cohort: backup: timeouts are from 1 to %d seconds\n",
                      TIMEOUT_S_MAX);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

static void free_arguments(struct backup_arguments *arguments)
{
    g_free(arguments->address);
    g_strfreev(arguments->disks);
    g_free(arguments->freeze_command);
    g_free(arguments->thaw_command);
}

static void say(void *opaque, enum settle_news news, const char *sentence)
{
    (void)news; /* all of an earlier run's leftovers is of interest */
    progress_say(opaque, "%s", sentence);
}

static void report_table(const struct manifest *point)
{
    static const char *const columns[] = { "DISK",  "KIND",   "SIZE>",
                                           "HELD>", "REASON", NULL };
    struct table *table = table_new(columns);

    (void)printf("point %s\n", point->point);
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        g_autofree char *size =
            g_format_size_full(disk->size, G_FORMAT_SIZE_IEC_UNITS);
        g_autofree char *held =
            g_format_size_full(disk->changed_bytes, G_FORMAT_SIZE_IEC_UNITS);
        const char *const cells[] = { disk->node,
                                      disk->incremental ? "incremental"
                                                        : "full",
                                      size, held, disk->reason };
        table_add(table, cells);
    }
    table_print(table);
}

static void report(const struct manifest *point, bool as_json)
{
    if (as_json) {
        g_autofree char *text = manifest_write(point);
        (void)fputs(text, stdout);
    } else {
        report_table(point);
    }
}

/* After a crash of the daemon: that nothing was lost, and what it costs. */
static int tell_recovered(struct backup *backup,
                          const struct manifest *point,
                          GError **err)
{
    g_autoptr(GPtrArray) nodes = NULL;
    uint64_t bytes = 0;
    unsigned count = 0;
    int ret = daemon_nodes_query(backup->client, &nodes, err);

    for (guint i = 0; ret == 0 && i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        const struct daemon_node *node = daemon_nodes_find(nodes, disk->node);
        const struct daemon_bitmap *bitmap =
            node == NULL || !disk->incremental
                ? NULL
                : daemon_node_bitmap(node, disk->previous_bitmap);
        if (bitmap != NULL && bitmap->is_recovered) {
            bytes += bitmap->recovered_bytes;
            count++;
        }
    }
    if (count > 0) {
        g_autofree char *size =
            g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
        progress_say(backup->progress,
                     "the daemon had crashed: recovered the record of changes "
                     "of %u disk%s; up to %s more than changed is copied",
                     count, count == 1 ? "" : "s", size);
    }
    return ret;
}

/* Everything that needs the connection. */
static int run_connected(struct backup *backup,
                         const struct backup_arguments *arguments,
                         GError **err)
{
    g_autoptr(manifest_auto) point = NULL;
    const struct manifest *published = NULL;
    int ret = daemon_features_query(backup->client, &backup->features, err);

    if (ret == 0 && backup->features.refusal != NULL) {
        progress_say(backup->progress,
                     "the daemon can keep records of changes in memory only "
                     "(%s)",
                     backup->features.refusal);
    }
    if (ret == 0) {
        ret = settle(backup->repository, backup->client, &backup->features, say,
                     backup->progress, err);
    }
    if (ret == 0) {
        ret = plan_point(backup->repository, backup->client, &backup->features,
                         arguments->disks, arguments->full, &point, err);
    }
    if (ret == 0) {
        ret = tell_recovered(backup, point, err);
    }
    if (ret < 0) {
        return ret;
    }
    ret = backup_run(backup, &point, &published, err);
    if (ret == 0) {
        report(published, arguments->json);
    }
    return ret;
}

static int run(struct backup *backup,
               const char *path,
               const struct backup_arguments *arguments,
               GError **err)
{
    g_autoptr(repository_auto) repository = NULL;
    g_autoptr(qmp_client_auto) client = NULL;
    int ret = repository_open_or_create(path, &repository, err);

    if (ret == 0) {
        ret = repository_lock(repository, err);
    }
    if (ret == 0) {
        ret = qmp_client_connect(arguments->address,
                                 (unsigned)arguments->timeout_s * 1000,
                                 backup->interrupt, &client, err);
    }
    if (ret < 0) {
        return ret;
    }
    backup->repository = repository;
    backup->client = client;
    return run_connected(backup, arguments, err);
}

int command_backup(int argc, char **argv)
{
    struct backup_arguments arguments = { .freeze_timeout_s = 10,
                                          .timeout_s = 60 };
    struct interrupt interrupt = { .fd = -1 };
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) words = NULL;
    int code = parse(argc, argv, &arguments, &words);

    if (code != EXIT_OK) {
        free_arguments(&arguments);
        return code;
    }
    const struct backup_options options = {
        .freeze_command = arguments.freeze_command,
        .thaw_command = arguments.thaw_command,
        .freeze_timeout_ms = (unsigned)arguments.freeze_timeout_s * 1000,
        .compress = arguments.compress,
    };
    struct backup backup = { .options = &options,
                             .interrupt = &interrupt,
                             .progress = progress_new(arguments.quiet) };
    int ret = interrupt_begin(&interrupt, &err);
    if (ret == 0) {
        ret = run(&backup, words[0], &arguments, &err);
    }
    daemon_features_clear(&backup.features);
    progress_free(backup.progress);
    interrupt_end(&interrupt);
    free_arguments(&arguments);
    if (ret < 0) {
        return command_fail(ret, &err);
    }
    return backup.thaw_failed ? EXIT_THAW_FAILED : EXIT_OK;
}
