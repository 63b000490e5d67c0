/* SPDX-License-Identifier: BSD-3-Clause */
/* What header.c and header_extensions.c share while a header is read. */
#ifndef DRIVERS_QCOW2_HEADER_PRIV_H
#define DRIVERS_QCOW2_HEADER_PRIV_H

#include "drivers/qcow2/header.h"

struct header_reader {
    const uint8_t *bytes; /* borrowed; the header cluster, or less */
    size_t length;
    const char *name; /* of the image; borrowed */
    struct qcow2_header *header;
    size_t extensions_offset; /* behind the header's fields */
    size_t extensions_end;    /* the backing name, or the end */
    GBytes *feature_names;    /* the table's data; owned; NULL: none */
    GError **err;
};

/* Sets the error "image 'NAME': ..."; returns `code`. */
int header_refuse(struct header_reader *reader,
                  int code,
                  const char *format,
                  ...) G_GNUC_PRINTF(3, 4);

/* Takes the extensions into reader->header. 0 or -EINVAL. */
int header_read_extensions(struct header_reader *reader);

#endif
