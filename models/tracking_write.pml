/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write path of a tracked disk as a model for Spin: writes, intents,
 * background checkpoints, and one bitmap that goes through backup jobs.
 *
 *     Writer        check ── intent: put, sync ── bits ── data
 *     Checkpointer  snapshot ── flip ── sync ── CLEARING ── intent cleared
 *     Job           freeze ── flush ── prepare: flip, sync ── COMMIT, sync
 *     Machine       kill | power cut; then rewrite, seal, decide
 *
 * Shown, at every step and after any crash: a cluster that is clean equals the
 * base, in the page cache and on the medium (superset); what was told of a
 * commit is what recovery finds. A job's fence, the intent that clears under a
 * checkpoint, and which first touches need no intent are what it is about.
 *
 * Two rules for a first touch are proved. As it stands: while a job is
 * undecided only a bit that is durable in its own S helps. With BY_STATES: each
 * state that a crash could leave is asked for itself; a prepare then sends
 * writes that have been checked, but have not set their bits, back to the
 * check.
 *
 * How it is simplified: one region of two clusters. A superblock with its pages
 * is one value that a crash leaves old or new (tracking_file.pml shows that it
 * is); the log is a bit for each txid, sealed in one step (log_seal.pml). Of
 * several unsynced writes to one place any may have reached the medium. A
 * failed sync leaves pages that look written and are not. A sync that was asked
 * for is one step, and who waits for it may run much later. Contents count
 * modulo three. Not here: verbs, resizes, two bitmaps (tracking_verbs.pml),
 * errors of COMMIT's sync (group_commit.pml), failing syncs of the image.
 *
 * Bounds: WRITERS at once, WRITES, JOBS, CHECKPOINTS, CRASHES, FAILURES of a
 * sync in all. A power cut after a kill, and a crash in recovery, are two
 * crashes.
 *
 * States explored: 0.9 million in the three sound searches, 21 million in the
 * full one (2 GB).
 *
 *     sound: WRITES=2 CHECKPOINTS=1 FAILURES=0
 *     sound: WRITES=2 CRASHES=1 JOBS=1
 *     sound: WRITES=2 CRASHES=1 CHECKPOINTS=1 FAILURES=0 BY_STATES=1
 *     full: WRITES=3
 *     mistakes: WRITES=2 CRASHES=1 JOBS=1 CHECKPOINTS=1 FAILURES=0
 *     BREAK_BELIEVE_AN_UNSEALED_LOG: CRASHES=2
 *     BREAK_BELIEVE_THE_PAGE_CACHE: CRASHES=2
 *     BREAK_CLEAR_AFTER_A_FAILED_FLIP: FAILURES=1
 *     BREAK_FAILED_SYNC_TRIED_AGAIN: FAILURES=1
 *     BREAK_FIRST_TOUCH_FORGETS_THE_FLIP_IN_FLIGHT: BY_STATES=1
 *     BREAK_PREPARE_OVER_A_CHECKED_WRITE: BY_STATES=1
 *     BREAK_SUCCESSOR_NOT_KNOWN_BY_TXID: JOBS=2 CHECKPOINTS=2
 *     BREAK_SYNC_ERROR_TOLD_TO_ONE_ONLY: FAILURES=1
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef WRITES
#define WRITES 3
#endif
#ifndef JOBS
#define JOBS 2
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 2
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef FAILURES
#define FAILURES 1
#endif

#define CLUSTERS 2
#define ALL 3

/* How far the pair (P, S) of a state has come. */
#define ALONE    0
#define FROZEN   1
#define PREPARED 2

/* A state of the tracking file: what one superblock and its pages say. */
#define STATE(p, s, pair, tx) ((p) | ((s) << 2) | ((pair) << 4) | ((tx) << 6))
#define P_OF(state)           ((state) & 3)
#define S_OF(state)           (((state) >> 2) & 3)
#define PAIR_OF(state)        (((state) >> 4) & 3)
#define TX_OF(state)          (((state) >> 6) & 3)

#define HAS(mask, cluster) (((mask) >> (cluster)) & 1)

/* What the intent is in memory. */
#define CLEAR    0
#define CLEARING 1
#define SET      2

/* --- What is written: in the page cache, and on the medium ---------------- */

byte now[CLUSTERS], disk[CLUSTERS]; /* the image */

byte file, file_disk; /* the tracking file's newest state */
bool file_dirty;      /* the kernel knows that it must be written */
bool intent, intent_disk, intent_dirty;

bool commit[4], commit_disk[4]; /* COMMIT(txid) in the log */

/* --- What the oracle knows ------------------------------------------------ */

byte base[CLUSTERS]; /* content that the bitmap is a difference to */
byte base_tx;        /* who set it */
byte cut[CLUSTERS];  /* content as the last job saw it */

/* --- Memory --------------------------------------------------------------- */

mtype = { down, rewritten, sealed, running };
mtype life = running;

byte P, S, pair, tx;
byte intent_memory;
bool touched; /* bits were set since the snapshot of the checkpoint */

byte known;  /* the last state that is surely durable */
byte flip;   /* the state in flight */
bool flying; /* a flip is under way: a checkpoint's or a prepare's */
bool doubt;  /* one failed since `known`: it may be durable or not */

mtype = { idle, check, syncing, ready, marked };
mtype writer[WRITERS];
byte target[WRITERS]; /* cluster */
bool sector;          /* someone writes the intent's sector */

mtype = { copying, flushed, preparing, prepared, committing, clearing };
mtype checkpoint; /* idle, syncing or clearing */
mtype job;

bool flip_spoiled, intent_spoiled; /* a sync failed while this was under way */

byte writes_left = WRITES, jobs_left = JOBS, checkpoints_left = CHECKPOINTS,
     crashes_left = CRASHES, failures_left = FAILURES;

hidden byte c, w, bits;

/* --- The kernel ----------------------------------------------------------- */

/* An earlier write to the same place may have reached the medium or not. */
inline put(cache, medium, dirty, value) {
    if
    :: dirty && cache != medium -> medium = cache
    :: true
    fi;
    cache = value;
    dirty = true
}

inline write_back(cache, medium, dirty) {
    if
    :: dirty -> medium = cache
    :: else
    fi;
    dirty = false
}

/* A failed sync: each page is written or not, and none is dirty after. */
inline lose_page(cache, medium, dirty) {
    if
    :: dirty && cache != medium -> medium = cache
    :: true
    fi;
    dirty = false
}

inline sync_tracking_file() {
    write_back(file, file_disk, file_dirty);
    write_back(intent, intent_disk, intent_dirty)
}

/*
 * The kernel tells an error to the first who asks, and to nobody after: one
 * failure is the failure of everything under way in the file.
 */
inline fail_sync_of_tracking_file() {
    failures_left--;
    lose_page(file, file_disk, file_dirty);
    lose_page(intent, intent_disk, intent_dirty);
#ifndef BREAK_SYNC_ERROR_TOLD_TO_ONE_ONLY
    flip_spoiled = flying;
    intent_spoiled = sector
#endif
}

/* Power: each write that was not synced is on the medium, or is not. */
inline lose(cache, medium) {
    if
    :: cache != medium -> medium = cache
    :: cache = medium
    fi
}

/* --- What must hold ------------------------------------------------------- */

/* Clean means: equal to the base, now and after any crash. */
inline check_superset() {
    for (c : 0 .. CLUSTERS - 1) {
        if
        :: !HAS(P | S, c) -> assert(now[c] == base[c] && disk[c] == base[c])
        :: else
        fi;
        if
        :: pair != ALONE && !HAS(S, c) -> assert(now[c] == cut[c])
        :: else
        fi
    };
    c = 0
}

/* --- Writes --------------------------------------------------------------- */

/* Will recovery find the cluster dirty in whatever comes of this state? */
#ifdef BREAK_SUCCESSOR_NOT_KNOWN_BY_TXID
#define SAME_SUCCESSOR(state) (PAIR_OF(state) != ALONE)
#else
#define SAME_SUCCESSOR(state) (PAIR_OF(state) != ALONE && TX_OF(state) == tx)
#endif

/* What is left of a pair whose outcome is known. */
#define DECIDED(state, cluster)                         \
 (PAIR_OF(state) != ALONE && commit_disk[TX_OF(state)]  \
  -> HAS(S_OF(state), cluster)                          \
  : HAS(P_OF(state) | S_OF(state), cluster))

#ifndef BY_STATES
/* While a job is undecided only a durable bit in its own S helps. */
#define COVERED(state, cluster)                                    \
 (pair != ALONE                                                    \
  -> (SAME_SUCCESSOR(state) && HAS(S_OF(state), cluster))          \
  : DECIDED(state, cluster))
#else
/* Each state for itself: S must do where a COMMIT could make it count. */
#define COVERED(state, cluster)                                    \
 (pair != ALONE && PAIR_OF(state) == PREPARED && TX_OF(state) == tx \
  -> HAS(S_OF(state), cluster)                                     \
  : DECIDED(state, cluster))
#endif

#ifdef BREAK_FIRST_TOUCH_FORGETS_THE_FLIP_IN_FLIGHT
#define NEEDS_NO_INTENT(cluster) COVERED(known, cluster)
#else
#define NEEDS_NO_INTENT(cluster)        \
 (!doubt && COVERED(known, cluster) &&  \
  (!flying || COVERED(flip, cluster)))
#endif

#ifdef BREAK_SECTOR_WRITES_NOT_SERIALISED
#define SECTOR_FREE true
#else
#define SECTOR_FREE (!sector)
#endif

inline begin_write(i, cluster) {
    writes_left--;
    target[i] = cluster;
    writer[i] = check
}

inline write_intent(i) {
    put(intent, intent_disk, intent_dirty, true);
    sector = true;
#ifdef BREAK_SKIP_THE_INTENT_SYNC
    sector = false;
    intent_memory = SET;
    writer[i] = ready
#else
    writer[i] = syncing
#endif
}

inline intent_synced(i) {
    sync_tracking_file();
    sector = false;
    if
    :: intent_spoiled -> writer[i] = check
    :: else -> intent_memory = SET; writer[i] = ready
    fi;
    intent_spoiled = false
}

inline intent_sync_failed(i) {
    fail_sync_of_tracking_file();
    sector = false;
    intent_spoiled = false;
#ifdef BREAK_FAILED_SYNC_TRIED_AGAIN
    writer[i] = syncing
#else
    writer[i] = check /* and the page is written anew */
#endif
}

inline mark(i) {
    if
    :: pair == ALONE -> P = P | (1 << target[i])
    :: else -> S = S | (1 << target[i])
    fi;
    touched = true;
    writer[i] = marked
}

inline put_data(i) {
    if
    :: now[target[i]] != disk[target[i]] -> disk[target[i]] = now[target[i]]
    :: true
    fi;
    now[target[i]] = (now[target[i]] + 1) % 3
}

inline finish_write(i) {
    target[i] = 0;
    writer[i] = idle
}

/* --- Checkpoints ---------------------------------------------------------- */

inline begin_flip() {
#ifdef BREAK_SNAPSHOT_OF_RECORDING_BITMAPS_ONLY
    flip = STATE((pair == ALONE -> P : 0), S, pair, tx);
#else
    flip = STATE(P, S, pair, tx);
#endif
    flying = true;
    put(file, file_disk, file_dirty, flip)
}

#define NO_WRITER_IS(at) (writer[0] != at && writer[WRITERS - 1] != at)

#ifdef BREAK_CLEAR_UNDER_A_WRITE
#define NO_WRITE_BEFORE_ITS_BITS true
#else
#define NO_WRITE_BEFORE_ITS_BITS NO_WRITER_IS(ready)
#endif
#ifdef BREAK_CLEAR_BITS_NEWER_THAN_THE_SNAPSHOT
#define SNAPSHOT_HOLDS_BITS true
#else
#define SNAPSHOT_HOLDS_BITS (!touched)
#endif
#ifdef BREAK_CLEAR_AFTER_A_FAILED_FLIP
#define LAST_FLIP_HELD true
#else
#define LAST_FLIP_HELD (!doubt)
#endif

inline begin_clearing() {
    if
    :: LAST_FLIP_HELD && intent_memory == SET && SNAPSHOT_HOLDS_BITS &&
       NO_WRITE_BEFORE_ITS_BITS && SECTOR_FREE ->
#ifndef BREAK_NOT_CLEARING_FIRST
        intent_memory = CLEARING;
        sector = true;
#endif
        checkpoint = clearing
    :: else -> checkpoint = idle
    fi
}

inline end_clearing() {
    put(intent, intent_disk, intent_dirty, false);
    intent_memory = CLEAR;
    sector = false;
    checkpoint = idle
}

inline flip_failed() {
    flying = false;
    flip = 0;
    flip_spoiled = false;
    doubt = true
}

inline flip_held() {
    known = flip;
    flying = false;
    flip = 0;
    doubt = false
}

/* --- The job -------------------------------------------------------------- */

#define UNUSED(id)                                                    \
 (TX_OF(file) != id && TX_OF(file_disk) != id && TX_OF(known) != id && \
  (!flying || TX_OF(flip) != id))

inline restart_checked_writes() {
    for (w : 0 .. WRITERS - 1) {
        if
        :: writer[w] == ready -> writer[w] = check
        :: else
        fi
    };
    w = 0
}

inline freeze() {
    jobs_left--;
    if
    :: UNUSED(1) -> tx = 1
    :: else ->
        if
        :: UNUSED(2) -> tx = 2
        :: else -> assert(UNUSED(3)); tx = 3
        fi
    fi;
    commit[tx] = false;
    commit_disk[tx] = false;
    base_tx = (base_tx == tx -> 0 : base_tx);
    for (c : 0 .. CLUSTERS - 1) {
        cut[c] = now[c]
    };
    c = 0;
    pair = FROZEN;
#ifndef BREAK_HELD_WRITE_GOES_ON
    restart_checked_writes();
#endif
    job = copying
}

inline flush_source() {
#ifndef BREAK_FORGET_THE_SOURCE_FLUSH
    for (c : 0 .. CLUSTERS - 1) {
        disk[c] = now[c]
    };
    c = 0;
#endif
    job = flushed
}

inline end_job() {
    S = 0;
    pair = ALONE;
    tx = 0;
    job = idle
}

inline abdicate() {
    P = S;
    base_tx = tx;
    for (c : 0 .. CLUSTERS - 1) {
        base[c] = cut[c];
        cut[c] = 0
    };
    c = 0;
    end_job()
}

inline reclaim() {
    P = P | S;
    for (c : 0 .. CLUSTERS - 1) {
        cut[c] = 0
    };
    c = 0;
    end_job()
}

/* --- Crash and recovery --------------------------------------------------- */

inline forget_memory() {
    P = 0; S = 0; pair = ALONE; tx = 0;
    intent_memory = CLEAR;
    touched = false;
    known = 0; flip = 0; flying = false; doubt = false;
    for (w : 0 .. WRITERS - 1) {
        writer[w] = idle;
        target[w] = 0
    };
    w = 0;
    sector = false;
    checkpoint = idle;
    job = idle;
    flip_spoiled = false;
    intent_spoiled = false;
    life = down
}

inline lose_power() {
    for (c : 0 .. CLUSTERS - 1) {
        lose(now[c], disk[c])
    };
    c = 0;
    lose(file, file_disk);
    lose(intent, intent_disk);
    for (c : 1 .. 3) {
        lose(commit[c], commit_disk[c])
    };
    c = 0;
    file_dirty = false;
    intent_dirty = false
}

inline make_durable_what_is_read() {
#ifndef BREAK_BELIEVE_THE_PAGE_CACHE
    file_disk = file;
    file_dirty = false;
    intent_disk = intent;
    intent_dirty = false;
#endif
    life = rewritten
}

inline seal() {
#ifndef BREAK_BELIEVE_AN_UNSEALED_LOG
    for (c : 1 .. 3) {
        commit_disk[c] = commit[c]
    };
    c = 0;
#endif
    life = sealed
}

#ifdef BREAK_ALWAYS_RECLAIM
#define COMMITTED false
#else
#ifdef BREAK_ALWAYS_ABDICATE
#define COMMITTED true
#else
#define COMMITTED commit[TX_OF(file)]
#endif
#endif

inline recover() {
    known = file;
    P = P_OF(file);
    intent_memory = (intent -> SET : CLEAR);
    bits = (intent -> ALL : 0);
    if
    :: PAIR_OF(file) == ALONE -> P = P | bits
    :: else ->
        tx = TX_OF(file);
        S = S_OF(file) | bits;
        if
        :: COMMITTED ->
            /* A mark of less than prepared under a COMMIT: nobody could
             * trust that the source was flushed. */
            assert(PAIR_OF(file) == PREPARED);
            if
            :: base_tx != tx -> abdicate() /* it is told now */
            :: else -> P = S; end_job()
            fi
        :: else ->
            assert(base_tx != tx); /* success was told */
            reclaim()
        fi
    fi;
    bits = 0;
    life = running;
    check_superset()
}

#define ALIVE (life == running)

/* Each process is one place with a choice of steps; after each step a crash
 * may come. What is under way stands in the variables above, so that a crash is
 * one assignment. */

proctype Writer(byte i)
{
end:
    do
    :: atomic {
           ALIVE && writer[i] == idle && writes_left ->
           if
           :: begin_write(i, 0)
           :: i == 0 -> begin_write(i, 1)
           fi
       }
    :: atomic {
           ALIVE && writer[i] == check &&
           (intent_memory == SET || NEEDS_NO_INTENT(target[i])) ->
           writer[i] = ready
       }
    :: atomic {
           ALIVE && writer[i] == check &&
           !(intent_memory == SET || NEEDS_NO_INTENT(target[i])) &&
           SECTOR_FREE -> write_intent(i)
       }
    :: atomic { ALIVE && writer[i] == syncing -> intent_synced(i) }
    :: atomic { ALIVE && writer[i] == syncing && failures_left ->
                intent_sync_failed(i) }
#ifdef BREAK_DATA_BEFORE_BITS
    :: atomic { ALIVE && writer[i] == ready -> put_data(i); writer[i] = marked }
    :: atomic { ALIVE && writer[i] == marked -> mark(i); finish_write(i) }
#else
    :: atomic { ALIVE && writer[i] == ready -> mark(i) }
    :: atomic { ALIVE && writer[i] == marked -> put_data(i); check_superset();
                finish_write(i) }
#endif
    od
}

proctype Checkpointer()
{
end:
    do
    :: atomic {
           ALIVE && checkpoint == idle && !flying && checkpoints_left ->
           checkpoints_left--;
           begin_flip();
           touched = false;
           checkpoint = syncing
       }
    :: atomic {
           ALIVE && checkpoint == syncing ->
           sync_tracking_file();
           if
           :: flip_spoiled -> flip_failed(); checkpoint = idle
           :: else -> flip_held(); begin_clearing()
           fi
       }
    :: atomic {
           ALIVE && checkpoint == syncing && failures_left ->
           fail_sync_of_tracking_file();
           flip_failed();
#ifdef BREAK_CLEAR_AFTER_A_FAILED_FLIP
           begin_clearing()
#else
           checkpoint = idle
#endif
       }
    :: atomic { ALIVE && checkpoint == clearing -> end_clearing() }
    od
}

proctype Job()
{
end:
    do
    :: atomic { ALIVE && job == idle && jobs_left && NO_WRITER_IS(marked) ->
                freeze() }
    :: atomic { ALIVE && job == copying -> flush_source() }
    :: atomic {
           ALIVE && job == flushed && !flying ->
           pair = PREPARED;
#if defined(BY_STATES) && !defined(BREAK_PREPARE_OVER_A_CHECKED_WRITE)
           restart_checked_writes();
#endif
           begin_flip();
           job = preparing
       }
    :: atomic {
           ALIVE && job == preparing ->
           sync_tracking_file();
           if
           :: flip_spoiled -> flip_failed(); reclaim()
           :: else -> flip_held(); job = prepared
           fi
       }
    :: atomic { ALIVE && job == preparing && failures_left ->
                fail_sync_of_tracking_file(); flip_failed(); reclaim() }
    :: atomic { ALIVE && job == prepared -> commit[tx] = true;
                job = committing }
    :: atomic { ALIVE && job == committing -> commit_disk[tx] = true;
                abdicate(); check_superset() }
    :: atomic { ALIVE && (job == copying || job == flushed || job == prepared)
                -> reclaim(); check_superset() }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { crashes_left -> crashes_left--; forget_memory() }
    :: atomic { crashes_left -> crashes_left--; forget_memory(); lose_power() }
    :: atomic { life == down -> make_durable_what_is_read() }
    :: atomic { life == rewritten -> seal() }
    :: atomic { life == sealed -> recover() }
    od
}

init
{
    atomic {
        checkpoint = idle;
        job = idle;
        for (w : 0 .. WRITERS - 1) {
            writer[w] = idle;
            run Writer(w)
        };
        w = 0;
        run Checkpointer();
        run Job();
        run Machine()
    }
}
