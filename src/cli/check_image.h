/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks the image in a file, in this process and without a daemon. An image
 * that someone writes is refused, and while it is repaired nobody else may use
 * it. Main thread.
 */
#ifndef CLI_CHECK_IMAGE_H
#define CLI_CHECK_IMAGE_H

#include <glib.h>
#include <stdbool.h>

#include "drivers/qcow2/check_result.h"

struct checked {
    const char *path;
    bool is_qcow2; /* false: raw, and there is nothing to check */
    struct qcow2_check_result result;
};

/* -EBUSY: it is in use, and the sentence says by whom; -ENOENT; all others: the
 * check is not complete. `report` is told of each finding. */
int check_image(const char *path,
                enum qcow2_repair repair,
                qcow2_check_report *report,
                void *opaque,
                struct checked *ret_checked,
                GError **err);

#endif
