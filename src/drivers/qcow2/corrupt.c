/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images that contradict themselves. One that is only read is spoken of, and
 * read on as far as it goes; one that is written to gets its bit set, and is not
 * written to any more.
 */
#include <errno.h>

#include "drivers/qcow2/image.h"

int co_qcow2_mark_corrupt(struct qcow2_image *image, const char *format, ...)
{
    g_autofree char *sentence = NULL;
    va_list arguments;

    if (image->corrupt) {
        return -EIO;
    }
    image->corrupt = true;
    va_start(arguments, format);
    sentence = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_warning("Node '%s': the image is corrupt: %s%s", block_name(image->node),
              sentence,
              image->writable ? "; it is not written to any more" : "");
    if (image->writable && image->header->version >= 3) {
        image->header->incompatible |= QCOW2_INCOMPATIBLE_CORRUPT;
        /* If that fails, the next one to open it comes upon it as we did. */
        (void)co_qcow2_write_header(image, NULL);
    }
    return -EIO;
}
