/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of options, and getopt_long() driven by it. */
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "base/error.h"
#include "daemon/apply.h"

const struct daemon_option daemon_options[] = {
    { .name = "blockdev",
      .argument = "[driver=]DRIVER,node-name=NAME[,OPTION=VALUE...]",
      .help = "Opens a block node. Nested options are dotted\n"
              "(file.driver=file,file.filename=PATH), a comma in a value is\n"
              "doubled. Takes JSON, too, as blockdev-add does.",
      .co_apply = co_apply_blockdev },
    { .name = "chardev",
      .argument = "socket,id=ID,path=PATH,server=on,wait=off",
      .help = "Listens on a UNIX socket, or with host=HOST,port=PORT on TCP,\n"
              "for clients of a monitor. Without wait=off the daemon starts\n"
              "up only when the first client has come.",
      .co_apply = co_apply_chardev },
    { .name = "monitor",
      .argument = "[chardev=]ID[,mode=control][,pretty=on|off]",
      .help = "Serves QMP on a character device, to any number of clients.",
      .co_apply = co_apply_monitor },
    { .name = "nbd-server",
      .argument = "addr.type=unix,addr.path=PATH[,max-connections=N]",
      .help = "Starts the NBD server; addr.type=inet takes addr.host and\n"
              "addr.port.",
      .co_apply = co_apply_nbd_server },
    { .name = "export",
      .argument = "[type=]nbd,id=ID,node-name=NODE[,name=NAME][,writable=on]",
      .help = "Offers a node to NBD clients. Needs --nbd-server before it.\n"
              "iothread=ID serves it on that thread; fixed-iothread=on\n"
              "keeps it there.",
      .co_apply = co_apply_export },
    { .name = "object",
      .argument = "[qom-type=]iothread,id=ID",
      .help = "Adds a thread for block nodes opened after it. Without any,\n"
              "the daemon makes one per CPU, four at most.",
      .co_apply = co_apply_object },
    { .name = "pidfile",
      .argument = "FILE",
      .help = "Writes the process id there when everything is ready; locked\n"
              "while the daemon runs, removed when it ends." },
    { .name = "state-dir",
      .argument = "DIRECTORY",
      .help = "Where the outcomes of transactions over persistent bitmaps are\n"
              "kept; made when first needed. Default: $STATE_DIRECTORY, else\n"
              "/var/lib/cohort for root, else $XDG_STATE_HOME/cohort, else\n"
              "~/.local/state/cohort." },
    { .name = "tracking",
      .argument = "[durability=power|process][,OPTION=VALUE...]",
      .help = "How persistent bitmaps are kept, of nodes whose\n"
              "x-cohort-tracking says nothing else. durability=process saves\n"
              "the syncs: they survive kill -9, but not a loss of power.\n"
              "on-tracking-error=report|stop, over-marking=SIZE,\n"
              "checkpoint-interval=MS, location=beside|state-dir." },
    { .name = "daemonize",
      .help =
          "Goes to the background; the command returns when everything\n"
          "is ready, or with the error. The working directory is kept, and\n"
          "standard error if it is a file." },
    { .name = "trace",
      .letter = 'T',
      .argument = "[enable=]PATTERN",
      .help =
          "Writes trace events whose names match to standard error, from\n"
          "here on; * and ? stand for any characters and one. -PATTERN\n"
          "switches off. help lists all, docs/guides/tracing.md tells more.",
      .co_apply = co_apply_trace },
    { .name = "help", .letter = 'h', .help = "Prints this and exits." },
    { .name = "version",
      .letter = 'V',
      .help = "Prints the version and exits." },
    { .name = NULL },
};

static unsigned int option_count(void)
{
    return G_N_ELEMENTS(daemon_options) - 1;
}

/* The table in getopt's form: `val` is the option's index, plus one. */
static struct option *long_options(void)
{
    struct option *options = g_new0(struct option, option_count() + 1);

    for (unsigned int i = 0; i < option_count(); i++) {
        options[i].name = daemon_options[i].name;
        options[i].has_arg = daemon_options[i].argument != NULL
                                 ? required_argument
                                 : no_argument;
        options[i].val = (int)i + 1;
    }
    return options;
}

static char *short_options(void)
{
    /* A leading colon: tell a missing argument from an unknown option. */
    GString *letters = g_string_new(":");

    for (unsigned int i = 0; i < option_count(); i++) {
        if (daemon_options[i].letter != 0) {
            g_string_append_c(letters, daemon_options[i].letter);
            if (daemon_options[i].argument != NULL) {
                g_string_append_c(letters, ':');
            }
        }
    }
    return g_string_free(letters, FALSE);
}

/* The option that getopt_long() has found; NULL: none. */
static const struct daemon_option *option_of(int found)
{
    if (found >= 1 && found <= (int)option_count()) {
        return &daemon_options[found - 1];
    }
    for (unsigned int i = 0; i < option_count(); i++) {
        if (found != 0 && daemon_options[i].letter == found) {
            return &daemon_options[i];
        }
    }
    return NULL;
}

/* The first option of this kind wins. */
static void show(struct daemon_settings *settings, enum daemon_action action)
{
    if (settings->action == DAEMON_RUN) {
        settings->action = action;
    }
}

static void take_option(struct daemon_settings *settings,
                        const struct daemon_option *option,
                        const char *text)
{
    struct daemon_step step = { .option = option, .text = text };

    if (strcmp(option->name, "trace") == 0 && strcmp(text, "help") == 0) {
        show(settings, DAEMON_SHOW_TRACE_EVENTS);
    } else if (option->co_apply != NULL) {
        g_array_append_val(settings->steps, step);
    } else if (strcmp(option->name, "pidfile") == 0) {
        settings->pidfile = text;
    } else if (strcmp(option->name, "state-dir") == 0) {
        settings->state_directory = text;
    } else if (strcmp(option->name, "tracking") == 0) {
        settings->tracking = text;
    } else if (strcmp(option->name, "daemonize") == 0) {
        settings->daemonize = true;
    } else if (strcmp(option->name, "help") == 0) {
        show(settings, DAEMON_SHOW_HELP);
    } else {
        show(settings, DAEMON_SHOW_VERSION);
    }
}

static int parse_all(int argc,
                     char **argv,
                     struct daemon_settings *settings,
                     GError **err)
{
    g_autofree struct option *longs = long_options();
    g_autofree char *shorts = short_options();
    int found;

    optind = 0; /* begin anew, also when called a second time */
    opterr = 0;
    for (;;) {
        int place = optind == 0 ? 1 : optind;
        const struct daemon_option *option;

        found = getopt_long(argc, argv, shorts, longs, NULL);
        if (found == -1) {
            break;
        }
        option = option_of(found);
        if (found == ':') {
            return error_set(err, -EINVAL,
                             "option %s needs an argument (try --help)",
                             argv[place]);
        }
        if (option == NULL) {
            return error_set(err, -EINVAL,
                             "there is no option %s, or it is ambiguous, or "
                             "takes no argument (try --help)",
                             argv[place]);
        }
        take_option(settings, option, optarg);
    }
    if (optind < argc) {
        return error_set(err, -EINVAL, "unexpected argument '%s' (try --help)",
                         argv[optind]);
    }
    return 0;
}

int daemon_settings_parse(int argc,
                          char **argv,
                          struct daemon_settings *settings,
                          GError **err)
{
    int rc;

    *settings = (struct daemon_settings){
        .steps = g_array_new(FALSE, FALSE, sizeof(struct daemon_step)),
    };
    rc = parse_all(argc, argv, settings, err);
    if (rc < 0) {
        daemon_settings_release(settings);
    }
    return rc;
}

void daemon_settings_release(struct daemon_settings *settings)
{
    g_clear_pointer(&settings->steps, g_array_unref);
}

static void print_option(FILE *out, const struct daemon_option *option)
{
    g_auto(GStrv) lines = g_strsplit(option->help, "\n", -1);

    if (option->letter != 0) {
        fprintf(out, "  -%c,", option->letter);
    } else {
        fprintf(out, "     ");
    }
    fprintf(out, " --%s%s%s\n", option->name,
            option->argument != NULL ? " " : "",
            option->argument != NULL ? option->argument : "");
    for (char **line = lines; *line != NULL; line++) {
        fprintf(out, "            %s\n", *line);
    }
}

void daemon_help_print(FILE *out)
{
    fputs(
        "Usage: cohortd [OPTION]...\n"
        "Serves disk images over NBD, tracks what changes in them, and backs "
        "them up in\ngroups that succeed or fail together. Driven over QMP; "
        "takes the options of\nqemu-storage-daemon. Options act in the order "
        "given.\n\n"
        "Example:\n"
        "  cohortd --blockdev driver=file,filename=disk.img,node-name=disk \\\n"
        "          --nbd-server addr.type=unix,addr.path=nbd.sock \\\n"
        "          --export type=nbd,id=disk,node-name=disk,writable=on \\\n"
        "          --chardev socket,id=qmp,path=qmp.sock,server=on,wait=off \\\n"
        "          --monitor chardev=qmp\n\n"
        "Options:\n",
        out);
    for (const struct daemon_option *option = daemon_options;
         option->name != NULL; option++) {
        print_option(out, option);
    }
    fputs(
        "\nIt ends, cleanly and with exit code 0, on the QMP command quit and "
        "on SIGTERM,\nSIGINT and SIGHUP. Exit code 1: it could not start.\n"
        "The commands are described in docs/reference/qmp.md.\n",
        out);
}
