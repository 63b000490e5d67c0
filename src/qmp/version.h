/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The QEMU version that the greeting and query-version claim.
 *
 * Clients choose by these numbers which commands and members they may use. We
 * serve the block, job, export and transaction surface as QEMU 7.2 has it (the
 * storage daemon of Debian 12, the one we test against), so that is what we
 * say. `package` tells who really answers.
 */
#ifndef QMP_VERSION_H
#define QMP_VERSION_H

#define QMP_QEMU_MAJOR 7
#define QMP_QEMU_MINOR 2
#define QMP_QEMU_MICRO 0

#define QMP_PACKAGE "cohort " COHORT_VERSION

struct json_value;

/* VersionInfo: {qemu: {micro, minor, major}, package}; a new value. */
struct json_value *qmp_version_info(void);

#endif
