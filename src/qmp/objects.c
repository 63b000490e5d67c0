/* SPDX-License-Identifier: BSD-3-Clause */
/* The types of objects that object-add and --object make. */
#include "qmp/engine.h"

static const char *const object_kinds[] = { "iothread", NULL };
static const struct schema_type object_kind_type = {
    .kind = SCHEMA_ENUM,
    .name = "ObjectType",
    .values = object_kinds,
};
static const struct schema_member object_members[] = {
    { .name = "qom-type",
      .type = &object_kind_type,
      .doc = "What to make: a thread that serves block nodes.",
      .required = true },
    { .name = "id",
      .type = &schema_string,
      .doc = "A letter, then letters, digits, '-', '.' and '_'.",
      .required = true },
    { .name = NULL },
};
static const struct schema_branch object_branches[] = {
    { .value = "iothread" },
    { .value = NULL },
};

const struct schema_type qmp_object_options_type = {
    .kind = SCHEMA_UNION,
    .name = "ObjectOptions",
    .doc = "An object of the daemon.",
    .members = object_members,
    .tag = "qom-type",
    .branches = object_branches,
};
