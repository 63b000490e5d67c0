/* SPDX-License-Identifier: BSD-3-Clause */
/* "Did you mean" finds the nearest word, and keeps quiet when none is near. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib.h>

#include "base/spelling.h"

static const char *nearest(const char *word)
{
    static const char *const known[] = { "id",         "size",
                                         "filename",   "file",
                                         "query-jobs", "query-block-jobs" };
    struct spelling spelling = { .word = word };

    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        spelling_offer(&spelling, known[i]);
    }
    return spelling.nearest;
}

static void a_near_word_is_found(void **state)
{
    (void)state;
    assert_string_equal(nearest("sise"), "size");
    assert_string_equal(nearest("filname"), "filename");
    assert_string_equal(nearest("query_jobs"), "query-jobs");
    assert_string_equal(nearest("query-blok-jobs"), "query-block-jobs");
}

static void the_nearest_of_several_wins(void **state)
{
    (void)state;
    assert_string_equal(nearest("fil"), "file");
    assert_string_equal(nearest("filenames"), "filename");
}

static void far_words_stay_unmentioned(void **state)
{
    (void)state;
    g_autofree char *endless = g_strnfill(100000, 'a');

    assert_null(nearest(""));
    assert_null(nearest("a"));
    assert_null(nearest("xd"));
    assert_null(nearest("target"));
    assert_null(nearest(endless));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_near_word_is_found),
        cmocka_unit_test(the_nearest_of_several_wins),
        cmocka_unit_test(far_words_stay_unmentioned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
