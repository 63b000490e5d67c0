/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names of images, as they stand in the headers of other images.
 *
 * A name is a path, relative to the directory of the image that names it or
 * absolute; or "file:" and a path, which is used as it is; or "json:" and an
 * object of BlockdevOptions, whose keys may be dotted ("file.filename"). Any
 * other word before a colon is a protocol, and refused. A path with a colon in
 * its first component is written with "file:" or "./" before it.
 *
 * Sources: QEMU's "QEMU Block Layer Core Definitions", "Disk Images"; what
 * they leave open follows qemu-img 7.2.
 */
#ifndef BLOCK_FILENAME_H
#define BLOCK_FILENAME_H

#include <glib.h>

#include "base/json.h"

/* The path that `name` stands for when the image `base_filename` (NULL: none)
 * names it: `name` itself, or joined to that image's directory. A new string;
 * NULL with err set when a relative name has nothing to be relative to. Any
 * thread. */
char *block_filename_resolve(const char *name,
                             const char *base_filename,
                             GError **err);

/* Turns a name into checked BlockdevOptions, without node-names. `format` is
 * the driver to open it with, NULL: qcow2 if the file begins as one, else raw.
 * (With json: the driver said there, if NULL; another one is put on top of it.)
 * Whether a path is a file or a device is looked up; so it has to exist. Returns a new dict, NULL with
 * err set. Coroutines of any loop. */
struct json_value *co_block_filename_to_options(const char *name,
                                                const char *format,
                                                const char *base_filename,
                                                GError **err);

#endif
