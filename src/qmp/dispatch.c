/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: the members of the request are known, the command exists and is
 * allowed in this mode, its arguments fit its schema; it runs; {"return": ...}.
 *
 * Each check that fails ends in an error reply, before the command has had any
 * effect. The id is echoed whenever the request was an object.
 *
 * Left out: out-of-band execution. The greeting does not offer it, so exec-oob
 * is refused.
 */
#include "qmp/dispatch.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

struct json_value *qmp_error_reply(const GError *err)
{
    struct json_value *reply = json_dict_new();
    struct json_value *error = json_dict_new();

    json_dict_set_string(error, "class", error_class_name(err));
    json_dict_set_string(error, "desc", err->message);
    json_dict_set(reply, "error", error);
    return reply;
}

static int check_member(const char *key,
                        const struct json_value *value,
                        GError **err)
{
    if (strcmp(key, "id") == 0) {
        return 0;
    }
    if (strcmp(key, "exec-oob") == 0) {
        return error_set(err, -EINVAL,
                         "out-of-band execution ('exec-oob') was not offered "
                         "in the greeting; use 'execute'");
    }
    if (strcmp(key, "execute") == 0) {
        if (json_type_of(value) != JSON_STRING) {
            return error_set(err, -EINVAL,
                             "request member 'execute' must be a string, the "
                             "name of a command");
        }
        return 0;
    }
    if (strcmp(key, "arguments") == 0) {
        if (json_type_of(value) != JSON_DICT) {
            return error_set(err, -EINVAL,
                             "request member 'arguments' must be an object");
        }
        return 0;
    }
    return error_set(err, -EINVAL,
                     "a request has no member '%s'; it has 'execute', "
                     "'arguments' and 'id'",
                     key);
}

/* The shape of the request: its command's name, or NULL. */
static const char *check_shape(const struct json_value *request, GError **err)
{
    const char *name;

    for (size_t i = 0; i < json_dict_length(request); i++) {
        const char *key;
        const struct json_value *value = json_dict_entry(request, i, &key);

        if (check_member(key, value, err) < 0) {
            return NULL;
        }
    }
    name = json_dict_string(request, "execute", NULL);
    if (name == NULL) {
        error_set(err, -EINVAL, "a request needs the member 'execute'");
    }
    return name;
}

static int check_mode(enum qmp_mode mode, const char *name, GError **err)
{
    bool negotiates = strcmp(name, "qmp_capabilities") == 0;

    if (mode == QMP_MODE_NEGOTIATION && !negotiates) {
        return error_set_class(err, -EPERM, ERROR_COMMAND_NOT_FOUND,
                               "send qmp_capabilities first: until then no "
                               "other command runs (this was %s)",
                               name);
    }
    if (mode == QMP_MODE_COMMAND && negotiates) {
        return error_set_class(err, -EPERM, ERROR_COMMAND_NOT_FOUND,
                               "capabilities were negotiated already in this "
                               "session");
    }
    return 0;
}

static int co_run_command(const struct qmp_command *command,
                          struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    static const struct schema_member no_members[] = { { .name = NULL } };
    static const struct schema_type no_arguments = {
        .kind = SCHEMA_STRUCT,
        .members = no_members,
    };
    g_autoptr(json_value) empty = NULL;
    g_autofree char *what = g_strdup_printf("%s: arguments", command->name);
    int rc;

    if (arguments == NULL) {
        empty = json_dict_new();
        arguments = empty;
    }
    rc = schema_check(command->arguments != NULL ? command->arguments
                                                 : &no_arguments,
                      arguments, what, err);
    if (rc < 0) {
        return rc;
    }
    return command->co_run(engine, arguments, ret, err);
}

static int co_execute(const struct qmp_command *const *tables,
                      struct engine *engine,
                      enum qmp_mode *mode,
                      const struct json_value *request,
                      struct json_value **ret,
                      GError **err)
{
    const struct qmp_command *command;
    const char *name;
    int rc;

    if (json_type_of(request) != JSON_DICT) {
        return error_set(err, -EINVAL,
                         "a request must be a JSON object; this is of type %s",
                         json_type_name(json_type_of(request)));
    }
    name = check_shape(request, err);
    if (name == NULL) {
        return -EINVAL;
    }
    rc = check_mode(*mode, name, err);
    if (rc < 0) {
        return rc;
    }
    command = qmp_command_find(tables, name);
    if (command == NULL) {
        return error_set_class(err, -ENOENT, ERROR_COMMAND_NOT_FOUND,
                               "there is no command '%s' (query-commands "
                               "lists them)",
                               name);
    }
    rc = co_run_command(command, engine, json_dict_get(request, "arguments"),
                        ret, err);
    if (rc == 0 && *mode == QMP_MODE_NEGOTIATION) {
        *mode = QMP_MODE_COMMAND;
    }
    return rc;
}

struct json_value *co_qmp_dispatch(const struct qmp_command *const *tables,
                                   struct engine *engine,
                                   enum qmp_mode *mode,
                                   const struct json_value *request)
{
    g_autoptr(json_value) result = NULL;
    g_autoptr(GError) err = NULL;
    const struct json_value *id = NULL;
    struct json_value *reply;
    int rc = co_execute(tables, engine, mode, request, &result, &err);

    if (rc < 0) {
        if (err == NULL) {
            error_set_errno(&err, rc, "the command failed");
        }
        reply = qmp_error_reply(err);
    } else {
        reply = json_dict_new();
        json_dict_set(reply, "return",
                      result != NULL ? g_steal_pointer(&result)
                                     : json_dict_new());
    }
    if (json_type_of(request) == JSON_DICT) {
        id = json_dict_get(request, "id");
    }
    if (id != NULL) {
        json_dict_set(reply, "id", json_copy(id));
    }
    return reply;
}
