/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/trace.h"

static const char *type_name(enum trace_type type)
{
    switch (type) {
    case TRACE_TYPE_text: return "text";
    case TRACE_TYPE_count: return "count";
    case TRACE_TYPE_bytes: return "bytes";
    case TRACE_TYPE_ns: return "ns";
    case TRACE_TYPE_error: return "error";
    }
    g_assert_not_reached();
}

static void append_event(GString *page, const struct trace_description *event)
{
    g_string_append_printf(page,
                           "\n## %s\n\n%s\n\n| arg | field | type |\n"
                           "| --- | --- | --- |\n",
                           event->name, event->sentence);
    for (size_t i = 0; event->fields[i].name != NULL; i++) {
        g_string_append_printf(page, "| %zu | `%s` | %s |\n", i,
                               event->fields[i].name,
                               type_name(event->fields[i].type));
    }
}

char *trace_reference_page(void)
{
    GString *page = g_string_new(
        "# Trace events\n\n"
        "Made from the table `src/base/trace_events.def`; do not edit. How to "
        "use them:\n[tracing](../guides/tracing.md).\n\n"
        "Each is a line in the log of `cohortd`, if switched on with "
        "`--trace`, and the\nUSDT probe `cohort:NAME`, always; `arg` is the "
        "number of the probe's argument.\nTypes:\n\n"
        "| type | in the log | in a probe |\n"
        "| --- | --- | --- |\n"
        "| text | as it is, or in double quotes with the escapes of C; `-`: "
        "there is none | `char *`, NULL: there is none |\n"
        "| count, bytes, ns | a decimal number | 64 bits, unsigned |\n"
        "| error | `0`, or the name of an errno | 32 bits, signed: 0, or a "
        "negative errno |\n");

    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        append_event(page, &trace_descriptions[i]);
    }
    return g_string_free(page, FALSE);
}
