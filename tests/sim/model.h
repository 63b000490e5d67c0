/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model: what must hold, kept beside the engine and compared with it.
 *
 * It learns what happens from four sides: the commands sent and their replies,
 * the instant (model_instant(), when a transaction's fences have closed), the
 * content as it changes on the disks, and the jobs' events. What it demands:
 *
 *  1. A backup that succeeded holds what its source held at the instant, and
 *     that instant is one for the whole transaction.
 *  2. A block that changed while a bitmap recorded is dirty in it, at once; and
 *     nothing is dirty that nobody touched.
 *  3. The bitmaps of a group are all let go as after success, or all as after
 *     failure; a group's members all succeed or none does.
 *  4. Success is reported when target and source are flushed.
 *  5. Old content is saved before a guest overwrites it (else 1 fails), and no
 *     guest fails for a backup (guest.c).
 *
 * and the jobs' table of moves and verbs, the order of their events, that a
 * failed command has no effect, and that no group fails without a cause.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "world.h"

/* The fences of the command under way have closed: what it does takes effect
 * now. */
void model_instant(struct world *world);

/* The command is over: 0 or it was refused. */
void model_command_ended(struct world *world, bool ok);

/* After each turn, and whenever it matters: has a bitmap been let go? */
void model_after_turn(struct world *world);

/* All bitmaps of a disk, whole. */
void model_check_bitmaps(struct disk *disk);
/* The node has been deleted. */
void model_forget_bitmaps(struct disk *disk);

/* A guest's write is about to enter the engine. */
void model_write_begins(struct disk *disk, const struct guest *guest);
/* A block is about to get other content. */
void model_content_changes(struct disk *disk, unsigned int block);

/* An event of the job list. */
void model_event(struct world *world,
                 const char *event,
                 const struct json_value *data);

/* A cancel of one of the group's jobs was accepted. */
void model_cancelled(struct world *world, struct group_model *group);

/* A verb was accepted by a job in `state`, or refused. */
void model_verb_ended(struct world *world,
                      enum sim_verb verb,
                      const char *id,
                      enum job_state state,
                      bool ok);

/* model_bitmap.c */
/* The command under way uses it: it must exist, and be free. `group`: of the
 * command, which may use what it has just added itself. */
void model_check_free(const struct disk *disk,
                      const struct bitmap_model *bitmap,
                      const struct group_model *group);
void model_begin_successor(struct disk *disk, struct bitmap_model *bitmap);
struct bitmap_model *model_bitmap(struct disk *disk, const char *name);
/* model_change.c. `group`: whose end decides it; NULL: it is for good. */
void model_bitmap_action(struct world *world,
                         const char *type,
                         const struct json_value *data,
                         struct group_model *group);
/* Have the groups' changes been decided? */
void model_watch_changes(struct world *world);
/* Freezes it for a job: now, at the instant. */
void model_freeze(struct disk *disk, int bitmap, int job);
bool model_is_frozen_in_engine(struct disk *disk, struct bitmap_model *bitmap);
/* Adds what guests of the disk have under way. */
void model_add_writes_inside(const struct disk *disk,
                             struct block_set *set,
                             uint64_t granularity);
/* It has been let go, by a job that succeeded or failed. */
void model_thaw(struct disk *disk,
                struct bitmap_model *bitmap,
                const struct job_model *job,
                bool success);

/* model_job.c */
/* A group is about to be cancelled: what its jobs of sync none have saved by
 * now must be on their targets in the end. */
void model_cancel_begins(struct world *world, const struct group_model *group);
struct job_model *model_job(struct world *world, const char *id);
void model_begin_backup(struct world *world,
                        const struct json_value *data,
                        struct group_model *group);
/* The group has succeeded (1) or failed (-1), as a whole. `who`: to blame. */
void model_pass_verdict(struct group_model *group,
                        const char *who,
                        int verdict);
/* What the states of its jobs say: 1, -1, or 0 if they are still at work. */
int model_group_outcome(const struct world *world,
                        const struct group_model *group);
/* A group that nobody uses. */
struct group_model *model_new_group(struct world *world);

#endif
