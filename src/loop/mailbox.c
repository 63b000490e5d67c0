/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mailbox of a loop. A poster appends and, if the loop sleeps, wakes its
 * backend; a loop that is awake finds the mail on its next turn without a
 * system call. No wake-up is lost: "nothing there, so I sleep" and "I append,
 * are you asleep?" are both said under the lock.
 */
#include "loop/loop_priv.h"

void mailbox_init(struct mailbox *mailbox)
{
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->end = &mailbox->first;
}

void mailbox_release(struct mailbox *mailbox)
{
    /* Waits for whoever posted last to let go of the lock. */
    pthread_mutex_lock(&mailbox->lock);
    g_assert(mailbox->first == NULL);
    pthread_mutex_unlock(&mailbox->lock);
    pthread_mutex_destroy(&mailbox->lock);
}

static void wake_locked(struct loop *loop)
{
    if (loop->mailbox.asleep) {
        loop->mailbox.asleep = false;
        loop->backend->wake(loop->backend_state);
    }
}

void loop_post(struct loop *target, struct loop_message *message)
{
    struct mailbox *mailbox = &target->mailbox;

    message->next = NULL;
    pthread_mutex_lock(&mailbox->lock);
    *mailbox->end = message;
    mailbox->end = &message->next;
    atomic_store_explicit(&mailbox->has_mail, true, memory_order_relaxed);
    wake_locked(target);
    pthread_mutex_unlock(&mailbox->lock);
}

void mailbox_knock(struct loop *loop)
{
    pthread_mutex_lock(&loop->mailbox.lock);
    wake_locked(loop);
    pthread_mutex_unlock(&loop->mailbox.lock);
}

bool mailbox_deliver(struct loop *loop)
{
    struct mailbox *mailbox = &loop->mailbox;
    struct loop_message *message;

    if (!atomic_load_explicit(&mailbox->has_mail, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&mailbox->lock);
    message = mailbox->first;
    mailbox->first = NULL;
    mailbox->end = &mailbox->first;
    atomic_store_explicit(&mailbox->has_mail, false, memory_order_relaxed);
    pthread_mutex_unlock(&mailbox->lock);

    while (message != NULL) {
        struct loop_message *next = message->next;

        message->run(message);
        message = next;
    }
    return true;
}

bool mailbox_sleep_begin(struct loop *loop)
{
    struct mailbox *mailbox = &loop->mailbox;

    pthread_mutex_lock(&mailbox->lock);
    mailbox->asleep = mailbox->first == NULL &&
                      !atomic_load_explicit(&loop->stop, memory_order_relaxed);
    bool sleeps = mailbox->asleep;
    pthread_mutex_unlock(&mailbox->lock);
    return sleeps;
}

void mailbox_sleep_end(struct loop *loop)
{
    pthread_mutex_lock(&loop->mailbox.lock);
    loop->mailbox.asleep = false;
    pthread_mutex_unlock(&loop->mailbox.lock);
}
