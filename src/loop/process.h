/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Other processes: is one that holds what we want about to let go of it?
 *
 * A killed process may be seen for a moment after the kill, and what it had
 * open may stay open for a moment after it is gone, since the kernel takes down
 * an io_uring with requests under way in the background. So whoever finds a
 * socket or a lock taken asks who holds it; of one that is ending it tries
 * PROCESS_ENDING_TRIES times to take over, PROCESS_ENDING_PAUSE_US apart,
 * before it believes that it is taken.
 *
 * Any thread. Source of the formats: proc(5).
 */
#ifndef LOOP_PROCESS_H
#define LOOP_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* Two seconds: taking down an io_uring was seen to last some milliseconds. */
#define PROCESS_ENDING_PAUSE_US 10000
#define PROCESS_ENDING_TRIES    200

/* Is it gone, a zombie, exiting, or killed? False also when that cannot be
 * found out. */
bool process_is_ending(pid_t pid);

#endif
