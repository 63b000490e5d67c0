/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trace events: what an operator may watch, in the log or with a tracer.
 *
 *     trace_job_state(job->id, "running", "waiting");
 *
 * writes, if someone has switched it on,
 *
 *     2026-11-23T07:55:45.123456Z cohortd job_state job=a from=running ...
 *
 * to stderr, and is always the USDT probe cohort:job_state. The events are
 * listed in trace_events.def, and nowhere else.
 *
 * An event that is off costs the load of one byte, a branch that is predicted,
 * and the nop of its probe; so arguments should be at hand, not computed. One
 * that is on takes memory and writes a line before it returns; events are for
 * transitions, not for requests. Texts are borrowed, NULL is shown as "-".
 *
 * Which events are on is the one state of the process beside its context, see
 * docs/decisions/008-trace-switches-are-global.md. Any thread.
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SDT_USE_VARIADIC
#include <sys/sdt.h>

#define TRACE_FIELDS_MAX 8

/* TRACE_EACH(use, (a, b), (c, d)...) is use(a, b), use(c, d)... */
#define TRACE_EACH_1(use, pair)      use pair
#define TRACE_EACH_2(use, pair, ...) use pair, TRACE_EACH_1(use, __VA_ARGS__)
#define TRACE_EACH_3(use, pair, ...) use pair, TRACE_EACH_2(use, __VA_ARGS__)
#define TRACE_EACH_4(use, pair, ...) use pair, TRACE_EACH_3(use, __VA_ARGS__)
#define TRACE_EACH_5(use, pair, ...) use pair, TRACE_EACH_4(use, __VA_ARGS__)
#define TRACE_EACH_6(use, pair, ...) use pair, TRACE_EACH_5(use, __VA_ARGS__)
#define TRACE_EACH_7(use, pair, ...) use pair, TRACE_EACH_6(use, __VA_ARGS__)
#define TRACE_EACH_8(use, pair, ...) use pair, TRACE_EACH_7(use, __VA_ARGS__)

#define TRACE_NINTH(a, b, c, d, e, f, g, h, ninth, ...) ninth
#define TRACE_EACH(use, ...)                                         \
 TRACE_NINTH(__VA_ARGS__, TRACE_EACH_8, TRACE_EACH_7, TRACE_EACH_6,  \
             TRACE_EACH_5, TRACE_EACH_4, TRACE_EACH_3, TRACE_EACH_2, \
             TRACE_EACH_1, none)                                     \
 (use, __VA_ARGS__)

enum trace_event {
#define TRACE_EVENT(event, sentence, ...) TRACE_ID_##event,
#include "base/trace_events.def"
#undef TRACE_EVENT
    TRACE_EVENT_COUNT,
};

/* The types of fields, by the names that trace_events.def uses. */
enum trace_type {
    TRACE_TYPE_text,
    TRACE_TYPE_count,
    TRACE_TYPE_bytes,
    TRACE_TYPE_ns,
    TRACE_TYPE_error, /* 0 or a negative errno; shown by its name */
};

union trace_value {
    const char *text;
    uint64_t number;
    int error;
};

struct trace_field {
    enum trace_type type;
    const char *name;
};

/* What is known of an event; `fields` ends with name NULL. */
struct trace_description {
    const char *name;
    const char *sentence;
    struct trace_field fields[TRACE_FIELDS_MAX + 1];
};

extern const struct trace_description trace_descriptions[TRACE_EVENT_COUNT];

/* Which events go to the log. Read by trace_NAME() only. */
extern atomic_bool trace_switches[TRACE_EVENT_COUNT];

/* Switches on the events whose names match the pattern, in which '*' stands for
 * any characters and '?' for one; a pattern that begins with '-' switches off
 * what the rest of it matches. Refuses, with a hint, what matches none. */
int trace_switch(const char *pattern, GError **err);

/* The event's part of the line, "NAME FIELD=VALUE...". Texts with anything but
 * letters, digits and a few signs are quoted, with escapes as in C; so a line is
 * one line. `values` in the order of the fields. */
void trace_format(GString *line,
                  enum trace_event event,
                  const union trace_value *values);
/* The whole line, to stderr. */
void trace_write(enum trace_event event, const union trace_value *values);

/* The page docs/reference/trace.md; owned by the caller. */
char *trace_reference_page(void);

/*
 * The functions trace_NAME(FIELDS).
 */
#define TRACE_C_text                 const char *
#define TRACE_C_count                uint64_t
#define TRACE_C_bytes                uint64_t
#define TRACE_C_ns                   uint64_t
#define TRACE_C_error                int
#define TRACE_MEMBER_text            text
#define TRACE_MEMBER_count           number
#define TRACE_MEMBER_bytes           number
#define TRACE_MEMBER_ns              number
#define TRACE_MEMBER_error           error
#define TRACE_PARAMETER(type, field) TRACE_C_##type field
#define TRACE_ARGUMENT(type, field)  field
#define TRACE_VALUE(type, field) \
 {                               \
  .TRACE_MEMBER_##type = field   \
 }

#define TRACE_EVENT(event, sentence, ...)                                   \
 static inline void trace_##event(TRACE_EACH(TRACE_PARAMETER, __VA_ARGS__)) \
 {                                                                          \
  STAP_PROBEV(cohort, event, TRACE_EACH(TRACE_ARGUMENT, __VA_ARGS__));      \
  if (G_UNLIKELY(atomic_load_explicit(&trace_switches[TRACE_ID_##event],    \
                                      memory_order_relaxed))) {             \
   const union trace_value values[] = { TRACE_EACH(TRACE_VALUE,             \
                                                   __VA_ARGS__) };          \
   trace_write(TRACE_ID_##event, values);                                   \
  }                                                                         \
 }
#include "base/trace_events.def"
#undef TRACE_EVENT

#endif
