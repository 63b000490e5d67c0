/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/table.h"

#include <glib.h>
#include <libsmartcols/libsmartcols.h>
#include <string.h>

struct table {
    struct libscols_table *table;
    size_t columns;
};

struct table *table_new(const char *const *columns)
{
    struct table *table = g_new0(struct table, 1);

    table->table = scols_new_table();
    g_assert(table->table != NULL);
    for (; columns[table->columns] != NULL; table->columns++) {
        g_autofree char *name = g_strdup(columns[table->columns]);
        int flags = 0;
        if (g_str_has_suffix(name, ">")) {
            name[strlen(name) - 1] = '\0';
            flags = SCOLS_FL_RIGHT;
        }
        g_assert(scols_table_new_column(table->table, name, 0.0, flags) !=
                 NULL);
    }
    return table;
}

void table_add(struct table *table, const char *const *cells)
{
    struct libscols_line *line = scols_table_new_line(table->table, NULL);

    g_assert(line != NULL);
    for (size_t i = 0; i < table->columns; i++) {
        g_assert(scols_line_set_data(line, i,
                                     cells[i] == NULL ? "" : cells[i]) == 0);
    }
}

void table_print(struct table *table)
{
    (void)scols_print_table(table->table); /* main() checks stdout */
    scols_unref_table(table->table);
    g_free(table);
}
