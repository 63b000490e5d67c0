/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An image that is only read: nothing is freed, so I/O under way need not be
 * known, and a corrupt one can only be spoken of.
 */
#include <errno.h>

#include "base/error.h"
#include "drivers/qcow2/image.h"

void qcow2_io_begin(struct qcow2_image *image, struct qcow2_io *io)
{
    (void)image;
    io->epoch = 0;
}

void qcow2_io_end(struct qcow2_image *image, struct qcow2_io *io)
{
    (void)image;
    (void)io;
}

int co_qcow2_mark_corrupt(struct qcow2_image *image, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *sentence = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    if (!image->corrupt) {
        image->corrupt = true;
        g_warning("Node '%s': the image is corrupt: %s",
                  block_name(image->node), sentence);
    }
    return -EIO;
}

int co_qcow2_start_writing(struct qcow2_image *image, GError **err)
{
    return error_set(err, -ENOTSUP,
                     "node '%s': a qcow2 image can only be opened with "
                     "read-only=true",
                     block_name(image->node));
}

int co_qcow2_stop_writing(struct qcow2_image *image)
{
    (void)image;
    return 0;
}
