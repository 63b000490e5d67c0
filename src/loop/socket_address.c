/* SPDX-License-Identifier: BSD-3-Clause */
/* The types, as QAPI's sockets module names them, in both spellings: flat, the
 * members beside `type`; legacy, the same members in `data`. */
#include "loop/socket_address.h"

static const struct schema_type type_type = {
    .kind = SCHEMA_ENUM,
    .name = "SocketAddressType",
    .doc = "Which kind of socket an address names.",
    .values = (const char *const[]){ "inet", "unix", "fd", NULL },
};

static const struct schema_type inet_type = {
    .kind = SCHEMA_STRUCT,
    .name = "InetSocketAddress",
    .doc = "A TCP address.",
    .members =
        (const struct schema_member[]){
            { .name = "host",
              .type = &schema_string,
              .doc = "Name or number of the interface; empty: all.",
              .required = true },
            { .name = "port",
              .type = &schema_string,
              .doc = "Port number or service name; 0: any that is free.",
              .required = true },
            { .name = "numeric",
              .type = &schema_bool,
              .doc = "Take host and port as numbers, look up no names.",
              .fallback = "false" },
            { .name = "to",
              .type = &schema_uint32,
              .doc = "Highest port to try when lower ones are taken." },
            { .name = "ipv4",
              .type = &schema_bool,
              .doc = "Whether to use IPv4; by default what the host has." },
            { .name = "ipv6",
              .type = &schema_bool,
              .doc = "Whether to use IPv6; by default what the host has." },
            { .name = "keep-alive",
              .type = &schema_bool,
              .doc = "Have the kernel probe idle connections.",
              .fallback = "false" },
            { .name = NULL } },
};

static const struct schema_type unix_type = {
    .kind = SCHEMA_STRUCT,
    .name = "UnixSocketAddress",
    .doc = "A UNIX socket.",
    .members =
        (const struct schema_member[]){
            { .name = "path",
              .type = &schema_string,
              .doc = "Where it is in the file system, or its abstract name.",
              .required = true },
            { .name = "abstract",
              .type = &schema_bool,
              .doc = "Whether `path` is a name outside the file system.",
              .fallback = "false" },
            { .name = "tight",
              .type = &schema_bool,
              .doc = "Whether an abstract name ends where `path` ends, or is "
                     "filled up with zeroes.",
              .fallback = "true" },
            { .name = NULL } },
};

static const struct schema_type fd_type = {
    .kind = SCHEMA_STRUCT,
    .name = "FdSocketAddress",
    .doc = "A socket that was passed to this process.",
    .members =
        (const struct schema_member[]){
            { .name = "str",
              .type = &schema_string,
              .doc = "The number of its descriptor.",
              .required = true },
            { .name = NULL } },
};

const struct schema_type socket_address_type = {
    .kind = SCHEMA_UNION,
    .name = "SocketAddress",
    .doc = "Where to listen, or what to connect to.",
    .members = (const struct schema_member[]){ { .name = "type",
                                                 .type = &type_type,
                                                 .doc = "The kind of address.",
                                                 .required = true },
                                               { .name = NULL } },
    .tag = "type",
    .branches = (const struct schema_branch[]){ { "inet", &inet_type },
                                                { "unix", &unix_type },
                                                { "fd", &fd_type },
                                                { NULL, NULL } },
};

#define WRAPPER(wrapper_name, data_type)                              \
 (const struct schema_type)                                           \
 {                                                                    \
  .kind = SCHEMA_STRUCT, .name = (wrapper_name),                      \
  .doc = "The members of one kind of address.",                       \
  .members = (const struct schema_member[]){ { .name = "data",        \
                                               .type = &(data_type),  \
                                               .doc = "The address.", \
                                               .required = true },    \
                                             { .name = NULL } },      \
 }

static const struct schema_type inet_wrapper =
    WRAPPER("InetSocketAddressWrapper", inet_type);
static const struct schema_type unix_wrapper =
    WRAPPER("UnixSocketAddressWrapper", unix_type);
static const struct schema_type fd_wrapper =
    WRAPPER("FdSocketAddressWrapper", fd_type);

const struct schema_type socket_address_legacy_type = {
    .kind = SCHEMA_UNION,
    .name = "SocketAddressLegacy",
    .doc = "As SocketAddress, with the members in `data`.",
    .members = (const struct schema_member[]){ { .name = "type",
                                                 .type = &type_type,
                                                 .doc = "The kind of address.",
                                                 .required = true },
                                               { .name = NULL } },
    .tag = "type",
    .branches = (const struct schema_branch[]){ { "inet", &inet_wrapper },
                                                { "unix", &unix_wrapper },
                                                { "fd", &fd_wrapper },
                                                { NULL, NULL } },
};
