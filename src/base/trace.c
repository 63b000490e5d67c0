/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of events, its switches, and the line of one event. */
#include "base/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/spelling.h"

#define FIELD(type, field)  \
 {                          \
  TRACE_TYPE_##type, #field \
 }
#define TRACE_EVENT(event, sentence, ...) \
 [TRACE_ID_##event] = { #event, sentence, { TRACE_EACH(FIELD, __VA_ARGS__) } },

const struct trace_description trace_descriptions[TRACE_EVENT_COUNT] = {
#include "base/trace_events.def"
};

#undef TRACE_EVENT

atomic_bool trace_switches[TRACE_EVENT_COUNT];

static int refuse_pattern(const char *pattern, GError **err)
{
    struct spelling spelling = { .word = pattern };

    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        spelling_offer(&spelling, trace_descriptions[i].name);
    }
    if (spelling.nearest != NULL) {
        return error_set(err, -ENOENT,
                         "There is no trace event '%s'; did you mean '%s'?",
                         pattern, spelling.nearest);
    }
    return error_set(err, -ENOENT,
                     "No trace event matches '%s'; cohortd --trace help lists "
                     "all",
                     pattern);
}

int trace_switch(const char *pattern, GError **err)
{
    bool on = pattern[0] != '-';
    const char *names = on ? pattern : pattern + 1;
    size_t count = 0;

    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        if (g_pattern_match_simple(names, trace_descriptions[i].name)) {
            atomic_store(&trace_switches[i], on);
            count++;
        }
    }
    return count > 0 ? 0 : refuse_pattern(names, err);
}

/*
 * The line.
 */

static bool is_plain(const char *text)
{
    static const char signs[] = "-_.,:/+@#%";

    for (const char *at = text; *at != '\0'; at++) {
        if (!g_ascii_isalnum(*at) && strchr(signs, *at) == NULL) {
            return false;
        }
    }
    return text[0] != '\0' && strcmp(text, "-") != 0;
}

/* Quotes, and all that is not printable ASCII, are escaped, so that no name can
 * forge a line or a field. */
static void append_text(GString *line, const char *text)
{
    if (text == NULL) {
        g_string_append_c(line, '-');
    } else if (is_plain(text)) {
        g_string_append(line, text);
    } else {
        g_autofree char *escaped = g_strescape(text, NULL);

        g_string_append_printf(line, "\"%s\"", escaped);
    }
}

static void append_error(GString *line, int error)
{
    const char *name = error < 0 ? strerrorname_np(-error) : NULL;

    if (name != NULL) {
        g_string_append(line, name);
    } else {
        g_string_append_printf(line, "%d", error);
    }
}

void trace_format(GString *line,
                  enum trace_event event,
                  const union trace_value *values)
{
    const struct trace_description *description = &trace_descriptions[event];

    g_string_append(line, description->name);
    for (size_t i = 0; description->fields[i].name != NULL; i++) {
        g_string_append_printf(line, " %s=", description->fields[i].name);
        switch (description->fields[i].type) {
        case TRACE_TYPE_text: append_text(line, values[i].text); break;
        case TRACE_TYPE_error: append_error(line, values[i].error); break;
        case TRACE_TYPE_count:
        case TRACE_TYPE_bytes:
        case TRACE_TYPE_ns:
            g_string_append_printf(line, "%" G_GUINT64_FORMAT,
                                   values[i].number);
            break;
        }
    }
}

static void append_time_and_thread(GString *line)
{
    char thread[16] = "";
    struct timespec now;
    struct tm utc;
    char seconds[sizeof("9999-12-31T23:59:59")] = "";

    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) != NULL) {
        strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc);
    }
    pthread_getname_np(pthread_self(), thread, sizeof(thread));
    g_string_append_printf(line, "%s.%06ldZ ", seconds, now.tv_nsec / 1000);
    append_text(line, thread);
    g_string_append_c(line, ' ');
}

void trace_write(enum trace_event event, const union trace_value *values)
{
    g_autoptr(GString) line = g_string_new(NULL);

    append_time_and_thread(line);
    trace_format(line, event, values);
    g_string_append_c(line, '\n');
    /* One call: lines of several threads never mix. */
    fwrite(line->str, 1, line->len, stderr);
}
