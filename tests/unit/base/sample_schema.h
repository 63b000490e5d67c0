/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small schema with one of everything, in the shape of BlockdevOptions:
 *
 *     driver   enum, tag        raw | null-co | file | blkdebug
 *     node-name, read-only      common
 *     raw:      file (node name, options or null), size, offset (int)
 *     null-co:  size, latency (uint32), any (anything)
 *     file:     filename, aliases (list of strings)
 *     blkdebug: image (as file), inject-error: [{event, errno, once}]
 */
#ifndef TESTS_SAMPLE_SCHEMA_H
#define TESTS_SAMPLE_SCHEMA_H

#include "base/schema.h"

extern const struct schema_type sample_options;

/* {"type"?: inet | unix = unix, "path" with unix; inet has nothing more} */
extern const struct schema_type sample_address;

#endif
