/* SPDX-License-Identifier: BSD-3-Clause */
/* qmp-reference: prints or checks docs/reference/qmp.md. */
#include "base/reference_page.h"
#include "qmp/reference.h"

int main(int argc, char **argv)
{
    g_autofree char *page =
        qmp_reference_page(qmp_all_commands, qmp_all_events);

    return reference_page_main(
        argc, argv, page,
        "build/src/qmp/qmp-reference > docs/reference/qmp.md");
}
