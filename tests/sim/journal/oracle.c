/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/oracle.h"

#include <string.h>

#include "base/bytes.h"
#include "journal/tracker.h"

#define SECTOR UINT64_C(512)

static void free_state(void *opaque)
{
    struct oracle_state *state = opaque;

    g_clear_pointer(&state->since, g_bytes_unref);
    g_clear_pointer(&state->also, g_bytes_unref);
    g_clear_pointer(&state->until, g_bytes_unref);
    g_clear_pointer(&state->also_until, g_bytes_unref);
    g_clear_pointer(&state->must, g_bytes_unref);
    g_free(state);
}

static void free_bitmap(void *opaque)
{
    struct oracle_bitmap *bitmap = opaque;

    g_ptr_array_unref(bitmap->states);
    g_free(bitmap->name);
    g_free(bitmap);
}

void oracle_init(struct oracle *oracle)
{
    oracle->bitmaps = g_ptr_array_new_with_free_func(free_bitmap);
}

void oracle_release(struct oracle *oracle)
{
    g_ptr_array_unref(oracle->bitmaps);
}

struct oracle_bitmap *oracle_bitmap(struct oracle *oracle, const char *name)
{
    struct oracle_bitmap *bitmap;
    struct oracle_state *state;

    for (guint i = 0; i < oracle->bitmaps->len; i++) {
        bitmap = g_ptr_array_index(oracle->bitmaps, i);
        if (strcmp(bitmap->name, name) == 0) {
            return bitmap;
        }
    }
    bitmap = g_new0(struct oracle_bitmap, 1);
    bitmap->name = g_strdup(name);
    bitmap->states = g_ptr_array_new_with_free_func(free_state);
    state = g_new0(struct oracle_state, 1);
    state->absent = true;
    g_ptr_array_add(bitmap->states, state);
    g_ptr_array_add(oracle->bitmaps, bitmap);
    return bitmap;
}

static GBytes *share(GBytes *bytes)
{
    return bytes == NULL ? NULL : g_bytes_ref(bytes);
}

struct oracle_state *oracle_copy(const struct oracle_bitmap *bitmap)
{
    return oracle_state_copy(
        g_ptr_array_index(bitmap->states, bitmap->states->len - 1));
}

struct oracle_state *oracle_state_copy(const struct oracle_state *state)
{
    struct oracle_state *copy = g_memdup2(state, sizeof(*state));

    copy->by = NULL;
    copy->since = share(state->since);
    copy->also = share(state->also);
    copy->until = share(state->until);
    copy->also_until = share(state->also_until);
    copy->must = share(state->must);
    return copy;
}

void oracle_state_forget_past(struct oracle_state *state)
{
    g_clear_pointer(&state->since, g_bytes_unref);
    g_clear_pointer(&state->also, g_bytes_unref);
    g_clear_pointer(&state->also_until, g_bytes_unref);
    g_clear_pointer(&state->must, g_bytes_unref);
}

void oracle_may(struct oracle_bitmap *bitmap, struct oracle_state *state)
{
    g_ptr_array_add(bitmap->states, state);
}

void oracle_decide(struct oracle_bitmap *bitmap, bool stands)
{
    guint last = bitmap->states->len - 1;

    if (last == 0) {
        return;
    }
    if (stands) {
        g_ptr_array_remove_range(bitmap->states, 0, last);
    } else {
        g_ptr_array_remove_index(bitmap->states, last);
    }
}

/* Is a sector of `a` another one in `b`? What only one of them has, is. */
static bool differs(GBytes *a, GBytes *b, uint64_t offset)
{
    gsize a_bytes, b_bytes;
    const uint8_t *a_data = g_bytes_get_data(a, &a_bytes);
    const uint8_t *b_data = g_bytes_get_data(b, &b_bytes);

    if (offset + SECTOR > a_bytes || offset + SECTOR > b_bytes) {
        return true;
    }
    return memcmp(a_data + offset, b_data + offset, SECTOR) != 0;
}

/* The first sector that would have to be dirty and is not; UINT64_MAX: none. */
static uint64_t find_missed(const struct oracle_state *state,
                            const struct bitmap *bits,
                            GBytes *content)
{
    GBytes *until = state->until != NULL ? state->until : content;
    GBytes *also_until = state->also_until != NULL ? state->also_until : until;
    gsize must_bytes = 0;
    const uint8_t *must =
        state->must == NULL ? NULL : g_bytes_get_data(state->must, &must_bytes);

    for (uint64_t offset = 0; offset < bitmap_size_bytes(bits);
         offset += SECTOR) {
        bool wanted =
            differs(state->since, until, offset) ||
            (state->also != NULL && differs(state->also, also_until, offset)) ||
            (offset / SECTOR < must_bytes && must[offset / SECTOR] != 0);

        if (wanted && !bitmap_get(bits, offset)) {
            return offset;
        }
    }
    return UINT64_MAX;
}

static bool same_base(const struct bitmap_base *a, const struct bitmap_base *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    return a->kind == BITMAP_BASE_NONE ||
           memcmp(a->points, b->points, sizeof(a->points)) == 0;
}

bool oracle_is_in(const struct oracle_state *state,
                  struct dirty_bitmap *found,
                  const struct bitmap_base *base,
                  GBytes *content,
                  uint64_t *ret_missed)
{
    uint64_t missed;

    if (ret_missed != NULL) {
        *ret_missed = UINT64_MAX;
    }
    if (found == NULL || state->absent) {
        return found == NULL && state->absent;
    }
    if (!same_base(base, &state->base) ||
        (state->until == NULL) != dirty_bitmap_is_enabled(found)) {
        return false;
    }
    missed = find_missed(state, dirty_bitmap_bits(found), content);
    if (ret_missed != NULL) {
        *ret_missed = missed;
    }
    return missed == UINT64_MAX;
}

static char *check_bitmap(struct oracle_bitmap *bitmap,
                          struct dirty_bitmap *found,
                          const struct bitmap_base *base,
                          GBytes *content)
{
    uint64_t missed = UINT64_MAX;
    bool had_base = false;

    for (guint i = bitmap->states->len; i-- > 0;) {
        struct oracle_state *state = g_ptr_array_index(bitmap->states, i);

        if (state->absent != (found == NULL)) {
            continue;
        }
        if (found != NULL && !same_base(base, &state->base)) {
            continue;
        }
        had_base = true;
        if (found != NULL) {
            missed = find_missed(state, dirty_bitmap_bits(found), content);
        }
        if (missed == UINT64_MAX &&
            (found == NULL ||
             (state->until == NULL) == dirty_bitmap_is_enabled(found))) {
            /* That is the one. */
            if (i + 1 < bitmap->states->len) {
                g_ptr_array_remove_range(bitmap->states, i + 1,
                                         bitmap->states->len - i - 1);
            }
            g_ptr_array_remove_range(bitmap->states, 0, i);
            return NULL;
        }
    }
    if (!had_base) {
        return g_strdup_printf("bitmap '%s' %s, or has another base",
                               bitmap->name,
                               found == NULL ? "is lost" : "should not be");
    }
    return g_strdup_printf(
        "bitmap '%s' is clean at %" G_GUINT64_FORMAT
        ", where the disk has changed (or its recording is wrong)",
        bitmap->name, missed);
}

void oracle_forget(struct oracle_bitmap *bitmap)
{
    struct oracle_state *state = g_new0(struct oracle_state, 1);

    state->absent = true;
    g_ptr_array_set_size(bitmap->states, 0);
    g_ptr_array_add(bitmap->states, state);
}

/* Is there one that nobody made? */
static char *check_strangers(struct oracle *oracle, struct block_node *node)
{
    struct dirty_bitmap *found = NULL;

    while ((found = dirty_bitmap_next(node, found)) != NULL) {
        (void)oracle_bitmap(oracle, dirty_bitmap_name(found));
    }
    return NULL;
}

char *oracle_check(struct oracle *oracle,
                   struct block_node *node,
                   GBytes *content,
                   bool may_be_inconsistent)
{
    struct tracker *tracker = tracker_of(node);
    char *problem = check_strangers(oracle, node);

    for (guint i = 0; problem == NULL && i < oracle->bitmaps->len; i++) {
        struct oracle_bitmap *bitmap = g_ptr_array_index(oracle->bitmaps, i);
        struct dirty_bitmap *found = dirty_bitmap_find(node, bitmap->name);
        struct bitmap_base base = { .kind = BITMAP_BASE_NONE };

        if (found != NULL && dirty_bitmap_reason(found) != NULL) {
            if (!may_be_inconsistent) {
                problem =
                    g_strdup_printf("bitmap '%s' is inconsistent: %s",
                                    bitmap->name, dirty_bitmap_reason(found));
            }
            oracle_forget(bitmap);
            continue;
        }
        if (found == NULL && may_be_inconsistent) {
            oracle_forget(bitmap);
            continue;
        }
        if (found != NULL && !tracker_base(tracker, found, &base)) {
            return g_strdup_printf("bitmap '%s' is not persistent",
                                   bitmap->name);
        }
        problem = check_bitmap(bitmap, found, &base, content);
    }
    return problem;
}
