/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blkdebug: passes requests on to its child, and fails those its rules name.
 *
 * A request makes its events happen, then the active rules are asked, then it
 * goes to the child. Never the fast way, so that rules see every request.
 */
#include <errno.h>

#include "base/error.h"
#include "drivers/blkdebug_rules.h"
#include "drivers/drivers.h"
#include "loop/coroutine.h"

struct blkdebug_state {
    struct block_node *image; /* the child; shared with the graph */
    struct blkdebug_rules *rules;
};

static const struct schema_member blkdebug_members[] = {
    { .name = "image",
      .type = &blockdev_ref_type,
      .doc = "Where requests go.",
      .required = true },
    { .name = "inject-error",
      .type = &blkdebug_inject_error_type,
      .doc = "Which requests fail, and how." },
    { .name = "set-state",
      .type = &blkdebug_set_state_type,
      .doc = "How the state changes on which rules depend." },
    { .name = NULL },
};

const struct schema_type driver_blkdebug_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsBlkdebug",
    .members = blkdebug_members,
};

static int co_blkdebug_open(struct block_node *node,
                            const struct json_value *options,
                            GError **err)
{
    struct blkdebug_state *state;
    struct blkdebug_rules *rules;
    int ret = blkdebug_rules_new(options, &rules, err);

    if (ret < 0) {
        g_prefix_error(err, "node '%s': ", block_name(node));
        return ret;
    }
    state = g_new0(struct blkdebug_state, 1);
    state->image = block_child(node, "image");
    state->rules = rules;
    block_set_state(node, state);
    block_set_size(node, block_size(state->image));
    return 0;
}

static void co_blkdebug_close(struct block_node *node)
{
    struct blkdebug_state *state = block_state(node);

    blkdebug_rules_free(state->rules);
    g_free(state);
}

/* The error that a rule has for the request; 0: none. */
static int co_ask_rules(struct blkdebug_state *state,
                        enum blkdebug_iotype iotype,
                        uint64_t offset,
                        uint64_t bytes)
{
    bool immediately = true;
    int ret =
        blkdebug_rules_apply(state->rules, iotype, offset, bytes, &immediately);

    if (!immediately) {
        co_reschedule();
    }
    return ret;
}

static int co_blkdebug_preadv(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count)
{
    struct blkdebug_state *state = block_state(node);
    int ret;

    blkdebug_rules_happen(state->rules, BLKDEBUG_READ_AIO);
    ret = co_ask_rules(state, BLKDEBUG_READ, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    return co_block_child_preadv(state->image, offset, bytes, iov, iov_count);
}

static int co_blkdebug_pwritev(struct block_node *node,
                               uint64_t offset,
                               uint64_t bytes,
                               const struct iovec *iov,
                               int iov_count,
                               unsigned int flags)
{
    struct blkdebug_state *state = block_state(node);
    int ret;

    blkdebug_rules_happen(state->rules, BLKDEBUG_WRITE_AIO);
    blkdebug_rules_happen(state->rules, BLKDEBUG_PWRITEV);
    ret = co_ask_rules(state, BLKDEBUG_WRITE, offset, bytes);
    if (ret == 0) {
        ret = co_block_child_pwritev(state->image, offset, bytes, iov,
                                     iov_count, flags);
    }
    blkdebug_rules_happen(state->rules, BLKDEBUG_PWRITEV_DONE);
    return ret;
}

static int co_blkdebug_write_zeroes(struct block_node *node,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    unsigned int flags)
{
    struct blkdebug_state *state = block_state(node);
    int ret;

    blkdebug_rules_happen(state->rules, BLKDEBUG_PWRITEV_ZERO);
    ret = co_ask_rules(state, BLKDEBUG_WRITE_ZEROES, offset, bytes);
    if (ret == 0) {
        ret = co_block_child_write_zeroes(state->image, offset, bytes, flags);
    }
    blkdebug_rules_happen(state->rules, BLKDEBUG_PWRITEV_DONE);
    return ret;
}

static int co_blkdebug_discard(struct block_node *node,
                               uint64_t offset,
                               uint64_t bytes)
{
    struct blkdebug_state *state = block_state(node);
    int ret = co_ask_rules(state, BLKDEBUG_DISCARD, offset, bytes);

    return ret < 0 ? ret : co_block_child_discard(state->image, offset, bytes);
}

static int co_blkdebug_flush(struct block_node *node)
{
    struct blkdebug_state *state = block_state(node);
    int ret;

    blkdebug_rules_happen(state->rules, BLKDEBUG_FLUSH_TO_OS);
    blkdebug_rules_happen(state->rules, BLKDEBUG_FLUSH_TO_DISK);
    ret = co_ask_rules(state, BLKDEBUG_FLUSH, 0, block_size(node));
    return ret < 0 ? ret : co_block_child_flush(state->image);
}

static int co_blkdebug_status(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              struct block_extent *ret)
{
    struct blkdebug_state *state = block_state(node);
    int error = co_ask_rules(state, BLKDEBUG_BLOCK_STATUS, offset, bytes);

    return error < 0 ? error
                     : co_block_child_status(state->image, offset, bytes, ret);
}

static int co_blkdebug_truncate(struct block_node *node,
                                uint64_t size_bytes,
                                bool shrink,
                                GError **err)
{
    struct blkdebug_state *state = block_state(node);

    return co_block_child_truncate(state->image, size_bytes, shrink, err);
}

static void blkdebug_children_changed(struct block_node *node)
{
    struct blkdebug_state *state = block_state(node);

    state->image = block_child(node, "image");
}

static int co_blkdebug_claim(struct block_node *node,
                             enum block_claim claim,
                             bool begin,
                             GError **err)
{
    const struct blkdebug_state *state = block_state(node);

    return co_block_child_claim(state->image, claim, begin, err);
}

static void co_blkdebug_info(struct block_node *node, struct json_value *image)
{
    const struct blkdebug_state *state = block_state(node);
    g_autofree char *filename = NULL;

    co_block_child_info(state->image, image);
    filename = g_strdup_printf("blkdebug::%s",
                               json_dict_string(image, "filename", ""));
    json_dict_set_string(image, "filename", filename);
}

static const struct block_child_role blkdebug_children[] = {
    { .name = "image", .required = true },
    { .name = NULL },
};

const struct block_driver driver_blkdebug = {
    .name = "blkdebug",
    .doc = "Passes requests on and fails those that rules name, for tests.",
    .options = &driver_blkdebug_options,
    .children = blkdebug_children,
    .co_open = co_blkdebug_open,
    .co_close = co_blkdebug_close,
    .co_preadv = co_blkdebug_preadv,
    .co_pwritev = co_blkdebug_pwritev,
    .co_write_zeroes = co_blkdebug_write_zeroes,
    .co_discard = co_blkdebug_discard,
    .co_flush = co_blkdebug_flush,
    .co_status = co_blkdebug_status,
    .co_truncate = co_blkdebug_truncate,
    .co_claim = co_blkdebug_claim,
    .children_changed = blkdebug_children_changed,
    .co_info = co_blkdebug_info,
};
