/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One refcount in a refcount block, of any width. Source: docs/interop/qcow2.txt,
 * "Host cluster management". No I/O; any thread.
 */
#ifndef DRIVERS_QCOW2_REFCOUNT_ENTRY_H
#define DRIVERS_QCOW2_REFCOUNT_ENTRY_H

#include <stdint.h>

/* It has 1 << `order` bits; `block` may be a slice of one. */
uint64_t qcow2_refcount_load(const uint8_t *block,
                             unsigned int order,
                             uint64_t index);
void qcow2_refcount_store(uint8_t *block,
                          unsigned int order,
                          uint64_t index,
                          uint64_t count);

#endif
