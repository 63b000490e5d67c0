/* SPDX-License-Identifier: BSD-3-Clause */
/* Argument types of blockdev-create (docs/reference/qmp.md). */
#ifndef QMP_CREATE_TYPES_H
#define QMP_CREATE_TYPES_H

#include "base/schema.h"

extern const struct schema_type blockdev_create_type;

/* The words of enumerations, NULL-terminated, in the order of enum values. */
extern const char *const create_compression_names[];

#endif
