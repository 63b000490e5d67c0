/* SPDX-License-Identifier: BSD-3-Clause */
/* `cohort`: picks the command and leaves the rest to it. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/command.h"

struct command {
    const char *name;
    command_fn run;
    const char *summary;
};

static const struct command commands[] = {
    { "backup", command_backup, "take a backup of a daemon's disks" },
    { "list", command_list, "list a repository's restore points" },
    { "verify", command_verify, "check restore points against their hashes" },
    { "restore", command_restore, "write a point's disks to raw files" },
    { "status", command_status, "tell the state of a repository" },
    { "check", command_check, "check a disk image, and repair it" },
};

static void print_help(FILE *to)
{
    (void)fputs("Usage: cohort COMMAND [OPTION...] REPO ...\n"
                "       cohort check [OPTION...] IMAGE\n\n"
                "Incremental backups of several disks at one instant, all or "
                "none.\n\nCommands:\n",
                to);
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        (void)fprintf(to, "  %-10s %s\n", commands[i].name,
                      commands[i].summary);
    }
    (void)fputs("\nOptions:\n"
                "  --help     this text; after a command, its options\n"
                "  --version  the version\n\n"
                "Example:\n"
                "  cohort backup /backups/web --qmp /run/cohortd.sock\n\n"
                "The manual page cohort(1) explains all of it.\n",
                to);
}

/* A chain of increments needs a descriptor for each of its points. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old one may do */
    }
}

static int finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return code;
    }
    (void)fprintf(stderr, "cohort: cannot write the result: %s\n",
                  strerror(errno));
    return code == EXIT_OK ? EXIT_FAILED : code;
}

int main(int argc, char **argv)
{
    (void)setlocale(LC_ALL, "");
    raise_descriptor_limit();
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return finish(EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)puts("cohort " COHORT_VERSION);
        return finish(EXIT_OK);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            g_autofree char *program =
                g_strdup_printf("cohort %s", commands[i].name);
            g_set_prgname(program);
            return finish(commands[i].run(argc - 1, argv + 1));
        }
    }
    (void)fprintf(
        stderr, "cohort: there is no command '%s'; cohort --help lists them\n",
        argv[1]);
    return EXIT_USAGE;
}
