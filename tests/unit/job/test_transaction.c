/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine of the transaction command, with actions that only take notes:
 * the order of calls, the one instant, and what happens when there is none.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "plain_disk.h"

#include "base/bytes.h"
#include "base/error.h"
#include "job/transaction.h"
#include "loop/co_lock.h"

struct note {
    struct transaction_action action; /* first */
    GString *log;
    char letter;
    int prepare_result;
    struct block_node *nodes[2];
    void (*at_commit)(struct note *note);
    void *opaque;
};

static struct note *note_of(struct transaction_action *action)
{
    return (struct note *)(void *)action;
}

static void take(struct transaction_action *action, const char *call)
{
    struct note *note = note_of(action);

    g_string_append_printf(note->log, " %c:%s", note->letter, call);
}

static int co_note_prepare(struct transaction_action *action,
                           struct transaction *transaction,
                           GError **err)
{
    struct note *note = note_of(action);

    take(action, "prepare");
    co_reschedule();
    for (size_t i = 0; i < G_N_ELEMENTS(note->nodes); i++) {
        if (note->nodes[i] != NULL) {
            transaction_add_node(transaction, note->nodes[i]);
        }
    }
    if (note->prepare_result < 0) {
        error_set(err, note->prepare_result, "%c cannot", note->letter);
    }
    return note->prepare_result;
}

static void note_commit(struct transaction_action *action)
{
    take(action, "commit");
    if (note_of(action)->at_commit != NULL) {
        note_of(action)->at_commit(note_of(action));
    }
}

static void co_note_abort(struct transaction_action *action)
{
    take(action, "abort");
    co_reschedule();
}

static void co_note_clean(struct transaction_action *action)
{
    take(action, "clean");
    co_reschedule();
    g_free(action);
}

static const struct transaction_action_ops note_ops = {
    .name = "note",
    .co_prepare = co_note_prepare,
    .commit = note_commit,
    .co_abort = co_note_abort,
    .co_clean = co_note_clean,
};

static struct note *add_note(struct transaction *transaction,
                             GString *log,
                             char letter)
{
    struct note *note = g_new0(struct note, 1);

    note->action.ops = &note_ops;
    note->log = log;
    note->letter = letter;
    transaction_add_action(transaction, &note->action);
    return note;
}

static void actions_run_in_order(struct disk_place *place)
{
    struct transaction *transaction = transaction_new(place->graph);
    g_autoptr(GString) log = g_string_new(NULL);

    for (char letter = 'a'; letter <= 'c'; letter++) {
        add_note(transaction, log, letter);
    }
    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
    assert_null(transaction);
    assert_string_equal(log->str,
                        " a:prepare b:prepare c:prepare a:commit b:commit "
                        "c:commit a:clean b:clean c:clean");
}

static void a_transaction_of_nothing_succeeds(struct disk_place *place)
{
    struct transaction *transaction = transaction_new(place->graph);

    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
}

static void a_failed_prepare_undoes_in_reverse(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", MIB, 0);
    struct transaction *transaction = transaction_new(place->graph);
    g_autoptr(GString) log = g_string_new(NULL);
    g_autoptr(GError) err = NULL;

    for (char letter = 'a'; letter <= 'd'; letter++) {
        struct note *note = add_note(transaction, log, letter);
        note->nodes[0] = node;
        note->prepare_result = letter == 'c' ? -EEXIST : 0;
    }
    assert_int_equal(co_transaction_run(&transaction, &err), -EEXIST);
    assert_string_equal(err->message, "c cannot");
    assert_string_equal(log->str,
                        " a:prepare b:prepare c:prepare b:abort a:abort "
                        "a:clean b:clean c:clean d:clean");
}

static void count_free(void *value)
{
    (*(int *)value)++;
}

static void the_view_lasts_as_long_as_the_transaction(struct disk_place *place)
{
    struct transaction *transaction = transaction_new(place->graph);
    int first = 0;
    int second = 0;

    assert_null(transaction_get_view(transaction, "bitmaps"));
    transaction_set_view(transaction, "bitmaps", &first, count_free);
    assert_ptr_equal(transaction_get_view(transaction, "bitmaps"), &first);
    assert_null(transaction_get_view(transaction, "nodes"));
    transaction_set_view(transaction, "bitmaps", &second, count_free);
    transaction_set_view(transaction, "nodes", &second, NULL);
    assert_int_equal(first, 1);
    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
    assert_int_equal(first, 1);
    assert_int_equal(second, 1);
}

/*
 * Writers on the disks' own threads.
 */

struct writer {
    struct block_node *node;
    atomic_uint_fast64_t writes;
    atomic_uint_fast64_t beats; /* turns of another coroutine there */
    atomic_bool stop;
    atomic_int running;
};

static void co_keep_writing(void *opaque)
{
    struct writer *writer = opaque;

    while (!atomic_load(&writer->stop)) {
        (void)co_block_pwrite(writer->node, 0, 4, "data", 0);
        atomic_fetch_add(&writer->writes, 1);
        co_reschedule();
    }
    atomic_fetch_sub(&writer->running, 1);
}

static void co_keep_beating(void *opaque)
{
    struct writer *writer = opaque;

    while (!atomic_load(&writer->stop)) {
        atomic_fetch_add(&writer->beats, 1);
        co_reschedule();
    }
    atomic_fetch_sub(&writer->running, 1);
}

static void writer_start(struct writer *writer)
{
    atomic_store(&writer->running, 2);
    co_spawn(block_home(writer->node), co_keep_writing, writer);
    co_spawn(block_home(writer->node), co_keep_beating, writer);
    while (atomic_load(&writer->writes) == 0) {
        co_reschedule();
    }
}

static void co_writer_stop(struct writer *writer)
{
    atomic_store(&writer->stop, true);
    while (atomic_load(&writer->running) > 0) {
        co_reschedule();
    }
}

/* The thread of the disk goes on, its writer does not. */
static void check_still(struct note *note)
{
    struct writer *writer = note->opaque;
    uint64_t writes = atomic_load(&writer->writes);
    uint64_t beats = atomic_load(&writer->beats);

    while (atomic_load(&writer->beats) < beats + 100) {
        /* Without yielding: this is the instant. */
    }
    assert_int_equal(atomic_load(&writer->writes), writes);
}

static void no_disk_is_written_between_two_commits(struct disk_place *place)
{
    struct writer writers[2] = { 0 };
    g_autoptr(GString) log = g_string_new(NULL);

    for (int i = 0; i < 2; i++) {
        writers[i].node = co_disk_add(place, i == 0 ? "d0" : "d1", MIB, 0);
        writer_start(&writers[i]);
    }
    for (int round = 0; round < 20; round++) {
        struct transaction *transaction = transaction_new(place->graph);
        for (int i = 0; i < 4; i++) {
            struct note *note = add_note(transaction, log, 'a');
            note->nodes[0] = writers[i % 2].node;
            note->nodes[1] = writers[0].node; /* named again and again */
            note->at_commit = check_still;
            note->opaque = &writers[(i + 1) % 2];
        }
        assert_int_equal(co_transaction_run(&transaction, NULL), 0);
        for (int i = 0; i < 2; i++) {
            uint64_t writes = atomic_load(&writers[i].writes);
            while (atomic_load(&writers[i].writes) == writes) {
                co_reschedule();
            }
        }
    }
    co_writer_stop(&writers[0]);
    co_writer_stop(&writers[1]);
}

struct one_write {
    struct block_node *node;
    atomic_bool begun;
    atomic_bool done;
};

static void co_write_once(void *opaque)
{
    struct one_write *write = opaque;

    disk_hang(write->node);
    atomic_store(&write->begun, true);
    assert_int_equal(co_block_pwrite(write->node, 0, 4, "data", 0), 0);
    atomic_store(&write->done, true);
}

static void co_hang(struct one_write *write)
{
    co_spawn(block_home(write->node), co_write_once, write);
    while (!atomic_load(&write->begun)) {
        co_reschedule();
    }
    /* Not before the write hangs in the driver. */
    co_go_home(write->node);
    co_move(block_graph_main(block_graph_of(write->node)));
}

static void a_hung_write_fails_the_transaction_by_name(struct disk_place *place)
{
    struct one_write hung = { .node = co_disk_add(place, "hung", MIB, 0) };
    struct writer writer = { .node = co_disk_add(place, "well", MIB, 0) };
    struct transaction *transaction = transaction_new(place->graph);
    g_autoptr(GString) log = g_string_new(NULL);
    struct transaction_report report = { .number = 1 };
    g_autoptr(GError) err = NULL;

    transaction_set_report(transaction, &report);
    co_hang(&hung);
    writer_start(&writer);
    add_note(transaction, log, 'a')->nodes[0] = writer.node;
    add_note(transaction, log, 'b')->nodes[0] = hung.node;
    uint64_t begun_ns = loop_now_ns();
    assert_int_equal(co_transaction_run(&transaction, &err), -ETIMEDOUT);
    uint64_t took_ns = loop_now_ns() - begun_ns;
    assert_true(report.instant_ns >= TRANSACTION_FENCE_NS);
    assert_true(report.instant_ns <= took_ns);
    assert_non_null(strstr(err->message, "'hung'"));
    assert_null(strstr(err->message, "'well'"));
    assert_string_equal(log->str,
                        " a:prepare b:prepare b:abort a:abort a:clean b:clean");

    /* The other disk goes on while this one still hangs, and then both. */
    uint64_t writes = atomic_load(&writer.writes);
    while (atomic_load(&writer.writes) == writes) {
        co_reschedule();
    }
    assert_false(atomic_load(&hung.done));
    co_go_home(hung.node);
    disk_unhang(hung.node);
    co_go_back(place);
    while (!atomic_load(&hung.done)) {
        co_reschedule();
    }
    co_writer_stop(&writer);

    /* And the same again, now that the cause is gone. */
    transaction = transaction_new(place->graph);
    add_note(transaction, log, 'c')->nodes[0] = hung.node;
    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
}

static void spin(void *opaque)
{
    atomic_bool *go_on = opaque;

    while (!atomic_load(go_on)) {
        g_thread_yield();
    }
}

static void a_thread_that_answers_late_finds_itself_released(
    struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "stuck", MIB, 0);
    struct transaction *transaction = transaction_new(place->graph);
    g_autoptr(GString) log = g_string_new(NULL);
    g_autoptr(GError) err = NULL;
    atomic_bool go_on = false;

    add_note(transaction, log, 'a')->nodes[0] = node;
    co_spawn(block_home(node), spin, &go_on);
    assert_int_equal(co_transaction_run(&transaction, &err), -ETIMEDOUT);
    assert_non_null(strstr(err->message, "'stuck'"));

    /* The late fence keeps the node from being deleted under it. */
    g_clear_error(&err);
    assert_int_equal(co_block_del(place->graph, "stuck", &err), -EBUSY);
    assert_non_null(strstr(err->message, "transaction"));
    atomic_store(&go_on, true);
    while (co_block_del(place->graph, "stuck", NULL) < 0) {
        co_reschedule();
    }
}

static void a_thousand_actions_on_fifty_disks(struct disk_place *place)
{
    struct block_node *nodes[50];
    struct transaction *transaction = transaction_new(place->graph);
    g_autoptr(GString) log = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_autofree char *name = g_strdup_printf("d%zu", i);
        nodes[i] = co_disk_add(place, name, MIB, 0);
    }
    for (size_t i = 0; i < 1000; i++) {
        struct note *note = add_note(transaction, log, 'a');
        note->nodes[0] = nodes[i % G_N_ELEMENTS(nodes)];
    }
    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
    assert_int_equal(log->len, 1000 * strlen(" a:prepare a:commit a:clean"));
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        co_go_home(nodes[i]);
        int result = co_block_pwrite(nodes[i], 0, 4, "data", 0);
        co_go_back(place);
        assert_int_equal(result, 0);
    }
}

struct two_runs {
    struct disk_place *place;
    GString *log;
    int left;
};

static void co_run_one(void *opaque)
{
    struct two_runs *runs = opaque;
    struct transaction *transaction = transaction_new(runs->place->graph);

    add_note(transaction, runs->log, 'a');
    add_note(transaction, runs->log, 'b');
    assert_int_equal(co_transaction_run(&transaction, NULL), 0);
    runs->left--;
}

static void transactions_run_one_after_another(struct disk_place *place)
{
    g_autoptr(GString) log = g_string_new(NULL);
    struct two_runs runs = { .place = place, .log = log, .left = 2 };

    co_spawn(place->main, co_run_one, &runs);
    co_spawn(place->main, co_run_one, &runs);
    while (runs.left > 0) {
        co_reschedule();
    }
    assert_string_equal(
        log->str, " a:prepare b:prepare a:commit b:commit a:clean b:clean"
                  " a:prepare b:prepare a:commit b:commit a:clean b:clean");
}

#define BOTH(name)                             \
 static void name##_on_one_loop(void **state)  \
 {                                             \
  (void)state;                                 \
  run_with_disks(name, false);                 \
 }                                             \
 static void name##_on_iothreads(void **state) \
 {                                             \
  (void)state;                                 \
  run_with_disks(name, true);                  \
 }

BOTH(actions_run_in_order)
BOTH(a_transaction_of_nothing_succeeds)
BOTH(a_failed_prepare_undoes_in_reverse)
BOTH(the_view_lasts_as_long_as_the_transaction)
BOTH(a_hung_write_fails_the_transaction_by_name)
BOTH(a_thousand_actions_on_fifty_disks)
BOTH(transactions_run_one_after_another)

/* These two need disks on threads of their own. */
static void no_disk_is_written_between_two_commits_test(void **state)
{
    (void)state;
    run_with_disks(no_disk_is_written_between_two_commits, true);
}

static void a_thread_that_answers_late_test(void **state)
{
    (void)state;
    run_with_disks(a_thread_that_answers_late_finds_itself_released, true);
}

#define PAIR(name) \
 cmocka_unit_test(name##_on_one_loop), cmocka_unit_test(name##_on_iothreads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR(actions_run_in_order),
        PAIR(a_transaction_of_nothing_succeeds),
        PAIR(a_failed_prepare_undoes_in_reverse),
        PAIR(the_view_lasts_as_long_as_the_transaction),
        PAIR(a_hung_write_fails_the_transaction_by_name),
        PAIR(a_thousand_actions_on_fifty_disks),
        PAIR(transactions_run_one_after_another),
        cmocka_unit_test(no_disk_is_written_between_two_commits_test),
        cmocka_unit_test(a_thread_that_answers_late_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
