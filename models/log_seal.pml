/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two daemons that seal the log of a dead run, as a model for Spin. The run may
 * commit, or die before; each daemon has a member that waits for the outcome.
 *
 *     Daemon  look ── lock, look again ── draft, sync ── rename, sync ── act
 *             all have acknowledged: list of retired runs, synced ── unlinked
 *
 * Shown: all who act, and the run that told success, agree, for ever; nobody
 * finds a half-written copy; who asks once more after the purge (a member whose
 * storage was rolled back) finds the run on the list.
 *
 * How it is simplified: one transaction; a copy replaces another in one step.
 * Looking again under the lock turned out to spare work only: a second sealing
 * of the same records says the same.
 *
 * States explored: 8 thousand, 27 thousand in the full search.
 *
 *     sound: CRASHES=2
 *     full: CRASHES=4 KILLS=6
 *     mistakes: CRASHES=2
 */

#ifndef CRASHES
#define CRASHES 2 /* of the machine */
#endif
#ifndef KILLS
#define KILLS 3 /* of one daemon */
#endif

#define DAEMONS 2

/* --- In the page cache, and on the medium --------------------------------- */

bool commit, commit_disk;       /* COMMIT in the segment */
bool segment = true, segment_disk = true; /* its directory entry */
/* The copy: what it says, and whether its name is there. */
#define GARBAGE   0
#define COMMITTED 1
#define ABORTED   2
byte draft[DAEMONS], draft_disk[DAEMONS];
byte copy, copy_disk;
bool sealed, sealed_disk;
bool retired, retired_disk;

/* --- What the oracle knows ------------------------------------------------ */

byte fate; /* told or acted upon */

/* --- Memory --------------------------------------------------------------- */

mtype = { off, pending, committing, decided };
mtype run_state; /* the run whose segment it is */
mtype = { looking, locked, reading, drafted, draft_synced, renamed, found,
          acting, flipped, acknowledged };
mtype daemon[DAEMONS];
byte outcome[DAEMONS];
byte owner; /* of the segment's lock: 0 nobody, 1 the run, 2.. a daemon */
bool settled[DAEMONS]; /* its member's flip is durable */

byte crashes_left = CRASHES, kills_left = KILLS, rollbacks_left = 1;

hidden byte i;

inline lose(cache, medium) {
    if
    :: cache != medium -> medium = cache
    :: cache = medium
    fi
}

inline decide_fate(verdict) {
    assert(fate == 0 || fate == verdict);
    fate = verdict
}

inline release(who) {
    owner = (owner == who -> 0 : owner)
}

inline kill_run() {
    run_state = off;
    release(1)
}

inline kill_daemon(d) {
    daemon[d] = off;
    outcome[d] = 0;
    draft[d] = 0; draft_disk[d] = 0;
    release(d + 2)
}

inline lose_power() {
    lose(commit, commit_disk);
    lose(segment, segment_disk);
    for (i : 0 .. DAEMONS - 1) {
        draft[i] = 0;
        draft_disk[i] = 0
    };
    i = 0;
    lose(copy, copy_disk);
    lose(sealed, sealed_disk);
    lose(retired, retired_disk)
}

proctype Run()
{
end:
    do
    :: atomic { run_state == pending -> commit = true; run_state = committing }
    :: atomic { run_state == committing -> commit_disk = true;
                decide_fate(COMMITTED); run_state = decided }
    od
}

#ifdef BREAK_SEAL_WITHOUT_THE_LOCK
#define MAY_LOCK true
#else
#define MAY_LOCK (owner == 0)
#endif

#ifdef BREAK_SEAL_WHAT_IS_ON_THE_LIST
#define NOT_LISTED true
#else
#define NOT_LISTED (!retired)
#endif

proctype Daemon(byte d)
{
end:
    do
    :: atomic { daemon[d] == off && !settled[d] -> daemon[d] = looking }
    /* On the list: settled long ago, what still lies there is left alone. */
    :: atomic { daemon[d] == looking && retired -> retired_disk = true;
                settled[d] = true; daemon[d] = acknowledged }
    :: atomic { daemon[d] == looking && NOT_LISTED && sealed ->
                daemon[d] = found }
    /* Neither: what it is asked about is not known, which nobody caused. */
    :: atomic { daemon[d] == looking && NOT_LISTED && !sealed && !segment ->
                assert(retired); daemon[d] = acknowledged }
    /* The descriptor stays good if another unlinks the segment meanwhile. */
    :: atomic { daemon[d] == looking && NOT_LISTED && !sealed && segment ->
                daemon[d] = reading }
    :: atomic { daemon[d] == reading && MAY_LOCK ->
                owner = d + 2;
                if
                :: sealed || !segment -> release(d + 2); daemon[d] = looking
                :: else -> daemon[d] = locked
                fi }
    :: atomic { daemon[d] == locked ->
                draft[d] = (commit -> COMMITTED : ABORTED);
                daemon[d] = drafted }
    :: atomic { daemon[d] == drafted ->
#ifndef BREAK_RENAME_BEFORE_THE_SYNC
                draft_disk[d] = draft[d];
#endif
                daemon[d] = draft_synced }
    :: atomic { daemon[d] == draft_synced ->
                copy = draft[d]; copy_disk = draft_disk[d];
                draft[d] = 0; draft_disk[d] = 0;
                if
                :: sealed && !sealed_disk -> sealed_disk = true
                :: true
                fi;
                sealed = true; daemon[d] = renamed }
    :: atomic { daemon[d] == renamed ->
                sealed_disk = true; release(d + 2); outcome[d] = copy;
                daemon[d] = acting }
    /* Sealed by another, who may have died before it was durable. */
    :: atomic { daemon[d] == found && sealed ->
                outcome[d] = copy;
#ifndef BREAK_BELIEVE_A_SEAL_NOT_DURABLE
                copy_disk = copy; sealed_disk = true;
#endif
                daemon[d] = acting }
    :: atomic { daemon[d] == found && !sealed -> daemon[d] = looking }
    :: atomic { daemon[d] == acting -> assert(outcome[d] != GARBAGE);
                decide_fate(outcome[d]); daemon[d] = flipped }
    :: atomic { daemon[d] == flipped -> settled[d] = true; outcome[d] = 0;
                daemon[d] = acknowledged }
    /* All have acknowledged. */
    :: atomic { daemon[d] == acknowledged && settled[0] && settled[1] &&
                !retired ->
                retired = true }
    :: atomic { daemon[d] == acknowledged && retired && (segment || sealed) ->
#ifndef BREAK_PURGE_BEFORE_THE_LIST_IS_DURABLE
                retired_disk = true;
#endif
                if
                :: segment_disk = false
                :: true
                fi;
                segment = false; sealed = false }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { kills_left && run_state != off -> kills_left--; kill_run() }
    :: atomic { kills_left && daemon[0] != off -> kills_left--; kill_daemon(0) }
    :: atomic { kills_left && daemon[1] != off -> kills_left--; kill_daemon(1) }
    /* A member that was rolled back asks again. */
    :: atomic { daemon[0] == off && settled[0] && rollbacks_left ->
                rollbacks_left--; settled[0] = false }
    :: atomic { crashes_left -> crashes_left--; kill_run(); kill_daemon(0);
                kill_daemon(1); lose_power() }
    od
}

init
{
    atomic {
        run_state = pending;
        owner = 1;
        daemon[0] = off;
        daemon[1] = off;
        run Run();
        run Daemon(0);
        run Daemon(1);
        run Machine()
    }
}
