/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A set of host clusters: those that hold metadata in use, where neither data
 * nor other metadata may be written, whatever a damaged or hostile image says.
 * Grows with the tables of the image, whose sizes are bounded. Home thread.
 */
#ifndef DRIVERS_QCOW2_CLUSTER_SET_H
#define DRIVERS_QCOW2_CLUSTER_SET_H

#include <stdbool.h>
#include <stdint.h>

struct cluster_set;

struct cluster_set *cluster_set_new(unsigned int cluster_bits);
void cluster_set_free(struct cluster_set *set);
/* All clusters that the bytes touch; adding twice is adding once. */
void cluster_set_add(struct cluster_set *set,
                     uint64_t host_offset,
                     uint64_t bytes);
void cluster_set_remove(struct cluster_set *set,
                        uint64_t host_offset,
                        uint64_t bytes);
/* Does any cluster of the range belong to the set? */
bool cluster_set_meets(const struct cluster_set *set,
                       uint64_t host_offset,
                       uint64_t bytes);

#endif
