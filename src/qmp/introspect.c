/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands and events are entered first; each type they mention gets a name and
 * waits in a queue until it is entered, too. A type has QAPI's name if the
 * declaration gives it one, else one made from where it was met; all integers
 * are one built-in "int"; the list of X is "[X]"; no arguments and no result
 * are the object "empty".
 */
#include "qmp/introspect.h"

#include <string.h>

#define EMPTY_NAME "empty"

struct introspection {
    struct json_value *entries; /* the result */
    GHashTable *names; /* const struct schema_type * -> its name, owned */
    GHashTable *taken; /* the names in use */
    GQueue pending;    /* types that are named, not entered */
};

static const char *builtin_name(enum schema_kind kind)
{
    switch (kind) {
    case SCHEMA_ANY: return "any";
    case SCHEMA_NULL: return "null";
    case SCHEMA_STRING: return "str";
    case SCHEMA_BOOL: return "bool";
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE: return "int";
    case SCHEMA_ENUM:
    case SCHEMA_LIST:
    case SCHEMA_STRUCT:
    case SCHEMA_UNION:
    case SCHEMA_ALTERNATE: return NULL;
    }
    g_assert_not_reached();
}

static const char *builtin_json_type(enum schema_kind kind)
{
    switch (kind) {
    case SCHEMA_ANY: return "value";
    case SCHEMA_NULL: return "null";
    case SCHEMA_STRING: return "string";
    case SCHEMA_BOOL: return "boolean";
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE: return "int";
    case SCHEMA_ENUM:
    case SCHEMA_LIST:
    case SCHEMA_STRUCT:
    case SCHEMA_UNION:
    case SCHEMA_ALTERNATE: return NULL;
    }
    g_assert_not_reached();
}

static struct json_value *entry_add(struct introspection *schema,
                                    const char *name,
                                    const char *meta_type)
{
    struct json_value *entry = json_dict_new();

    json_dict_set_string(entry, "name", name);
    json_dict_set_string(entry, "meta-type", meta_type);
    json_list_append(schema->entries, entry);
    return entry;
}

static void set_features(struct json_value *entry, const char *const *features)
{
    struct json_value *list;

    if (features == NULL) {
        return;
    }
    list = json_list_new();
    for (; *features != NULL; features++) {
        json_list_append(list, json_string_new(*features));
    }
    json_dict_set(entry, "features", list);
}

/* A name nobody has: `wish`, or `wish` with a number. Borrowed. */
static const char *take_name(struct introspection *schema, const char *wish)
{
    g_autofree char *name = g_strdup(wish);

    for (unsigned int i = 2; g_hash_table_contains(schema->taken, name); i++) {
        g_free(name);
        name = g_strdup_printf("%s-%u", wish, i);
    }
    wish = name;
    g_hash_table_add(schema->taken, g_steal_pointer(&name));
    return wish;
}

static const char *name_type(struct introspection *schema,
                             const struct schema_type *type,
                             const char *wish);

/* Lists and built-ins are the same wherever they are declared. */
static const char *name_shared(struct introspection *schema,
                               const struct schema_type *type,
                               const char *name)
{
    char *kept;

    if (g_hash_table_contains(schema->taken, name)) {
        return g_hash_table_lookup(schema->taken, name);
    }
    kept = g_strdup(name);
    g_hash_table_add(schema->taken, kept);
    g_hash_table_insert(schema->names, (gpointer)(uintptr_t)type, kept);
    g_queue_push_tail(&schema->pending, (gpointer)(uintptr_t)type);
    return kept;
}

/* The name of a type, which will be entered if it is new. NULL: the empty
 * object. `wish` is used for a type without a name. Borrowed. */
static const char *name_type(struct introspection *schema,
                             const struct schema_type *type,
                             const char *wish)
{
    const char *name;

    if (type == NULL) {
        return EMPTY_NAME;
    }
    name = g_hash_table_lookup(schema->names, type);
    if (name != NULL) {
        return name;
    }
    if (builtin_name(type->kind) != NULL) {
        return name_shared(schema, type, builtin_name(type->kind));
    }
    if (type->kind == SCHEMA_LIST) {
        g_autofree char *list =
            g_strdup_printf("[%s]", name_type(schema, type->element, wish));

        return name_shared(schema, type, list);
    }
    name = take_name(schema, type->name != NULL ? type->name : wish);
    g_hash_table_insert(schema->names, (gpointer)(uintptr_t)type,
                        (gpointer)(uintptr_t)name);
    g_queue_push_tail(&schema->pending, (gpointer)(uintptr_t)type);
    return name;
}

static const char *name_part(struct introspection *schema,
                             const struct schema_type *type,
                             const char *whole,
                             const char *part)
{
    g_autofree char *wish = g_strdup_printf("%s-%s", whole, part);

    return name_type(schema, type, wish);
}

static struct json_value *describe_member(struct introspection *schema,
                                          const char *owner,
                                          const struct schema_member *member)
{
    struct json_value *info = json_dict_new();

    json_dict_set_string(info, "name", member->name);
    json_dict_set_string(info, "type",
                         name_part(schema, member->type, owner, member->name));
    if (!member->required) {
        json_dict_set(info, "default", json_null_new());
    }
    set_features(info, member->features);
    return info;
}

static void describe_object(struct introspection *schema,
                            struct json_value *entry,
                            const char *name,
                            const struct schema_type *type)
{
    struct json_value *members = json_list_new();
    struct json_value *variants;

    for (const struct schema_member *member = type->members;
         member != NULL && member->name != NULL; member++) {
        json_list_append(members, describe_member(schema, name, member));
    }
    json_dict_set(entry, "members", members);
    if (type->kind != SCHEMA_UNION) {
        return;
    }
    variants = json_list_new();
    for (const struct schema_branch *branch = type->branches;
         branch->value != NULL; branch++) {
        struct json_value *variant = json_dict_new();

        json_dict_set_string(variant, "case", branch->value);
        json_dict_set_string(
            variant, "type",
            name_part(schema, branch->type, name, branch->value));
        json_list_append(variants, variant);
    }
    json_dict_set_string(entry, "tag", type->tag);
    json_dict_set(entry, "variants", variants);
}

static void describe_enum(struct json_value *entry,
                          const struct schema_type *type)
{
    struct json_value *members = json_list_new();
    struct json_value *values = json_list_new();

    for (const char *const *value = type->values; *value != NULL; value++) {
        struct json_value *member = json_dict_new();

        json_dict_set_string(member, "name", *value);
        json_list_append(members, member);
        json_list_append(values, json_string_new(*value));
    }
    json_dict_set(entry, "members", members);
    json_dict_set(entry, "values", values); /* deprecated, still asked for */
}

static void describe_alternate(struct introspection *schema,
                               struct json_value *entry,
                               const char *name,
                               const struct schema_type *type)
{
    struct json_value *members = json_list_new();
    unsigned int number = 0;

    for (const struct schema_branch *branch = type->branches;
         branch->type != NULL; branch++) {
        g_autofree char *part = g_strdup_printf("%u", ++number);
        struct json_value *member = json_dict_new();

        json_dict_set_string(member, "type",
                             name_part(schema, branch->type, name, part));
        json_list_append(members, member);
    }
    json_dict_set(entry, "members", members);
}

static void enter_type(struct introspection *schema,
                       const struct schema_type *type)
{
    const char *name = g_hash_table_lookup(schema->names, type);
    struct json_value *entry;

    switch (type->kind) {
    case SCHEMA_ANY:
    case SCHEMA_NULL:
    case SCHEMA_STRING:
    case SCHEMA_BOOL:
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE:
        entry = entry_add(schema, name, "builtin");
        json_dict_set_string(entry, "json-type", builtin_json_type(type->kind));
        break;
    case SCHEMA_ENUM:
        describe_enum(entry_add(schema, name, "enum"), type);
        break;
    case SCHEMA_LIST:
        entry = entry_add(schema, name, "array");
        json_dict_set_string(entry, "element-type",
                             name_type(schema, type->element, name));
        break;
    case SCHEMA_STRUCT:
    case SCHEMA_UNION:
        describe_object(schema, entry_add(schema, name, "object"), name, type);
        break;
    case SCHEMA_ALTERNATE:
        describe_alternate(schema, entry_add(schema, name, "alternate"), name,
                           type);
        break;
    }
}

static void enter_command(struct introspection *schema,
                          const struct qmp_command *command)
{
    struct json_value *entry = entry_add(schema, command->name, "command");

    json_dict_set_string(
        entry, "arg-type",
        name_part(schema, command->arguments, command->name, "arg"));
    json_dict_set_string(
        entry, "ret-type",
        name_part(schema, command->returns, command->name, "ret"));
    set_features(entry, command->features);
}

struct json_value *qmp_introspect(const struct qmp_command *const *tables,
                                  const struct qmp_event *events)
{
    struct introspection schema = {
        .entries = json_list_new(),
        .names = g_hash_table_new(NULL, NULL),
        .taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
        .pending = G_QUEUE_INIT,
    };
    struct json_value *empty = entry_add(&schema, EMPTY_NAME, "object");
    const struct schema_type *type;

    json_dict_set(empty, "members", json_list_new());
    g_hash_table_add(schema.taken, g_strdup(EMPTY_NAME));
    for (; *tables != NULL; tables++) {
        for (const struct qmp_command *command = *tables; command->name != NULL;
             command++) {
            g_hash_table_add(schema.taken, g_strdup(command->name));
            enter_command(&schema, command);
        }
    }
    for (; events->name != NULL; events++) {
        struct json_value *entry = entry_add(&schema, events->name, "event");

        g_hash_table_add(schema.taken, g_strdup(events->name));
        json_dict_set_string(
            entry, "arg-type",
            name_part(&schema, events->data, events->name, "arg"));
    }
    while ((type = g_queue_pop_head(&schema.pending)) != NULL) {
        enter_type(&schema, type);
    }
    g_hash_table_unref(schema.names);
    g_hash_table_unref(schema.taken);
    return schema.entries;
}
