/* SPDX-License-Identifier: BSD-3-Clause */
/* The commands that are about the session and the daemon itself. */
#include "qmp/command.h"

#include <errno.h>

#include "base/error.h"
#include "qmp/introspect.h"
#include "qmp/version.h"

static const char *const capability_values[] = { "oob", NULL };
static const struct schema_type capability_type = {
    .kind = SCHEMA_ENUM,
    .name = "QMPCapability",
    .doc = "What a client may enable, if the greeting offers it.",
    .values = capability_values,
};
static const struct schema_type capability_list_type = {
    .kind = SCHEMA_LIST,
    .element = &capability_type,
};
static const struct schema_member capabilities_members[] = {
    { .name = "enable",
      .type = &capability_list_type,
      .doc = "Capabilities to enable; only what the greeting offered, and "
             "this daemon offers none." },
    { .name = NULL },
};
static const struct schema_type capabilities_type = {
    .kind = SCHEMA_STRUCT,
    .members = capabilities_members,
};

static int co_capabilities(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    const struct json_value *enable = json_dict_get(arguments, "enable");

    (void)engine;
    (void)ret;
    if (enable != NULL && json_list_length(enable) > 0) {
        return error_set(err, -EINVAL,
                         "capability '%s' was not offered in the greeting",
                         json_get_string(json_list_get(enable, 0)));
    }
    return 0;
}

static const struct schema_member version_triple_members[] = {
    { .name = "major",
      .type = &schema_int,
      .doc = "Of the QEMU release whose interface is served.",
      .required = true },
    { .name = "minor", .type = &schema_int, .required = true },
    { .name = "micro", .type = &schema_int, .required = true },
    { .name = NULL },
};
static const struct schema_type version_triple_type = {
    .kind = SCHEMA_STRUCT,
    .name = "VersionTriple",
    .members = version_triple_members,
};
static const struct schema_member version_members[] = {
    { .name = "qemu", .type = &version_triple_type, .required = true },
    { .name = "package",
      .type = &schema_string,
      .doc = "Who really answers: \"cohort\" and its version.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type version_type = {
    .kind = SCHEMA_STRUCT,
    .name = "VersionInfo",
    .doc = "The QEMU release whose interface is served, and who serves it.",
    .members = version_members,
};

static int co_query_version(struct engine *engine,
                            const struct json_value *arguments,
                            struct json_value **ret,
                            GError **err)
{
    (void)engine;
    (void)arguments;
    (void)err;
    *ret = qmp_version_info();
    return 0;
}

static const struct schema_member command_info_members[] = {
    { .name = "name", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type command_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "CommandInfo",
    .members = command_info_members,
};
static const struct schema_type command_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &command_info_type,
};

static int co_query_commands(struct engine *engine,
                             const struct json_value *arguments,
                             struct json_value **ret,
                             GError **err)
{
    struct json_value *list = json_list_new();

    (void)engine;
    (void)arguments;
    (void)err;
    for (size_t i = 0; qmp_all_commands[i] != NULL; i++) {
        for (const struct qmp_command *command = qmp_all_commands[i];
             command->name != NULL; command++) {
            struct json_value *info = json_dict_new();

            json_dict_set_string(info, "name", command->name);
            json_list_append(list, info);
        }
    }
    *ret = list;
    return 0;
}

static int co_query_schema(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    (void)engine;
    (void)arguments;
    (void)err;
    *ret = qmp_introspect(qmp_all_commands, qmp_all_events);
    return 0;
}

static int co_quit(struct engine *engine,
                   const struct json_value *arguments,
                   struct json_value **ret,
                   GError **err)
{
    (void)arguments;
    (void)ret;
    (void)err;
    engine->quit(engine);
    return 0;
}

static const char *const run_state_values[] = { "running", NULL };
static const struct schema_type run_state_type = {
    .kind = SCHEMA_ENUM,
    .name = "RunState",
    .values = run_state_values,
};
static const struct schema_member status_members[] = {
    { .name = "running",
      .type = &schema_bool,
      .doc = "Always true: a storage daemon has no machine to stop.",
      .required = true },
    { .name = "singlestep", .type = &schema_bool, .required = true },
    { .name = "status", .type = &run_state_type, .required = true },
    { .name = NULL },
};
static const struct schema_type status_type = {
    .kind = SCHEMA_STRUCT,
    .name = "StatusInfo",
    .members = status_members,
};

static int co_query_status(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    (void)engine;
    (void)arguments;
    (void)err;
    *ret = json_dict_new();
    json_dict_set_bool(*ret, "running", true);
    json_dict_set_bool(*ret, "singlestep", false);
    json_dict_set_string(*ret, "status", "running");
    return 0;
}

static const struct schema_member name_members[] = {
    { .name = "name",
      .type = &schema_string,
      .doc = "Never there: a daemon has no guest to name." },
    { .name = NULL },
};
static const struct schema_type name_type = {
    .kind = SCHEMA_STRUCT,
    .name = "NameInfo",
    .members = name_members,
};

static int co_query_name(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    (void)engine;
    (void)arguments;
    (void)ret; /* {} */
    (void)err;
    return 0;
}

static const struct schema_member chardev_members[] = {
    { .name = "label",
      .type = &schema_string,
      .doc = "The id given with --chardev.",
      .required = true },
    { .name = "filename",
      .type = &schema_string,
      .doc = "Where it listens.",
      .required = true },
    { .name = "frontend-open",
      .type = &schema_bool,
      .doc = "Is a client connected?",
      .required = true },
    { .name = NULL },
};
static const struct schema_type chardev_type = {
    .kind = SCHEMA_STRUCT,
    .name = "ChardevInfo",
    .members = chardev_members,
};
static const struct schema_type chardev_list_type = {
    .kind = SCHEMA_LIST,
    .element = &chardev_type,
};

static int co_query_chardev(struct engine *engine,
                            const struct json_value *arguments,
                            struct json_value **ret,
                            GError **err)
{
    (void)arguments;
    (void)err;
    *ret = engine->chardevs(engine);
    return 0;
}

static const struct schema_member iothread_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "thread-id",
      .type = &schema_int,
      .doc = "As the kernel counts threads.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type iothread_type = {
    .kind = SCHEMA_STRUCT,
    .name = "IOThreadInfo",
    .members = iothread_members,
};
static const struct schema_type iothread_list_type = {
    .kind = SCHEMA_LIST,
    .element = &iothread_type,
};

static int co_query_iothreads(struct engine *engine,
                              const struct json_value *arguments,
                              struct json_value **ret,
                              GError **err)
{
    (void)arguments;
    (void)err;
    *ret = engine->iothreads(engine);
    return 0;
}

static int co_object_add(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    (void)ret;
    return engine->co_object_add(engine, arguments, err);
}

static const struct schema_member object_id_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type object_id_type = {
    .kind = SCHEMA_STRUCT,
    .members = object_id_members,
};

static int co_object_del(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    (void)ret;
    return engine->co_object_del(engine,
                                 json_dict_string(arguments, "id", NULL), err);
}

const struct qmp_command qmp_commands_session[] = {
    { .name = "qmp_capabilities",
      .doc = "Ends the negotiation that begins each session: before it no "
             "other command runs and no event is sent, after it cannot be "
             "given again.",
      .arguments = &capabilities_type,
      .co_run = co_capabilities },
    { .name = "query-version",
      .doc = "The version, as in the greeting.",
      .returns = &version_type,
      .co_run = co_query_version },
    { .name = "query-commands",
      .doc = "The names of all commands.",
      .returns = &command_info_list_type,
      .co_run = co_query_commands },
    { .name = "query-qmp-schema",
      .doc = "Every command, event and type in machine-readable form. Names "
             "of types may change; begin at a command's name.",
      .returns = &qmp_schema_info_list_type,
      .co_run = co_query_schema },
    { .name = "quit",
      .doc = "Ends the daemon: exports are closed, jobs cancelled (their "
             "bitmaps keep everything), nodes closed.",
      .co_run = co_quit },
    { .name = "query-status",
      .doc = "For clients that ask a virtual machine.",
      .returns = &status_type,
      .co_run = co_query_status },
    { .name = "query-name",
      .doc = "For clients that ask a virtual machine.",
      .returns = &name_type,
      .co_run = co_query_name },
    { .name = "query-chardev",
      .doc = "The character devices, which carry the monitors.",
      .returns = &chardev_list_type,
      .co_run = co_query_chardev },
    { .name = "query-iothreads",
      .doc = "The threads that serve block nodes.",
      .returns = &iothread_list_type,
      .co_run = co_query_iothreads },
    { .name = "object-add",
      .doc = "Adds an iothread; nodes opened from then on may live on it.",
      .arguments = &qmp_object_options_type,
      .co_run = co_object_add },
    { .name = "object-del",
      .doc = "Removes an iothread that no node lives on.",
      .arguments = &object_id_type,
      .co_run = co_object_del },
    { .name = NULL },
};
