/* SPDX-License-Identifier: BSD-3-Clause */
/* The options of a qcow2 node (BlockdevOptionsQcow2), as values. */
#ifndef DRIVERS_QCOW2_OPTIONS_H
#define DRIVERS_QCOW2_OPTIONS_H

#include "base/json.h"
#include "drivers/qcow2/header.h"

struct qcow2_options {
    uint64_t l2_cache_bytes;
    uint32_t l2_slice_bytes; /* a power of two, at most a cluster */
    uint64_t refcount_cache_bytes;
    bool pass_discard_request;
    bool pass_discard_other;
    bool discard_no_unref;
    const char *snapshot; /* borrowed from the dict; NULL: the active state */
};

/* `options`: checked against the schema. Refuses (-EINVAL, -ENOTSUP) what
 * contradicts itself or the image. `name`: of the node, for sentences. */
int qcow2_options_read(const struct json_value *options,
                       const struct qcow2_header *header,
                       const char *name,
                       struct qcow2_options *ret_options,
                       GError **err);

#endif
