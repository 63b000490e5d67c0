/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort check`: is an image sound? Options and results; check_image.c does
 * it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/check_image.h"
#include "cli/command.h"

/* A badly damaged image has millions. */
#define SENTENCES_MAX 1000

static const char description[] =
    "Looks through the tables of a qcow2 image. Two things can be wrong:\n"
    "  leak        a cluster counts as used and is not: space is lost, no data\n"
    "  corruption  a cluster is used and does not count, or is used as two\n"
    "              things, or is not there: reading gives wrong data or errors,\n"
    "              writing may destroy more\n"
    "Without --repair nothing is changed. --repair=leaks gives lost space back;\n"
    "--repair=all also mends corruptions as far as that loses nothing. Copy a\n"
    "corrupted image before you repair it. A raw image has no tables, so there\n"
    "is nothing to check.\n"
    "\n"
    "Exit codes: 0 sound, 9 leaks only, 4 corruptions, 1 not completely checked,\n"
    "3 the image is in use.\n"
    "\n"
    "Examples:\n"
    "  cohort check disk.qcow2\n"
    "  cohort check --repair=leaks disk.qcow2\n";

/* As qemu-img: what is 0 is left out. */
static void add_count(json_t *object, const char *name, uint64_t count)
{
    if (count > 0) {
        g_assert(json_object_set_new(object, name,
                                     json_integer((json_int_t)count)) == 0);
    }
}

static void print_json(const struct checked *checked)
{
    const struct qcow2_check_result *result = &checked->result;
    json_t *object =
        json_pack("{s:s, s:s, s:I}", "filename", checked->path, "format",
                  checked->is_qcow2 ? "qcow2" : "raw", "check-errors",
                  (json_int_t)result->check_errors);

    g_assert(object != NULL);
    add_count(object, "image-end-offset", result->image_end_offset);
    add_count(object, "corruptions", result->corruptions);
    add_count(object, "leaks", result->leaks);
    add_count(object, "corruptions-fixed", result->corruptions_fixed);
    add_count(object, "leaks-fixed", result->leaks_fixed);
    add_count(object, "total-clusters", result->total_clusters);
    add_count(object, "allocated-clusters", result->allocated_clusters);
    add_count(object, "fragmented-clusters", result->fragmented_clusters);
    add_count(object, "compressed-clusters", result->compressed_clusters);
    command_print_json(object);
}

static void print_counts(const struct checked *checked)
{
    const struct qcow2_check_result *result = &checked->result;

    if (result->leaks_fixed > 0 || result->corruptions_fixed > 0) {
        (void)printf("repaired: %" PRIu64 " leaks, %" PRIu64 " corruptions\n",
                     result->leaks_fixed, result->corruptions_fixed);
    }
    if (result->corruptions == 0 && result->leaks == 0 &&
        result->check_errors == 0) {
        (void)printf("no errors were found\n");
        return;
    }
    (void)printf("%" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64
                 " read errors\n",
                 result->corruptions, result->leaks, result->check_errors);
    if (result->corruptions == 0 && result->check_errors == 0) {
        (void)printf("leaks cost space and harm no data; --repair=leaks gives "
                     "it back\n");
    }
}

static void print_text(const struct checked *checked)
{
    const struct qcow2_check_result *result = &checked->result;

    if (!checked->is_qcow2) {
        (void)printf("'%s' is a raw image: there is nothing to check\n",
                     checked->path);
        return;
    }
    print_counts(checked);
    (void)printf("%" PRIu64 " of %" PRIu64 " clusters allocated, %" PRIu64
                 " of them compressed, %" PRIu64
                 " fragmented; the image ends at offset %" PRIu64 "\n",
                 result->allocated_clusters, result->total_clusters,
                 result->compressed_clusters, result->fragmented_clusters,
                 result->image_end_offset);
}

static int outcome(const struct qcow2_check_result *result)
{
    if (result->corruptions > 0) {
        return EXIT_DAMAGED;
    }
    if (result->check_errors > 0) {
        return EXIT_FAILED;
    }
    return result->leaks > 0 ? EXIT_LEAKS : EXIT_OK;
}

static int parse_repair(const char *word, enum qcow2_repair *ret_repair)
{
    if (word == NULL) {
        *ret_repair = QCOW2_REPAIR_NOTHING;
    } else if (strcmp(word, "leaks") == 0) {
        *ret_repair = QCOW2_REPAIR_LEAKS;
    } else if (strcmp(word, "all") == 0) {
        *ret_repair = QCOW2_REPAIR_ALL;
    } else {
        (void)fprintf(stderr,
                      "cohort: check: --repair is 'leaks' or 'all', not '%s'; "
                      "see cohort check --help\n",
                      word);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

struct findings {
    FILE *to;
    unsigned int count;
};

static void print_finding(void *opaque, const char *sentence)
{
    struct findings *findings = opaque;

    if (findings->count++ < SENTENCES_MAX) {
        (void)fprintf(findings->to, "%s\n", sentence);
    }
}

static int check(const char *path, enum qcow2_repair repair, bool as_json)
{
    g_autoptr(GError) err = NULL;
    struct findings findings = { .to = as_json ? stderr : stdout };
    struct checked checked = { .path = path };
    int ret =
        check_image(path, repair, print_finding, &findings, &checked, &err);

    if (findings.count > SENTENCES_MAX) {
        (void)fprintf(findings.to, "... and %u more\n",
                      findings.count - SENTENCES_MAX);
    }
    if (ret < 0) {
        return command_fail(ret, &err);
    }
    if (as_json) {
        print_json(&checked);
    } else {
        print_text(&checked);
    }
    return outcome(&checked.result);
}

int command_check(int argc, char **argv)
{
    gboolean as_json = FALSE;
    g_autofree char *word = NULL;
    const GOptionEntry entries[] = {
        { "repair", 'r', 0, G_OPTION_ARG_STRING, &word,
          "Mend leaks, or all that can be mended", "leaks|all" },
        { "json", 0, 0, G_OPTION_ARG_NONE, &as_json,
          "Print JSON, as qemu-img check does", NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_auto(GStrv) words = NULL;
    enum qcow2_repair repair = QCOW2_REPAIR_NOTHING;
    int code =
        command_parse(argc, argv, entries, "IMAGE", description, 1, 1, &words);

    if (code == EXIT_OK) {
        code = parse_repair(word, &repair);
    }
    return code != EXIT_OK ? code : check(words[0], repair, as_json);
}
