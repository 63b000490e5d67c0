/* SPDX-License-Identifier: BSD-3-Clause */
#include "disk_window.h"

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "base/bytes.h"
#include "block/request.h"

#define GROWTH_BYTES_MAX (4 * 1024 * 1024)

uint64_t window_random(struct disk_window *window)
{
    window->random = window->random * UINT64_C(6364136223846793005) +
                     UINT64_C(1442695040888963407);
    return window->random >> 33;
}

/* Unit by unit; and the last bytes of the disk. */
void co_window_read(struct disk_window *window, struct block_node *node)
{
    uint64_t size = block_size(node);
    uint8_t last[1000];

    memset(window->known, 0, sizeof(window->known));
    for (unsigned int i = 0; i < WINDOW_UNITS && (i + 1) * UNIT_BYTES <= size;
         i++) {
        window->known[i] = co_block_pread(node, i * UNIT_BYTES, UNIT_BYTES,
                                          window->bytes + i * UNIT_BYTES) == 0;
    }
    if (size >= sizeof(last)) {
        (void)co_block_pread(node, size - sizeof(last), sizeof(last), last);
    }
}

void co_window_compare(const struct disk_window *window,
                       struct block_node *node)
{
    uint8_t bytes[UNIT_BYTES];

    for (unsigned int i = 0; i < WINDOW_UNITS; i++) {
        if (window->known[i]) {
            g_assert(co_block_pread(node, i * UNIT_BYTES, UNIT_BYTES, bytes) ==
                     0);
            g_assert(
                memcmp(bytes, window->bytes + i * UNIT_BYTES, UNIT_BYTES) == 0);
        }
    }
}

/* What lay behind a smaller end is gone; what is new reads as zeroes. */
static void co_resize(struct disk_window *window, struct block_node *node)
{
    uint64_t before = block_size(node);
    uint64_t drawn = window_random(window) * 64;
    uint64_t after = window_random(window) % 2 == 0
                         ? drawn % MAX(min_u64(before, WINDOW_BYTES), 1)
                         : before + drawn % GROWTH_BYTES_MAX;
    uint64_t kept = min_u64(before, after);
    bool done = co_block_truncate(node, after, true, NULL) == 0;

    for (uint64_t i = kept / UNIT_BYTES; i < WINDOW_UNITS; i++) {
        window->known[i] = done && i * UNIT_BYTES >= kept &&
                           (i + 1) * UNIT_BYTES <= block_size(node);
        if (window->known[i]) {
            memset(window->bytes + i * UNIT_BYTES, 0, UNIT_BYTES);
        }
    }
}

/* 0: the range now holds what `bytes` has. */
static int co_request(struct disk_window *window,
                      struct block_node *node,
                      uint64_t offset,
                      uint64_t length,
                      uint8_t *bytes)
{
    unsigned int kind = (unsigned int)(window_random(window) % 10);
    unsigned int flags = kind == 0 ? BLOCK_FUA : kind < 3 ? BLOCK_COMPRESS : 0;
    uint8_t fill = (uint8_t)window_random(window);

    if (kind == 9) {
        (void)co_block_discard(node, offset, length);
        return -EIO; /* what is there now is not said */
    }
    if (kind >= 7) {
        memset(bytes, 0, length);
        return co_block_write_zeroes(node, offset, length,
                                     kind == 7 ? BLOCK_MAY_UNMAP : 0);
    }
    for (uint64_t i = 0; i < length; i++) {
        bytes[i] = (uint8_t)(fill + i / 100);
    }
    return co_block_pwrite(node, offset, length, bytes, flags);
}

void co_window_change(struct disk_window *window, struct block_node *node)
{
    static uint8_t bytes[WINDOW_BYTES];
    uint64_t units = min_u64(block_size(node), WINDOW_BYTES) / UNIT_BYTES;
    uint64_t aligned = UINT64_C(1) << (window_random(window) % 8);
    uint64_t first;
    uint64_t count;
    bool done;

    if (units == 0 || window_random(window) % 12 == 0) {
        co_resize(window, node);
        return;
    }
    first = window_random(window) % units / aligned * aligned;
    count = min_u64(units - first, aligned);
    done = co_request(window, node, first * UNIT_BYTES, count * UNIT_BYTES,
                      bytes) == 0;
    for (uint64_t i = first; i < first + count; i++) {
        window->known[i] = done;
    }
    memcpy(window->bytes + first * UNIT_BYTES, bytes, count * UNIT_BYTES);
    if (window_random(window) % 4 == 0) {
        (void)co_block_flush(node);
    }
}
