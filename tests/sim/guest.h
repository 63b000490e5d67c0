/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guests: coroutines on a disk's home that read and write as an export's
 * connections do, and remember what they wrote.
 *
 * They check that a read gives what was written, that an acknowledged write is
 * on the disk, and that no request fails unless its own disk failed it.
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include "world.h"

/* Attaches to the disk's node and starts the guests. Main loop, coroutine. */
void co_guests_start(struct disk *disk);
/* Ends them and lets go of the node. */
void co_guests_stop(struct disk *disk);

/* The guest of this disk whose coroutine runs; NULL: it is somebody else. */
struct guest *guest_running_on(struct disk *disk);

/* Is this request of its disk the saving of old content, done for a backup
 * within the guest's write? */
bool guest_is_saving(const struct guest *guest, bool is_read, uint64_t bytes);

#endif
