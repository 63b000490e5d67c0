/* SPDX-License-Identifier: BSD-3-Clause */
/* What ImageInfo tells of a qcow2 image (docs/reference/qmp.md). */
#ifndef DRIVERS_QCOW2_INFO_H
#define DRIVERS_QCOW2_INFO_H

#include "block/node.h"

/* As block_driver.co_info: adds to `image`. */
void co_qcow2_info(struct block_node *node, struct json_value *image);

#endif
