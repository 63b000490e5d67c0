/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `cohort status`: what a repository holds, who works on it, what was left
 * behind; with a daemon, what the next backup would do. Changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/daemon_nodes.h"
#include "cli/plan.h"
#include "cli/table.h"

#define TIMEOUT_MS 60000

static const char description[] =
    "Tells how many points there are, which is the newest, who holds the lock\n"
    "and what an interrupted run left for the next one to put right. With --qmp\n"
    "also what the next backup would do with each disk: whether its record of\n"
    "changes is persistent (or in memory), the point that it is relative to, and\n"
    "how much was marked after a crash, to be safe. Changes nothing.\n"
    "\n"
    "Example:\n"
    "  cohort status /backups/web --qmp /run/cohortd.sock\n";

struct status {
    struct repository *repository;
    char *holder;          /* of the lock; NULL: nobody */
    GPtrArray *partials;   /* char * */
    struct manifest *next; /* NULL: no daemon was asked */
    GPtrArray *nodes;      /* struct daemon_node *; NULL likewise */
};

/* The bitmap that says what changed since the newest point of the disk, also if
 * it is of no use; NULL: there is none. */
static const struct daemon_bitmap *find_record(const struct status *status,
                                               const struct manifest_disk *disk)
{
    const struct daemon_node *node =
        daemon_nodes_find(status->nodes, disk->node);
    const struct manifest *newest =
        repository_newest_with(status->repository, disk->node);
    const struct manifest_disk *last =
        newest == NULL ? NULL : manifest_find_disk(newest, disk->node);

    return node == NULL || last == NULL || last->bitmap == NULL
               ? NULL
               : daemon_node_bitmap(node, last->bitmap);
}

static const char *record_kind(const struct daemon_bitmap *bitmap)
{
    if (bitmap == NULL) {
        return "none";
    }
    return bitmap->is_persistent ? "persistent" : "memory";
}

/* The point that a bitmap of this disk is relative to; NULL: none here. */
static const char *base_point(const struct status *status,
                              const struct manifest_disk *disk,
                              const struct daemon_bitmap *bitmap)
{
    const GPtrArray *points = status->repository->points;

    if (!bitmap->is_persistent) {
        return disk->previous;
    }
    for (guint i = points->len; i > 0; i--) {
        const struct manifest *point = points->pdata[i - 1];
        const struct manifest_disk *held =
            manifest_find_disk(point, disk->node);
        if (held != NULL && daemon_bitmap_has_base(bitmap, &held->base)) {
            return point->point;
        }
    }
    return NULL;
}

/* How much an increment would hold now. */
static uint64_t dirty_bytes(const struct status *status,
                            const struct manifest_disk *disk)
{
    const struct daemon_bitmap *bitmap =
        disk->incremental ? find_record(status, disk) : NULL;

    return bitmap == NULL ? disk->size : bitmap->dirty_bytes;
}

static json_t *base_to_json(const struct daemon_bitmap *bitmap)
{
    if (bitmap == NULL || bitmap->bases[0].txid == NULL) {
        return json_null();
    }
    return json_pack("{s:s, s:s}", "txid", bitmap->bases[0].txid, "disk",
                     bitmap->bases[0].disk);
}

static json_t *next_to_json(const struct status *status)
{
    json_t *disks = json_array();

    for (guint i = 0; i < status->next->disks->len; i++) {
        const struct manifest_disk *disk = status->next->disks->pdata[i];
        const struct daemon_bitmap *bitmap = find_record(status, disk);
        json_t *item = json_pack(
            "{s:s, s:s, s:s, s:I, s:I, s:s, s:o, s:s?, s:o}", "node",
            disk->node, "kind", disk->incremental ? "incremental" : "full",
            "reason", disk->reason, "size", (json_int_t)disk->size, "to-copy",
            (json_int_t)dirty_bytes(status, disk), "record",
            record_kind(bitmap), "base", base_to_json(bitmap), "base-point",
            bitmap == NULL ? NULL : base_point(status, disk, bitmap),
            "recovered",
            bitmap != NULL && bitmap->is_recovered
                ? json_integer((json_int_t)bitmap->recovered_bytes)
                : json_null());
        g_assert(item != NULL && json_array_append_new(disks, item) == 0);
    }
    return disks;
}

static void print_json(const struct status *status)
{
    const struct repository *repository = status->repository;
    const struct manifest *newest = repository_newest(repository);
    json_t *unfinished = json_array();

    for (guint i = 0; i < status->partials->len; i++) {
        json_t *item = json_string(status->partials->pdata[i]);
        g_assert(json_array_append_new(unfinished, item) == 0);
    }
    command_print_json(
        json_pack("{s:s, s:s, s:i, s:i, s:s?, s:s?, s:o, s:o?}", "repository",
                  repository->path, "id", repository->id, "points",
                  (int)repository->points->len, "unreadable",
                  (int)repository->broken->len, "newest",
                  newest == NULL ? NULL : newest->point, "locked-by",
                  status->holder, "unfinished", unfinished, "next",
                  status->next == NULL ? NULL : next_to_json(status)));
}

static void print_disk(const struct status *status,
                       const struct manifest_disk *disk,
                       struct table *table)
{
    const struct daemon_bitmap *bitmap = find_record(status, disk);
    const char *base = bitmap == NULL ? NULL : base_point(status, disk, bitmap);
    g_autofree char *size =
        g_format_size_full(disk->size, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *dirty =
        g_format_size_full(dirty_bytes(status, disk), G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *recovered =
        bitmap == NULL || !bitmap->is_recovered
            ? g_strdup("-")
            : g_format_size_full(bitmap->recovered_bytes,
                                 G_FORMAT_SIZE_IEC_UNITS);
    const char *const cells[] = { disk->node,
                                  disk->incremental ? "incremental" : "full",
                                  size,
                                  dirty,
                                  record_kind(bitmap),
                                  base == NULL ? "-" : base,
                                  recovered,
                                  disk->reason };

    table_add(table, cells);
}

static void print_next(const struct status *status)
{
    static const char *const columns[] = { "DISK",       "NEXT",   "SIZE>",
                                           "TO COPY>",   "RECORD", "BASE",
                                           "RECOVERED>", "REASON", NULL };
    struct table *table = table_new(columns);

    for (guint i = 0; i < status->next->disks->len; i++) {
        print_disk(status, status->next->disks->pdata[i], table);
    }
    table_print(table);
}

static void print_text(const struct status *status)
{
    const struct repository *repository = status->repository;
    const struct manifest *newest = repository_newest(repository);

    (void)printf("repository  %s\n", repository->path);
    (void)printf("id          %s\n", repository->id);
    (void)printf("points      %u", repository->points->len);
    if (newest != NULL) {
        (void)printf(", the newest %s", newest->point);
    }
    (void)printf("\nlock        %s\n",
                 status->holder == NULL ? "free" : status->holder);
    for (guint i = 0; i < repository->broken->len; i++) {
        (void)printf("damaged     %s\n", (char *)repository->broken->pdata[i]);
    }
    for (guint i = 0; i < status->partials->len; i++) {
        (void)printf("unfinished  %s%s\n", (char *)status->partials->pdata[i],
                     status->holder == NULL ? " (the next backup puts it right)"
                                            : "");
    }
    if (status->next != NULL) {
        print_next(status);
    }
}

static int ask_daemon(struct status *status,
                      const char *address,
                      struct interrupt *interrupt,
                      GError **err)
{
    g_autoptr(qmp_client_auto) client = NULL;
    struct daemon_features features = { 0 };
    int ret = qmp_client_connect(address, TIMEOUT_MS, interrupt, &client, err);

    if (ret == 0) {
        ret = daemon_nodes_query(client, &status->nodes, err);
    }
    if (ret == 0) {
        ret = daemon_features_query(client, &features, err);
    }
    if (ret == 0) {
        ret = plan_point(status->repository, client, &features, NULL, false,
                         &status->next, err);
    }
    daemon_features_clear(&features);
    return ret;
}

static int collect(struct status *status,
                   const char *path,
                   const char *address,
                   GError **err)
{
    struct interrupt interrupt = { .fd = -1 };
    int ret = repository_open(path, &status->repository, err);

    if (ret < 0) {
        return ret;
    }
    status->holder = repository_lock_holder(status->repository);
    status->partials = repository_partials(status->repository, err);
    if (status->partials == NULL) {
        return -EIO;
    }
    if (address == NULL) {
        return 0;
    }
    ret = interrupt_begin(&interrupt, err);
    if (ret == 0) {
        ret = ask_daemon(status, address, &interrupt, err);
    }
    interrupt_end(&interrupt);
    return ret;
}

static int show(const char *path, const char *address, gboolean as_json)
{
    g_autoptr(GError) err = NULL;
    struct status status = { 0 };
    int ret = collect(&status, path, address, &err);

    if (ret == 0 && as_json) {
        print_json(&status);
    } else if (ret == 0) {
        print_text(&status);
    }
    g_free(status.holder);
    g_clear_pointer(&status.partials, g_ptr_array_unref);
    g_clear_pointer(&status.nodes, g_ptr_array_unref);
    manifest_free(status.next);
    repository_close(status.repository);
    return ret < 0 ? command_fail(ret, &err) : EXIT_OK;
}

int command_status(int argc, char **argv)
{
    gboolean as_json = FALSE;
    g_autofree char *address = NULL;
    const GOptionEntry entries[] = {
        { "qmp", 'q', 0, G_OPTION_ARG_FILENAME, &address,
          "Ask this daemon what the next backup would do", "SOCKET" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_auto(GStrv) words = NULL;
    int code =
        command_parse(argc, argv, entries, "REPO", description, 1, 1, &words);

    return code != EXIT_OK ? code : show(words[0], address, as_json);
}
