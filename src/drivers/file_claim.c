/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What formats on a file claim of it, as locks that tell other processes. The
 * first claim of a kind takes the lock, the last one gives it back. Who writes
 * to the file has kept others from writing since it was opened.
 */
#include "drivers/file_priv.h"

struct claiming {
    const struct file_state *state;
    enum block_claim claim;
    GError *err;
};

static int run_begin(void *opaque)
{
    struct claiming *call = opaque;
    const struct file_state *state = call->state;

    return call->claim == BLOCK_CLAIM_SIZE
               ? file_lock_begin_resize(state->fd, state->filename, &call->err)
               : file_lock_begin_unwritten(state->fd, state->filename,
                                           &call->err);
}

static int run_end(void *opaque)
{
    const struct claiming *call = opaque;

    if (call->claim == BLOCK_CLAIM_SIZE) {
        file_lock_end_resize(call->state->fd);
    } else {
        file_lock_end_unwritten(call->state->fd);
    }
    return 0;
}

int co_file_claim(struct block_node *node,
                  enum block_claim claim,
                  bool begin,
                  GError **err)
{
    struct file_state *state = block_state(node);
    unsigned int *claims = &state->claims[claim];
    struct claiming call = { state, claim, NULL };
    bool needs_lock =
        state->locks && state->writable == (claim == BLOCK_CLAIM_SIZE);
    int ret = 0;

    if (begin) {
        if (needs_lock && *claims == 0) {
            ret = co_file_call(state, run_begin, &call);
        }
        if (ret < 0) {
            g_propagate_error(err, call.err);
            return ret;
        }
        (*claims)++;
        return 0;
    }
    g_assert(*claims > 0);
    (*claims)--;
    if (needs_lock && *claims == 0) {
        (void)co_file_call(state, run_end, &call); /* never fails */
    }
    return 0;
}
