/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/exit_code.h"

#include <errno.h>

int exit_code_of(int error)
{
    switch (-error) {
    case 0: return EXIT_OK;
    case EBUSY: return EXIT_LOCKED;
    case EBADMSG: return EXIT_DAMAGED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE: return EXIT_UNREACHABLE;
    case ENOENT: return EXIT_NOT_FOUND;
    case ECANCELED: return EXIT_INTERRUPTED;
    default: return EXIT_FAILED;
    }
}
