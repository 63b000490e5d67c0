/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The job transaction of src/job/ as a model for Spin: three jobs in a group,
 * each at work on a thread of its own; one coroutine that leads the group, and
 * clients that cancel, pause, resume and finalize, on the main thread.
 *
 *     home thread   Job: pause point ── work ── ended ─┐
 *                        ▲ nudge                       ▼
 *     main thread   Client: verbs ──> flags ──> Group: gather ── finalize ──
 *                                               prepare ── commit | abort ──
 *                                               clean and tell
 *
 * Any job may finish, fail by itself or be cancelled at any time, also before
 * it starts; any prepare may fail; two clients cancel whom and when they like. The
 * group may have a decider, which may fail to prepare, fail to commit, or be in
 * doubt for a time and then abort.
 *
 * Proved, by exhaustion (tests/models/test_models.py):
 *   - all end alike: three succeed, or none does;
 *   - none hangs: every run ends, so no wake-up is lost. A job that sleeps goes
 *     on by itself only if it is not cancelled, a paused one never does;
 *   - bitmaps never split: all abdicate or all reclaim, once each;
 *   - nobody's end is told before the fate of all is sealed, and it is told
 *     right: who failed by itself as failed, the others as cancelled;
 *   - with a decider: nobody succeeds without a durable record, and nobody's end is
 *     told in doubt;
 *   - only legal moves between states; no message comes after a job is freed.
 *
 * How C maps to this: what runs on the main thread without yielding is one
 * `atomic`; queues are a flag that says who sleeps, so forgetting to wake shows
 * as a deadlock; the nudge is the one message of struct job. Each BREAK_ macro
 * plants a mistake that must be found.
 */

#define JOBS 3

/* How many clients; with one more the search takes three times as long. */
#ifndef CANCELLERS
#define CANCELLERS 2
#endif
#ifndef PAUSERS
#define PAUSERS 1
#endif

mtype = { created, running, paused, waiting, pending, aborting, concluded, null };
mtype = { frozen, abdicated, reclaimed };
mtype = { untold, completed, failed, cancelled };
mtype = { unwritten, doubtful, commits, aborts }; /* the decider's record */

/* struct job. */
mtype state[JOBS];
mtype bitmap[JOBS];
mtype told[JOBS];
bool working[JOBS];      /* co_run has not been seen to return */
bool cancel_flag[JOBS];
bool pause_flag[JOBS];
bool nudge_posted[JOBS]; /* in the mailbox of the home thread */
bool resumed_sleeper[JOBS]; /* waits in the queue `resumed` */
bool own_failure[JOBS];
bool prepared[JOBS];

/* struct job_txn. */
byte at_work;
bool group_aborting;
bool finalize;
bool sealed;
bool durable; /* the group has a decider */
mtype record = unwritten;
bool group_asleep; /* waits in the queue `changed` */
bool manual;       /* some member wants job-finalize */
bool started;
bool over;

hidden byte j, k, n; /* of atomic sequences only */

inline move(i, to) {
    assert((state[i] == created && (to == running || to == aborting)) ||
           (state[i] == running &&
            (to == paused || to == waiting || to == aborting)) ||
           (state[i] == paused && to == running) ||
           (state[i] == waiting && (to == pending || to == aborting)) ||
           (state[i] == pending && (to == aborting || to == concluded)) ||
           (state[i] == aborting && (to == aborting || to == concluded)) ||
           (state[i] == concluded && to == null));
    state[i] = to
}

/* --- Main thread: what verbs and ends cause ------------------------------- */

inline wake_group() {
    group_asleep = false
}

inline nudge(i) {
    if
    :: working[i] -> nudge_posted[i] = true
    :: else
    fi
}

inline unpause(i) {
    pause_flag[i] = false;
    if
    :: state[i] == paused -> move(i, running)
    :: else
    fi;
    resumed_sleeper[i] = false
}

inline flag_cancelled(i) {
    if
    :: !cancel_flag[i] ->
        cancel_flag[i] = true;
#ifndef BREAK_CANCEL_LEAVES_PAUSED
        unpause(i);
#endif
#ifndef BREAK_CANCEL_WITHOUT_NUDGE
        nudge(i)
#endif
    :: else
    fi
}

inline abort_group() {
    if
    :: !group_aborting ->
        group_aborting = true;
        for (j : 0 .. JOBS - 1) {
            if
#ifdef BREAK_SKIP_WAITING_MEMBER
            :: state[j] != aborting && state[j] != waiting -> flag_cancelled(j)
#else
            :: state[j] != aborting -> flag_cancelled(j)
#endif
            :: else
            fi
        };
#ifndef BREAK_ABORT_WITHOUT_WAKING
        wake_group()
#endif
    :: else
    fi
}

inline fail_member(i) {
    move(i, aborting);
    abort_group()
}

inline member_ended(i, ok) {
    at_work--;
    if
    :: !ok || cancel_flag[i] ->
        own_failure[i] = own_failure[i] && !cancel_flag[i];
        fail_member(i)
    :: else -> move(i, waiting)
    fi;
    wake_group()
}

/* --- Home thread ---------------------------------------------------------- */

proctype Job(byte i)
{
    bool ok;

pause_point:
    if
    :: cancel_flag[i] -> ok = false; goto ended
    :: pause_flag[i] && !cancel_flag[i] ->
        /* The coroutine moves over to the main thread. */
        do
        :: atomic {
               pause_flag[i] && !cancel_flag[i] ->
               if
               :: state[i] == running -> move(i, paused)
               :: else
               fi;
               resumed_sleeper[i] = true
           };
           !resumed_sleeper[i]
        :: atomic { !(pause_flag[i] && !cancel_flag[i]) -> break }
        od;
        goto pause_point
    :: !cancel_flag[i] && !pause_flag[i]
    fi;
    if
    :: ok = true /* done, though a cancel may be on its way */
    :: ok = false; own_failure[i] = true
    :: goto asleep
    fi;
    goto ended;

asleep: /* until the message comes; or a long time has passed */
    if
    :: nudge_posted[i] -> nudge_posted[i] = false; goto pause_point
    :: timeout && !cancel_flag[i] && !pause_flag[i] -> goto pause_point
    fi;

ended:
    working[i] = false; /* main thread: no nudge is sent from now on */
    if                  /* home thread: the last one has run */
#ifndef BREAK_END_BEFORE_NUDGE
    :: nudge_posted[i] -> nudge_posted[i] = false
    :: !nudge_posted[i]
#else
    :: true
#endif
    fi;
    atomic {
        pause_flag[i] = false;
        member_ended(i, ok);
        ok = false
    }
}

/* --- Main thread: the group's coroutine ----------------------------------- */

#define SLEEP_UNLESS(condition)                   \
 do                                               \
 :: atomic { (condition) -> break }               \
 :: atomic { !(condition) -> group_asleep = true }; \
    !group_asleep                                 \
 od

inline decide(i, fate) {
    assert(bitmap[i] == frozen);
    assert(fate != abdicated || !durable || record == commits);
    assert(record != doubtful);
    bitmap[i] = fate
}

inline tell(i) {
    /* Sealed: what becomes of every bitmap is decided, and alike. */
    for (k : 0 .. JOBS - 1) {
        assert(bitmap[k] != frozen && bitmap[k] == bitmap[i])
    };
    if
    :: cancel_flag[i] -> told[i] = cancelled
    :: !cancel_flag[i] && state[i] == aborting -> told[i] = failed
    :: else -> told[i] = completed
    fi;
    assert((told[i] == completed) == (bitmap[i] == abdicated));
    assert(record != doubtful);
    assert(told[i] != failed || own_failure[i]);
    move(i, concluded);
    move(i, null);
    assert(!working[i] && !nudge_posted[i])
}

proctype Group()
{
    byte i;

    /* Gather. */
    SLEEP_UNLESS(at_work == 0 || group_aborting);
    atomic {
        if
        :: group_aborting -> goto abort
        :: else
        fi;
        for (j : 0 .. JOBS - 1) {
            move(j, pending)
        }
    };
    SLEEP_UNLESS(!manual || finalize || group_aborting);
    atomic {
        finalize = true;
        if
        :: group_aborting -> goto abort
        :: else
        fi
    };

    /* Each prepare may wait (flush), so verbs may come in between. */
    for (i : 0 .. JOBS - 1) {
        atomic {
            if
            :: prepared[i] = true
            :: own_failure[i] = !cancel_flag[i]; fail_member(i)
            fi;
#ifdef BREAK_COMMIT_BEFORE_ALL_PREPARED
            if
            :: prepared[i] -> decide(i, abdicated)
            :: else
            fi;
#endif
            if
            :: group_aborting -> goto abort
            :: else
            fi
        }
    };

    /* The decider prepares; it may wait, and cancels still win. */
    if
    :: !durable
    :: durable
    :: atomic {
           durable ->
           own_failure[0] = !cancel_flag[0] && state[0] != aborting;
           if
           :: state[0] != aborting -> fail_member(0)
           :: else
           fi
       }
    fi;

    /* Sealed in the same step that saw the last one prepared. */
    atomic {
        if
#ifndef BREAK_CANCEL_AFTER_THE_LAST_PREPARE_IS_LOST
        :: group_aborting -> goto abort
#endif
        :: else -> sealed = true
        fi;
        i = 0
    };

    /* The decider writes its record. */
#ifndef BREAK_COMMIT_BEFORE_THE_RECORD
    if
    :: !durable
    :: durable -> record = commits
    :: durable -> atomic { /* nothing of it can be on disk */
           record = aborts; sealed = false; own_failure[0] = true;
           fail_member(0); goto abort
       }
    :: durable ->
           record = doubtful;
           atomic { /* ABORT is durable */
#ifndef BREAK_FAIL_IN_DOUBT
               record = aborts;
#endif
               sealed = false; own_failure[0] = true;
               fail_member(0); goto abort
           }
    fi;
#endif
    do
    :: atomic {
           i < JOBS ->
           assert(prepared[0] && prepared[1] && prepared[2]);
           decide(i, abdicated);
#ifdef BREAK_TELL_WHILE_COMMITTING
           tell(i);
#endif
           i++
       }
    :: atomic { i == JOBS -> goto clean }
    od;

abort:
    SLEEP_UNLESS(at_work == 0);
    atomic {
        for (j : 0 .. JOBS - 1) {
            if
            :: state[j] != aborting -> move(j, aborting)
            :: else
            fi
        };
        i = 0
    };
    do
    :: atomic {
           i < JOBS ->
#ifdef BREAK_FORGET_A_RECLAIM
           if
           :: i != 1 || state[i] == paused -> decide(i, reclaimed)
           :: else
           fi;
#else
           decide(i, reclaimed);
#endif
           i++
       }
    :: atomic { i == JOBS -> break }
    od;

clean:
    atomic { i = 0 };
    do
    :: atomic { i < JOBS -> tell(i); i++ }
    :: atomic { i == JOBS -> break }
    od;
    atomic {
        over = true;
        assert((told[0] == completed) == (told[1] == completed));
        assert((told[1] == completed) == (told[2] == completed));
        assert(bitmap[0] == bitmap[1] && bitmap[1] == bitmap[2])
    }
}

/* --- Main thread: clients ------------------------------------------------- */

inline choose() { /* n: any member */
    if
    :: n = 0
    :: n = 1
    :: n = 2
    fi
}

/* job-cancel on any member, at any time, or never. */
proctype Canceller()
{
    if
    :: over
    :: atomic {
           choose();
           if
           :: (state[n] == aborting || state[n] == concluded ||
               state[n] == null) /* refused by the state */
#ifndef BREAK_CANCEL_AFTER_SEAL
           :: sealed /* refused: it has succeeded */
#endif
           :: else ->
               if
               :: started -> abort_group()
               :: else -> flag_cancelled(n)
               fi
           fi
       }
    fi
}

/* job-pause at any time; job-resume after, unless the group is ending. */
proctype Pauser()
{
    byte i;

    if
    :: over
    :: atomic {
           choose();
           i = n;
           if
           :: state[i] == created || state[i] == running ->
               pause_flag[i] = true;
               nudge(i)
           :: else /* refused by the state */
           fi
       };
       if
       :: group_aborting || over
       :: atomic {
              !group_aborting && !over ->
              if
              :: pause_flag[i] -> unpause(i)
              :: else
              fi
          }
       fi
    fi;
    i = 0
}

/* job-finalize on any member, if it comes to that. */
proctype Finalizer()
{
    if
    :: over
    :: atomic {
           !finalize && !group_aborting &&
           (state[0] == pending || state[1] == pending ||
            state[2] == pending) ->
           finalize = true;
           wake_group()
       }
    fi
}

init
{
    atomic {
        for (j : 0 .. JOBS - 1) {
            state[j] = created;
            bitmap[j] = frozen;
            told[j] = untold
        };
        if
        :: manual = true
        :: manual = false
        fi;
        if
        :: durable = true
        :: durable = false
        fi;
        for (k : 1 .. CANCELLERS) {
            run Canceller()
        };
#if PAUSERS
        run Pauser();
#endif
        run Finalizer()
    };
    /* The jobs are made, and clients see them, before the group starts. */
    atomic {
        started = true;
        at_work = JOBS;
        for (k : 0 .. JOBS - 1) {
            working[k] = true;
            move(k, running);
            run Job(k)
        };
        run Group()
    };
    over
}
