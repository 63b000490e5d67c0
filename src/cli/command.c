/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/command.h"

#include <stdio.h>
#include <stdlib.h>

/* The words after the options; a file name need not be UTF-8. */
static int check_words(char **words,
                       guint minimum,
                       guint maximum,
                       const char *needed,
                       const char *command)
{
    guint count = words == NULL ? 0 : g_strv_length(words);

    if (count < minimum) {
        (void)fprintf(stderr,
                      "cohort: %s: %s is needed; see cohort %s --help\n",
                      command, needed, command);
        return EXIT_USAGE;
    }
    if (count > maximum) {
        (void)fprintf(stderr,
                      "cohort: %s: '%s' is one argument too many; see "
                      "cohort %s --help\n",
                      command, words[maximum], command);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

int command_parse(int argc,
                  char **argv,
                  const GOptionEntry *entries,
                  const char *usage,
                  const char *description,
                  guint minimum,
                  guint maximum,
                  char ***ret_words)
{
    g_autoptr(GError) why = NULL;
    g_auto(GStrv) words = NULL;
    g_autofree char *parameters = g_strdup_printf("%s", usage);
    GOptionEntry rest[] = {
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &words, NULL,
          NULL },
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(parameters);

    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_add_main_entries(context, rest, NULL);
    g_option_context_set_description(context, description);
    if (!g_option_context_parse(context, &argc, &argv, &why)) {
        (void)fprintf(stderr, "cohort: %s: %s; see cohort %s --help\n", argv[0],
                      why->message, argv[0]);
        return EXIT_USAGE;
    }
    int code = check_words(
        words, minimum, maximum,
        g_str_has_prefix(usage, "REPO") ? "a repository" : "an image", argv[0]);
    if (code == EXIT_OK) {
        *ret_words = g_steal_pointer(&words);
    }
    return code;
}

int command_fail(int error, GError **err)
{
    (void)fprintf(stderr, "cohort: %s\n",
                  *err == NULL ? g_strerror(-error) : (*err)->message);
    g_clear_error(err);
    return exit_code_of(error);
}

void command_print_json(json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2));

    json_decref(value);
    g_assert(text != NULL);
    (void)puts(text);
    free(text);
}
