/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the check share: what is known of the image while it is
 * looked through.
 *
 * A pass goes through everything that may name a cluster and counts that in
 * `used`; L2 tables are not entered as they are met but counted themselves, and
 * gone through once each afterwards, in the order of the file. So many
 * snapshots, or a hostile L1 table that names one L2 table a million times,
 * cost no more than one.
 */
#ifndef DRIVERS_QCOW2_CHECK_PRIV_H
#define DRIVERS_QCOW2_CHECK_PRIV_H

#include "drivers/qcow2/check.h"
#include "drivers/qcow2/check_counts.h"
#include "drivers/qcow2/header.h"

/* Memory of one check_counts. */
#define CHECK_COUNTS_BYTES (UINT64_C(512) << 20)
/* Entries of snapshots' L1 tables and of bitmap tables, and clusters of tables,
 * all together. */
#define CHECK_ENTRIES_MAX (UINT64_C(1) << 27)
/* Tables are read in pieces of this size. */
#define CHECK_PIECE_BYTES (64 * 1024)

struct qcow2_check {
    struct block_node *file;
    const char *name;
    struct qcow2_header *header; /* owned */
    qcow2_check_report *report;  /* NULL: silent */
    void *opaque;

    uint64_t cluster_bytes;
    uint64_t file_bytes;
    uint64_t file_clusters; /* rounded up */
    unsigned int l2_entry_bytes;
    bool external_data;
    uint64_t block_entries; /* refcounts in a block */
    uint64_t refcount_max;

    uint8_t *cluster; /* owned; a cluster's worth of scratch */
    uint8_t *piece;   /* owned; CHECK_PIECE_BYTES of it */

    /* One pass. */
    struct qcow2_check_result result;
    uint64_t wrong_flags; /* corruptions that are "copied" flags */
    uint64_t entries_left;
    bool ignore_refcounts; /* do not count refcount table and blocks */
    bool is_incomplete; /* a table could not be followed, so what it names may
                           look leaked */
    bool needs_rebuild; /* refcounts cannot be set right where they are */
    bool needs_entries; /* there are entries that repair_entries.c can mend */
    struct check_counts *used;
    struct check_counts *dangling; /* clusters behind the end of the file that
                                      something names */
    struct check_counts *tables; /* clusters that were read as a table, but for
                                     refcounts; as how many */
    bool is_entangled; /* one is two tables: mending one changes the other */
    struct check_counts *l2_tables; /* named by L1 tables, how often */
    struct check_counts *l2_active; /* ... by the active one */
    uint64_t *refcount_table;       /* owned; offsets, 0: no (valid) block */
    uint64_t refcount_table_count;
    uint8_t *block; /* owned; the refcount block that was read last ... */
    uint64_t block_offset; /* ... from here; 0: none */
};

/* check_pass.c */
int co_check_pass(struct qcow2_check *check);
void check_pass_release(struct qcow2_check *check);

/* Reads; what lies behind the end of the file reads as zeroes. A negative errno
 * has been reported, as a check error. */
int co_check_read(struct qcow2_check *check,
                  uint64_t offset,
                  uint64_t bytes,
                  void *buffer);
/* Is the range a hole of the file, or behind its end? */
bool co_check_is_hole(struct qcow2_check *check,
                      uint64_t offset,
                      uint64_t bytes);
void check_corruption(struct qcow2_check *check,
                      uint64_t times,
                      const char *format,
                      ...) G_GNUC_PRINTF(3, 4);
void check_say(struct qcow2_check *check, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
/* Counts the clusters that the range touches as used `times` times, or reports
 * that they are behind the end of the file: false then. */
int check_use(struct qcow2_check *check,
              uint64_t offset,
              uint64_t bytes,
              uint64_t times,
              const char *what,
              bool *ret_within);
/* As check_use(), for what will be read as a table. */
int check_use_table(struct qcow2_check *check,
                    uint64_t offset,
                    uint64_t bytes,
                    const char *what,
                    bool *ret_within);
/* Calls `each` for each big-endian number of a table that lies within the
 * file. The numbers count against entries_left: -EFBIG. */
int co_check_each(struct qcow2_check *check,
                  uint64_t offset,
                  uint64_t count,
                  int (*each)(struct qcow2_check *check,
                              uint64_t index,
                              uint64_t number,
                              void *opaque),
                  void *opaque);

/* check_mapping.c: L1 tables into l2_tables, and these through. */
int co_check_active_l1(struct qcow2_check *check);
int co_check_snapshot_l1(struct qcow2_check *check,
                         uint64_t offset,
                         uint64_t count);
int co_check_l2_tables(struct qcow2_check *check);

/* check_snapshots.c, check_bitmaps.c */
int co_check_snapshots(struct qcow2_check *check);
int co_check_bitmaps(struct qcow2_check *check);

/* check_refcounts.c */
int co_check_refcount_structures(struct qcow2_check *check);
int co_check_compare(struct qcow2_check *check);
/* What the file says of a cluster. 0 where no block says anything. */
int co_check_refcount(struct qcow2_check *check,
                      uint64_t cluster,
                      uint64_t *ret_count);

/* check_copied.c: the flags of the active L1 and L2 tables, held against the
 * refcounts. `mend`: puts them right in the file, counted or not. */
int co_check_copied(struct qcow2_check *check, bool mend, GError **err);

/* repair_entries.c: what of L2 entries can be mended without knowing more. */
int co_repair_entries(struct qcow2_check *check, GError **err);
/* repair_refcounts.c: in place, those that are too low, or too high. */
int co_repair_increase(struct qcow2_check *check, GError **err);
int co_repair_decrease(struct qcow2_check *check, GError **err);
/* repair_rebuild.c: a new refcount table and blocks, behind the end of the
 * file. Begins with a pass of its own. */
int co_repair_rebuild(struct qcow2_check *check, GError **err);

/* repair.c */
int co_repair_write(struct qcow2_check *check,
                    uint64_t offset,
                    uint64_t bytes,
                    const void *buffer,
                    GError **err);
int co_repair_sync(struct qcow2_check *check, GError **err);

#endif
