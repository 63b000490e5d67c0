/* SPDX-License-Identifier: BSD-3-Clause */
/* trace-reference: prints or checks docs/reference/trace.md. */
#include "base/reference_page.h"
#include "base/trace.h"

int main(int argc, char **argv)
{
    g_autofree char *page = trace_reference_page();

    return reference_page_main(
        argc, argv, page,
        "build/src/base/trace-reference > docs/reference/trace.md");
}
