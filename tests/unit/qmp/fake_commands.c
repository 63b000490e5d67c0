/* SPDX-License-Identifier: BSD-3-Clause */
#include "fake_commands.h"

#include <errno.h>

#include "base/error.h"

unsigned int fake_runs;

static int co_nothing(struct engine *engine,
                      const struct json_value *arguments,
                      struct json_value **ret,
                      GError **err)
{
    (void)engine;
    (void)arguments;
    (void)ret;
    (void)err;
    fake_runs++;
    return 0;
}

static int co_echo(struct engine *engine,
                   const struct json_value *arguments,
                   struct json_value **ret,
                   GError **err)
{
    (void)engine;
    (void)err;
    fake_runs++;
    *ret = json_copy(arguments);
    return 0;
}

static int co_fail(struct engine *engine,
                   const struct json_value *arguments,
                   struct json_value **ret,
                   GError **err)
{
    (void)engine;
    (void)ret;
    fake_runs++;
    if (json_dict_bool(arguments, "silently", false)) {
        return -EIO;
    }
    return error_set_class(err, -ENOENT, ERROR_DEVICE_NOT_ACTIVE, "as told");
}

static const char *const color_values[] = { "red", "green", NULL };
static const struct schema_type color = {
    .kind = SCHEMA_ENUM,
    .name = "Color",
    .values = color_values,
};
static const struct schema_member echo_members[] = {
    { .name = "number", .type = &schema_int, .required = true },
    { .name = "color", .type = &color },
    { .name = "words", .type = &schema_string_list },
    { .name = NULL },
};
static const struct schema_type echo_type = {
    .kind = SCHEMA_STRUCT,
    .members = echo_members,
};
static const struct schema_member fail_members[] = {
    { .name = "silently", .type = &schema_bool },
    { .name = NULL },
};
static const struct schema_type fail_type = {
    .kind = SCHEMA_STRUCT,
    .members = fail_members,
};
static const char *const deprecated[] = { "deprecated", NULL };

static const struct qmp_command session_table[] = {
    { .name = "qmp_capabilities", .co_run = co_nothing },
    { .name = "nothing", .co_run = co_nothing },
    { .name = NULL },
};
static const struct qmp_command other_table[] = {
    { .name = "echo",
      .arguments = &echo_type,
      .returns = &echo_type,
      .co_run = co_echo },
    { .name = "fail", .arguments = &fail_type, .co_run = co_fail },
    { .name = "old", .features = deprecated, .co_run = co_nothing },
    { .name = NULL },
};

const struct qmp_command *const fake_tables[] = { session_table, other_table,
                                                  NULL };

const struct qmp_event fake_events[] = {
    { .name = "HAPPENED", .data = &echo_type },
    { .name = "DONE" },
    { .name = NULL },
};
