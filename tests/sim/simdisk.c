/* SPDX-License-Identifier: BSD-3-Clause */
#include "simdisk.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"

#include "guest.h"
#include "model.h"

#define MS UINT64_C(1000000)

/* A read under way that no guest asked for. */
struct disk_read {
    struct list link;
    uint64_t offset;
    uint64_t bytes;
};

enum request_kind {
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_FLUSH,
};

static struct disk *disk_of(struct block_node *node)
{
    return block_state(node);
}

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    const char *index = json_dict_string(options, "file", "0");
    struct disk *disk = &world_current()->disks[atoi(index)];
    struct block_limits limits = {
        .request_alignment_bytes = disk->alignment_bytes,
        .cluster_bytes = disk->cluster_bytes,
    };

    (void)err;
    block_set_state(node, disk);
    block_set_size(node, disk->size_bytes);
    block_set_limits(node, &limits);
    return 0;
}

/* --- Time and faults ------------------------------------------------------ */

static void co_take_time(struct disk *disk)
{
    struct world *world = disk->world;
    struct random *random = &world->random;
    uint64_t delay_ns;

    if (random_percent(random, disk->faults.instant_percent)) {
        return;
    }
    if (world->faults_on && disk->faults.hang_one_in != 0 &&
        random_once_in(random, disk->faults.hang_one_in)) {
        delay_ns = random_between(random, 900, 8000) * MS;
        world->histogram->buckets[FAULT_HANG]++;
    } else if (world->faults_on && random_once_in(random, 200)) {
        delay_ns = random_between(random, 5, 300) * MS;
    } else if (random_once_in(random, 10)) {
        co_reschedule();
        return;
    } else {
        delay_ns = random_between(random, 10000, 3 * MS);
    }
    co_sleep_until(loop_now_ns() + delay_ns);
}

/* Whose request an error hits, for the histogram; guests are told. */
static void note_fault(struct disk *disk,
                       enum request_kind kind,
                       uint64_t bytes,
                       int error)
{
    uint64_t *buckets = disk->world->histogram->buckets;
    struct guest *guest = guest_running_on(disk);

    static const enum bucket of_guests[] = {
        [REQUEST_READ] = FAULT_GUEST_READ,
        [REQUEST_WRITE] = FAULT_GUEST_WRITE,
        [REQUEST_FLUSH] = FAULT_GUEST_FLUSH,
    };

    static const enum bucket of_jobs[][2] = {
        [REQUEST_READ] = { FAULT_SOURCE_READ, FAULT_SOURCE_READ },
        [REQUEST_WRITE] = { FAULT_TARGET_WRITE, FAULT_TARGET_WRITE },
        [REQUEST_FLUSH] = { FAULT_SOURCE_FLUSH, FAULT_TARGET_FLUSH },
    };

    disk->fault_count++;
    if (guest == NULL) {
        buckets[of_jobs[kind][disk->is_target]]++;
    } else if (guest_is_saving(guest, kind == REQUEST_READ, bytes)) {
        buckets[FAULT_SAVE_READ]++;
    } else {
        buckets[of_guests[kind]]++;
        guest->injected = error;
    }
}

/* 0, or the error that this request shall end with. */
static int pick_error(struct disk *disk, enum request_kind kind, uint64_t bytes)
{
    struct random *random = &disk->world->random;
    int error = random_once_in(random, 4) ? -ENOSPC : -EIO;

    if (!disk->world->faults_on || disk->faults.error_one_in == 0 ||
        !random_once_in(random, disk->faults.error_one_in)) {
        return 0;
    }
    note_fault(disk, kind, bytes, error);
    return error;
}

/* --- Content -------------------------------------------------------------- */

/* Blocks whose stamp lies within the range: [*first, *end). */
static void stamps_within(uint64_t offset,
                          uint64_t bytes,
                          unsigned int *first,
                          unsigned int *end)
{
    *first = (unsigned int)divide_round_up(offset, BLOCK_BYTES);
    *end = (unsigned int)divide_round_up(offset + bytes, BLOCK_BYTES);
    *end = *end < *first ? *first : *end;
}

/* Where the byte `position` of the vectors is. */
struct iov_cursor {
    const struct iovec *iov;
    uint64_t start; /* position of its first byte */
};

static uint8_t *iov_at(struct iov_cursor *cursor, uint64_t position)
{
    while (position - cursor->start >= cursor->iov->iov_len) {
        cursor->start += cursor->iov->iov_len;
        cursor->iov++;
    }
    g_assert(position - cursor->start + 8 <= cursor->iov->iov_len);
    return (uint8_t *)cursor->iov->iov_base + (position - cursor->start);
}

/* A block of zeroes is given whole: the engine looks for zeroes in what it has
 * read, and what it finds must not hang on what the memory held before. */
static void copy_out(const struct disk *disk,
                     uint64_t offset,
                     const struct iovec *iov,
                     unsigned int first,
                     unsigned int end)
{
    struct iov_cursor cursor = { .iov = iov };

    for (unsigned int block = first; block < end; block++) {
        uint64_t position = block * BLOCK_BYTES - offset;
        uint8_t *to = iov_at(&cursor, position);

        if (disk->stamps[block] == 0) {
            memset(to, 0,
                   MIN(BLOCK_BYTES,
                       cursor.iov->iov_len - (position - cursor.start)));
        } else {
            memcpy(to, &disk->stamps[block], sizeof(uint64_t));
        }
    }
}

/* `iov` NULL: zeroes. */
static void apply(struct disk *disk,
                  uint64_t offset,
                  const struct iovec *iov,
                  unsigned int first,
                  unsigned int end)
{
    struct iov_cursor cursor = { .iov = iov };

    for (unsigned int block = first; block < end; block++) {
        uint64_t stamp = 0;

        if (iov != NULL) {
            memcpy(&stamp, iov_at(&cursor, block * BLOCK_BYTES - offset),
                   sizeof(stamp));
        }
        if (stamp != disk->stamps[block]) {
            model_content_changes(disk, block);
            disk->stamps[block] = stamp;
        }
    }
}

/* --- Requests ------------------------------------------------------------- */

/* The disk's last block, if a cluster begins there, is read alike to save it and
 * to complete an unaligned write; only the latter may fail the guest. So it does
 * not fail. */
static bool is_of_either(const struct disk *disk,
                         const struct guest *guest,
                         uint64_t offset,
                         uint64_t bytes)
{
    return guest != NULL && guest->writing && bytes == disk->alignment_bytes &&
           offset + bytes == disk->size_bytes;
}

static int co_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    struct disk *disk = disk_of(node);
    struct disk_read read = { .offset = offset, .bytes = bytes };
    struct guest *guest = guest_running_on(disk);
    unsigned int first, end, middle;
    int error = is_of_either(disk, guest, offset, bytes)
                    ? 0
                    : pick_error(disk, REQUEST_READ, bytes);

    (void)iov_count;
    if (guest == NULL) {
        list_append(&disk->reads_inside, &read.link);
    } else if (guest_is_saving(guest, true, bytes)) {
        disk->world->histogram->buckets[SAVED_FIRST]++;
    }
    stamps_within(offset, bytes, &first, &end);
    middle = (unsigned int)random_between(&disk->world->random, first, end);
    copy_out(disk, offset, iov, first, middle);
    co_take_time(disk);
    copy_out(disk, offset, iov, middle, end);
    if (guest == NULL) {
        list_remove(&read.link);
    }
    return error;
}

void simdisk_note_write(struct disk *disk, uint64_t offset, uint64_t bytes)
{
    LIST_FOREACH(link, &disk->reads_inside) {
        struct disk_read *read = LIST_ENTRY(link, struct disk_read, link);

        if (offset < read->offset + read->bytes &&
            read->offset < offset + bytes) {
            disk->world->histogram->buckets[WRITE_DURING_READ]++;
        }
    }
}

/* A write that fails may have had a part of its effect. */
static int co_change(struct disk *disk,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov)
{
    struct random *random = &disk->world->random;
    unsigned int first, end, middle;
    int error = pick_error(disk, REQUEST_WRITE, bytes);

    disk->writes_inside++;
    stamps_within(offset, bytes, &first, &end);
    middle = (unsigned int)random_between(random, first, end);
    if (random_once_in(random, 2)) {
        co_take_time(disk);
    }
    apply(disk, offset, iov, first, middle);
    co_take_time(disk);
    if (error == 0) {
        apply(disk, offset, iov, middle, end);
    }
    disk->writes_inside--;
    disk->writes_applied++;
    return error;
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    (void)iov_count;
    (void)flags;
    return co_change(disk_of(node), offset, bytes, iov);
}

static int co_write_zeroes(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags)
{
    struct disk *disk = disk_of(node);

    (void)flags;
    return disk->zeroes_by_driver ? co_change(disk, offset, bytes, NULL)
                                  : -ENOTSUP;
}

static int co_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    return co_change(disk_of(node), offset, bytes, NULL);
}

static int try_preadv(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count)
{
    struct disk *disk = disk_of(node);
    unsigned int first, end;

    (void)iov_count;
    if (random_once_in(&disk->world->random, 3)) {
        return -EAGAIN;
    }
    stamps_within(offset, bytes, &first, &end);
    copy_out(disk, offset, iov, first, end);
    return 0;
}

static int try_pwritev(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes,
                       const struct iovec *iov,
                       int iov_count)
{
    struct disk *disk = disk_of(node);
    unsigned int first, end;

    (void)iov_count;
    if (random_once_in(&disk->world->random, 3)) {
        return -EAGAIN;
    }
    stamps_within(offset, bytes, &first, &end);
    apply(disk, offset, iov, first, end);
    disk->writes_applied++;
    return 0;
}

static int co_flush(struct block_node *node)
{
    struct disk *disk = disk_of(node);
    uint64_t covers = disk->writes_applied;
    int error = pick_error(disk, REQUEST_FLUSH, 0);

    co_take_time(disk);
    if (error == 0) {
        disk->writes_durable = max_u64(disk->writes_durable, covers);
    }
    return error;
}

static int co_status(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     struct block_extent *ret)
{
    struct disk *disk = disk_of(node);
    unsigned int block = (unsigned int)(offset / BLOCK_BYTES);
    bool zero = disk->stamps[block] == 0;
    uint64_t end = offset + bytes;

    if (disk->world->faults_on && disk->faults.error_one_in != 0 &&
        random_once_in(&disk->world->random, 20)) {
        disk->world->histogram->buckets[FAULT_STATUS]++;
        return -EIO;
    }
    do {
        block++;
    } while (block * BLOCK_BYTES < end && zero == (disk->stamps[block] == 0));
    ret->bytes = min_u64(block * BLOCK_BYTES, end) - offset;
    ret->status = zero ? BLOCK_STATUS_ZERO : 0;
    if (!zero || !disk->is_sparse) {
        ret->status |= BLOCK_STATUS_ALLOCATED;
    }
    /* The answer is as old as the wait is long. */
    co_take_time(disk);
    return 0;
}

static void co_info(struct block_node *node, struct json_value *image)
{
    json_dict_set_string(image, "filename", disk_of(node)->name);
}

const struct block_driver driver_simdisk = {
    .name = "simdisk",
    .doc = "A simulated disk.",
    .co_open = co_open,
    .try_preadv = try_preadv,
    .try_pwritev = try_pwritev,
    .co_preadv = co_preadv,
    .co_pwritev = co_pwritev,
    .co_write_zeroes = co_write_zeroes,
    .co_discard = co_discard,
    .co_flush = co_flush,
    .co_status = co_status,
    .co_info = co_info,
};
