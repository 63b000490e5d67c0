/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks an image, and repairs it: does every cluster have the refcount that
 * its uses give it, are all tables where they may be, is the "copied" flag of
 * each entry right? The same findings as `qemu-img check`; where they differ
 * docs/internals/differences-from-qemu.md says so.
 *
 *     leak        counted more than used: space lost, nothing else
 *     corruption  used more than counted, or used as two things, or out of
 *                 range: writing would destroy data
 *
 * Works from the bytes of the file that holds the image, and knows nothing of
 * an open image's caches: nobody may have the image open for writing, and who
 * has it open must open it anew after a repair. So the image's own node is not
 * needed, nor are its backing and data files. Memory is bounded whatever the
 * image says. Coroutines of the file node's home thread.
 */
#ifndef DRIVERS_QCOW2_CHECK_H
#define DRIVERS_QCOW2_CHECK_H

#include "block/node.h"
#include "drivers/qcow2/check_result.h"

/* Checks the image in `file`, a node of any driver; `name`: of the image, for
 * the sentences. Repairs in an order that leaves a crash at most with what was
 * wrong before, and with leaks; clears the dirty and corrupt bits when nothing
 * but leaks is left. 0: the check is complete, whatever it found. A negative
 * errno with a sentence: it is not (no valid header, -EINVAL or -ENOTSUP; too
 * much to check, -EFBIG; a write that failed). */
int co_qcow2_check(struct block_node *file,
                   const char *name,
                   enum qcow2_repair repair,
                   qcow2_check_report *report, /* may be NULL */
                   void *opaque,
                   struct qcow2_check_result *ret_result,
                   GError **err);

/* For opening an image whose dirty bit is set: repairs all. -EIO with a
 * sentence when corruptions are left, and the bit then stays set. */
int co_qcow2_repair_dirty(struct block_node *file,
                          const char *name,
                          GError **err);

#endif
