/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POSTERS  4
#define MESSAGES 2000

struct post_office {
    struct loop *loop;
    unsigned last[POSTERS]; /* the loop's thread only */
    unsigned received;
};

struct letter {
    struct loop_message message;
    struct post_office *office;
    unsigned poster;
    unsigned number;
};

struct poster {
    pthread_t thread;
    struct post_office *office;
    unsigned index;
};

static void receive_letter(struct loop_message *message)
{
    struct letter *letter = LIST_ENTRY(message, struct letter, message);
    struct post_office *office = letter->office;

    assert_ptr_equal(loop_current(), office->loop);
    assert_int_equal(letter->number, office->last[letter->poster] + 1);
    office->last[letter->poster] = letter->number;
    if (++office->received == POSTERS * MESSAGES) {
        loop_stop(office->loop);
    }
    g_free(letter);
}

static void *post_letters(void *opaque)
{
    struct poster *poster = opaque;

    for (unsigned i = 1; i <= MESSAGES; i++) {
        struct letter *letter = g_new0(struct letter, 1);

        letter->message.run = receive_letter;
        letter->office = poster->office;
        letter->poster = poster->index;
        letter->number = i;
        loop_post(poster->office->loop, &letter->message);
    }
    return NULL;
}

/* Four threads post at once: all arrives, in the order of each. */
static void messages_of_one_thread_stay_in_order(void **state)
{
    struct post_office office = { .received = 0 };
    struct poster posters[POSTERS];

    (void)state;
    office.loop = loop_new(&loop_uring_backend, "office", NULL);
    assert_non_null(office.loop);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i].office = &office;
        posters[i].index = i;
        pthread_create(&posters[i].thread, NULL, post_letters, &posters[i]);
    }
    loop_run(office.loop);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
        assert_int_equal(office.last[i], MESSAGES);
    }
    loop_free(office.loop);
}

struct note {
    struct loop_message message;
    bool seen;
};

static void see_note(struct loop_message *message)
{
    LIST_ENTRY(message, struct note, message)->seen = true;
}

/* What was posted before the stop still runs. */
static void stopping_delivers_what_was_posted_before(void **state)
{
    struct note note = { .message.run = see_note };
    struct loop *loop =
        loop_thread_start(&loop_uring_backend, "short-lived", NULL);

    (void)state;
    assert_non_null(loop);
    loop_post(loop, &note.message);
    loop_thread_join(loop);
    assert_true(note.seen);
}

/* A stop that comes before the run is not lost, and is used up by it. */
static void a_stop_ends_one_run(void **state)
{
    struct loop *loop = loop_new(&loop_uring_backend, "twice", NULL);

    (void)state;
    assert_non_null(loop);
    for (unsigned i = 0; i < 3; i++) {
        loop_stop(loop);
        loop_stop(loop);
        loop_run(loop);
    }
    loop_free(loop);
}

/* Starts and stops with nothing between, many times. */
static void threads_start_and_stop_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        struct loop *loop =
            loop_thread_start(&loop_uring_backend, "blink", NULL);

        assert_non_null(loop);
        assert_string_equal(loop_name(loop), "blink");
        loop_thread_join(loop);
    }
}

struct pinger {
    struct loop_message message;
    struct loop *home;
    struct loop *away;
    unsigned left;
};

static void pong(struct loop_message *message);

static void ping(struct loop_message *message)
{
    struct pinger *pinger = LIST_ENTRY(message, struct pinger, message);

    message->run = pong;
    loop_post(pinger->home, message);
}

static void pong(struct loop_message *message)
{
    struct pinger *pinger = LIST_ENTRY(message, struct pinger, message);

    if (--pinger->left == 0) {
        loop_stop(pinger->home);
        return;
    }
    message->run = ping;
    loop_post(pinger->away, message);
}

/* Both loops fall asleep all the time; each message ends that. */
static void messages_wake_a_sleeping_loop(void **state)
{
    struct pinger pinger = { .message.run = ping, .left = 5000 };

    (void)state;
    pinger.home = loop_new(&loop_uring_backend, "home", NULL);
    pinger.away = loop_thread_start(&loop_uring_backend, "away", NULL);
    assert_non_null(pinger.home);
    assert_non_null(pinger.away);
    loop_post(pinger.away, &pinger.message);
    loop_run(pinger.home);
    loop_thread_join(pinger.away);
    loop_free(pinger.home);
    assert_int_equal(pinger.left, 0);
}

static void compare_clocks(void *opaque)
{
    struct timespec now;
    unsigned char random[64] = "";
    static const unsigned char zeros[64];

    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &now);
    assert_true(loop_now_ns() >=
                (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    clock_gettime(CLOCK_REALTIME, &now);
    assert_true(loop_wall_clock_us() / 1000000 - (uint64_t)now.tv_sec <= 3600);
    loop_random(random, sizeof(random));
    assert_memory_not_equal(random, zeros, sizeof(random));
}

static void clocks_and_chance_are_the_machines(void **state)
{
    (void)state;
    run_in_loop(compare_clocks, NULL);
}

struct sleepy_poller {
    struct loop_poller poller;
    unsigned asked;
};

static bool find_nothing(struct loop_poller *poller)
{
    LIST_ENTRY(poller, struct sleepy_poller, poller)->asked++;
    return false;
}

static void sleep_with_poller(void *opaque)
{
    struct sleepy_poller *sleepy = opaque;

    sleepy->poller.poll = find_nothing;
    loop_poller_add(&sleepy->poller);
    for (unsigned i = 0; i < 100; i++) {
        co_sleep_until(loop_now_ns() + 5000);
    }
    loop_poller_remove(&sleepy->poller);
}

/* Spinning ends at the timers' deadlines, with the real clock too. */
static void pollers_do_not_hold_up_timers(void **state)
{
    struct sleepy_poller sleepy = { .asked = 0 };

    (void)state;
    run_in_loop(sleep_with_poller, &sleepy);
}

/* A child whose io_uring_setup() fails with `error` tries to make a loop and
 * says whether the sentence has `words` in it. */
static bool child_is_told(int error, const char *words)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { G_N_ELEMENTS(filter), filter };
    GError *err = NULL;
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
            _exit(2);
        }
        _exit(loop_new(&loop_uring_backend, "main", &err) == NULL &&
                      strstr(err->message, "event loop 'main'") != NULL &&
                      strstr(err->message, words) != NULL
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status == 0;
}

static void a_missing_io_uring_is_explained(void **state)
{
    (void)state;
    assert_true(child_is_told(ENOSYS, "this kernel has no io_uring"));
    assert_true(child_is_told(EPERM, "kernel.io_uring_disabled"));
    assert_true(child_is_told(ENOMEM, "ulimit -l"));
    assert_true(child_is_told(EMFILE, "Too many open files"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_one_thread_stay_in_order),
        cmocka_unit_test(stopping_delivers_what_was_posted_before),
        cmocka_unit_test(a_stop_ends_one_run),
        cmocka_unit_test(threads_start_and_stop_at_once),
        cmocka_unit_test(messages_wake_a_sleeping_loop),
        cmocka_unit_test(clocks_and_chance_are_the_machines),
        cmocka_unit_test(a_missing_io_uring_is_explained),
        cmocka_unit_test(pollers_do_not_hold_up_timers),
    };

    return cmocka_run_group_tests_name("loop/loop", tests, NULL, NULL);
}
