/* SPDX-License-Identifier: BSD-3-Clause */
/* How a `cohort` command ends; docs/reference/exit-codes.md explains each. */
#ifndef CLI_EXIT_CODE_H
#define CLI_EXIT_CODE_H

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,      /* it failed; nothing was published */
    EXIT_USAGE = 2,       /* wrong options or arguments */
    EXIT_LOCKED = 3,      /* another command holds the repository's lock */
    EXIT_DAMAGED = 4,     /* the repository's or image's content is damaged */
    EXIT_UNREACHABLE = 5, /* the daemon cannot be reached, or went away */
    EXIT_NOT_FOUND = 6,   /* no such repository, point or disk */
    EXIT_THAW_FAILED = 7, /* the backup is good, the thaw command failed */
    EXIT_INTERRUPTED = 8, /* by SIGINT or SIGTERM, and cleaned up */
    EXIT_LEAKS = 9,       /* the image is sound, but clusters are leaked */
};

/* The code for a function that failed with this negative errno. */
int exit_code_of(int error);

#endif
