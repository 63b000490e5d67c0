/* SPDX-License-Identifier: BSD-3-Clause */
#include "daemon/iothread.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "loop/coroutine.h"

#define DEFAULT_IOTHREADS_MAX 4

struct iothread {
    struct list link;
    char *id;
    struct loop *loop;
    pid_t thread_id;
};

void iothread_list_init(struct iothread_list *list, struct block_graph *graph)
{
    *list = (struct iothread_list){ .graph = graph };
    list_init(&list->iothreads);
}

static struct iothread *iothread_find(const struct iothread_list *list,
                                      const char *id)
{
    LIST_FOREACH(link, &list->iothreads) {
        struct iothread *iothread = LIST_ENTRY(link, struct iothread, link);

        if (g_str_equal(iothread->id, id)) {
            return iothread;
        }
    }
    return NULL;
}

static int check_new(const struct iothread_list *list,
                     const char *id,
                     GError **err)
{
    if (!block_name_is_legal(id)) {
        return error_set(err, -EINVAL,
                         "'%s' is no id for an iothread: it takes a letter, "
                         "then letters, digits, '-', '.' and '_'",
                         id);
    }
    if (iothread_find(list, id) != NULL) {
        return error_set(err, -EEXIST, "there is an object '%s' already", id);
    }
    if (list->count >= LIMIT_IOTHREADS) {
        return error_set(err, -EMFILE,
                         "there are %d iothreads already, which is the most",
                         LIMIT_IOTHREADS);
    }
    return 0;
}

int co_iothread_add(struct iothread_list *list, const char *id, GError **err)
{
    struct loop *main_loop = loop_current();
    struct iothread *iothread;
    struct loop *loop;
    int rc = check_new(list, id, err);

    if (rc < 0) {
        return rc;
    }
    loop = loop_thread_start(&loop_uring_backend, id, err);
    if (loop == NULL) {
        return -EIO;
    }
    iothread = g_new0(struct iothread, 1);
    iothread->id = g_strdup(id);
    iothread->loop = loop;
    list_append(&list->iothreads, &iothread->link);
    list->count++;
    co_move(loop);
    iothread->thread_id = gettid();
    co_move(main_loop);
    block_graph_add_loop(list->graph, loop);
    return 0;
}

static unsigned int online_cpus(void)
{
    cpu_set_t cpus;

    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0) {
        return 1;
    }
    return (unsigned int)CPU_COUNT(&cpus);
}

int co_iothread_add_defaults(struct iothread_list *list, GError **err)
{
    unsigned int count = MIN(online_cpus(), DEFAULT_IOTHREADS_MAX);

    for (unsigned int i = 0; i < count; i++) {
        g_autofree char *id = g_strdup_printf("default-%u", i);
        int rc = co_iothread_add(list, id, err);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static void iothread_end(struct iothread_list *list, struct iothread *iothread)
{
    list_remove(&iothread->link);
    list->count--;
    loop_thread_join(iothread->loop);
    g_free(iothread->id);
    g_free(iothread);
}

int iothread_del(struct iothread_list *list, const char *id, GError **err)
{
    struct iothread *iothread = iothread_find(list, id);
    int rc;

    if (iothread == NULL) {
        return error_set(err, -ENOENT, "there is no object '%s'", id);
    }
    rc = block_graph_remove_loop(list->graph, iothread->loop, err);
    if (rc < 0) {
        return rc;
    }
    iothread_end(list, iothread);
    return 0;
}

void iothread_list_release(struct iothread_list *list)
{
    LIST_FOREACH_SAFE(link, &list->iothreads) {
        struct iothread *iothread = LIST_ENTRY(link, struct iothread, link);
        int rc = block_graph_remove_loop(list->graph, iothread->loop, NULL);

        g_assert(rc == 0);
        iothread_end(list, iothread);
    }
}

struct json_value *iothread_query(const struct iothread_list *list)
{
    struct json_value *infos = json_list_new();

    LIST_FOREACH(link, &list->iothreads) {
        const struct iothread *iothread =
            LIST_ENTRY(link, struct iothread, link);
        struct json_value *info = json_dict_new();

        json_dict_set_string(info, "id", iothread->id);
        json_dict_set_int(info, "thread-id", iothread->thread_id);
        json_list_append(infos, info);
    }
    return infos;
}
