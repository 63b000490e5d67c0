/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop on a backend without a kernel: time stands still between sleeps, so
 * everything that depends on order, time or a short transfer is exact. */
#include "loop_test.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fake_backend.h"

static int reset_world(void **state)
{
    (void)state;
    fake_world = (struct fake_world){ .now_ns = 1000 };
    return 0;
}

static struct loop *new_loop(const struct loop_backend *backend)
{
    struct loop *loop = loop_new(backend, "simulated", NULL);

    assert_non_null(loop);
    return loop;
}

static void run_until_idle(struct loop *loop)
{
    while (loop_run_once(loop, false)) {
    }
}

struct player {
    struct loop *other;
    unsigned left;
    GString *text;
};

static void play_ball(void *opaque)
{
    struct player *player = opaque;
    struct loop *home = loop_current();

    for (; player->left > 0; player->left--) {
        g_string_append_c(player->text, loop_name(loop_current())[0]);
        co_move(loop_current() == home ? player->other : home);
    }
}

/* Two loops of one thread, stepped in turn, pass a coroutine to and fro. */
static void several_loops_are_stepped_in_one_thread(void **state)
{
    struct loop *ping = loop_new(&fake_backend, "ping", NULL);
    struct loop *tong = loop_new(&fake_backend, "tong", NULL);
    struct player player = { tong, 4, g_string_new("") };

    (void)state;
    co_spawn(ping, play_ball, &player);
    while (loop_run_once(ping, false) || loop_run_once(tong, false)) {
    }
    assert_null(loop_current());
    assert_string_equal(player.text->str, "ptpt");
    assert_int_equal(fake_world.sleeps, 0);
    loop_free(ping);
    loop_free(tong);
    g_string_free(player.text, true);
}

struct writer {
    GString *text;
    const char *letter;
};

static void write_letter(void *opaque)
{
    struct writer *writer = opaque;

    g_string_append(writer->text, writer->letter);
}

static void write_abcd(struct loop *loop, const char *expected)
{
    GString *text = g_string_new("");
    struct writer writers[] = {
        { text, "a" }, { text, "b" }, { text, "c" }, { text, "d" }
    };

    for (size_t i = 0; i < G_N_ELEMENTS(writers); i++) {
        co_spawn(loop, write_letter, &writers[i]);
    }
    run_until_idle(loop);
    assert_string_equal(text->str, expected);
    g_string_free(text, true);
    loop_free(loop);
}

static void ready_coroutines_run_oldest_first(void **state)
{
    (void)state;
    write_abcd(new_loop(&fake_backend), "abcd");
}

/* The chooser is asked as long as there is a choice, and obeyed. */
static void the_chooser_decides_who_runs(void **state)
{
    (void)state;
    fake_world.chooser_answer = 1;
    write_abcd(new_loop(&fake_choosing_backend), "bcda");
    assert_int_equal(fake_world.chooser_asked, 3);
}

struct alarm {
    struct loop_timer timer;
    GString *text;
    char letter;
};

static void ring_alarm(struct loop_timer *timer)
{
    struct alarm *alarm = LIST_ENTRY(timer, struct alarm, timer);

    assert_true(loop_now_ns() >= timer->deadline_ns);
    assert_null(timer->loop);
    g_string_append_c(alarm->text, alarm->letter);
}

struct alarms {
    struct alarm all[7];
    GString *text;
};

static void start_alarms(void *opaque)
{
    static const uint64_t deadlines[] = { 70, 20, 50, 20, 60, 10, 20 };
    struct alarms *alarms = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(alarms->all); i++) {
        struct alarm *alarm = &alarms->all[i];

        alarm->text = alarms->text;
        alarm->letter = (char)('a' + i);
        loop_timer_init(&alarm->timer, ring_alarm);
        loop_timer_cancel(&alarm->timer); /* idle: nothing */
        loop_timer_start(&alarm->timer, 10000 + deadlines[i]);
    }
    loop_timer_cancel(&alarms->all[2].timer);
    loop_timer_cancel(&alarms->all[2].timer);
    loop_timer_start(&alarms->all[4].timer, 10005); /* again, earlier */
}

static void sleep_until_all_rang(struct loop *loop)
{
    for (unsigned i = 0; i < 20; i++) {
        loop_run_once(loop, true);
    }
}

/* By deadline, equal ones in the order started, cancelled ones never. */
static void timers_fire_in_order(void **state)
{
    struct loop *loop = new_loop(&fake_backend);
    struct alarms alarms = { .text = g_string_new("") };

    (void)state;
    co_spawn(loop, start_alarms, &alarms);
    run_until_idle(loop);
    assert_string_equal(alarms.text->str, "");
    sleep_until_all_rang(loop);
    assert_string_equal(alarms.text->str, "efbdga");
    assert_int_equal(fake_world.now_ns, 10070);
    loop_free(loop);
    g_string_free(alarms.text, true);
}

static void ring_again(struct loop_timer *timer)
{
    struct alarm *alarm = LIST_ENTRY(timer, struct alarm, timer);

    g_string_append_c(alarm->text, alarm->letter);
    if (alarm->text->len < 5) {
        loop_timer_start(timer, 0);
    }
}

static void start_ringing(void *opaque)
{
    struct alarm *alarm = opaque;

    loop_timer_init(&alarm->timer, ring_again);
    loop_timer_start(&alarm->timer, 0);
}

/* A timer that starts itself again, overdue, fires once a turn: it does not
 * keep the loop from the rest. */
static void a_timer_that_restarts_leaves_room(void **state)
{
    struct loop *loop = new_loop(&fake_backend);
    struct alarm alarm = { .text = g_string_new(""), .letter = 'x' };

    (void)state;
    co_spawn(loop, start_ringing, &alarm);
    loop_run_once(loop, false);
    assert_string_equal(alarm.text->str, "");
    loop_run_once(loop, false);
    assert_string_equal(alarm.text->str, "x");
    loop_run_once(loop, false);
    assert_string_equal(alarm.text->str, "xx");
    sleep_until_all_rang(loop);
    assert_string_equal(alarm.text->str, "xxxxx");
    loop_free(loop);
    g_string_free(alarm.text, true);
}

/* Ten thousand in a scrambled order, every third cancelled. */
static void start_many(void *opaque)
{
    struct loop_timer *timers = opaque;

    for (size_t i = 0; i < 10000; i++) {
        loop_timer_start(&timers[i], 20000 + i * 7919 % 10000);
    }
    for (size_t i = 0; i < 10000; i += 3) {
        loop_timer_cancel(&timers[i * 7 % 10000]);
    }
}

static void check_order(struct loop_timer *timer)
{
    static uint64_t last_ns;

    assert_true(timer->deadline_ns >= last_ns);
    last_ns = timer->deadline_ns;
    fake_world.file_bytes++;
}

static void many_timers_keep_their_order(void **state)
{
    struct loop *loop = new_loop(&fake_backend);
    g_autofree struct loop_timer *timers = g_new0(struct loop_timer, 10000);

    (void)state;
    for (size_t i = 0; i < 10000; i++) {
        loop_timer_init(&timers[i], check_order);
    }
    co_spawn(loop, start_many, timers);
    while (fake_world.now_ns < 40000 && fake_world.slept_until_ns < 50000) {
        loop_run_once(loop, true);
    }
    assert_int_equal(fake_world.file_bytes, 10000 - 3334);
    loop_free(loop);
}

static void look_at_the_world(void *opaque)
{
    unsigned char random[3];

    (void)opaque;
    fake_world.now_ns = 5000;
    assert_int_equal(loop_now_ns(), 5000);
    assert_int_equal(loop_wall_clock_us(), 1000005);
    loop_random(random, sizeof(random));
    assert_memory_equal(random, "\4\4\4", 3);
}

static void time_and_chance_are_the_backends(void **state)
{
    struct loop *loop = new_loop(&fake_backend);

    (void)state;
    co_spawn(loop, look_at_the_world, NULL);
    run_until_idle(loop);
    loop_free(loop);
}

static void move_in_parts(void *opaque)
{
    char a[3];
    char b[10];
    char c[4];
    const struct iovec iov[] = { { a, 3 }, { NULL, 0 }, { b, 10 }, { c, 4 } };

    (void)opaque;
    fake_world.transfer_max = 5;
    strcpy(fake_world.file, "--abcdefghijklmnopq--");
    fake_world.file_bytes = sizeof(fake_world.file);
    assert_int_equal(co_file_preadv(3, iov, 4, 2), 17);
    assert_memory_equal(a, "abc", 3);
    assert_memory_equal(b, "defghijklm", 10);
    assert_memory_equal(c, "nopq", 4);
    assert_int_equal(fake_world.submitted, 4);

    assert_int_equal(co_file_pwritev(3, iov, 4, 4, 0), 17);
    assert_memory_equal(fake_world.file, "--ababcdefghijklmnopq", 21);

    fake_world.file_bytes = 12;
    assert_int_equal(co_file_preadv(3, iov, 4, 2), 10);
    assert_int_equal(co_file_pwritev(3, iov, 4, 2, 0), -EIO);
}

/* A transfer that the kernel cuts short goes on where it stopped. */
static void short_transfers_are_continued(void **state)
{
    struct loop *loop = new_loop(&fake_backend);

    (void)state;
    co_spawn(loop, move_in_parts, NULL);
    run_until_idle(loop);
    loop_free(loop);
}

static void meet_errors(void *opaque)
{
    char buffer[8];
    const struct iovec iov = { buffer, 8 };

    (void)opaque;
    fake_world.file_bytes = 100;
    fake_world.fail_once = -EINTR;
    assert_int_equal(co_file_preadv(3, &iov, 1, 0), 8);
    fake_world.fail_once = -EAGAIN;
    assert_int_equal(co_file_pwritev(3, &iov, 1, 0, 0), 8);
    fake_world.fail_once = -EINTR;
    assert_int_equal(co_file_datasync(3), 0);
    fake_world.fail_once = -EINTR;
    assert_int_equal(co_file_allocate(3, 0, 0, 1), 0);
    assert_int_equal(file_try_preadv(3, &iov, 1, 0), -EAGAIN);
    assert_int_equal(file_try_pwritev(3, &iov, 1, 0), -EAGAIN);
    assert_int_equal(file_pwritev_inline(3, &iov, 1, 0), -EAGAIN);
    fake_world.fail_once = -EIO;
    assert_int_equal(co_file_preadv(3, &iov, 1, 0), -EIO);
    fake_world.fail_once = -ENOSPC;
    assert_int_equal(co_file_pwritev(3, &iov, 1, 0, 0), -ENOSPC);
    fake_world.fail_once = -EIO;
    assert_int_equal(co_file_datasync(3), -EIO);
    fake_world.fail_once = -EOPNOTSUPP;
    assert_int_equal(co_file_allocate(3, 0, 0, 1), -EOPNOTSUPP);
}

/* Interruptions are tried again, everything else is reported. */
static void passing_errors_are_tried_again(void **state)
{
    struct loop *loop = new_loop(&fake_backend);

    (void)state;
    co_spawn(loop, meet_errors, NULL);
    run_until_idle(loop);
    assert_int_equal(fake_world.fail_once, 0);
    loop_free(loop);
}

static void meet_the_end_directly(void *opaque)
{
    g_autofree char *buffer = g_malloc(4096);
    const struct iovec iov = { buffer, 4096 };

    (void)opaque;
    fake_world.file_bytes = 1000;
    fake_world.fail_once = -EINVAL;
    fake_world.fail_skip = 1;
    assert_int_equal(co_file_preadv(3, &iov, 1, 0), 1000);

    fake_world.file_bytes = 1024;
    fake_world.fail_once = -EINVAL;
    fake_world.fail_skip = 1;
    assert_int_equal(co_file_preadv(3, &iov, 1, 0), -EINVAL);
}

/* A file's end within a sector is met as -EINVAL under O_DIRECT: an end, there,
 * and an error everywhere else. */
static void a_refusal_within_a_sector_is_the_end(void **state)
{
    struct loop *loop = new_loop(&fake_backend);

    (void)state;
    co_spawn(loop, meet_the_end_directly, NULL);
    run_until_idle(loop);
    loop_free(loop);
}

struct cancel_race {
    struct io_canceller canceller;
    int result;
};

static void poll_with_both(void *opaque)
{
    struct cancel_race *race = opaque;

    race->result =
        co_poll_until(3, POLLIN, &race->canceller, loop_now_ns() + 100);
}

static void cancel_at_the_deadline(void *opaque)
{
    struct cancel_race *race = opaque;

    co_enter(poll_with_both, race);
    fake_world.now_ns += 1000; /* the deadline is past, nobody noticed yet */
    io_cancel(&race->canceller);
}

/* A wait that is cancelled and times out at once ends once, as cancelled. */
static void cancel_and_deadline_may_meet(void **state)
{
    struct loop *loop = new_loop(&fake_backend);
    struct cancel_race race = { .result = 1 };

    (void)state;
    io_canceller_init(&race.canceller);
    co_spawn(loop, cancel_at_the_deadline, &race);
    run_until_idle(loop);
    assert_int_equal(race.result, -ECANCELED);
    loop_free(loop);
}

struct counting_poller {
    struct loop_poller poller;
    unsigned asked;
    unsigned find_at; /* finds work at this asking */
    struct coroutine *coroutine;
};

static bool count_asking(struct loop_poller *poller)
{
    struct counting_poller *counting =
        LIST_ENTRY(poller, struct counting_poller, poller);

    if (++counting->asked != counting->find_at) {
        return false;
    }
    co_wake(counting->coroutine);
    return true;
}

/* Sleeps briefly a few times, which shows that spinning pays. */
static void spin_and_find(void *opaque)
{
    struct counting_poller *counting = opaque;
    size_t sleeps;

    counting->poller.poll = count_asking;
    counting->coroutine = co_self();
    loop_poller_add(&counting->poller);
    for (unsigned i = 0; i < 10; i++) {
        co_sleep_until(fake_world.now_ns + 3000);
    }
    counting->asked = 0;
    counting->find_at = 5;
    sleeps = fake_world.sleeps;
    co_yield ();
    assert_int_equal(counting->asked, 5);
    assert_int_equal(fake_world.sleeps, sleeps);

    /* Long sleeps end the habit. */
    for (unsigned i = 0; i < 10; i++) {
        co_sleep_until(fake_world.now_ns + 1000000);
    }
    counting->asked = 0;
    co_sleep_until(fake_world.now_ns + 1000000);
    assert_int_equal(counting->asked, 0);
    loop_poller_remove(&counting->poller);
}

static bool has_one_cpu(void)
{
    return g_get_num_processors() == 1;
}

static void pollers_are_asked_while_it_pays(void **state)
{
    struct counting_poller counting = { .find_at = 0 };
    struct loop *loop = new_loop(&fake_spinning_backend);

    (void)state;
    if (has_one_cpu()) {
        loop_free(loop);
        skip();
    }
    fake_world.tick_ns = 100;
    co_spawn(loop, spin_and_find, &counting);
    for (unsigned i = 0; i < 200; i++) {
        loop_run_once(loop, true);
    }
    assert_int_equal(counting.find_at, 5);
    assert_true(list_is_empty(&counting.poller.link));
    loop_free(loop);
}

static bool find_nothing(struct loop_poller *poller)
{
    (void)poller;
    return false;
}

static void add_poller(void *opaque)
{
    loop_poller_add(opaque);
}

static void remove_poller(void *opaque)
{
    loop_poller_remove(opaque);
}

static void send_nothing(struct loop_message *message)
{
    message->run = NULL;
}

static struct loop_message late_message;
static struct loop *late_loop;

static void post_late(void)
{
    loop_post(late_loop, &late_message);
}

static void stop_late(void)
{
    loop_stop(late_loop);
}

/* What comes after the loop has found nothing to do, and before it sleeps,
 * keeps it from sleeping. (The look at the clock lies between.) */
static void late_mail_and_stops_prevent_sleep(void **state)
{
    struct loop_poller poller = { .poll = find_nothing };
    void (*const late[])(void) = { post_late, stop_late };

    (void)state;
    late_loop = new_loop(&fake_spinning_backend);
    late_message.run = send_nothing;
    if (has_one_cpu()) {
        loop_free(late_loop);
        skip();
    }
    co_spawn(late_loop, add_poller, &poller);
    run_until_idle(late_loop);
    for (size_t i = 0; i < G_N_ELEMENTS(late); i++) {
        fake_world.on_clock = late[i];
        loop_run_once(late_loop, true);
        assert_null(fake_world.on_clock);
        assert_int_equal(fake_world.sleeps, 0);
        assert_true(loop_run_once(late_loop, false));
    }
    loop_run(late_loop); /* the stop is still there */
    assert_null(late_message.run);
    co_spawn(late_loop, remove_poller, &poller);
    run_until_idle(late_loop);
    loop_free(late_loop);
}

static void a_backend_that_cannot_open_says_why(void **state)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) err_of_thread = NULL;

    (void)state;
    fake_world.refuse_open = true;
    assert_null(loop_new(&fake_backend, "main", &err));
    assert_string_equal(err->message,
                        "Cannot start event loop 'main': no backend today");
    assert_null(loop_thread_start(&fake_backend, "main", &err_of_thread));
    assert_non_null(err_of_thread);
    assert_null(loop_new(&fake_backend, "main", NULL));
    loop_free(NULL);
    loop_thread_join(NULL);
}

int main(void)
{
#define SIMULATED(test) cmocka_unit_test_setup(test, reset_world)
    const struct CMUnitTest tests[] = {
        SIMULATED(several_loops_are_stepped_in_one_thread),
        SIMULATED(ready_coroutines_run_oldest_first),
        SIMULATED(the_chooser_decides_who_runs),
        SIMULATED(timers_fire_in_order),
        SIMULATED(a_timer_that_restarts_leaves_room),
        SIMULATED(many_timers_keep_their_order),
        SIMULATED(time_and_chance_are_the_backends),
        SIMULATED(short_transfers_are_continued),
        SIMULATED(passing_errors_are_tried_again),
        SIMULATED(a_refusal_within_a_sector_is_the_end),
        SIMULATED(cancel_and_deadline_may_meet),
        SIMULATED(pollers_are_asked_while_it_pays),
        SIMULATED(late_mail_and_stops_prevent_sleep),
        SIMULATED(a_backend_that_cannot_open_says_why),
    };

    return cmocka_run_group_tests_name("loop/simulated", tests, NULL, NULL);
}
