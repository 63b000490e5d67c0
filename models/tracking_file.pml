/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tracking file itself as a model for Spin: two superblock slots, pages
 * that are copied, the sequence under which intents were cleared, and poison.
 *
 *     Tracker  pages ── sync ── superblock ── sync ── told
 *              poison the other slot ── sync, or unlink ── told
 *
 * Shown: recovery finds the newest state that anyone was told of, or a newer
 * one; never one that was told to be distrusted; and it never fails without a
 * cause. tracking_write.pml and the others build on this: to them a flip is one
 * value, old or new.
 *
 * How it is simplified: all pages of a state are one frame. What a crash or a
 * failed sync meets is written, not written, or torn. DECAYS: the newest
 * superblock turns bad without a crash's help. Tombstones are left out.
 *
 * States explored: 0.2 million, 1.9 million in the full search.
 *
 *     sound: DECAYS=1
 *     full: FLIPS=6 CRASHES=3 DECAYS=1
 *     mistakes: DECAYS=1
 */

#ifndef FLIPS
#define FLIPS 4
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef FAILURES
#define FAILURES 2
#endif
#ifndef DECAYS
#define DECAYS 1 /* a superblock that was durable is found bad */
#endif

/* Places for the pages of one state: for the durable one, one in the making,
 * and each that failed; at most 4. */
#define FRAMES (2 + FAILURES)

/* A superblock; GARBAGE is what fails its CRC. */
#define GARBAGE 0
#define SUPERBLOCK(seq, frame, poison) \
 (((seq) << 3) | ((frame) << 1) | (poison))
#define SEQUENCE(x) ((x) >> 3)
#define FRAME(x)    (((x) >> 1) & 3)
#define POISON(x)   ((x) & 1)

/* --- In the page cache, on the medium, and whether the kernel will write -- */

byte slot[2], slot_disk[2];
bool slot_dirty[2];
byte frame[FRAMES], frame_disk[FRAMES]; /* generation of the pages there */
bool frame_dirty[FRAMES];
byte cleared, cleared_disk; /* sequence under which intents were cleared */
bool exists = true, exists_disk = true;

/* --- What the oracle knows ------------------------------------------------ */

byte told;     /* the newest state that someone relies on */
bool distrust; /* told durable: these bitmaps must not be believed */
bool decayed;
bool poison_tried;

/* --- Memory --------------------------------------------------------------- */

mtype = { down, recovering, running, given_up };
mtype life = running;
mtype = { idle, pages, pages_synced, superblock, poison_other, poison_both,
          unlinking };
mtype step;
byte known;      /* the superblock that is surely durable */
byte next_slot;
byte last;       /* the highest sequence used */
byte flip;
bool in_use[FRAMES]; /* named by `known`, or by a flip in doubt */

byte flips_left = FLIPS, crashes_left = CRASHES, failures_left = FAILURES,
     decays_left = DECAYS;

hidden byte i, best;

/* --- The kernel ----------------------------------------------------------- */

inline put(cache, medium, dirty, value) {
    if
    :: dirty && cache != medium -> medium = cache
    :: true
    fi;
    cache = value;
    dirty = true
}

inline write_back(cache, medium, dirty) {
    medium = (dirty -> cache : medium);
    dirty = false
}

/* Written, not written, or torn. */
inline half(cache, medium, dirty) {
    if
    :: dirty && cache != medium -> medium = cache
    :: dirty && cache != medium -> medium = GARBAGE
    :: true
    fi;
    dirty = false
}

inline sync() {
    for (i : 0 .. 1) {
        write_back(slot[i], slot_disk[i], slot_dirty[i])
    };
    for (i : 0 .. FRAMES - 1) {
        write_back(frame[i], frame_disk[i], frame_dirty[i])
    };
    cleared_disk = cleared;
    i = 0
}

inline half_sync() {
    for (i : 0 .. 1) {
        half(slot[i], slot_disk[i], slot_dirty[i])
    };
    for (i : 0 .. FRAMES - 1) {
        half(frame[i], frame_disk[i], frame_dirty[i])
    };
    i = 0
}

inline fail_sync() {
    failures_left--;
    half_sync()
}

inline lose_power() {
    half_sync();
    for (i : 0 .. 1) {
        slot[i] = slot_disk[i]
    };
    for (i : 0 .. FRAMES - 1) {
        frame[i] = frame_disk[i]
    };
    if
    :: cleared_disk = cleared
    :: cleared = cleared_disk
    fi;
    if
    :: exists_disk = exists
    :: exists = exists_disk
    fi;
    i = 0
}

/* --- A flip --------------------------------------------------------------- */

#ifdef BREAK_REUSE_PAGES_OF_A_FLIP_IN_DOUBT
#define FRAME_TAKEN(f) (f == FRAME(known))
#else
#ifdef BREAK_REUSE_PAGES_OF_THE_LAST_STATE
#define FRAME_TAKEN(f) (f != FRAME(known))
#else
#define FRAME_TAKEN(f) in_use[f]
#endif
#endif

inline choose_frame() {
    best = 0;
    do
    :: best < FRAMES && FRAME_TAKEN(best) -> best++
    :: else -> break
    od;
    assert(best < FRAMES)
}

inline begin_flip() {
    flips_left--;
    choose_frame();
    last++;
    flip = SUPERBLOCK(last, best, 0);
    put(frame[best], frame_disk[best], frame_dirty[best], last);
    in_use[best] = true;
    best = 0;
    step = pages
}

inline put_superblock() {
    put(slot[next_slot], slot_disk[next_slot], slot_dirty[next_slot], flip);
    step = superblock
}

inline end_flip() {
    known = flip;
    told = last;
    for (i : 0 .. FRAMES - 1) {
        in_use[i] = (i == FRAME(known))
    };
    i = 0;
    flip = 0;
#ifndef BREAK_ONE_SLOT_ONLY
    next_slot = 1 - next_slot;
#endif
    step = idle
}

inline flip_failed() {
    flip = 0;
#ifdef BREAK_OTHER_SLOT_AFTER_A_FAILED_FLIP
    next_slot = 1 - next_slot;
#endif
    step = idle
}

/* --- Poison --------------------------------------------------------------- */

inline poison_one() {
    last++;
#ifdef BREAK_POISON_SPOILS_THE_NEWEST_SLOT
    put(slot[1 - next_slot], slot_disk[1 - next_slot],
        slot_dirty[1 - next_slot], GARBAGE);
#else
    put(slot[next_slot], slot_disk[next_slot], slot_dirty[next_slot],
        SUPERBLOCK(last, 0, 1));
#endif
    step = poison_other
}

#ifdef BREAK_POISON_BOTH_SLOTS_AT_ONCE
inline poison_two() {
    last++;
    put(slot[0], slot_disk[0], slot_dirty[0], SUPERBLOCK(last, 0, 1));
    put(slot[1], slot_disk[1], slot_dirty[1], SUPERBLOCK(last, 0, 1));
    step = poison_both
}
#endif

inline poisoned() {
    distrust = true;
    life = given_up;
    step = idle
}

/* --- Recovery ------------------------------------------------------------- */

inline forget_memory() {
    life = down;
    step = idle;
    known = 0; next_slot = 0; last = 0; flip = 0;
    for (i : 0 .. FRAMES - 1) {
        in_use[i] = false
    };
    i = 0
}

#define NEWEST (SEQUENCE(slot[1]) > SEQUENCE(slot[0]) -> 1 : 0)

inline rewrite_in_place() {
    i = NEWEST;
#ifndef BREAK_BELIEVE_THE_PAGE_CACHE
    slot_dirty[i] = true;
    if
    :: slot[i] != GARBAGE && !POISON(slot[i]) ->
        frame_dirty[FRAME(slot[i])] = true
    :: else
    fi;
#endif
    i = 0;
    life = recovering
}

#ifdef BREAK_FALL_BACK_BEHIND_CLEARED_INTENTS
#define BEHIND_INTENTS(x) false
#else
#define BEHIND_INTENTS(x) (SEQUENCE(x) < cleared)
#endif

inline recover() {
#ifndef BREAK_BELIEVE_THE_PAGE_CACHE
    sync();
#endif
    i = NEWEST;
    if
    :: !exists || slot[i] == GARBAGE || POISON(slot[i]) ||
       frame[FRAME(slot[i])] != SEQUENCE(slot[i]) || BEHIND_INTENTS(slot[i]) ->
        /* Inconsistent: never without a cause. */
        assert(decayed || poison_tried);
        life = given_up
    :: else ->
        assert(!distrust);
        assert(SEQUENCE(slot[i]) >= told ||
               (decayed && SEQUENCE(slot[i]) >= cleared_disk));
        known = slot[i];
        last = SEQUENCE(known);
        told = last;
        in_use[FRAME(known)] = true;
        next_slot = 1 - i;
        life = running
    fi;
    i = 0
}

/* --- Who does what -------------------------------------------------------- */

#define ALIVE (life == running)

proctype Tracker()
{
end:
    do
    :: atomic { ALIVE && step == idle && flips_left -> begin_flip() }
#ifdef BREAK_FLIP_BEFORE_ITS_PAGES_ARE_DURABLE
    :: atomic { ALIVE && step == pages -> put_superblock() }
#endif
    :: atomic { ALIVE && step == pages -> sync(); step = pages_synced }
    :: atomic { ALIVE && step == pages_synced -> put_superblock() }
    :: atomic { ALIVE && step == superblock -> sync(); end_flip() }
    :: atomic { ALIVE && (step == pages || step == superblock) &&
                failures_left -> fail_sync(); flip_failed() }
    /* The checkpoint is durable: intents that it holds are cleared. */
    :: atomic { ALIVE && step == idle && cleared != SEQUENCE(known) ->
                if
                :: cleared_disk = cleared
                :: true
                fi;
                cleared = SEQUENCE(known) }

    /* Tracking has failed: each way in turn, until one is durable. */
    :: atomic { ALIVE && step == idle -> poison_tried = true; poison_one() }
    :: atomic { step == poison_other ->
#ifndef BREAK_POISON_WITHOUT_SYNC
                sync();
#endif
                poisoned() }
#ifdef BREAK_POISON_BOTH_SLOTS_AT_ONCE
    :: atomic { step == poison_other && failures_left -> fail_sync();
                poison_two() }
    :: atomic { step == poison_both -> sync(); poisoned() }
#else
    /* The newest slot stays: spoilt or torn, it would let the older one win. */
    :: atomic { step == poison_other && failures_left -> fail_sync();
                exists = false; step = unlinking }
#endif
    :: atomic { step == unlinking -> exists_disk = false; poisoned() }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { crashes_left -> crashes_left--; forget_memory() }
    :: atomic { crashes_left -> crashes_left--; forget_memory(); lose_power() }
    :: atomic {
           life == down && decays_left && !POISON(slot[NEWEST]) ->
           decays_left--;
           decayed = true;
           i = NEWEST;
           slot[i] = GARBAGE; slot_disk[i] = GARBAGE; slot_dirty[i] = false;
           i = 0
       }
    :: atomic { life == down -> rewrite_in_place() }
    :: atomic { life == recovering -> recover() }
    od
}

init
{
    atomic {
        step = idle;
        known = SUPERBLOCK(1, 0, 0);
        slot[0] = known; slot_disk[0] = known;
        frame[0] = 1; frame_disk[0] = 1;
        in_use[0] = true;
        next_slot = 1; last = 1; told = 1;
        run Tracker();
        run Machine()
    }
}
