/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking one point alone reads all its pieces through the chain. Checking
 * all points in turn need not read anything twice: a piece that an increment
 * does not touch must have the hash that it had at the point before, where the
 * content was compared with it.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "repo/chain.h"
#include "repo/content.h"

struct verification {
    const struct repository *repository;
    const struct manifest *point;
    const struct manifest_disk *disk;
    const struct content_watch *watch;
    GPtrArray *problems;
    struct chain *chain;
    struct hash_list *list;
    struct hash_list *previous; /* of the point before; NULL: check content */
    uint8_t *buffer;            /* one piece */
};

void content_problem_free(void *pointer)
{
    struct content_problem *problem = pointer;

    g_free(problem->point);
    g_free(problem->disk);
    g_free(problem->sentence);
    g_free(problem);
}

static void add_problem(struct verification *verification,
                        const uint64_t *offset,
                        const char *sentence)
{
    struct content_problem *problem = g_new0(struct content_problem, 1);

    problem->point = g_strdup(verification->point->point);
    problem->disk = g_strdup(verification->disk->node);
    problem->has_offset = offset != NULL;
    problem->offset = offset == NULL ? 0 : *offset;
    problem->sentence = g_strdup(sentence);
    g_ptr_array_add(verification->problems, problem);
}

/* Compares the content of piece `index` with its hash. */
static void check_content(struct verification *verification, uint64_t index)
{
    g_autoptr(GError) why = NULL;
    uint64_t offset = index * HASH_PIECE_BYTES;
    uint64_t bytes = hash_list_piece_bytes(verification->list, index);
    bool is_zero;
    bool matches;

    if (chain_read(verification->chain, offset, verification->buffer,
                   (size_t)bytes, &is_zero, &why) < 0) {
        add_problem(verification, &offset, why->message);
        return;
    }
    matches = is_zero ? hash_list_is_zero(verification->list, index)
                      : hash_list_matches(verification->list, index,
                                          verification->buffer);
    if (!matches) {
        add_problem(verification, &offset, "the content differs from its hash");
    }
}

/* Does the topmost image hold any part of piece `index`? */
static bool is_touched(struct verification *verification, uint64_t index)
{
    uint64_t offset = index * HASH_PIECE_BYTES;
    uint64_t end = offset + hash_list_piece_bytes(verification->list, index);
    struct image_run run;

    while (offset < end) {
        if (chain_map_top(verification->chain, offset, end - offset, &run,
                          NULL) < 0 ||
            run.kind != IMAGE_UNALLOCATED) {
            return true; /* a fault shows when it is read */
        }
        offset += run.bytes;
    }
    return false;
}

static void check_piece(struct verification *verification, uint64_t index)
{
    uint64_t offset = index * HASH_PIECE_BYTES;

    if (verification->previous == NULL || is_touched(verification, index)) {
        check_content(verification, index);
        return;
    }
    if (memcmp(hash_list_get(verification->list, index),
               hash_list_get(verification->previous, index), HASH_BYTES) != 0) {
        add_problem(verification, &offset,
                    "the hash changed though the point holds no change of it");
    }
}

static int check_pieces(struct verification *verification)
{
    uint64_t count = hash_list_count(verification->list);

    for (uint64_t i = 0; i < count; i++) {
        check_piece(verification, i);
        if (!verification->watch->step(verification->watch->opaque,
                                       verification->disk->node, i + 1,
                                       count)) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* The list of the point before, when that one is sound enough to lean on. */
static struct hash_list *previous_list(struct verification *verification)
{
    const struct manifest_disk *disk = verification->disk;
    const struct manifest *below =
        repository_find(verification->repository, disk->previous);
    const struct manifest_disk *base =
        below == NULL ? NULL : manifest_find_disk(below, disk->node);

    if (base == NULL || base->size != disk->size) {
        return NULL;
    }
    return content_load_hashes(verification->repository, below, base, NULL);
}

int content_verify(const struct repository *repository,
                   const struct manifest *point,
                   const struct manifest_disk *disk,
                   bool whole,
                   const struct content_watch *watch,
                   GPtrArray *problems)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(hash_list_auto) previous = NULL;
    g_autofree uint8_t *buffer = g_malloc(HASH_PIECE_BYTES);
    struct verification verification = { .repository = repository,
                                         .point = point,
                                         .disk = disk,
                                         .watch = watch,
                                         .problems = problems,
                                         .buffer = buffer };
    g_autoptr(hash_list_auto) list =
        content_load_hashes(repository, point, disk, &why);

    if (list == NULL) {
        add_problem(&verification, NULL, why->message);
        g_clear_error(&why);
    }
    g_autoptr(chain_auto) chain =
        chain_open(repository, point, disk->node, &why);
    if (chain == NULL) {
        add_problem(&verification, NULL, why->message);
    }
    if (list == NULL || chain == NULL) {
        return 0;
    }
    if (disk->incremental && !whole) {
        previous = previous_list(&verification);
    }
    verification.chain = chain;
    verification.list = list;
    verification.previous = previous;
    return check_pieces(&verification);
}
