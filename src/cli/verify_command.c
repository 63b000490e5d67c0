/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort verify`: is what is stored still what was stored? */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/point_argument.h"

static const char description[] =
    "Reads the restore points, or one with all that it builds on, and compares\n"
    "every MiB of every disk with its SHA-256. All damage found is reported.\n"
    "\n"
    "Example:\n"
    "  cohort verify /backups/web\n";

struct verify {
    const struct repository *repository;
    const struct content_watch *watch;
    GPtrArray *problems; /* struct content_problem *, owned */
    GPtrArray *affected; /* char *: "POINT NODE", sound, on damaged ground */
    guint checked;       /* disks, counted once for each point */
};

static bool has_problem(const struct verify *verify,
                        const char *point,
                        const char *node)
{
    for (guint i = 0; i < verify->problems->len; i++) {
        const struct content_problem *problem = verify->problems->pdata[i];
        if (strcmp(problem->point, point) == 0 && problem->disk != NULL &&
            strcmp(problem->disk, node) == 0) {
            return true;
        }
    }
    return false;
}

/* Notes a disk that is sound at this point but builds on damage. */
static void note_affected(struct verify *verify,
                          const struct manifest *point,
                          const char *node)
{
    const struct manifest *below = point;

    if (has_problem(verify, point->point, node)) {
        return;
    }
    for (;;) {
        const struct manifest_disk *disk = manifest_find_disk(below, node);
        below = disk == NULL || disk->previous == NULL
                    ? NULL
                    : repository_find(verify->repository, disk->previous);
        if (below == NULL) {
            return;
        }
        if (has_problem(verify, below->point, node)) {
            g_ptr_array_add(verify->affected,
                            g_strdup_printf("disk '%s' of point %s builds on "
                                            "the damaged point %s",
                                            node, point->point, below->point));
            return;
        }
    }
}

static int verify_point(struct verify *verify,
                        const struct manifest *point,
                        bool whole)
{
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        int ret = content_verify(verify->repository, point, disk, whole,
                                 verify->watch, verify->problems);
        if (ret < 0) {
            return ret;
        }
        verify->checked++;
        if (!whole) {
            note_affected(verify, point, disk->node);
        }
    }
    return 0;
}

static int verify_all(struct verify *verify)
{
    const struct repository *repository = verify->repository;
    int ret = 0;

    for (guint i = 0; i < repository->broken->len; i++) {
        struct content_problem *problem = g_new0(struct content_problem, 1);
        problem->sentence = g_strdup(repository->broken->pdata[i]);
        g_ptr_array_add(verify->problems, problem);
    }
    for (guint i = 0; ret == 0 && i < repository->points->len; i++) {
        ret = verify_point(verify, repository->points->pdata[i], false);
    }
    return ret;
}

static void print_problems(const struct verify *verify)
{
    for (guint i = 0; i < verify->problems->len; i++) {
        const struct content_problem *problem = verify->problems->pdata[i];
        if (problem->point == NULL) {
            (void)printf("damaged: %s\n", problem->sentence);
        } else if (problem->has_offset) {
            (void)printf("damaged: point %s disk %s offset %" G_GUINT64_FORMAT
                         ": %s\n",
                         problem->point, problem->disk, problem->offset,
                         problem->sentence);
        } else {
            (void)printf("damaged: point %s disk %s: %s\n", problem->point,
                         problem->disk, problem->sentence);
        }
    }
    for (guint i = 0; i < verify->affected->len; i++) {
        (void)printf("affected: %s\n", (char *)verify->affected->pdata[i]);
    }
    (void)printf("%u images checked, %u problems\n", verify->checked,
                 verify->problems->len);
}

static void print_json(const struct verify *verify)
{
    json_t *problems = json_array();
    json_t *affected = json_array();

    for (guint i = 0; i < verify->problems->len; i++) {
        const struct content_problem *problem = verify->problems->pdata[i];
        json_t *item =
            json_pack("{s:s?, s:s?, s:s}", "point", problem->point, "disk",
                      problem->disk, "problem", problem->sentence);
        g_assert(item != NULL);
        if (problem->has_offset) {
            g_assert(json_object_set_new(
                         item, "offset",
                         json_integer((json_int_t)problem->offset)) == 0);
        }
        g_assert(json_array_append_new(problems, item) == 0);
    }
    for (guint i = 0; i < verify->affected->len; i++) {
        json_t *item = json_string(verify->affected->pdata[i]);
        g_assert(json_array_append_new(affected, item) == 0);
    }
    command_print_json(json_pack("{s:i, s:o, s:o}", "checked",
                                 (int)verify->checked, "problems", problems,
                                 "affected", affected));
}

/* Opens, verifies; results are in `verify`. */
static int run(struct verify *verify, char **words, GError **err)
{
    int ret;

    if (words[1] == NULL) {
        ret = verify_all(verify);
    } else {
        const struct manifest *point =
            point_argument(verify->repository, words[1], err);
        if (point == NULL) {
            return -ENOENT;
        }
        ret = verify_point(verify, point, true);
    }
    return ret < 0 ? error_set(err, ret, "interrupted") : 0;
}

static int report(const struct verify *verify, bool as_json)
{
    if (as_json) {
        print_json(verify);
    } else {
        print_problems(verify);
    }
    return verify->problems->len > 0 ? EXIT_DAMAGED : EXIT_OK;
}

static int verify_repository(char **words, gboolean as_json, gboolean quiet)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(repository_auto) repository = NULL;
    g_autoptr(GPtrArray) problems =
        g_ptr_array_new_with_free_func(content_problem_free);
    g_autoptr(GPtrArray) affected = g_ptr_array_new_with_free_func(g_free);
    struct interrupt interrupt = { .fd = -1 };
    struct content_show show = { .interrupt = &interrupt, .phase = "verify" };
    const struct content_watch watch = { content_show_step, &show };
    struct verify verify = { .watch = &watch,
                             .problems = problems,
                             .affected = affected };
    int ret = repository_open(words[0], &repository, &err);

    if (ret == 0) {
        ret = interrupt_begin(&interrupt, &err);
    }
    verify.repository = repository;
    show.progress = progress_new(quiet);
    if (ret == 0) {
        ret = run(&verify, words, &err);
    }
    progress_free(show.progress);
    interrupt_end(&interrupt);
    return ret < 0 ? command_fail(ret, &err) : report(&verify, as_json);
}

int command_verify(int argc, char **argv)
{
    gboolean as_json = FALSE;
    gboolean quiet = FALSE;
    const GOptionEntry entries[] = {
        { "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "Print JSON", NULL },
        { "quiet", 0, 0, G_OPTION_ARG_NONE, &quiet, "Show no progress", NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_auto(GStrv) words = NULL;
    int code = command_parse(argc, argv, entries, "REPO [POINT]", description,
                             1, 2, &words);

    return code != EXIT_OK ? code : verify_repository(words, as_json, quiet);
}
