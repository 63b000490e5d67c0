/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: an export is a name for a node that it uses. Adding checks
 * and attaches; deleting takes the name away at once and drops the clients;
 * when the last of them is gone the export is reaped.
 *
 * Reaping changes the users of a node, so it is done with the graph locked: by
 * a coroutine of its own, or by co_nbd_server_stop(), whose caller holds the
 * lock.
 */
#include "nbd/export.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "nbd/export_priv.h"
#include "nbd/protocol.h"

struct export_list *export_list_new(struct block_graph *graph,
                                    void (*event)(void *opaque,
                                                  const char *name,
                                                  struct json_value *data),
                                    void *opaque)
{
    struct export_list *list = g_new0(struct export_list, 1);

    list->graph = graph;
    list->event = event;
    list->opaque = opaque;
    list_init(&list->exports);
    co_queue_init(&list->changed);
    return list;
}

void export_list_free(struct export_list *list)
{
    if (!list) {
        return;
    }
    g_assert(!list->server && list_is_empty(&list->exports) && !list->reaping);
    g_free(list);
}

static void free_export(struct nbd_export *export)
{
    pthread_mutex_destroy(&export->lock);
    g_free(export->id);
    g_free(export->name);
    g_free(export->description);
    g_free(export);
}

/* Detaches it and lets everybody know. */
static void bury_export(struct nbd_export *export)
{
    struct export_list *list = export->list;
    struct json_value *data = json_dict_new();

    list_remove(&export->link);
    block_detach(&export->user);
    json_dict_set_string(data, "id", export->id);
    free_export(export);
    list->event(list->opaque, "BLOCK_EXPORT_DELETED", data);
    co_queue_wake_all(&list->changed);
}

void nbd_export_reap(struct export_list *list)
{
    LIST_FOREACH_SAFE(link, &list->exports) {
        struct nbd_export *export = LIST_ENTRY(link, struct nbd_export, link);

        if (export->references == 0) {
            bury_export(export);
        }
    }
}

static void co_reap(void *opaque)
{
    struct export_list *list = opaque;

    co_block_graph_lock(list->graph);
    nbd_export_reap(list);
    block_graph_unlock(list->graph);
    list->reaping = false;
    co_queue_wake_all(&list->changed);
}

void nbd_export_unref(struct nbd_export *export)
{
    struct export_list *list;

    if (!export) {
        return;
    }
    list = export->list;
    g_assert(export->references > 0);
    export->references--;
    if (export->references == 0 && !list->reaping) {
        list->reaping = true;
        co_spawn(loop_current(), co_reap, list);
    }
}

static struct nbd_export *find_by_id(const struct export_list *list,
                                     const char *id)
{
    LIST_FOREACH(link, &list->exports) {
        struct nbd_export *export = LIST_ENTRY(link, struct nbd_export, link);

        if (g_str_equal(export->id, id)) {
            return export;
        }
    }
    return NULL;
}

static bool name_is_taken(const struct export_list *list, const char *name)
{
    LIST_FOREACH(link, &list->exports) {
        struct nbd_export *export = LIST_ENTRY(link, struct nbd_export, link);

        if (!export->shutting_down && g_str_equal(export->name, name)) {
            return true;
        }
    }
    return false;
}

static int check_options(const struct export_list *list,
                         const struct json_value *options,
                         GError **err)
{
    const char *id = json_dict_string(options, "id", NULL);
    const char *node_name = json_dict_string(options, "node-name", NULL);
    const char *name = json_dict_string(options, "name", node_name);
    const char *description = json_dict_string(options, "description", "");

    if (strlen(id) > LIMIT_ID_BYTES || !block_name_is_legal(id)) {
        return error_set(err, -EINVAL,
                         "Invalid export id '%.64s': an id begins with a "
                         "letter; letters, digits, '-', '.' and '_' follow",
                         id);
    }
    if (find_by_id(list, id)) {
        return error_set(err, -EEXIST,
                         "There is an export with the id '%s' already", id);
    }
    if (!list->server || list->server->stopping) {
        return error_set(err, -ENOTCONN,
                         "Cannot export '%s': the NBD server is not running; "
                         "start it first",
                         id);
    }
    if (strlen(name) > LIMIT_NBD_NAME_BYTES) {
        return error_set(err, -ENAMETOOLONG,
                         "The name of export '%s' is too long: %zu bytes, "
                         "NBD allows %d",
                         id, strlen(name), LIMIT_NBD_NAME_BYTES);
    }
    if (strlen(description) > LIMIT_NBD_NAME_BYTES) {
        return error_set(err, -EINVAL,
                         "The description of export '%s' is too long: %zu "
                         "bytes, NBD allows %d",
                         id, strlen(description), LIMIT_NBD_NAME_BYTES);
    }
    if (name_is_taken(list, name)) {
        return error_set(err, -EEXIST,
                         "Cannot export '%s': the NBD server has an export "
                         "named '%.256s' already",
                         id, name);
    }
    return 0;
}

/* Flushing covers what any connection has written, so a client may always
 * spread over several, unless we let only one in. */
static uint16_t offer_flags(const struct export_list *list, bool writable)
{
    unsigned int flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH |
                         NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    if (list->server->connections_max != 1) {
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    flags |= writable ? NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                            NBD_FLAG_SEND_FAST_ZERO
                      : NBD_FLAG_READ_ONLY;
    return (uint16_t)flags;
}

static struct nbd_export *new_export(struct export_list *list,
                                     const struct json_value *options,
                                     struct block_node *node)
{
    struct nbd_export *export = g_new0(struct nbd_export, 1);
    const char *node_name = json_dict_string(options, "node-name", NULL);
    bool writable = json_dict_bool(options, "writable", false);

    export->list = list;
    export->id = g_strdup(json_dict_string(options, "id", NULL));
    export->name = g_strdup(json_dict_string(options, "name", node_name));
    export->description =
        g_strdup(json_dict_string(options, "description", NULL));
    export->node = node;
    export->writethrough = json_dict_bool(options, "writethrough", false);
    export->references = 1;
    export->offer = (struct nbd_offer){
        .name = export->name,
        .description = export->description,
        .flags = offer_flags(list, writable),
    };
    export->user = (struct block_user){
        .kind = "export",
        .id = export->id,
        .permissions = BLOCK_PERM_READ | (writable ? BLOCK_PERM_WRITE : 0U),
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .co_quiesce = co_nbd_clients_quiesce,
        .resume = nbd_clients_resume,
        .on_replace = BLOCK_USER_MOVES,
        .moved = nbd_clients_follow,
    };
    pthread_mutex_init(&export->lock, NULL);
    list_init(&export->link);
    list_init(&export->clients);
    co_queue_init(&export->stopped);
    return export;
}

/* Moves the node of the attached export to `home` (NULL: it stays where it is)
 * and holds it there, if the options want that. */
static int co_settle_node(struct nbd_export *export,
                          const struct json_value *options,
                          struct loop *home,
                          GError **err)
{
    bool fixed = json_dict_bool(options, "fixed-iothread", false);

    if (home) {
        int ret = co_block_move(export->node, home, fixed ? err : NULL);

        if (ret < 0 && fixed) {
            g_prefix_error(err, "Cannot export '%s' from iothread '%s': ",
                           export->id, loop_name(home));
            return ret;
        }
    }
    export->user.pinned = fixed;
    return 0;
}

int co_export_add(struct export_list *list,
                  const struct json_value *options,
                  GError **err)
{
    const char *node_name = json_dict_string(options, "node-name", NULL);
    const char *iothread = json_dict_string(options, "iothread", NULL);
    struct loop *home = NULL;
    struct nbd_export *export;
    struct block_node *node;
    int ret = check_options(list, options, err);

    if (ret < 0) {
        return ret;
    }
    node = block_find(list->graph, node_name, err);
    if (!node) {
        return -ENOENT;
    }
    if (iothread) {
        home = block_graph_find_loop(list->graph, iothread, err);
        if (!home) {
            g_prefix_error(err, "Cannot export '%s': ",
                           json_dict_string(options, "id", NULL));
            return -ENOENT;
        }
    }
    export = new_export(list, options, node);
    ret = block_attach(node, &export->user, err);
    if (ret < 0) {
        free_export(export);
        return ret;
    }
    ret = co_settle_node(export, options, home, err);
    if (ret < 0) {
        block_detach(&export->user);
        free_export(export);
        return ret;
    }
    /* Nobody may resize the node from here on. */
    export->offer.size_bytes = block_size(node);
    export->home = block_home(node);
    list_append(&list->exports, &export->link);
    return 0;
}

void nbd_export_shut_down(struct nbd_export *export)
{
    if (export->shutting_down) {
        return;
    }
    export->shutting_down = true;
    LIST_FOREACH(link, &export->clients) {
        nbd_client_drop(LIST_ENTRY(link, struct nbd_client, export_link));
    }
    nbd_export_unref(export);
}

int export_delete(struct export_list *list,
                  const char *id,
                  bool hard,
                  GError **err)
{
    struct nbd_export *export = find_by_id(list, id);

    if (!export) {
        return error_set(err, -ENOENT, "There is no export with the id '%s'",
                         id);
    }
    if (export->shutting_down) {
        return error_set(err, -EALREADY, "Export '%s' is already shutting down",
                         id);
    }
    if (!hard && export->references > 1) {
        return error_set(err, -EBUSY,
                         "Export '%s' is in use: %u client%s connected; mode "
                         "'hard' drops them",
                         id, export->references - 1,
                         export->references == 2 ? " is" : "s are");
    }
    nbd_export_shut_down(export);
    return 0;
}

struct json_value *export_query(const struct export_list *list)
{
    struct json_value *all = json_list_new();

    LIST_FOREACH(link, &list->exports) {
        const struct nbd_export *export =
            LIST_ENTRY(link, struct nbd_export, link);
        struct json_value *info = json_dict_new();

        json_dict_set_string(info, "id", export->id);
        json_dict_set_string(info, "type", "nbd");
        json_dict_set_string(info, "node-name", block_name(export->node));
        json_dict_set_bool(info, "shutting-down", export->shutting_down);
        json_list_append(all, info);
    }
    return all;
}

char *export_list_describe(const struct export_list *list)
{
    g_autoptr(GString) text = g_string_new(NULL);

    LIST_FOREACH(link, &list->exports) {
        const struct nbd_export *export =
            LIST_ENTRY(link, struct nbd_export, link);

        g_string_append_printf(text, "%s%sexport '%s' of node '%s'",
                               text->len > 0 ? ", " : "",
                               export->shutting_down ? "requests of " : "",
                               export->id, block_name(export->node));
    }
    return text->len > 0 ? g_strdup(text->str) : NULL;
}

void co_export_shutdown(struct export_list *list)
{
    if (list->server && !list->server->stopping) {
        /* Out of time: it ends later, which is what we wait for. */
        (void)co_nbd_server_stop(list, NULL);
    }
    while (list->reaping || list->server) {
        co_queue_wait(&list->changed);
    }
}
