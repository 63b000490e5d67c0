/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dotted key=value form of options, as users of QEMU's tools type it:
 *
 *     driver=raw,node-name=d0,file.driver=file,file.filename=/a,,b.img
 *     driver=blkdebug,image=d0,inject-error.0.event=read_aio
 *
 * - Parts are separated by commas; in a value, two commas stand for one. One
 *   comma at the very end is allowed.
 * - A dot in a key goes into a nested object. Each piece of a key is a name (a
 *   letter, then letters, digits, '-' or '_') or, below the first, a number:
 *   then the object is a list, and its numbers must be 0, 1, 2... without gap.
 *   A vendor's "__com.example_name" counts as one piece.
 * - A key given twice: the last one counts, as in qemu-storage-daemon, whose
 *   users append to override. A key that is used both as a value and as an
 *   object, or as object and list, is refused.
 * - A part without '=' is a flag: "flag" means flag=on. (A "noflag" thus comes
 *   out as an unknown key, for schema_coerce() to refuse.) But the very first
 *   part, if it has no '=', is the value of the implied key, where there is one.
 *
 * The tree's scalars are all strings; schema_coerce() types them.
 * Pure function: any thread.
 */
#ifndef BASE_KEYVAL_H
#define BASE_KEYVAL_H

#include "base/json.h"

/* Longest accepted key, which also bounds the nesting. */
#define KEYVAL_KEY_BYTES_MAX 127

/* Parses `text`; `implied_key` may be NULL. Returns a new dict (empty for an
 * empty text), NULL with err set. Owned by the caller. */
struct json_value *keyval_parse(const char *text,
                                const char *implied_key,
                                GError **err);

#endif
