/* SPDX-License-Identifier: BSD-3-Clause */
/* What queries about block nodes return (QAPI's BlockDeviceInfo and others). */
#ifndef QMP_BLOCK_INFO_TYPES_H
#define QMP_BLOCK_INFO_TYPES_H

#include "base/schema.h"

extern const struct schema_type qmp_block_device_info_list_type;
extern const struct schema_type qmp_block_info_list_type;

#endif
