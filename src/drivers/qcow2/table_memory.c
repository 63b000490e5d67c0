/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A piece hands out the blocks that came back first, then those that were never
 * used, so memory that nobody needed is never touched. Pieces with room stand in
 * a list; one that is empty is kept if it is the only one there, for who takes
 * and gives in turn.
 */
#include "drivers/qcow2/table_memory.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/list.h"

#define PIECE_BYTES (256 * KIB)
#define ALIGNMENT   4096

struct table_piece {
    struct list link; /* in table_memory.roomy; empty: has no room */
    uint8_t *bytes;
    uint8_t *given; /* blocks that came back, each names the next; NULL: none */
    size_t used;    /* bytes that were ever handed out */
    size_t taken;   /* blocks */
};

struct table_memory {
    size_t block_bytes;
    size_t piece_bytes;
    struct list roomy;
};

struct table_memory *table_memory_new(uint32_t block_bytes)
{
    struct table_memory *memory = g_new0(struct table_memory, 1);

    g_assert(is_power_of_two(block_bytes) && block_bytes >= sizeof(uint8_t *));
    memory->block_bytes = block_bytes;
    memory->piece_bytes = max_u64(block_bytes, PIECE_BYTES);
    list_init(&memory->roomy);
    return memory;
}

static void piece_free(struct table_piece *piece)
{
    list_remove(&piece->link);
    free(piece->bytes);
    g_free(piece);
}

void table_memory_free(struct table_memory *memory)
{
    struct list *link;

    if (memory == NULL) {
        return;
    }
    while ((link = list_take_first(&memory->roomy)) != NULL) {
        struct table_piece *piece = LIST_ENTRY(link, struct table_piece, link);

        g_assert(piece->taken == 0);
        piece_free(piece);
    }
    g_free(memory);
}

static struct table_piece *piece_new(struct table_memory *memory)
{
    struct table_piece *piece;
    void *bytes = NULL;

    if (posix_memalign(&bytes, ALIGNMENT, memory->piece_bytes) != 0) {
        return NULL;
    }
    piece = g_new0(struct table_piece, 1);
    piece->bytes = bytes;
    list_prepend(&memory->roomy, &piece->link);
    return piece;
}

static bool has_room(const struct table_memory *memory,
                     const struct table_piece *piece)
{
    return piece->given != NULL || piece->used < memory->piece_bytes;
}

uint8_t *table_memory_take(struct table_memory *memory,
                           struct table_piece **ret_piece)
{
    struct table_piece *piece =
        list_is_empty(&memory->roomy)
            ? piece_new(memory)
            : LIST_ENTRY(memory->roomy.next, struct table_piece, link);
    uint8_t *block;

    if (piece == NULL) {
        return NULL;
    }
    block = piece->given;
    if (block != NULL) {
        memcpy(&piece->given, block, sizeof(piece->given));
    } else {
        block = piece->bytes + piece->used;
        piece->used += memory->block_bytes;
    }
    piece->taken++;
    if (!has_room(memory, piece)) {
        list_remove(&piece->link);
    }
    *ret_piece = piece;
    return block;
}

void table_memory_give(struct table_memory *memory,
                       struct table_piece *piece,
                       uint8_t *block)
{
    memcpy(block, &piece->given, sizeof(piece->given));
    piece->given = block;
    piece->taken--;
    if (list_is_empty(&piece->link)) {
        list_append(&memory->roomy, &piece->link);
    }
    if (piece->taken == 0 && memory->roomy.next != memory->roomy.previous) {
        piece_free(piece);
    }
}
