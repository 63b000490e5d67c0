/* SPDX-License-Identifier: BSD-3-Clause */
/* The intrusive list: order, removal while walking, removal twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
    int number;
    struct list link;
};

static void expect_numbers(struct list *head, const int *numbers, int count)
{
    int i = 0;

    LIST_FOREACH(link, head) {
        assert_true(i < count);
        assert_int_equal(LIST_ENTRY(link, struct item, link)->number,
                         numbers[i]);
        i++;
    }
    assert_int_equal(i, count);
}

static void items_keep_the_order_they_were_put_in(void **state)
{
    (void)state;
    struct item a = { .number = 1 };
    struct item b = { .number = 2 };
    struct item c = { .number = 3 };
    struct item d = { .number = 4 };
    struct list head;

    list_init(&head);
    assert_true(list_is_empty(&head));
    list_append(&head, &b.link);
    list_append(&head, &d.link);
    list_prepend(&head, &a.link);
    list_insert_after(&b.link, &c.link);
    assert_false(list_is_empty(&head));
    expect_numbers(&head, (const int[]){ 1, 2, 3, 4 }, 4);
}

static void the_walk_may_remove_its_item(void **state)
{
    (void)state;
    struct item items[6];
    struct list head;

    list_init(&head);
    for (int i = 0; i < 6; i++) {
        items[i].number = i;
        list_append(&head, &items[i].link);
    }
    LIST_FOREACH_SAFE(link, &head) {
        if (LIST_ENTRY(link, struct item, link)->number % 2 == 0) {
            list_remove(link);
        }
    }
    expect_numbers(&head, (const int[]){ 1, 3, 5 }, 3);
}

static void removing_twice_is_harmless(void **state)
{
    (void)state;
    struct item a = { .number = 1 };
    struct item b = { .number = 2 };
    struct list head;

    list_init(&head);
    list_append(&head, &a.link);
    list_append(&head, &b.link);
    list_remove(&a.link);
    list_remove(&a.link);
    assert_true(list_is_empty(&a.link));
    expect_numbers(&head, (const int[]){ 2 }, 1);
}

static void the_first_is_taken_until_none_is_left(void **state)
{
    (void)state;
    struct item a = { .number = 1 };
    struct item b = { .number = 2 };
    struct list head;

    list_init(&head);
    list_append(&head, &a.link);
    list_append(&head, &b.link);
    assert_ptr_equal(list_take_first(&head), &a.link);
    assert_ptr_equal(list_take_first(&head), &b.link);
    assert_null(list_take_first(&head));
    assert_true(list_is_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_keep_the_order_they_were_put_in),
        cmocka_unit_test(the_walk_may_remove_its_item),
        cmocka_unit_test(removing_twice_is_harmless),
        cmocka_unit_test(the_first_is_taken_until_none_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
