/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A graph of one node on a loop of its own: the file, opened with the locks that
 * everyone takes. Looks what it is, and has it checked.
 */
#include "cli/check_image.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/json.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/request.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/header.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

struct check_run {
    struct loop *loop;
    const char *path;
    enum qcow2_repair repair;
    qcow2_check_report *report;
    void *opaque;
    struct checked *checked;
    int ret;
    GError **err;
};

static struct json_value *node_options(const struct check_run *run)
{
    struct json_value *options = json_dict_new();
    struct stat status;
    bool is_device = stat(run->path, &status) == 0 && S_ISBLK(status.st_mode);

    json_dict_set_string(options, "driver", is_device ? "host_device" : "file");
    json_dict_set_string(options, "node-name", "image");
    json_dict_set_string(options, "filename", run->path);
    json_dict_set_bool(options, "read-only",
                       run->repair == QCOW2_REPAIR_NOTHING);
    return options;
}

static int co_look(struct check_run *run, struct block_node *node)
{
    uint8_t magic[4] = { 0 };
    uint64_t bytes = MIN(block_size(node), sizeof(magic));
    int ret = bytes == 0 ? 0 : co_block_pread(node, 0, bytes, magic);

    if (ret < 0) {
        return error_set_errno(run->err, ret, "cannot read '%s'", run->path);
    }
    run->checked->is_qcow2 = qcow2_magic_matches(magic, bytes);
    return 0;
}

/* As the driver does that opens such an image: nobody else may write to it. */
static int co_check_node(struct check_run *run, struct block_node *node)
{
    int ret = co_look(run, node);

    if (ret < 0 || !run->checked->is_qcow2) {
        return ret;
    }
    ret = co_block_child_claim(node, BLOCK_CLAIM_CONTENT, true, run->err);
    if (ret == 0) {
        ret = co_qcow2_check(node, run->path, run->repair, run->report,
                             run->opaque, &run->checked->result, run->err);
        /* Ending it cannot fail. */
        (void)co_block_child_claim(node, BLOCK_CLAIM_CONTENT, false, NULL);
    }
    return ret;
}

static void co_run(void *opaque)
{
    struct check_run *run = opaque;
    g_autoptr(json_value) given = node_options(run);
    g_autoptr(json_value) options =
        schema_coerce(&blockdev_options_type, given, "image", run->err);
    struct block_graph *graph = block_graph_new(run->loop, block_drivers);
    struct block_node *node = NULL;

    run->ret = options == NULL
                   ? -EINVAL
                   : co_block_add(graph, options, true, &node, run->err);
    if (run->ret == 0) {
        run->ret = co_check_node(run, node);
    }
    co_block_del_all(graph);
    block_graph_free(graph);
    loop_stop(run->loop);
}

int check_image(const char *path,
                enum qcow2_repair repair,
                qcow2_check_report *report,
                void *opaque,
                struct checked *ret_checked,
                GError **err)
{
    struct check_run run = {
        .loop = loop_new(&loop_uring_backend, "check", err),
        .path = path,
        .repair = repair,
        .report = report,
        .opaque = opaque,
        .checked = ret_checked,
        .err = err,
    };

    if (run.loop == NULL) {
        return -ENOSYS;
    }
    co_spawn(run.loop, co_run, &run);
    loop_run(run.loop);
    loop_free(run.loop);
    return run.ret;
}
