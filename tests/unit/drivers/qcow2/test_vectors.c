/* SPDX-License-Identifier: BSD-3-Clause */
/* A cursor over vectors cuts pieces at any byte and loses none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "drivers/qcow2/vectors.h"

#define VECTORS 20

struct request {
    uint8_t bytes[VECTORS * 10];
    struct iovec iov[VECTORS];
};

/* Vectors of 0 to 9 bytes, one behind the other. */
static size_t request_init(struct request *request, int count)
{
    size_t total = 0;

    for (int i = 0; i < count; i++) {
        request->iov[i] =
            (struct iovec){ request->bytes + total, (size_t)(i * 7 % 10) };
        total += request->iov[i].iov_len;
    }
    for (size_t i = 0; i < sizeof(request->bytes); i++) {
        request->bytes[i] = (uint8_t)i;
    }
    return total;
}

static void pieces_of_any_size_cover_the_request(void **state)
{
    (void)state;
    for (int count = 1; count <= VECTORS; count++) {
        for (size_t size = 1; size < 25; size++) {
            struct vector_cursor cursor;
            struct request request;
            size_t total = request_init(&request, count);
            size_t done = 0;

            vector_cursor_init(&cursor, request.iov, count);
            while (done < total) {
                size_t bytes = MIN(size, total - done);
                size_t seen = 0;

                vector_cursor_take(&cursor, bytes);
                for (int i = 0; i < cursor.piece_count; i++) {
                    assert_ptr_equal(cursor.piece[i].iov_base,
                                     request.bytes + done + seen);
                    seen += cursor.piece[i].iov_len;
                }
                assert_int_equal(seen, bytes);
                done += bytes;
            }
            vector_cursor_release(&cursor);
        }
    }
}

static void filling_and_zeroing_go_on_where_taking_ended(void **state)
{
    (void)state;
    struct vector_cursor cursor;
    struct request request;
    size_t total = request_init(&request, VECTORS);

    vector_cursor_init(&cursor, request.iov, VECTORS);
    vector_cursor_take(&cursor, 11);
    vector_cursor_zero(&cursor, 13);
    vector_cursor_fill(&cursor, (const uint8_t *)"abcdefghijklmnopq", 17);
    vector_cursor_zero(&cursor, total - 41);
    vector_cursor_release(&cursor);
    for (size_t i = 0; i < total; i++) {
        uint8_t expected = i < 11              ? (uint8_t)i
                           : i >= 24 && i < 41 ? (uint8_t)('a' + i - 24)
                                               : 0;

        assert_int_equal(request.bytes[i], expected);
    }
    assert_int_equal(request.bytes[total], (uint8_t)total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_size_cover_the_request),
        cmocka_unit_test(filling_and_zeroing_go_on_where_taking_ended),
    };

    return cmocka_run_group_tests_name("drivers/qcow2/vectors", tests, NULL,
                                       NULL);
}
