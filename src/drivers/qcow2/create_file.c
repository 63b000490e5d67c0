/* SPDX-License-Identifier: BSD-3-Clause */
/* Creating an image from the main thread: in nodes, and in a new file. */
#include "base/error.h"
#include "drivers/file_make.h"
#include "drivers/qcow2/create.h"
#include "loop/coroutine.h"

/* Nobody else may look at the nodes, nor may they go elsewhere. */
static struct block_user make_user(const char *id)
{
    return (struct block_user){
        .kind = "creation",
        .id = id,
        .permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
        .shared = 0,
        .pinned = true,
    };
}

int co_qcow2_creation_begin(struct qcow2_creation *creation,
                            struct block_node *file,
                            const struct qcow2_create_options *options,
                            const char *id,
                            GError **err)
{
    int ret = 0;

    creation->file_user = make_user(id);
    creation->data_user = make_user(id);
    if (options->data_file != NULL) {
        ret = co_block_join(file, options->data_file, err);
    }
    if (ret == 0) {
        ret = block_attach(file, &creation->file_user, err);
    }
    if (ret == 0 && options->data_file != NULL) {
        ret = block_attach(options->data_file, &creation->data_user, err);
        if (ret < 0) {
            block_detach(&creation->file_user);
        }
    }
    return ret;
}

int co_qcow2_creation_run(struct qcow2_creation *creation,
                          const struct qcow2_create_options *options,
                          GError **err)
{
    struct block_node *file = creation->file_user.node;
    struct loop *main = loop_current();
    int ret;

    co_move(block_home(file));
    ret = co_qcow2_create(file, options, err);
    co_move(main);
    return ret;
}

void qcow2_creation_end(struct qcow2_creation *creation)
{
    block_detach(&creation->data_user);
    block_detach(&creation->file_user);
}

int co_image_create(struct block_graph *graph,
                    const char *path,
                    const struct qcow2_create_options *options,
                    GError **err)
{
    struct qcow2_creation creation;
    g_autofree char *name = NULL;
    struct block_node *file;
    int ret = co_file_make(path, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_file_open(graph, path, &file, err);
    if (ret < 0) {
        return ret;
    }
    name = g_strdup(block_name(file));
    ret = co_qcow2_creation_begin(&creation, file, options, path, err);
    if (ret == 0) {
        ret = co_qcow2_creation_run(&creation, options, err);
        qcow2_creation_end(&creation);
    }
    if (co_block_del(graph, name, NULL) < 0) {
        g_assert_not_reached(); /* nobody else knows the node */
    }
    return ret;
}
