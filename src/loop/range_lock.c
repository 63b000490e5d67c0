/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Range locks. All holds, granted or waiting, stand in one list in the order
 * they came; a hold is granted when no earlier one overlaps it. It waits on the
 * first that does, then looks again. The list is as long as requests are in
 * flight on one node, which makes a walk cheaper than a tree.
 */
#include "loop/co_lock.h"

static bool overlap(const struct range_hold *hold,
                    uint64_t offset,
                    uint64_t bytes)
{
    if (bytes == 0 || hold->bytes == 0) {
        return false;
    }
    return offset >= hold->offset ? offset - hold->offset < hold->bytes
                                  : hold->offset - offset < bytes;
}

/* The first overlapping hold before `end`, NULL if there is none. */
static struct range_hold *find_overlap(const struct range_lock *lock,
                                       const struct list *end,
                                       uint64_t offset,
                                       uint64_t bytes)
{
    for (struct list *link = lock->holds.next; link != end; link = link->next) {
        struct range_hold *hold = LIST_ENTRY(link, struct range_hold, link);

        if (overlap(hold, offset, bytes)) {
            return hold;
        }
    }
    return NULL;
}

static void append_hold(struct range_lock *lock,
                        struct range_hold *hold,
                        uint64_t offset,
                        uint64_t bytes)
{
    hold->offset = offset;
    hold->bytes = bytes;
    co_queue_init(&hold->waiters);
    list_append(&lock->holds, &hold->link);
}

void range_lock_init(struct range_lock *lock)
{
    list_init(&lock->holds);
}

bool range_lock_is_free(const struct range_lock *lock,
                        uint64_t offset,
                        uint64_t bytes)
{
    return find_overlap(lock, &lock->holds, offset, bytes) == NULL;
}

bool range_lock_try(struct range_lock *lock,
                    struct range_hold *hold,
                    uint64_t offset,
                    uint64_t bytes)
{
    if (!range_lock_is_free(lock, offset, bytes)) {
        return false;
    }
    append_hold(lock, hold, offset, bytes);
    return true;
}

void co_range_lock(struct range_lock *lock,
                   struct range_hold *hold,
                   uint64_t offset,
                   uint64_t bytes)
{
    struct range_hold *earlier;

    append_hold(lock, hold, offset, bytes);
    while ((earlier = find_overlap(lock, &hold->link, offset, bytes)) != NULL) {
        co_queue_wait(&earlier->waiters);
    }
}

void range_unlock(struct range_lock *lock, struct range_hold *hold)
{
    (void)lock; /* named by the caller for the reader's sake */
    list_remove(&hold->link);
    co_queue_wake_all(&hold->waiters);
}
