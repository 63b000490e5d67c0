/* SPDX-License-Identifier: BSD-3-Clause */
#include "backup/copy_before_write.h"

static struct copy_before_write *filter_of(struct block_hook *hook)
{
    return LIST_ENTRY(hook, struct copy_before_write, hook);
}

static bool try_before_write(struct block_hook *hook,
                             uint64_t offset,
                             uint64_t bytes)
{
    return block_copy_is_saved(filter_of(hook)->copy, offset, bytes);
}

static int co_before_write(struct block_hook *hook,
                           uint64_t offset,
                           uint64_t bytes)
{
    struct copy_before_write *filter = filter_of(hook);
    int ret;

    filter->writes_inside++;
    ret = co_block_copy_save(filter->copy, offset, bytes);
    filter->writes_inside--;
    co_queue_wake_all(&filter->left);
    return ret;
}

void copy_before_write_init(struct copy_before_write *filter,
                            struct block_copy *copy)
{
    *filter = (struct copy_before_write){
        .hook = {
            .stage = BLOCK_HOOK_COPY,
            .try_before_write = try_before_write,
            .co_before_write = co_before_write,
        },
        .copy = copy,
    };
    co_queue_init(&filter->left);
}

void copy_before_write_install(struct copy_before_write *filter,
                               struct block_node *source)
{
    g_assert(!filter->installed);
    block_hook_add(source, &filter->hook);
    filter->installed = true;
}

void co_copy_before_write_settle(struct copy_before_write *filter)
{
    g_assert(block_copy_is_over(filter->copy));
    while (filter->writes_inside > 0) {
        co_queue_wait(&filter->left);
    }
}

void copy_before_write_remove(struct copy_before_write *filter)
{
    if (!filter->installed) {
        return;
    }
    g_assert(filter->writes_inside == 0);
    block_hook_remove(&filter->hook);
    filter->installed = false;
}
