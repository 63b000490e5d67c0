/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of cohortd, as a table: names, help, and what each does.
 *
 * Options that act (--blockdev, --chardev, ...) are kept in the order in which
 * they were given and act in that order; the others only set something.
 */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdio.h>

struct daemon;

struct daemon_option {
    const char *name;
    char letter;          /* short form; 0: none */
    const char *argument; /* what follows it, for the help; NULL: nothing */
    const char *help;     /* lines, already broken */
    /* Acts on the daemon that is starting. NULL: parsed elsewhere. */
    int (*co_apply)(struct daemon *daemon, const char *text, GError **err);
};

/* Ends with name NULL. */
extern const struct daemon_option daemon_options[];

enum daemon_action {
    DAEMON_RUN,
    DAEMON_SHOW_HELP,
    DAEMON_SHOW_VERSION,
    DAEMON_SHOW_TRACE_EVENTS,
};

struct daemon_step {
    const struct daemon_option *option;
    const char *text; /* borrowed from argv */
};

struct daemon_settings {
    enum daemon_action action;
    bool daemonize;
    const char *pidfile;         /* borrowed from argv; NULL: none */
    const char *state_directory; /* likewise; NULL: by the environment */
    const char *tracking;        /* likewise; NULL: nothing said */
    GArray *steps;               /* struct daemon_step */
};

/* Parses argv (strings are borrowed). On failure `*settings` needs no release. */
int daemon_settings_parse(int argc,
                          char **argv,
                          struct daemon_settings *settings,
                          GError **err);
void daemon_settings_release(struct daemon_settings *settings);

void daemon_help_print(FILE *out);

#endif
