/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names that come from a daemon, a manifest or a command line and end up in
 * paths and QMP commands. What these functions accept can hold no slash, no
 * leading dot and no option dash, so it is safe as one path component.
 *
 * A point's id is its time and its number: 20260131T235959Z-0007.
 *
 * Pure functions.
 */
#ifndef REPO_NAMES_H
#define REPO_NAMES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define POINT_ID_BYTES_MAX 40
/* The largest disk a repository takes: its list of hashes is held in memory
 * (2 GiB for this size), and the qcow2 tables of its increments stay within
 * what other readers accept. */
#define REPO_DISK_BYTES_MAX (64 * TIB)
/* A directory that is not a point yet: this and the point's id. */
#define PARTIAL_PREFIX ".partial-"

/* A node name: a letter, then letters, digits, '-', '.', '_'; at most
 * LIMIT_NODE_NAME_BYTES. Names that a daemon made up ('#block012') are none. */
bool disk_name_is_legal(const char *name);

bool point_id_is_legal(const char *id);
/* New string, owned by the caller. `when` in UTC. */
char *point_id_new(GDateTime *when, uint64_t sequence);

/* "0011...": exactly `digits` lower-case hexadecimal digits? */
bool hex_is_legal(const char *text, size_t digits);
/* `digits` random hexadecimal digits; a new string. */
char *hex_random(size_t digits, GError **err);

#endif
