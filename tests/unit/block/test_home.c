/* SPDX-License-Identifier: BSD-3-Clause */
/* Pieces and their homes, moved between threads while requests run. */
#include "block_test.h"

#include <errno.h>
#include <string.h>

#define HOME_TEST(name)                                          \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(test_drivers, 2, co_##name, NULL);                \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* A user with requests of its own: writes all the time on the node's home,
 * rests when asked to. Everything but `moves` belongs to that home. */
struct busy_user {
    struct block_user user;
    struct block_node *node;
    uint64_t count;
    bool resting;
    bool stopping;
    unsigned int workers;
    struct co_queue idle;
    unsigned int under_way;
};

static void co_busy_worker(void *opaque)
{
    struct busy_user *busy = opaque;

    while (!busy->resting) {
        uint64_t value = ++busy->count;
        uint64_t back = 0;

        assert_ptr_equal(loop_current(), block_home(busy->node));
        assert_int_equal(
            co_block_pwrite(busy->node, 8 + 8 * (value % 64), 8, &value, 0), 0);
        assert_int_equal(co_block_pread(busy->node, 0, 8, &back), 0);
    }
    busy->workers--;
    co_queue_wake_all(&busy->idle);
}

static void busy_start(struct busy_user *busy)
{
    busy->resting = false;
    while (busy->workers < 4) {
        busy->workers++;
        co_spawn(loop_current(), co_busy_worker, busy);
    }
}

static int co_busy_quiesce(struct block_user *user, uint64_t deadline_ns)
{
    struct busy_user *busy = LIST_ENTRY(user, struct busy_user, user);

    busy->resting = true;
    while (busy->workers > 0) {
        if (!co_queue_wait_until(&busy->idle, deadline_ns)) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

static void busy_resume(struct block_user *user)
{
    busy_start(LIST_ENTRY(user, struct busy_user, user));
}

static void busy_init(struct busy_user *busy,
                      struct block_node *node,
                      const char *id)
{
    *busy = (struct busy_user){
        .node = node,
        .user = { .kind = "export",
                  .id = id,
                  .permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
                  .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
                  .co_quiesce = co_busy_quiesce,
                  .resume = busy_resume },
    };
    co_queue_init(&busy->idle);
}

static void co_busy_begin(struct busy_user *busy)
{
    assert_int_equal(block_attach(busy->node, &busy->user, NULL), 0);
    co_go_home(busy->node);
    busy_start(busy);
    co_go_main(busy->node);
}

static void co_busy_end(struct busy_user *busy)
{
    co_go_home(busy->node);
    assert_int_equal(co_busy_quiesce(&busy->user, UINT64_MAX), 0);
    co_go_main(busy->node);
    block_detach(&busy->user);
}

/* Single nodes go to the loops in turn; what builds on a node joins its home,
 * and nested children have their parent's. */
HOME_TEST(homes_are_given_in_turn)
{
    struct block_node *a = co_add(graph, "memory,node-name=a");
    struct block_node *b = co_add(graph, "memory,node-name=b");
    struct block_node *c = co_add(graph, "memory,node-name=c");
    struct block_node *top =
        co_add(graph, "filter,node-name=top,file.driver=filter,file.file=b");

    (void)opaque;
    assert_ptr_not_equal(block_home(a), block_home(b));
    assert_ptr_equal(block_home(a), block_home(c));
    assert_ptr_equal(block_home(top), block_home(b));
    assert_ptr_equal(block_home(block_child(top, "file")), block_home(b));
}

/* A piece moves as a whole, again and again, under load. */
HOME_TEST(a_piece_moves_under_load)
{
    struct block_node *top =
        co_add(graph, "filter,node-name=f,file.driver=memory,file.node-name=m");
    struct block_node *child = block_find(graph, "m", NULL);
    struct block_node *other = co_add(graph, "memory,node-name=other");
    struct loop *homes[2] = { block_home(top), block_home(other) };
    struct busy_user busy;
    g_autoptr(GError) err = NULL;

    (void)opaque;
    busy_init(&busy, top, "e0");
    co_busy_begin(&busy);
    for (int i = 1; i <= 50; i++) {
        assert_int_equal(co_block_move(top, homes[i % 2], &err), 0);
        assert_ptr_equal(block_home(child), homes[i % 2]);
        json_free(co_block_info(top, false));
    }
    co_busy_end(&busy);
    assert_true(busy.count > 0);
}

/* Joining moves the piece that can move; when neither can, it says why. */
HOME_TEST(joining_moves_what_is_not_pinned)
{
    struct block_node *a = co_add(graph, "memory,node-name=a");
    struct block_node *b = co_add(graph, "memory,node-name=b");
    struct loop *homes[2] = { block_home(a), block_home(b) };
    struct block_user job = { .kind = "job",
                              .id = "j1",
                              .permissions = BLOCK_PERM_READ,
                              .shared = BLOCK_PERM_ALL,
                              .pinned = true };
    struct block_user second = job;
    struct busy_user busy;
    g_autoptr(GError) err = NULL;

    (void)opaque;
    second.id = "j2";
    busy_init(&busy, a, "e0");
    co_busy_begin(&busy);
    assert_int_equal(block_attach(b, &job, &err), 0);
    assert_int_equal(co_block_join(a, b, &err), 0);
    assert_ptr_equal(block_home(a), homes[1]);
    assert_int_equal(co_block_move(a, homes[0], &err), 0);
    assert_int_equal(block_attach(a, &second, &err), 0);
    assert_int_equal(co_block_join(a, b, &err), -EBUSY);
    assert_error(&err, "is in use by job 'j2'");
    block_detach(&second);
    block_detach(&job);
    assert_int_equal(co_block_join(a, b, &err), 0);
    assert_ptr_equal(block_home(b), homes[0]);
    co_busy_end(&busy);
}

static void co_hung_write(void *opaque)
{
    uint8_t byte = 1;

    (void)co_block_pwrite(opaque, 0, 1, &byte, 0);
}

/* A node whose write hangs cannot move; it stays where it was, and works. */
HOME_TEST(what_hangs_stays)
{
    struct block_node *a = co_add(graph, "memory,node-name=a");
    struct block_node *b = co_add(graph, "memory,node-name=b");
    struct memory_state *memory = memory_of(a);
    struct loop *home = block_home(a);
    g_autoptr(GError) err = NULL;
    uint8_t byte = 1;

    (void)opaque;
    co_go_home(a);
    memory->hold_writes = true;
    co_enter(co_hung_write, a);
    co_go_main(a);
    assert_int_equal(co_block_move(a, block_home(b), &err), -ETIMEDOUT);
    assert_error(&err, "did not end in time");
    assert_ptr_equal(block_home(a), home);
    co_go_home(a);
    memory->hold_writes = false;
    co_queue_wake_all(&memory->held);
    assert_int_equal(co_block_pwrite(a, 0, 1, &byte, 0), 0);
    co_go_main(a);
}

/* Nor can a piece whose user has a request that hangs: the users that rest
 * already go on, on the old home. */
HOME_TEST(users_of_what_hangs_go_on)
{
    struct block_node *child = co_add(graph, "memory,node-name=m");
    struct block_node *b = co_add(graph, "memory,node-name=b");
    struct block_node *top = co_add(graph, "filter,node-name=f,file=m");
    struct memory_state *memory = memory_of(child);
    struct loop *home = block_home(top);
    struct busy_user busy[2];
    g_autoptr(GError) err = NULL;
    uint64_t count;

    (void)opaque;
    busy_init(&busy[0], top, "e0");
    co_busy_begin(&busy[0]);
    busy_init(&busy[1], top, "e1");
    co_busy_begin(&busy[1]);
    co_go_home(top);
    memory->hold_writes = true;
    co_go_main(top);
    assert_int_equal(co_block_move(child, block_home(b), &err), -ETIMEDOUT);
    assert_error(&err, "requests of node 'f' did not end in time");
    assert_ptr_equal(block_home(top), home);
    json_free(co_block_info(top, false)); /* visitors are let in again */
    co_go_home(top);
    memory->hold_writes = false;
    co_queue_wake_all(&memory->held);
    count = busy[0].count + busy[1].count;
    while (busy[0].count + busy[1].count < count + 100) {
        co_reschedule();
    }
    co_go_main(top);
    assert_int_equal(co_block_move(child, block_home(b), &err), 0);
    assert_ptr_equal(block_home(top), block_home(b));
    co_busy_end(&busy[0]);
    co_busy_end(&busy[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(homes_are_given_in_turn),
        cmocka_unit_test(a_piece_moves_under_load),
        cmocka_unit_test(joining_moves_what_is_not_pinned),
        cmocka_unit_test(what_hangs_stays),
        cmocka_unit_test(users_of_what_hangs_go_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
