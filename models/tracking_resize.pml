/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tracked disk that grows and shrinks, as a model for Spin.
 *
 *     Disk  record, sync ── truncate ── image synced ── record dropped, sync
 *
 * Shown: what there is of a clean cluster equals the base, through any sequence
 * of resizes, writes, backups and crashes, shrink-then-grow included; and
 * without a record the size that is found is the one that is written down.
 *
 * How it is simplified: writes set their bit durably at once (their intents are
 * proved in tracking_write.pml), a backup is one step.
 *
 * States explored: 0.1 million, 0.9 million in the full search.
 *
 *     sound: CRASHES=3
 *     full: RESIZES=5 WRITES=3 BACKUPS=3 CRASHES=4
 *     mistakes: CRASHES=2
 */

#ifndef RESIZES
#define RESIZES 3
#endif
#ifndef WRITES
#define WRITES 2
#endif
#ifndef BACKUPS
#define BACKUPS 2
#endif
#ifndef CRASHES
#define CRASHES 3
#endif

/*
 * Sizes count half clusters, beyond a first cluster that is always there:
 *
 *     size 0          size 1             size 2
 *     ├─ cluster 0 ─┤ ├─ cluster 0 ─┤─┐  ├─ cluster 0 ─┼─ cluster 1 ─┤
 *
 * so that 1 ends within cluster 1, the only one that a resize touches; but for
 * growth from 0, where the cluster that holds the end is cluster 1 as well.
 */
#define HALVES 2

/* --- In the page cache, and on the medium --------------------------------- */

byte size, size_disk;
byte half[HALVES], half_disk[HALVES];

/* The tracking file: the size, the bit of cluster 1, the record. */
#define NO_RECORD 3
#define STATE(size, dirty, old, new) \
 ((size) | ((dirty) << 2) | ((old) << 3) | ((new) << 5))
#define SIZE(state)  ((state) & 3)
#define DIRTY(state) (((state) >> 2) & 1)
#define OLD(state)   (((state) >> 3) & 3)
#define NEW(state)   (((state) >> 5) & 3)
byte file, file_disk;

/* --- What the oracle knows ------------------------------------------------ */

byte base[HALVES];
byte base_size;

/* --- Memory --------------------------------------------------------------- */

mtype = { down, syncing_found, dropping, running };
mtype life = running;
mtype = { idle, recording, recorded, truncated, image_synced, dropped };
mtype step;
byte wanted;
bool dirty;

byte resizes_left = RESIZES, writes_left = WRITES, backups_left = BACKUPS,
     crashes_left = CRASHES;

hidden byte h;

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

/* What lies beyond the end is gone. */
inline cut_off() {
    for (h : 0 .. HALVES - 1) {
        if
        :: h >= size_disk -> half_disk[h] = 0
        :: else
        fi;
        if
        :: h >= size -> half[h] = 0
        :: else
        fi
    };
    h = 0
}

inline sync_image() {
    size_disk = size;
    for (h : 0 .. HALVES - 1) {
        half_disk[h] = half[h]
    };
    cut_off()
}

inline truncate(to) {
    put(size, size_disk, to);
    for (h : 0 .. HALVES - 1) {
        if
        :: h >= size -> put(half[h], half_disk[h], 0)
        :: else
        fi
    };
    h = 0;
    cut_off()
}

inline flip(value) {
    put(file, file_disk, value)
}

/* Clean means: what there is of the cluster equals the base. */
inline check_superset(is_dirty) {
    for (h : 0 .. HALVES - 1) {
        assert(is_dirty || h >= size ||
               (h < base_size && half[h] == base[h]))
    };
    h = 0
}

#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* Is cluster 1 at or above the cluster that holds min(old, new)? Always: 0 is
 * its first byte, and 1 lies within it. */
#ifdef BREAK_FROM_THE_CLUSTER_AFTER_THE_END
#define TOUCHED(old, new) (MIN(old, new) == 0)
#else
#define TOUCHED(old, new) true
#endif

#ifdef BREAK_GROWN_PART_CLEAN
#define TOUCHED_BY(old, new) (TOUCHED(old, new) && (new) < (old))
#else
#define TOUCHED_BY(old, new) TOUCHED(old, new)
#endif

inline begin_resize(to) {
    resizes_left--;
    wanted = to;
#ifdef BREAK_RECORD_AFTER_THE_TRUNCATE
    truncate(to);
#endif
    step = recording
}

inline recover() {
    dirty = DIRTY(file);
    if
    :: OLD(file) != NO_RECORD ->
#ifdef BREAK_RECORD_MATTERS_ONLY_AT_THE_NEW_SIZE
        dirty = dirty || size == NEW(file);
#else
        dirty = dirty || TOUCHED_BY(OLD(file), NEW(file));
#endif
        assert(size == OLD(file) || size == NEW(file));
        life = syncing_found
    :: else ->
        assert(size == SIZE(file)); /* or it is inconsistent without a cause */
        life = running
    fi;
    check_superset(dirty)
}

#define ALIVE (life == running)

proctype Disk()
{
end:
    do
    /* Any write, through intents that are proved elsewhere: it is durably
     * dirty before its data goes. */
    :: atomic { ALIVE && step == idle && writes_left && size >= 1 ->
                writes_left--; dirty = true;
                file = file | 4; file_disk = file;
                put(half[0], half_disk[0], (half[0] + 1) % 3) }
    :: atomic { ALIVE && step == idle && writes_left && size >= 2 ->
                writes_left--; dirty = true;
                file = file | 4; file_disk = file;
                put(half[1], half_disk[1], (half[1] + 1) % 3) }
    /* A backup that succeeds. */
    :: atomic {
           ALIVE && step == idle && backups_left ->
           backups_left--;
           sync_image();
           base_size = size;
           for (h : 0 .. HALVES - 1) {
               base[h] = half[h]
           };
           h = 0;
           dirty = false;
           file = STATE(size, 0, NO_RECORD, NO_RECORD);
           file_disk = file
       }

    :: atomic {
           ALIVE && step == idle && resizes_left ->
           if
           :: size != 0 -> begin_resize(0)
           :: size != 1 -> begin_resize(1)
           :: size != 2 -> begin_resize(2)
           fi
       }
    :: atomic { ALIVE && step == recording ->
                flip(STATE(SIZE(file), dirty, SIZE(file), wanted));
                dirty = dirty || TOUCHED_BY(SIZE(file), wanted);
                step = recorded }
    :: atomic { ALIVE && step == recorded ->
#ifndef BREAK_RECORD_NOT_DURABLE
                file_disk = file;
#endif
#ifndef BREAK_RECORD_AFTER_THE_TRUNCATE
                truncate(wanted);
#endif
                step = truncated }
    :: atomic { ALIVE && step == truncated ->
#ifndef BREAK_RECORD_DROPPED_BEFORE_THE_IMAGE_IS_SYNCED
                sync_image();
#endif
                step = image_synced }
    :: atomic { ALIVE && step == image_synced ->
                flip(STATE(wanted, dirty, NO_RECORD, NO_RECORD));
                step = dropped }
    :: atomic { ALIVE && step == dropped ->
                file_disk = file; wanted = 0; step = idle;
                check_superset(dirty) }
    od
}

proctype Machine()
{
end:
    do
    :: atomic { crashes_left -> crashes_left--; step = idle; wanted = 0;
                dirty = false; life = down }
    :: atomic {
           crashes_left ->
           crashes_left--;
           step = idle; wanted = 0; dirty = false; life = down;
           lose(size, size_disk);
           lose(half[0], half_disk[0]);
           lose(half[1], half_disk[1]);
           cut_off();
           lose(file, file_disk)
       }
    :: atomic { life == down -> file_disk = file; recover() }
    /* A record stood: the size that was found is made durable first. */
    :: atomic { life == syncing_found ->
#ifndef BREAK_FOUND_SIZE_NOT_SYNCED
                sync_image();
#endif
                flip(STATE(size, dirty, NO_RECORD, NO_RECORD));
                life = dropping }
    :: atomic { life == dropping -> file_disk = file; life = running }
    od
}

init
{
    atomic {
        step = idle;
        size = 2; size_disk = 2; base_size = 2;
        half[0] = 1; half_disk[0] = 1; base[0] = 1;
        half[1] = 1; half_disk[1] = 1; base[1] = 1;
        file = STATE(2, 0, NO_RECORD, NO_RECORD);
        file_disk = file;
        run Disk();
        run Machine()
    }
}
