/* SPDX-License-Identifier: BSD-3-Clause */
/* qmp-reference: prints docs/reference/qmp.md (a step of the build's tests
 * compares the two). */
#include <stdio.h>

#include "qmp/reference.h"

int main(void)
{
    g_autofree char *page =
        qmp_reference_page(qmp_all_commands, qmp_all_events);

    return fputs(page, stdout) < 0 || fflush(stdout) != 0;
}
