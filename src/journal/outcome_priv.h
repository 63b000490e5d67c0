/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of sealing, for the files of this folder. */
#ifndef JOURNAL_OUTCOME_PRIV_H
#define JOURNAL_OUTCOME_PRIV_H

#include "journal/outcome.h"

/* What is known of one dead run. */
struct sealed_run {
    struct journal_id run;
    GPtrArray
        *transactions;   /* struct commit_transaction, owned; as they began */
    GHashTable *by_txid; /* the same, borrowed */
    char *damage;        /* NULL: the log was read whole */
};

typedef struct sealed_run sealed_run;
struct sealed_run *sealed_run_new(const struct journal_id *run);
void sealed_run_free(struct sealed_run *run);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(sealed_run, sealed_run_free)

/* The first damage counts; `text` is copied. */
void sealed_run_set_damaged(struct sealed_run *run, const char *text);

struct commit_transaction *sealed_run_find(const struct sealed_run *run,
                                           const struct journal_id *txid);

/* From the parts of its log; `parts`: uint32_t, in order, of those that are
 * there, at least one. What cannot be read is damage. */
void co_sealed_run_read_log(struct state_directory *directory,
                            const GArray *parts,
                            struct sealed_run *run);
/* From the file `name`: damage is noted, too. */
void co_sealed_run_read(struct state_directory *directory,
                        const char *name,
                        struct sealed_run *run);
/* Makes the file, or replaces it, durably. */
int co_sealed_run_write(struct state_directory *directory,
                        const char *name,
                        const struct sealed_run *run,
                        GError **err);

/* How it ended. `ret_reason`: NULL, or why that is unknown; the caller frees it. */
enum outcome sealed_run_ask(const struct sealed_run *run,
                            const struct journal_id *txid,
                            char **ret_reason);
/* Will nobody ask for any of the run again? */
bool sealed_run_is_over(const struct sealed_run *run);

#endif
