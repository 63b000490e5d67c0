/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables for people on standard output, on libsmartcols. Main thread. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

struct table;

/* `columns`: headings, NULL-terminated, borrowed; one that ends in '>' is
 * aligned to the right (and shown without it). */
struct table *table_new(const char *const *columns);
/* A row: a cell for each column, copied; NULL is an empty cell. */
void table_add(struct table *table, const char *const *cells);
/* Prints and frees. */
void table_print(struct table *table);

#endif
