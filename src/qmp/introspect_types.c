/* SPDX-License-Identifier: BSD-3-Clause */
/* SchemaInfo: what query-qmp-schema returns, described by the same means. */
#include "qmp/introspect.h"

#define MEMBER(member_name, member_type)                         \
 {                                                               \
  .name = (member_name), .type = (member_type), .required = true \
 }
#define OPTIONAL(member_name, member_type)     \
 {                                             \
  .name = (member_name), .type = (member_type) \
 }
#define END    \
 {             \
  .name = NULL \
 }
#define STRUCT(variable, type_name)           \
 static const struct schema_type variable = { \
     .kind = SCHEMA_STRUCT,                   \
     .name = (type_name),                     \
     .members = variable##_members,           \
 }
#define LIST_OF(variable, of)                 \
 static const struct schema_type variable = { \
     .kind = SCHEMA_LIST,                     \
     .element = &(of),                        \
 }

static const char *const meta_values[] = {
    "builtin", "enum", "array", "object", "alternate", "command", "event", NULL,
};
static const struct schema_type meta_type = {
    .kind = SCHEMA_ENUM,
    .name = "SchemaMetaType",
    .values = meta_values,
};
static const char *const json_type_values[] = {
    "string", "number", "int",   "boolean", "null",
    "object", "array",  "value", NULL,
};
static const struct schema_type json_type_type = {
    .kind = SCHEMA_ENUM,
    .name = "JSONType",
    .values = json_type_values,
};

static const struct schema_member builtin_members[] = {
    MEMBER("json-type", &json_type_type),
    END,
};
STRUCT(builtin, "SchemaInfoBuiltin");

static const struct schema_member enum_member_members[] = {
    MEMBER("name", &schema_string),
    OPTIONAL("features", &schema_string_list),
    END,
};
STRUCT(enum_member, "SchemaInfoEnumMember");
LIST_OF(enum_member_list, enum_member);
static const struct schema_member enumeration_members[] = {
    MEMBER("members", &enum_member_list),
    MEMBER("values", &schema_string_list),
    END,
};
STRUCT(enumeration, "SchemaInfoEnum");

static const struct schema_member array_members[] = {
    MEMBER("element-type", &schema_string),
    END,
};
STRUCT(array, "SchemaInfoArray");

static const struct schema_member object_member_members[] = {
    MEMBER("name", &schema_string),
    MEMBER("type", &schema_string),
    OPTIONAL("default", &schema_any),
    OPTIONAL("features", &schema_string_list),
    END,
};
STRUCT(object_member, "SchemaInfoObjectMember");
LIST_OF(object_member_list, object_member);
static const struct schema_member variant_members[] = {
    MEMBER("case", &schema_string),
    MEMBER("type", &schema_string),
    END,
};
STRUCT(variant, "SchemaInfoObjectVariant");
LIST_OF(variant_list, variant);
static const struct schema_member object_members[] = {
    MEMBER("members", &object_member_list),
    OPTIONAL("tag", &schema_string),
    OPTIONAL("variants", &variant_list),
    END,
};
STRUCT(object, "SchemaInfoObject");

static const struct schema_member alternate_member_members[] = {
    MEMBER("type", &schema_string),
    END,
};
STRUCT(alternate_member, "SchemaInfoAlternateMember");
LIST_OF(alternate_member_list, alternate_member);
static const struct schema_member alternate_members[] = {
    MEMBER("members", &alternate_member_list),
    END,
};
STRUCT(alternate, "SchemaInfoAlternate");

static const struct schema_member command_members[] = {
    MEMBER("arg-type", &schema_string),
    MEMBER("ret-type", &schema_string),
    OPTIONAL("allow-oob", &schema_bool),
    END,
};
STRUCT(command, "SchemaInfoCommand");

static const struct schema_member event_members[] = {
    MEMBER("arg-type", &schema_string),
    END,
};
STRUCT(event, "SchemaInfoEvent");

static const struct schema_member info_members[] = {
    MEMBER("name", &schema_string),
    MEMBER("meta-type", &meta_type),
    OPTIONAL("features", &schema_string_list),
    END,
};
static const struct schema_branch info_branches[] = {
    { .value = "builtin", .type = &builtin },
    { .value = "enum", .type = &enumeration },
    { .value = "array", .type = &array },
    { .value = "object", .type = &object },
    { .value = "alternate", .type = &alternate },
    { .value = "command", .type = &command },
    { .value = "event", .type = &event },
    { .value = NULL },
};
static const struct schema_type info = {
    .kind = SCHEMA_UNION,
    .name = "SchemaInfo",
    .members = info_members,
    .tag = "meta-type",
    .branches = info_branches,
};

const struct schema_type qmp_schema_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &info,
};
