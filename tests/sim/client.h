/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client of the monitor: sends one random command after another through
 * the real dispatcher, and hands what was sent and answered to the model.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "world.h"

/* Until world->client_stops. Main loop. */
void co_run_client(void *opaque);

/* Opens the disk's node. Main loop; false: refused. */
bool co_add_node(struct disk *disk, GError **err);

/* client_actions.c: what an action takes; a new dict. `type` is set to its
 * name. */
struct json_value *random_backup(struct world *world);
struct json_value *random_bitmap_action(struct world *world, const char **type);

#endif
