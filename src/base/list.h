/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Intrusive doubly linked list.
 *
 * A list head and a link are the same struct; an empty list points at itself.
 * An object embeds one `struct list` per list it can be on and is found again
 * with LIST_ENTRY. The list owns nothing and allocates nothing.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *previous;
};

/* The object of `type` whose `member` is at `link`. */
#define LIST_ENTRY(link, type, member) \
 ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* Walk the links of `head`; the body must not remove `link`. */
#define LIST_FOREACH(link, head) \
 for (struct list *link = (head)->next; link != (head); link = link->next)

/* As LIST_FOREACH, and the body may remove `link` (not its successor). */
#define LIST_FOREACH_SAFE(link, head)                              \
 for (struct list *link = (head)->next, *link##_next = link->next; \
      link != (head); link = link##_next, link##_next = link->next)

static inline void list_init(struct list *head)
{
    head->next = head;
    head->previous = head;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_insert_after(struct list *place, struct list *link)
{
    link->previous = place;
    link->next = place->next;
    place->next->previous = link;
    place->next = link;
}

static inline void list_append(struct list *head, struct list *link)
{
    list_insert_after(head->previous, link);
}

static inline void list_prepend(struct list *head, struct list *link)
{
    list_insert_after(head, link);
}

/* Takes `link` off its list; it becomes an empty list of its own, so removing
 * it once more is harmless. */
static inline void list_remove(struct list *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

/* Removes and returns the first link, NULL when the list is empty. */
static inline struct list *list_take_first(struct list *head)
{
    struct list *link = head->next;

    if (link == head) {
        return NULL;
    }
    list_remove(link);
    return link;
}

#endif
