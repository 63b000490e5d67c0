/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The verbs of a tracked disk with two bitmaps as a model for Spin: add,
 * remove, enable, disable, clear, merge, and a job on either bitmap, while a
 * guest writes and checkpoints run.
 *
 *     Verb   fence: in memory ── source flushed ── flip ── sync ── reply
 *                                                     └ failed: flip back
 *
 * Shown: a clean cluster equals what it was when the bitmap began to record
 * (its *era*: add, clear, enable, or the cut of a job that committed); a bit
 * that was promised stays, also in a disabled bitmap and in the target of a
 * merge, until it is cleared; a verb that has been answered has happened, one
 * that was refused has not.
 *
 * How it is simplified: one cluster, one writer; one verb at a time, and no
 * checkpoint between its step in memory and its flip; commits as in
 * tracking_write.pml, whose txids are left out: a bitmap's next job waits until
 * nothing is left of its last one. Only flips of disable and remove fail.
 *
 * States explored: 1.2 million in the two sound searches, 10.9 million in the
 * full one (1 GB).
 *
 *     sound: CRASHES=1 VERBS=2 WRITES=1
 *     sound: CRASHES=1 VERBS=1 FAILURES=1
 *     full: CRASHES=2 FAILURES=1
 *     mistakes: CRASHES=1 VERBS=1
 *     BREAK_CHECKPOINT_BETWEEN_VERB_AND_FLUSH: CHECKPOINTS=2
 *     BREAK_DISABLE_STOPS_BEFORE_IT_IS_DURABLE: FAILURES=1
 *     BREAK_REMOVE_STOPS_BEFORE_IT_IS_DURABLE: FAILURES=1
 *     BREAK_TELL_A_FAILURE_THAT_IS_IN_DOUBT: FAILURES=1
 */

#ifndef WRITES
#define WRITES 2
#endif
#ifndef VERBS
#define VERBS 2
#endif
#ifndef JOBS
#define JOBS 1
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef FAILURES
#define FAILURES 0 /* flips of a disable or a remove that fail */
#endif

#define BITMAPS 2

#define ALONE    0
#define FROZEN   1
#define PREPARED 2

/*
 * A bitmap in a state of the file. `era` changes with all that makes its bits
 * speak of another time: add, clear, enable, and the commit of a job; S is of
 * the other era than P.
 */
#define BITMAP(there, on, bit, s, pair, era) \
 ((there) | ((on) << 1) | ((bit) << 2) | ((s) << 3) | ((pair) << 4) | \
  ((era) << 6))
#define EXISTING   1
#define RECORDING  2
#define DIRTY      4
#define S_DIRTY    8
#define PAIRED     48
#define SECOND_ERA 64
#define THERE(x) ((x) & 1)
#define ON(x)    (((x) >> 1) & 1)
#define BIT(x)   (((x) >> 2) & 1)
#define S_OF(x)  (((x) >> 3) & 1)
#define PAIR(x)  (((x) >> 4) & 3)
#define ERA(x)   (((x) >> 6) & 1)

/* --- What is written: in the page cache, and on the medium ---------------- */

byte now, disk; /* the one cluster of the image */
byte file[BITMAPS], file_disk[BITMAPS]; /* lost or kept together */
bool file_in_cache; /* the newest superblock is not synced */
bool intent, intent_disk;
bool commit[BITMAPS], commit_disk[BITMAPS];

/* --- What the oracle knows: by bitmap and era ----------------------------- */

byte since[BITMAPS * 2]; /* content that the bits speak of */
bool must[BITMAPS * 2];  /* the bit was promised */
#define AT(b, era) ((b) * 2 + (era))

/* --- Memory --------------------------------------------------------------- */

mtype = { down, durable, running };
mtype life = running;

byte bitmap[BITMAPS];
mtype = { nothing, add, remove, enable, disable, clear, merge, undo };
mtype verb; /* under way, after its step in memory */
byte object;    /* on this bitmap */
bool merged;
mtype = { idle, applied, flipping, checkpointing, check, syncing, ready, marked,
          clearing, flushed, preparing, prepared, committing, copying };
mtype step;
mtype writer;
mtype job[BITMAPS];
mtype checkpoint;

#define CLEAR    0
#define CLEARING 1
#define SET      2
byte intent_memory;
bool touched;
byte known[BITMAPS], flip[BITMAPS];
bool flying;
bool doubt; /* a flip failed since `known` */

byte writes_left = WRITES, verbs_left = VERBS, jobs_left = JOBS,
     checkpoints_left = CHECKPOINTS, crashes_left = CRASHES,
     failures_left = FAILURES;

hidden byte b;

/* --- Files ---------------------------------------------------------------- */

inline put_file() {
    if
    :: file_in_cache -> sync_file()
    :: true
    fi;
    for (b : 0 .. BITMAPS - 1) {
        file[b] = flip[b]
    };
    b = 0;
    file_in_cache = true
}

inline sync_file() {
    for (b : 0 .. BITMAPS - 1) {
        file_disk[b] = file[b]
    };
    b = 0;
    file_in_cache = false
}

inline lose_file() {
    for (b : 0 .. BITMAPS - 1) {
        file[b] = file_disk[b]
    };
    b = 0;
    file_in_cache = false
}

inline sync_tracking_file() {
    if
    :: file_in_cache -> sync_file()
    :: else
    fi;
    intent_disk = intent
}

inline put(cache, medium, value) {
    if
    :: cache != medium -> medium = cache
    :: true
    fi;
    cache = value
}

inline lose(cache, medium) {
    if
    :: cache != medium -> medium = cache
    :: cache = medium
    fi
}

/* --- What is recorded ----------------------------------------------------- */

#define RECORDS(x) (THERE(x) && ON(x))

#ifdef BREAK_FIRST_TOUCH_FORGETS_THE_VERB
#define SAME_ERA(state, b) true
#else
#define SAME_ERA(state, b)                                        \
 ((ERA(state) ^ (PAIR(state) != ALONE && commit_disk[b])) ==      \
  ERA(bitmap[b]))
#endif

/* In this state, would recovery find the cluster dirty in the bitmap? */
#define FOUND(state, b)                                                   \
 (PAIR(state) == ALONE -> BIT(state)                                      \
  : (commit_disk[b] -> S_OF(state) : BIT(state) || S_OF(state)))
/* And also if the job that is under way commits? */
#define COVERED_IN(state, b)                                              \
 (RECORDS(bitmap[b])                                                      \
  -> (RECORDS(state) &&                                                   \
      (PAIR(bitmap[b]) != ALONE -> PAIR(state) != ALONE && S_OF(state)    \
                                : FOUND(state, b) && SAME_ERA(state, b))) \
  : (!RECORDS(state) || FOUND(state, b)))
#define COVERED(b) \
 (COVERED_IN(known[b], b) && (!flying || COVERED_IN(flip[b], b)))
#define NEEDS_NO_INTENT (!doubt && COVERED(0) && COVERED(1))

inline mark_bitmap(i) {
    if
    :: RECORDS(bitmap[i]) && PAIR(bitmap[i]) == ALONE ->
        bitmap[i] = bitmap[i] | DIRTY
    :: RECORDS(bitmap[i]) && PAIR(bitmap[i]) != ALONE ->
        bitmap[i] = bitmap[i] | S_DIRTY
    :: else
    fi
}

/* A bitmap about to be disabled or removed promises nothing new. */
#define LEAVING(i) \
 (object == i && (verb == disable || verb == remove || verb == undo))

inline promise(i) {
    if
    :: RECORDS(bitmap[i]) && !LEAVING(i) ->
        must[AT(i, ERA(bitmap[i]))] = true;
        if
        :: PAIR(bitmap[i]) != ALONE -> must[AT(i, 1 - ERA(bitmap[i]))] = true
        :: else
        fi
    :: else
    fi
}

inline put_data() {
    if
    :: now != disk -> disk = now
    :: true
    fi;
    now = (now + 1) % 3;
    promise(0);
    promise(1)
}

/* --- Verbs ---------------------------------------------------------------- */

#ifdef BREAK_VERB_WITHOUT_FENCE
#define DRAINED true
#else
#define DRAINED (writer != marked)
#endif

inline restart_checked_writes() {
#ifdef BREAK_VERB_WITHOUT_FENCE
    skip
#else
    writer = (writer == ready -> check : writer)
#endif
}

#define WITHOUT_BITS(x) ((x) & ~(DIRTY | S_DIRTY))
#define OTHER_ERA(x)    ((x) ^ SECOND_ERA)

/* The era begins now. */
inline begin_era(i, promised) {
    since[AT(i, ERA(bitmap[i]))] = now;
    must[AT(i, ERA(bitmap[i]))] = promised
}

inline apply(what, i) {
    verbs_left--;
    verb = what;
    object = i;
    if
    :: what == add ->
        bitmap[i] = BITMAP(1, 1, 0, 0, 0, 1 - ERA(bitmap[i]));
        begin_era(i, false);
#ifdef BREAK_ADD_RECORDS_WHEN_IT_IS_DURABLE
        bitmap[i] = bitmap[i] & ~RECORDING
#endif
    :: what == clear ->
        bitmap[i] = OTHER_ERA(WITHOUT_BITS(bitmap[i]) & ~PAIRED);
        begin_era(i, false)
    :: what == enable ->
        bitmap[i] = OTHER_ERA(bitmap[i] | RECORDING);
        begin_era(i, must[AT(i, 1 - ERA(bitmap[i]))]);
#ifdef BREAK_ENABLE_RECORDS_WHEN_IT_IS_DURABLE
        bitmap[i] = bitmap[i] & ~RECORDING
#endif
    :: what == merge ->
        merged = BIT(bitmap[1 - i]);
        bitmap[i] = bitmap[i] | (BIT(bitmap[1 - i]) << 2)
    :: what == disable ->
        skip;
#ifdef BREAK_DISABLE_STOPS_BEFORE_IT_IS_DURABLE
        bitmap[i] = bitmap[i] & ~RECORDING
#endif
    :: what == remove ->
        skip;
#ifdef BREAK_REMOVE_STOPS_BEFORE_IT_IS_DURABLE
        bitmap[i] = bitmap[i] & ~EXISTING
#endif
    fi;
    restart_checked_writes();
    step = applied
}

#define AFTER_VERB(i)                                                 \
 (object == i && verb == disable -> bitmap[i] & ~RECORDING            \
  : (object == i && verb == remove -> bitmap[i] & SECOND_ERA          \
  : (object == i && (verb == add || verb == enable)                   \
     -> bitmap[i] | RECORDING : bitmap[i])))

#ifdef BREAK_SNAPSHOT_OF_RECORDING_BITMAPS_ONLY
#define SNAPSHOT(i)                                                \
 (ON(bitmap[i]) -> AFTER_VERB(i)                                    \
                : WITHOUT_BITS(bitmap[i]) | (known[i] & (DIRTY | S_DIRTY)))
#else
#define SNAPSHOT(i) AFTER_VERB(i)
#endif

inline begin_flip() {
    for (b : 0 .. BITMAPS - 1) {
        flip[b] = SNAPSHOT(b)
    };
    b = 0;
    flying = true;
    put_file()
}

inline end_flip() {
    sync_tracking_file();
    for (b : 0 .. BITMAPS - 1) {
        known[b] = flip[b];
        flip[b] = 0
    };
    b = 0;
    flying = false;
    doubt = false
}

/* Durable or not; the page cache shows it, and no later sync writes it. */
inline fail_flip() {
    failures_left--;
    if
    :: sync_file()
    :: true
    fi;
    file_in_cache = false;
    for (b : 0 .. BITMAPS - 1) {
        flip[b] = 0
    };
    b = 0;
    flying = false;
    doubt = true
}

/* The verb has failed: the bitmap is what it was, and that is told only when a
 * flip that says so is durable. Until then recovery may find either. */
inline undo_verb() {
#ifdef BREAK_DISABLE_STOPS_BEFORE_IT_IS_DURABLE
    bitmap[object] = bitmap[object] | (verb == disable -> RECORDING : 0);
#endif
#ifdef BREAK_REMOVE_STOPS_BEFORE_IT_IS_DURABLE
    bitmap[object] = bitmap[object] | (verb == remove -> EXISTING : 0);
#endif
#ifdef BREAK_TELL_A_FAILURE_THAT_IS_IN_DOUBT
    verb = nothing;
    object = 0;
    step = idle;
#else
    verb = undo;
    step = flushed;
#endif
    check_bitmap(0);
    check_bitmap(1)
}

inline reply() {
    if
    :: verb == disable -> bitmap[object] = bitmap[object] & ~RECORDING
    :: verb == remove -> bitmap[object] = bitmap[object] & SECOND_ERA
    :: verb == add || verb == enable ->
        bitmap[object] = bitmap[object] | RECORDING
    :: verb == merge && merged -> must[AT(object, ERA(bitmap[object]))] = true
    :: else
    fi;
    verb = nothing;
    object = 0;
    merged = false;
    step = idle;
    check_bitmap(0);
    check_bitmap(1)
}

/* --- What must hold ------------------------------------------------------- */

inline check_bitmap(i) {
    if
    :: THERE(bitmap[i]) && !BIT(bitmap[i]) && !S_OF(bitmap[i]) ->
        assert(!must[AT(i, ERA(bitmap[i]))]);
        assert(!ON(bitmap[i]) || (now == since[AT(i, ERA(bitmap[i]))] &&
                                  disk == since[AT(i, ERA(bitmap[i]))]))
    :: else
    fi
}

/* --- Crash and recovery --------------------------------------------------- */

inline forget_memory() {
    life = down;
    verb = nothing; object = 0; merged = false; step = idle;
    writer = idle; checkpoint = idle;
    intent_memory = CLEAR; touched = false; flying = false; doubt = false;
    for (b : 0 .. BITMAPS - 1) {
        bitmap[b] = 0; known[b] = 0; flip[b] = 0; job[b] = idle
    };
    b = 0
}

inline lose_power() {
    lose(now, disk);
    if
    :: file_in_cache -> sync_file()
    :: lose_file()
    fi;
    lose(intent, intent_disk);
    lose(commit[0], commit_disk[0]);
    lose(commit[1], commit_disk[1])
}

inline recover_bitmap(i) {
    known[i] = file[i];
    bitmap[i] = file[i];
    if
    :: intent && RECORDS(file[i]) ->
        if
        :: PAIR(file[i]) == ALONE -> bitmap[i] = bitmap[i] | DIRTY
#ifndef BREAK_INTENTS_NOT_INTO_SUCCESSORS
        :: else -> bitmap[i] = bitmap[i] | S_DIRTY
#else
        :: else -> bitmap[i] = bitmap[i] | DIRTY
#endif
        fi
    :: else
    fi;
    if
    :: PAIR(bitmap[i]) != ALONE && commit[i] ->
        assert(PAIR(bitmap[i]) == PREPARED);
        abdicate(i)
    :: PAIR(bitmap[i]) != ALONE && !commit[i] -> reclaim(i)
    :: else
    fi;
    check_bitmap(i)
}

inline abdicate(i) {
    bitmap[i] = OTHER_ERA((bitmap[i] & (EXISTING | RECORDING | SECOND_ERA)) |
                          (S_OF(bitmap[i]) << 2))
}

inline reclaim(i) {
    bitmap[i] = (bitmap[i] & (EXISTING | RECORDING | SECOND_ERA | DIRTY)) |
                (S_OF(bitmap[i]) << 2)
}

/* --- Who does what -------------------------------------------------------- */

#define ALIVE (life == running)
#define CALM  (verb == nothing && !flying)

proctype Writer()
{
end:
    do
    :: atomic { ALIVE && writer == idle && writes_left -> writes_left--;
                writer = check }
    :: atomic { ALIVE && writer == check &&
                (intent_memory == SET || NEEDS_NO_INTENT) -> writer = ready }
    :: atomic { ALIVE && writer == check && checkpoint != clearing &&
                !(intent_memory == SET || NEEDS_NO_INTENT) ->
                put(intent, intent_disk, true); writer = syncing }
    :: atomic { ALIVE && writer == syncing -> sync_tracking_file();
                intent_memory = SET; writer = ready }
    :: atomic { ALIVE && writer == ready -> mark_bitmap(0); mark_bitmap(1);
                touched = true; writer = marked }
    :: atomic { ALIVE && writer == marked -> put_data(); writer = idle }
    od
}

#ifdef BREAK_CHECKPOINT_BETWEEN_VERB_AND_FLUSH
#define MAY_CHECKPOINT (!flying)
#else
#define MAY_CHECKPOINT CALM
#endif

proctype Checkpointer()
{
end:
    do
    :: atomic { ALIVE && checkpoint == idle && MAY_CHECKPOINT &&
                checkpoints_left ->
                checkpoints_left--; begin_flip(); touched = false;
                checkpoint = syncing }
    :: atomic {
           ALIVE && checkpoint == syncing ->
           end_flip();
           if
           :: intent_memory == SET && !touched && writer != ready &&
              writer != syncing && verb == nothing ->
               intent_memory = CLEARING;
               checkpoint = clearing
           :: else -> checkpoint = idle
           fi
       }
    :: atomic { ALIVE && checkpoint == clearing ->
                put(intent, intent_disk, false);
                intent_memory = CLEAR; checkpoint = idle }
    od
}

#define FREE(i) (THERE(bitmap[i]) && PAIR(bitmap[i]) == ALONE)

/* What an unflushed write would be clean over, should power loss revert it. */
#ifdef BREAK_ADD_WITHOUT_SOURCE_FLUSH
#define NEEDS_SOURCE_FLUSH (verb == clear || verb == enable)
#else
#ifdef BREAK_CLEAR_WITHOUT_SOURCE_FLUSH
#define NEEDS_SOURCE_FLUSH (verb == add || verb == enable)
#else
#ifdef BREAK_ENABLE_WITHOUT_SOURCE_FLUSH
#define NEEDS_SOURCE_FLUSH (verb == add || verb == clear)
#else
#define NEEDS_SOURCE_FLUSH (verb == add || verb == clear || verb == enable)
#endif
#endif
#endif

proctype Verbs()
{
end:
    do
    :: atomic {
           ALIVE && verbs_left && CALM && DRAINED ->
           if
           :: !THERE(bitmap[0]) -> apply(add, 0)
           :: !THERE(bitmap[1]) -> apply(add, 1)
           :: FREE(0) -> apply(remove, 0)
           :: FREE(1) && ON(bitmap[1]) -> apply(disable, 1)
           :: FREE(1) && !ON(bitmap[1]) -> apply(enable, 1)
           :: FREE(0) && ON(bitmap[0]) -> apply(disable, 0)
           :: FREE(0) && !ON(bitmap[0]) -> apply(enable, 0)
           :: FREE(0) -> apply(clear, 0)
           :: FREE(1) && FREE(0) -> apply(merge, 1)
           fi
       }
    :: atomic {
           ALIVE && step == applied ->
           disk = (NEEDS_SOURCE_FLUSH -> now : disk);
           step = flushed
       }
    :: atomic { ALIVE && step == flushed && !flying -> begin_flip();
                step = flipping }
#ifdef BREAK_REPLY_BEFORE_THE_FLIP
    :: atomic { ALIVE && step == flushed && !flying -> reply() }
#endif
    :: atomic { ALIVE && step == flipping -> end_flip(); reply() }
    :: atomic { ALIVE && step == flipping && failures_left &&
                (verb == disable || verb == remove) -> fail_flip();
                undo_verb() }
    od
}

proctype Job(byte i)
{
end:
    do
    :: atomic {
           ALIVE && job[i] == idle && jobs_left && CALM && DRAINED &&
           FREE(i) && ON(bitmap[i]) && PAIR(known[i]) == ALONE ->
           jobs_left--;
           commit[i] = false; commit_disk[i] = false;
           bitmap[i] = bitmap[i] | (FROZEN << 4);
           since[AT(i, 1 - ERA(bitmap[i]))] = now;
           must[AT(i, 1 - ERA(bitmap[i]))] = false;
           restart_checked_writes();
           job[i] = copying
       }
    :: atomic { ALIVE && job[i] == copying -> disk = now; job[i] = flushed }
    :: atomic {
           ALIVE && job[i] == flushed && CALM ->
           bitmap[i] = (bitmap[i] & ~PAIRED) | (PREPARED << 4);
           begin_flip();
           job[i] = preparing
       }
    :: atomic { ALIVE && job[i] == preparing -> end_flip(); job[i] = prepared }
    :: atomic { ALIVE && job[i] == prepared -> commit[i] = true;
                job[i] = committing }
    :: atomic { ALIVE && job[i] == committing && !flying ->
                commit_disk[i] = true; abdicate(i); check_bitmap(i);
                job[i] = idle }
    :: atomic { ALIVE && (job[i] == copying || job[i] == prepared) && !flying ->
                reclaim(i); check_bitmap(i); job[i] = idle }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { crashes_left -> crashes_left--; forget_memory() }
    :: atomic { crashes_left -> crashes_left--; forget_memory(); lose_power() }
    :: atomic { life == down -> sync_file(); intent_disk = intent;
                commit_disk[0] = commit[0]; commit_disk[1] = commit[1];
                life = durable }
    :: atomic {
           life == durable ->
           recover_bitmap(0);
           recover_bitmap(1);
           intent_memory = (intent -> SET : CLEAR);
           life = running
       }
    od
}

init
{
    atomic {
        verb = nothing; step = idle; writer = idle; checkpoint = idle;
        job[0] = idle; job[1] = idle;
        /* One records; one is disabled, or is not there yet. */
        bitmap[0] = BITMAP(1, 1, 0, 0, 0, 0);
        if
        :: bitmap[1] = BITMAP(1, 0, 0, 0, 0, 0)
        :: bitmap[1] = BITMAP(1, 1, 0, 0, 0, 0)
        :: bitmap[1] = 0
        fi;
        for (b : 0 .. BITMAPS - 1) {
            known[b] = bitmap[b]; file[b] = bitmap[b]; file_disk[b] = bitmap[b]
        };
        b = 0;
        run Writer();
        run Checkpointer();
        run Verbs();
        run Job(0);
        run Job(1);
        run Machine()
    }
}
