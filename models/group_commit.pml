/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commit of a group over three disks, the log and a repository, as a model
 * for Spin.
 *
 *     Client   settle ── STARTED ── send ... MANIFEST ── finalize ... publish
 *     Group          cut ─┐         ┌─ pending ── COMMIT, sync ─┬─ ABORT
 *     Disks               └─ flush, prepare                     └─ flip, sync
 *     Purger                                        all know: list, then unlink
 *     Machine  kill | power cut; then seal, open what is there
 *
 * Shown: the fate of a transaction is one, for all its disks, the client and
 * the repository, from the first who is told or acts upon it (all or none,
 * final verdicts, published only when committed, published if committed);
 * success rests on what is durable: flushed targets and sources, prepared
 * files, the record; `unknown` and unions come only of lost logs and rolled-
 * back disks; a command that has settled leaves nothing pending. The client's
 * label is the same for all attempts. The third disk may be absent at any
 * opening, and come back when it likes.
 *
 * How it is simplified: a tracking file is one value (tracking_file.pml), its
 * bits are left out (tracking_write.pml); sealing is one step (log_seal.pml);
 * the flush of target and source is one step; acknowledgements are not lost. A
 * transaction of verbs goes the same way: ABORT is durable before its bitmaps
 * are united and its failure is told. BY_MARKER: settling looks only for the
 * marker, and a request dies with its client.
 *
 * Bounds: ATTEMPTS are transactions, COMMANDS of the client, CRASHES of daemon
 * or machine, DEATHS of the client alone, FAILURES of syncs, TROUBLES are a
 * lost log or a disk rolled back to *frozen*.
 *
 * States explored: 3.2 million in the five sound searches, 4.8 million in the
 * first of the full ones; minutes and some GB for the others.
 *
 *     sound: ATTEMPTS=1 COMMANDS=2 DEATHS=0 FAILURES=0
 *     sound: ATTEMPTS=1 COMMANDS=2 CRASHES=1
 *     sound: ATTEMPTS=1 COMMANDS=2 CRASHES=1 DEATHS=0 FAILURES=0 TROUBLES=1
 *     sound: ATTEMPTS=2 COMMANDS=1 CRASHES=1 DEATHS=0 FAILURES=0
 *     sound: ATTEMPTS=1 COMMANDS=2 CRASHES=1 FAILURES=0 BY_MARKER=1
 *     full: ATTEMPTS=1
 *     full: ATTEMPTS=2 CRASHES=1
 *     full: ATTEMPTS=1 FAILURES=0 TROUBLES=1
 *     mistakes: ATTEMPTS=1 COMMANDS=2 CRASHES=1 DEATHS=0 FAILURES=0
 *     BREAK_ABORT_TOLD_BEFORE_IT_IS_DURABLE: FAILURES=1
 *     BREAK_ABORT_WITHOUT_A_RECORD: FAILURES=1
 *     BREAK_BELIEVE_AN_UNSEALED_LOG: CRASHES=2
 *     BREAK_BELIEVE_THE_PAGE_CACHE: CRASHES=2
 *     BREAK_COMMIT_BEATS_ABORT: FAILURES=1
 *     BREAK_COMMIT_SYNC_TRIED_AGAIN: FAILURES=1
 *     BREAK_COMMIT_WITHOUT_ALL_PREPARED: FAILURES=1
 *     BREAK_DISCARD_WITHOUT_ASKING_AGAIN: DEATHS=1
 *     BREAK_FROZEN_ABDICATES: TROUBLES=1
 *     BREAK_LABEL_PAIRS: ATTEMPTS=2
 *     BREAK_REPOSITORY_BELIEVES_THE_PAGE_CACHE: DEATHS=1 COMMANDS=3
 *     BREAK_SETTLE_BY_THE_MARKER_ONLY: DEATHS=1 COMMANDS=3
 *     BREAK_START_MARKER_AFTER_SENDING: DEATHS=1
 *     BREAK_UNION_WITHOUT_A_RECORD: FAILURES=1
 */

#ifndef ATTEMPTS
#define ATTEMPTS 2 /* transactions, all under one label of the client */
#endif
#ifndef COMMANDS
#define COMMANDS 3 /* of the repository's client */
#endif
#ifndef CRASHES
#define CRASHES 2 /* of the daemon or the machine */
#endif
#ifndef DEATHS
#define DEATHS 1 /* of the client alone */
#endif
#ifndef FAILURES
#define FAILURES 1 /* failed syncs */
#endif
#ifndef TROUBLES
#define TROUBLES 0 /* a lost log, or a disk rolled back */
#endif

#ifdef BREAK_START_MARKER_AFTER_SENDING
#define BY_MARKER
#endif

#define DISKS 3
#define MAYBE_ABSENT (DISKS - 1) /* this disk need not be there */

/* What a tracking file says: how far a pair is, of whom, and the base. */
#define ALONE    0
#define FROZEN   1
#define PREPARED 2
#define UNION    3 /* base {old, new} */
#define MARK(kind, tx, base) ((kind) | ((tx) << 2) | ((base) << 4))
#define KIND_OF(mark)        ((mark) & 3)
#define TX_OF(mark)          (((mark) >> 2) & 3)
#define BASE_OF(mark)        (((mark) >> 4) & 3)

/* What the repository holds of the newest point. */
#define NOTHING   0
#define STARTED   1
#define MANIFEST  2
#define PUBLISHED 3
#define POINT(kind, tx) ((kind) | ((tx) << 2))

#define IDS 3 /* txids 1 and 2 */

/* --- What is written: in the page cache, and on the medium ---------------- */

byte mark[DISKS], mark_disk[DISKS];
bool commit[IDS], commit_disk[IDS], commit_clean[IDS];
bool abort_[IDS], abort_disk[IDS];
bool entry[IDS], entry_disk[IDS]; /* the segment's directory entry */
byte outcome[IDS], outcome_disk[IDS]; /* sealed: */
#define UNSEALED  0
#define COMMITTED 1
#define ABORTED   2
bool retired[IDS];
byte point, point_disk;
bool flushed[DISKS]; /* target and source hold what was cut */

/* --- What the oracle knows ------------------------------------------------ */

byte fate[IDS];         /* told or acted upon; final */
bool member[IDS * DISKS];
bool rolled_back[DISKS];
bool log_lost[IDS];

/* --- Memory of the daemon ------------------------------------------------- */

mtype = { down, up };
mtype life = up;
mtype = { idle, copying, pending, committing, in_doubt, aborting, decided };
mtype group;
byte tx;             /* of the group */
byte last_tx;
bool finalize;
mtype = { closed, open, frozen, drained, preparing, prepared, settling };
mtype disk[DISKS];   /* closed: absent, or not opened yet */
byte told[IDS];      /* what this run knows of its own transactions */
bool acknowledged[IDS * DISKS], point_acknowledged[IDS];

/* --- Memory of the client ------------------------------------------------- */

mtype = { off, settle, settled, starting, sent, following, manifest, finalizing,
          publishing };
mtype client;
byte client_tx;
bool request; /* `transaction` is in the socket */

byte commands_left = COMMANDS, crashes_left = CRASHES, deaths_left = DEATHS,
     failures_left = FAILURES, troubles_left = TROUBLES;

hidden byte d, n;

#define OF(id, d) ((id) * DISKS + (d))

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

/* --- What must hold ------------------------------------------------------- */

/* All or none, published only if committed, and no verdict ever changes. */
inline decide_fate(id, verdict) {
    assert(fate[id] == 0 || fate[id] == verdict);
    fate[id] = verdict
}

#define HOLDS(mark, id) \
 ((KIND_OF(mark) == PREPARED && TX_OF(mark) == id) || BASE_OF(mark) == id)

/* Success rests on what is durable. */
inline check_durable(id) {
    assert(commit_disk[id] || outcome_disk[id] == COMMITTED || retired[id]);
    for (d : 0 .. DISKS - 1) {
        assert(!member[OF(id, d)] || rolled_back[d] ||
               (flushed[d] &&
                (HOLDS(mark_disk[d], id) || BASE_OF(mark_disk[d]) > id ||
                 TX_OF(mark_disk[d]) > id)))
    };
    d = 0
}

/* --- The daemon: a group -------------------------------------------------- */

inline start_group() {
    request = false;
    last_tx++;
    tx = last_tx;
    for (d : 0 .. DISKS - 1) {
        if
        :: disk[d] == open ->
            disk[d] = frozen;
            member[OF(tx, d)] = true;
            flushed[d] = false
        :: else
        fi
    };
    d = 0;
    entry[tx] = true;
#ifndef BREAK_PAIR_NAMES_A_SEGMENT_NOT_DURABLE
    entry_disk[tx] = true;
#endif
    group = copying;
    if
    :: client == sent -> client = following; client_tx = tx
    :: else
    fi
}

#define EACH_MEMBER_IS(what)                      \
 ((!member[OF(tx, 0)] || disk[0] == what) &&      \
  (!member[OF(tx, 1)] || disk[1] == what) &&      \
  (!member[OF(tx, 2)] || disk[2] == what))

inline end_group() {
    group = idle;
    tx = 0;
    finalize = false
}

/* Reclaim in memory; what a file still says, recovery reads the same way. */
inline abort_group() {
    for (d : 0 .. DISKS - 1) {
        if
        :: member[OF(tx, d)] -> disk[d] = open
        :: else
        fi
    };
    d = 0;
    told[tx] = ABORTED;
    decide_fate(tx, ABORTED);
    end_group()
}

inline commit_group() {
    for (d : 0 .. DISKS - 1) {
        if
        :: member[OF(tx, d)] -> disk[d] = settling
        :: else
        fi
    };
    d = 0;
    told[tx] = COMMITTED;
    decide_fate(tx, COMMITTED);
    check_durable(tx);
    end_group()
}

/* --- Recovery ------------------------------------------------------------- */

inline forget_daemon() {
    life = down;
    end_group();
    for (d : 0 .. DISKS - 1) {
        disk[d] = closed
    };
    d = 0;
    for (n : 1 .. ATTEMPTS) {
        told[n] = 0
    };
    n = 0;
    request = false;
    if
    :: client == sent || client == following || client == manifest ||
       client == finalizing -> client = settle
    :: else
    fi;
}

inline forget_client() {
#ifdef BY_MARKER
    request = request && client != sent;
#endif
    client = off;
    client_tx = 0
}

inline lose_power() {
    for (d : 0 .. DISKS - 1) {
        lose(mark[d], mark_disk[d])
    };
    d = 0;
    for (n : 1 .. ATTEMPTS) {
        if
        :: commit_clean[n] -> commit[n] = commit_disk[n]
        :: else -> lose(commit[n], commit_disk[n])
        fi;
        commit_clean[n] = false;
        lose(abort_[n], abort_disk[n]);
        lose(entry[n], entry_disk[n]);
        if
        :: !entry[n] -> commit[n] = false; commit_disk[n] = false
        :: else
        fi;
        lose(outcome[n], outcome_disk[n])
    };
    n = 0;
    lose(point, point_disk)
}

/* The logs of dead runs; before anything is answered or opened. */
#ifdef BREAK_COMMIT_BEATS_ABORT
#define READ_OUTCOME(id) (commit[id] -> COMMITTED : ABORTED)
#else
#define READ_OUTCOME(id) (commit[id] && !abort_[id] -> COMMITTED : ABORTED)
#endif

inline seal(id) {
    outcome[id] = READ_OUTCOME(id);
#ifndef BREAK_BELIEVE_AN_UNSEALED_LOG
    outcome_disk[id] = outcome[id];
#endif
}

inline seal_all() {
    for (n : 1 .. ATTEMPTS) {
        if
        :: entry[n] && outcome[n] == UNSEALED -> seal(n)
        :: outcome[n] != UNSEALED ->
            /* Renamed by a run that died before it was durable. */
            outcome_disk[n] = outcome[n]
        :: else
        fi
    };
    n = 0;
    life = up
}

/* An old copy of one disk and its tracking file, made while it was frozen. */
inline roll_back() {
    n = last_tx;
    if
    :: n && member[OF(n, 0)] ->
        mark[0] = MARK(FROZEN, n,
                       (BASE_OF(mark[0]) == n -> 0 : BASE_OF(mark[0])));
        mark_disk[0] = mark[0];
        flushed[0] = false;
        rolled_back[0] = true
    :: else
    fi;
    n = 0
}

inline lose_log() {
    for (n : 1 .. ATTEMPTS) {
        if
        :: entry[n] && !retired[n] ->
            log_lost[n] = true;
            entry[n] = false; entry_disk[n] = false;
            commit[n] = false; commit_disk[n] = false; commit_clean[n] = false;
            abort_[n] = false; abort_disk[n] = false;
            outcome[n] = UNSEALED; outcome_disk[n] = UNSEALED
        :: else
        fi
    };
    n = 0
}

inline reclaim_disk(i, id) {
    if
    :: !rolled_back[i] -> decide_fate(id, ABORTED)
    :: else
    fi;
    put(mark[i], mark_disk[i], MARK(ALONE, 0, BASE_OF(mark[i])))
}

inline abdicate_disk(i, id) {
    decide_fate(id, COMMITTED);
    assert(flushed[i]);
    put(mark[i], mark_disk[i], MARK(ALONE, 0, id))
}

/* Superset of the difference to both, and it says so. */
inline unite_disk(i, id) {
    assert(rolled_back[i] || log_lost[id]);
    put(mark[i], mark_disk[i], MARK(UNION, id, BASE_OF(mark[i])))
}

/* A flip is durable: nothing of an older transaction is left in the file. */
inline flip_settled(i) {
    for (n : 1 .. ATTEMPTS) {
        if
        :: member[OF(n, i)] && fate[n] && n != tx ->
            acknowledged[OF(n, i)] = true
        :: else
        fi
    };
    n = 0;
    disk[i] = open
}

#ifdef BREAK_LABEL_PAIRS
#define LOOK_UP(id)                                       \
 (outcome[1] == COMMITTED || told[1] == COMMITTED ||       \
  outcome[2] == COMMITTED || told[2] == COMMITTED          \
  -> COMMITTED : outcome[id])
#else
#ifdef BREAK_ALWAYS_RECLAIM
#define LOOK_UP(id) (told[id] -> told[id] : (outcome[id] -> ABORTED : 0))
#else
#ifdef BREAK_ALWAYS_ABDICATE
#define LOOK_UP(id) (told[id] -> told[id] : (outcome[id] -> COMMITTED : 0))
#else
#define LOOK_UP(id) (told[id] -> told[id] : outcome[id])
#endif
#endif
#endif

inline open_disk(i) {
#ifndef BREAK_BELIEVE_THE_PAGE_CACHE
    mark_disk[i] = mark[i]; /* rewritten in place, and synced */
#endif
    n = TX_OF(mark[i]);
    disk[i] = settling;
    if
    :: KIND_OF(mark[i]) == PREPARED ->
        if
        :: LOOK_UP(n) == COMMITTED -> abdicate_disk(i, n)
        :: LOOK_UP(n) == ABORTED -> reclaim_disk(i, n)
        :: LOOK_UP(n) == UNSEALED && retired[n] -> reclaim_disk(i, n)
        :: LOOK_UP(n) == UNSEALED && !retired[n] -> unite_disk(i, n)
        fi
    :: KIND_OF(mark[i]) == FROZEN ->
        if
        :: LOOK_UP(n) == COMMITTED ->
#ifdef BREAK_FROZEN_ABDICATES
            abdicate_disk(i, n)
#else
            unite_disk(i, n)
#endif
        :: else -> reclaim_disk(i, n)
        fi
    :: else ->
#ifdef BREAK_BELIEVE_THE_PAGE_CACHE
        flip_settled(i)
#endif
    fi;
    n = 0
}

/* --- Who does what -------------------------------------------------------- */

#define UP (life == up)

proctype Disk(byte i)
{
end:
    do
    /* (P, S, txid) as frozen, in the background. */
    :: atomic {
           UP && group == copying && disk[i] == frozen &&
           !(KIND_OF(mark[i]) == FROZEN && TX_OF(mark[i]) == tx) ->
           put(mark[i], mark_disk[i], MARK(FROZEN, tx, BASE_OF(mark[i])))
       }
    :: atomic {
           UP && group == copying && disk[i] == frozen ->
#ifndef BREAK_FORGET_THE_FLUSHES
           flushed[i] = true;
#endif
           disk[i] = drained
       }
    :: atomic {
           UP && group == copying && disk[i] == drained ->
           put(mark[i], mark_disk[i], MARK(PREPARED, tx, BASE_OF(mark[i])));
#ifdef BREAK_PREPARE_WITHOUT_SYNC
           disk[i] = prepared
#else
           disk[i] = preparing
#endif
       }
    :: atomic { UP && disk[i] == preparing ->
                mark_disk[i] = mark[i]; disk[i] = prepared }
    :: atomic {
           UP && disk[i] == preparing && failures_left ->
           failures_left--;
#ifdef BREAK_COMMIT_WITHOUT_ALL_PREPARED
           disk[i] = prepared
#else
           abort_group()
#endif
       }
#ifdef BREAK_UNION_WITHOUT_A_RECORD
    :: atomic { UP && group == in_doubt && disk[i] == prepared ->
                reclaim_disk(i, tx); mark_disk[i] = mark[i];
                disk[i] = settling }
#endif
    /* Abdicated: the file says so lazily. */
    :: atomic {
           UP && disk[i] == settling && KIND_OF(mark[i]) == PREPARED &&
           told[TX_OF(mark[i])] == COMMITTED ->
           abdicate_disk(i, TX_OF(mark[i]))
       }
    :: atomic {
           UP && disk[i] == settling && KIND_OF(mark[i]) != PREPARED ->
#ifndef BREAK_ACKNOWLEDGE_BEFORE_THE_FLIP_IS_DURABLE
           mark_disk[i] = mark[i];
#endif
           flip_settled(i)
       }
    :: atomic { UP && disk[i] == closed -> open_disk(i) }
    od
}

proctype Group()
{
end:
    do
    :: atomic {
           UP && request && group == idle && last_tx < ATTEMPTS &&
           disk[0] == open && disk[1] == open &&
           (disk[2] == open || disk[2] == closed) -> start_group()
       }
    /* Refused: a bitmap is busy. */
    :: atomic { UP && request && (group != idle || last_tx == ATTEMPTS) ->
                request = false;
                if
                :: client == sent -> client = settle
                :: else
                fi }
    :: atomic { UP && group == copying && EACH_MEMBER_IS(prepared) ->
                group = pending }
    :: atomic { UP && group == copying -> abort_group() } /* a job failed */
#ifdef BREAK_ABDICATE_BEFORE_THE_RECORD
    :: atomic { UP && group == pending && finalize -> commit_group() }
#endif
    :: atomic { UP && group == pending && finalize ->
                commit[tx] = true; group = committing }
    :: atomic { UP && group == committing ->
                commit_disk[tx] = true; commit_group() }
    :: atomic {
           UP && group == committing && failures_left ->
           failures_left--;
           if
           :: commit_disk[tx] = true
           :: commit_clean[tx] = true
           fi;
           group = in_doubt
       }
#ifdef BREAK_COMMIT_SYNC_TRIED_AGAIN
    :: atomic { UP && group == in_doubt -> commit_group() }
#endif
#ifdef BREAK_ABORT_WITHOUT_A_RECORD
    :: atomic { UP && group == in_doubt -> abort_group() }
#endif
    /* ABORT in a fresh segment. */
    :: atomic { UP && group == in_doubt -> abort_[tx] = true; group = aborting }
#ifdef BREAK_ABORT_TOLD_BEFORE_IT_IS_DURABLE
    :: atomic { UP && group == aborting -> abort_group() }
#endif
    :: atomic { UP && group == aborting -> abort_disk[tx] = true;
                abort_group() }
    od
}

#ifdef BREAK_PURGE_BEFORE_THE_REPOSITORY
#define REPOSITORY_KNOWS(id) true
#else
#define REPOSITORY_KNOWS(id) point_acknowledged[id]
#endif
#define KNOWS(id, d) (!member[OF(id, d)] || acknowledged[OF(id, d)])
#ifdef BREAK_PURGE_BEFORE_ABSENT_MEMBERS
#define MEMBERS_KNOW(id) (KNOWS(id, 0) && KNOWS(id, 1))
#else
#define MEMBERS_KNOW(id) (KNOWS(id, 0) && KNOWS(id, 1) && KNOWS(id, 2))
#endif

/* All have acknowledged: the name goes on the list, then the records go. */
inline retire(id) {
    retired[id] = true;
    entry[id] = false; entry_disk[id] = false;
    commit[id] = false; commit_disk[id] = false; commit_clean[id] = false;
    abort_[id] = false; abort_disk[id] = false;
    outcome[id] = UNSEALED; outcome_disk[id] = UNSEALED;
    told[id] = 0
}

#define PURGEABLE(id) \
 (fate[id] && tx != id && !retired[id] && MEMBERS_KNOW(id) && \
  REPOSITORY_KNOWS(id))

proctype Purger()
{
end:
    do
    :: atomic { UP && PURGEABLE(1) -> retire(1) }
#if ATTEMPTS > 1
    :: atomic { UP && PURGEABLE(2) -> retire(2) }
#endif
    od
}

/* --- The repository ------------------------------------------------------- */

/* What the daemon answers of a transaction. */
#define ANSWER(id) (LOOK_UP(id))

#if defined(BREAK_SETTLE_BY_THE_MARKER_ONLY) || defined(BY_MARKER)
#define LEFT_BEHIND (KIND_OF(point) != NOTHING && group != idle)
#else
#define LEFT_BEHIND (group != idle)
#endif
#define CANCELLABLE (group == copying || group == pending)

inline discard(id) {
    if
    :: id != 0 -> decide_fate(id, ABORTED)
    :: else
    fi;
    point = POINT(NOTHING, 0);
    point_disk = point;
    acknowledge(id)
}

/* Under the label: the point's own transaction, or all that had none. */
inline acknowledge(id) {
    if
    :: id != 0 -> point_acknowledged[id] = true
    :: else ->
        for (n : 1 .. last_tx) {
            assert(fate[n] != COMMITTED || point_acknowledged[n]);
            point_acknowledged[n] = point_acknowledged[n] ||
                                    (fate[n] == ABORTED)
        };
        n = 0
    fi
}

inline publish(id) {
    decide_fate(id, COMMITTED);
    put(point, point_disk, POINT(PUBLISHED, id));
    client = publishing
}

proctype Client()
{
end:
    do
    :: atomic { client == off && commands_left -> commands_left--;
                client = settle }
    /* Settle what is found: nothing of ours is left running or pending. */
    :: atomic { client == settle && UP && LEFT_BEHIND && CANCELLABLE ->
#ifdef BREAK_DISCARD_WITHOUT_ASKING_AGAIN
                finalize = finalize;
                discard(TX_OF(point));
#else
                abort_group()
#endif
              }
    :: atomic {
           client == settle && UP && !LEFT_BEHIND ->
           assert(group == idle); /* nothing is left pending for ever */
#ifndef BREAK_REPOSITORY_BELIEVES_THE_PAGE_CACHE
           point_disk = point;
#endif
           if
           :: KIND_OF(point) == NOTHING -> client = settled
           :: KIND_OF(point) == STARTED -> discard(0); client = settled
           :: KIND_OF(point) == MANIFEST ->
               if
               :: ANSWER(TX_OF(point)) == COMMITTED -> publish(TX_OF(point))
               :: ANSWER(TX_OF(point)) == ABORTED ->
                   discard(TX_OF(point));
                   client = settled
               :: ANSWER(TX_OF(point)) == UNSEALED -> /* kept as it is */
                   assert(log_lost[TX_OF(point)]);
                   client = off
               fi
           :: KIND_OF(point) == PUBLISHED ->
               point_acknowledged[TX_OF(point)] = true;
               client = settled
           fi
       }
    :: atomic { client == settled ->
                if
                :: client = off /* it had something else to do */
#ifdef BREAK_START_MARKER_AFTER_SENDING
                :: client = sent; request = UP;
                   client = (UP -> sent : off)
#else
                :: put(point, point_disk, POINT(STARTED, 0)); client = starting
#endif
                fi }
    :: atomic { client == starting -> point_disk = point; client = sent;
                if
                :: UP -> request = true
                :: else -> client = settle
                fi }
    :: atomic { client == following && UP && group == pending &&
                tx == client_tx ->
                put(point, point_disk, POINT(MANIFEST, tx)); client = manifest }
    :: atomic { client == manifest && UP ->
#ifndef BREAK_FINALIZE_BEFORE_THE_MANIFEST_IS_DURABLE
                point_disk = point;
#endif
                finalize = finalize || (group == pending && tx == client_tx);
                client = finalizing }
#ifdef BREAK_PUBLISH_BEFORE_THE_COMMIT
    :: atomic { client == finalizing -> publish(client_tx) }
#endif
    /* It has ended, one way or the other: as after a crash. */
    :: atomic { (client == following || client == finalizing) && UP &&
                tx != client_tx -> client = settle; client_tx = 0 }
    :: atomic { client == publishing ->
#ifndef BREAK_ACKNOWLEDGE_BEFORE_THE_POINT_IS_DURABLE
                point_disk = point;
#endif
                client = off; client_tx = 0;
                point_acknowledged[TX_OF(point)] = true }
    :: atomic { deaths_left && client != off -> deaths_left--; forget_client() }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { crashes_left && UP -> crashes_left--; forget_daemon() }
    :: atomic { crashes_left -> crashes_left--; forget_daemon();
                forget_client(); lose_power() }
    :: atomic { life == down -> seal_all() }
    :: atomic { life == down && troubles_left -> troubles_left--;
                roll_back() }
    :: atomic { life == down && troubles_left -> troubles_left--;
                lose_log() }
    od
}

init
{
    atomic {
        group = idle;
        client = off;
        for (d : 0 .. DISKS - 1) {
            disk[d] = open;
            run Disk(d)
        };
        d = 0;
        disk[MAYBE_ABSENT] = open;
        run Group();
        run Purger();
        run Client();
        run Machine()
    }
}
