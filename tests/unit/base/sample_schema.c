/* SPDX-License-Identifier: BSD-3-Clause */
#include "sample_schema.h"

static const char *const driver_values[] = { "raw", "null-co", "file",
                                             "blkdebug", NULL };
static const struct schema_type driver = {
    .kind = SCHEMA_ENUM,
    .name = "Driver",
    .values = driver_values,
};

static const char *const event_values[] = { "read_aio", "write_aio", NULL };
static const struct schema_type event = {
    .kind = SCHEMA_ENUM,
    .values = event_values,
};

static const struct schema_branch node_ref_branches[] = {
    { NULL, &schema_string },
    { NULL, &sample_options },
    { NULL, &schema_null },
    { NULL, NULL },
};
static const struct schema_type node_ref = {
    .kind = SCHEMA_ALTERNATE,
    .branches = node_ref_branches,
};

static const struct schema_member raw_members[] = {
    { .name = "file", .type = &node_ref, .required = true },
    { .name = "size", .type = &schema_size },
    { .name = "offset", .type = &schema_int },
    { .name = NULL },
};
static const struct schema_type raw = {
    .kind = SCHEMA_STRUCT,
    .members = raw_members,
};

static const struct schema_member null_members[] = {
    { .name = "size", .type = &schema_size },
    { .name = "latency", .type = &schema_uint32 },
    { .name = "any", .type = &schema_any },
    { .name = NULL },
};
static const struct schema_type null_co = {
    .kind = SCHEMA_STRUCT,
    .members = null_members,
};

static const struct schema_member file_members[] = {
    { .name = "filename", .type = &schema_string, .required = true },
    { .name = "aliases", .type = &schema_string_list },
    { .name = NULL },
};
static const struct schema_type file = {
    .kind = SCHEMA_STRUCT,
    .members = file_members,
};

static const struct schema_member inject_members[] = {
    { .name = "event", .type = &event, .required = true },
    { .name = "errno", .type = &schema_int },
    { .name = "once", .type = &schema_bool },
    { .name = NULL },
};
static const struct schema_type inject = {
    .kind = SCHEMA_STRUCT,
    .members = inject_members,
};
static const struct schema_type inject_list = {
    .kind = SCHEMA_LIST,
    .element = &inject,
};

static const struct schema_member blkdebug_members[] = {
    { .name = "image", .type = &node_ref, .required = true },
    { .name = "inject-error", .type = &inject_list },
    { .name = NULL },
};
static const struct schema_type blkdebug = {
    .kind = SCHEMA_STRUCT,
    .members = blkdebug_members,
};

static const struct schema_member common_members[] = {
    { .name = "driver", .type = &driver, .required = true },
    { .name = "node-name", .type = &schema_string },
    { .name = "read-only", .type = &schema_bool },
    { .name = NULL },
};
static const struct schema_branch driver_branches[] = {
    { "raw", &raw },           { "null-co", &null_co }, { "file", &file },
    { "blkdebug", &blkdebug }, { NULL, NULL },
};
const struct schema_type sample_options = {
    .kind = SCHEMA_UNION,
    .name = "Options",
    .members = common_members,
    .tag = "driver",
    .branches = driver_branches,
};

static const char *const address_values[] = { "inet", "unix", NULL };
static const struct schema_type address_type = {
    .kind = SCHEMA_ENUM,
    .values = address_values,
};
static const struct schema_member address_members[] = {
    { .name = "type", .type = &address_type, .fallback = "unix" },
    { .name = NULL },
};
static const struct schema_member unix_members[] = {
    { .name = "path", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type unix_address = {
    .kind = SCHEMA_STRUCT,
    .members = unix_members,
};
static const struct schema_branch address_branches[] = {
    { "unix", &unix_address },
    { NULL, NULL },
};
const struct schema_type sample_address = {
    .kind = SCHEMA_UNION,
    .members = address_members,
    .tag = "type",
    .branches = address_branches,
};
