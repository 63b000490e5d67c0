/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must be dirty, told by comparing bytes.
 *
 * For each bitmap the oracle keeps the states that it may be in after a crash:
 * one when nothing is under way, two around a verb that was not answered yet. A
 * state says what the disk held at the instant that the bitmap is a difference
 * to. A recovered bitmap is right when, for one of the states, each sector that
 * is not what it was then is dirty.
 */
#ifndef SIM_JOURNAL_ORACLE_H
#define SIM_JOURNAL_ORACLE_H

#include "bitmap/dirty_bitmap.h"
#include "journal/bitmap_base.h"

struct oracle_state {
    bool absent;   /* there is no such bitmap */
    GBytes *since; /* what the disk held; shared */
    GBytes
        *also; /* ... and what it is a difference to as well; NULL: nothing */
    GBytes *until; /* disabled: what the disk held then; NULL: it records */
    GBytes *also_until; /* ... as to `also`; NULL: as `until` */
    GBytes *must; /* bytes of one flag per sector, from merges; NULL: none */
    struct bitmap_base base;
    void *by; /* whatever decides whether it came to be; the user's */
};

struct oracle_bitmap {
    char *name;
    GPtrArray *states; /* struct oracle_state, owned; not empty */
};

struct oracle {
    GPtrArray *bitmaps; /* struct oracle_bitmap, owned */
};

void oracle_init(struct oracle *oracle);
void oracle_release(struct oracle *oracle);

/* The bitmap of that name; made, absent, if there is none. */
struct oracle_bitmap *oracle_bitmap(struct oracle *oracle, const char *name);
/* What it was a difference to no longer counts; the caller says what does. */
void oracle_state_forget_past(struct oracle_state *state);
/* A copy of its only state, to be changed; owned by the caller until told. */
struct oracle_state *oracle_copy(const struct oracle_bitmap *bitmap);
struct oracle_state *oracle_state_copy(const struct oracle_state *state);
/* From the instant on it may be in this state, too (consumed). */
void oracle_may(struct oracle_bitmap *bitmap, struct oracle_state *state);
/* It is in the state told last, or, `stands` false, in the one before. */
void oracle_decide(struct oracle_bitmap *bitmap, bool stands);

/* Can the bitmap (NULL: there is none) be in that state, on a disk that holds
 * `content`? `*ret_missed` (may be NULL): all is right but that the sector there is
 * clean, UINT64_MAX: no. */
bool oracle_is_in(const struct oracle_state *state,
                  struct dirty_bitmap *found,
                  const struct bitmap_base *base,
                  GBytes *content,
                  uint64_t *ret_missed);
/* There is no such bitmap, whatever was before. */
void oracle_forget(struct oracle_bitmap *bitmap);

/* What recovery found: `content` is what the disk holds now. NULL, or a sentence (owned) that says what
 * does not hold. After a crash the state that the bitmap is found in becomes its
 * only one. `may_be_inconsistent`: faults were planted; such a bitmap counts as
 * absent from then on, and the caller removes it. */
char *oracle_check(struct oracle *oracle,
                   struct block_node *node,
                   GBytes *content,
                   bool may_be_inconsistent);

#endif
