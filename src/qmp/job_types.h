/* SPDX-License-Identifier: BSD-3-Clause */
/* QAPI types that commands and events about jobs share. */
#ifndef QMP_JOB_TYPES_H
#define QMP_JOB_TYPES_H

#include "base/schema.h"

extern const struct schema_type qmp_job_type_type;   /* JobType */
extern const struct schema_type qmp_job_status_type; /* JobStatus */
extern const struct schema_type qmp_job_info_list_type;
extern const struct schema_type qmp_block_job_info_list_type;

#endif
