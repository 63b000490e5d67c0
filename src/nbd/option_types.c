/* SPDX-License-Identifier: BSD-3-Clause */
/* The options of servers and exports. */
#include "loop/socket_address.h"
#include "nbd/export.h"

#define SERVER_LIMITS                                                       \
 { .name = "max-connections",                                               \
   .type = &schema_uint32,                                                  \
   .doc = "How many clients may be connected at once; others wait. 0: any " \
          "number.",                                                        \
   .fallback = "100" },                                                     \
 {                                                                          \
  .name = "handshake-max-seconds", .type = &schema_uint32,                  \
  .doc = "How long a client may take to negotiate. 0: for ever.",           \
  .fallback = "10"                                                          \
 }

static const struct schema_member server_start_members[] = {
    { .name = "addr",
      .type = &socket_address_legacy_type,
      .doc = "Where to listen.",
      .required = true },
    SERVER_LIMITS,
    { .name = NULL },
};
const struct schema_type nbd_server_start_type = {
    .kind = SCHEMA_STRUCT,
    .name = "NbdServerOptionsLegacy",
    .doc = "How the NBD server listens.",
    .members = server_start_members,
};

static const struct schema_member server_members[] = {
    { .name = "addr",
      .type = &socket_address_type,
      .doc = "Where to listen.",
      .required = true },
    SERVER_LIMITS,
    { .name = NULL },
};
const struct schema_type nbd_server_options_type = {
    .kind = SCHEMA_STRUCT,
    .name = "NbdServerOptions",
    .doc = "How the NBD server listens.",
    .members = server_members,
};

static const struct schema_member nbd_members[] = {
    { .name = "name",
      .type = &schema_string,
      .doc = "What clients ask for, at most 4096 bytes.",
      .fallback = "the node's name" },
    { .name = "description",
      .type = &schema_string,
      .doc = "A text for people, at most 4096 bytes." },
    { .name = NULL },
};
static const struct schema_type nbd_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockExportOptionsNbd",
    .doc = "An export over NBD.",
    .members = nbd_members,
};

static const char *const type_values[] = { "nbd", NULL };
static const struct schema_type type_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockExportType",
    .doc = "How an export is offered.",
    .values = type_values,
};

static const struct schema_member export_members[] = {
    { .name = "type",
      .type = &type_type,
      .doc = "How it is offered.",
      .required = true },
    { .name = "id",
      .type = &schema_string,
      .doc = "Names the export in other commands.",
      .required = true },
    { .name = "node-name",
      .type = &schema_string,
      .doc = "The node to offer.",
      .required = true },
    { .name = "writable",
      .type = &schema_bool,
      .doc = "Clients may write. Refused for a read-only node.",
      .fallback = "false" },
    { .name = "writethrough",
      .type = &schema_bool,
      .doc = "Every write is durable before it is answered.",
      .fallback = "false" },
    { .name = "iothread",
      .type = &schema_string,
      .doc = "The iothread that shall serve it: its node moves there, with all "
             "that hangs together with it. Where it cannot move, it stays; "
             "with fixed-iothread the export is refused.",
      .fallback = "the one the node is on" },
    { .name = "fixed-iothread",
      .type = &schema_bool,
      .doc = "The node stays on its thread while the export lives: what would "
             "have to move it is refused.",
      .fallback = "false" },
    { .name = NULL },
};
static const struct schema_branch export_branches[] = {
    { .value = "nbd", .type = &nbd_type },
    { .value = NULL },
};
const struct schema_type block_export_options_type = {
    .kind = SCHEMA_UNION,
    .name = "BlockExportOptions",
    .doc = "An export: a node offered to clients.",
    .members = export_members,
    .tag = "type",
    .branches = export_branches,
};
