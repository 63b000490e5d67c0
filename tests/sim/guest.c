/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block's expectation is clear as long as its writers do not overlap: then
 * the last one acknowledged is what a read must give. Where they do overlap, or
 * one failed, what the disk holds once all have ended is taken for true.
 */
#include "guest.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "block/request.h"

#include "model.h"
#include "simdisk.h"

#define MS             UINT64_C(1000000)
#define REQUEST_BLOCKS 40

struct request {
    struct guest *guest;
    uint64_t offset;
    uint64_t bytes;
    unsigned int first; /* blocks whose stamp is in the range: [first, end) */
    unsigned int end;
    bool at_once;
};

struct guest *guest_running_on(struct disk *disk)
{
    struct coroutine *self = co_self();

    for (unsigned int i = 0; i < disk->guest_count; i++) {
        if (disk->guests[i].self == self) {
            return &disk->guests[i];
        }
    }
    return NULL;
}

bool guest_is_saving(const struct guest *guest, bool is_read, uint64_t bytes)
{
    /* The block layer reads single blocks to complete an unaligned write. */
    return is_read && guest->writing && bytes != guest->disk->alignment_bytes;
}

static uint64_t *bucket(struct guest *guest, enum bucket which)
{
    return &guest->disk->world->histogram->buckets[which];
}

/* --- What is asked --------------------------------------------------------- */

/* A range that covers the stamps of some blocks, and cuts none. */
static void pick_range(struct request *request, unsigned int blocks_max)
{
    struct disk *disk = request->guest->disk;
    struct random *random = &disk->world->random;
    unsigned int count = random_once_in(random, 8) ? blocks_max : 4;
    uint64_t end;

    count =
        (unsigned int)random_between(random, 1, MIN(count, disk->block_count));
    request->first =
        (unsigned int)random_below(random, disk->block_count - count + 1);
    /* Guests meet where others were just now. */
    if (random_once_in(random, 3) &&
        disk->hot_block + count <= disk->block_count) {
        request->first = disk->hot_block;
    } else if (random_once_in(random, 8)) {
        disk->hot_block = request->first;
    }
    request->offset = request->first * BLOCK_BYTES;
    end = MIN(request->offset + count * BLOCK_BYTES, disk->size_bytes);
    if (random_once_in(random, 5)) {
        ++*bucket(request->guest, GUEST_UNALIGNED);
        if (random_once_in(random, 2)) {
            request->offset += random_between(random, 8, BLOCK_BYTES - 8);
            request->first++;
        }
        if (end - request->offset > BLOCK_BYTES) {
            end -= random_between(random, 1, BLOCK_BYTES - 8);
        }
    }
    request->bytes = end - request->offset;
    request->end = (unsigned int)divide_round_up(end, BLOCK_BYTES);
    request->end = MAX(request->end, request->first);
}

static uint8_t *stamp_in(const struct request *request, unsigned int block)
{
    return request->guest->buffer + (block * BLOCK_BYTES - request->offset);
}

/* Does a job make the guests of this disk pay, now? */
static bool pays_now(const struct disk *disk)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &disk->world->jobs[i];

        if (job->used && job->begun && !job->told && job->pays &&
            job->source == disk) {
            return true;
        }
    }
    return false;
}

/* --- Writing ---------------------------------------------------------------- */

static void begin_write(struct request *request)
{
    struct guest *guest = request->guest;
    struct disk *disk = guest->disk;

    guest->injected = 0;
    guest->pays = pays_now(disk);
    guest->writing = true;
    guest->offset = request->offset;
    guest->bytes = request->bytes;
    model_write_begins(disk, guest);
    simdisk_note_write(disk, request->offset, request->bytes);
    for (unsigned int i = request->first; i < request->end; i++) {
        struct expectation *expected = &disk->expected[i];

        expected->generation++;
        if (expected->writers++ > 0) {
            expected->unclear = true;
            ++*bucket(guest, GUEST_OVERLAP);
        }
    }
}

static void check_result(struct guest *guest, int ret, const char *what)
{
    const struct disk *disk = guest->disk;

    if (ret < 0 && guest->injected == 0 && guest->pays) {
        ++*bucket(guest, GUEST_PAID);
        return;
    }
    if (ret != guest->injected) {
        violation("a guest's %s on %s gave %d, but its disk said %d", what,
                  disk->name, ret, guest->injected);
    }
}

/* `buffered`: what the buffer holds is the new content; else zeroes, or, of a
 * discard (`vague`), anything. */
static void end_write(struct request *request,
                      int ret,
                      const char *what,
                      bool buffered,
                      bool vague)
{
    struct guest *guest = request->guest;
    struct disk *disk = guest->disk;

    guest->writing = false;
    check_result(guest, ret, what);
    for (unsigned int i = request->first; i < request->end; i++) {
        struct expectation *expected = &disk->expected[i];
        uint64_t stamp = 0;

        if (--expected->writers > 0) {
            continue;
        }
        if (buffered) {
            memcpy(&stamp, stamp_in(request, i), sizeof(stamp));
        }
        if (ret == 0 && !vague && !expected->unclear &&
            disk->stamps[i] != stamp) {
            violation("a guest's %s of block %u on %s was acknowledged, but "
                      "the disk holds %" PRIx64 " instead of %" PRIx64,
                      what, i, disk->name, disk->stamps[i], stamp);
        }
        expected->stamp = disk->stamps[i];
        expected->unclear = false;
    }
}

static void co_write(struct guest *guest)
{
    struct world *world = guest->disk->world;
    struct random *random = &world->random;
    struct request request = { .guest = guest };
    struct iovec iov = { .iov_base = guest->buffer };
    unsigned int flags = random_once_in(random, 10) ? BLOCK_FUA : 0;
    int ret = -EAGAIN;

    pick_range(&request, REQUEST_BLOCKS);
    iov.iov_len = request.bytes;
    for (unsigned int i = request.first; i < request.end; i++) {
        uint64_t stamp = random_once_in(random, 12) ? 0 : ++world->stamps_given;

        memcpy(stamp_in(&request, i), &stamp, sizeof(stamp));
    }
    begin_write(&request);
    if (flags == 0 && random_once_in(random, 2)) {
        ret = block_try_pwritev(guest->disk->node, request.offset,
                                request.bytes, &iov, 1);
    }
    if (ret == -EAGAIN) {
        ret = co_block_pwritev(guest->disk->node, request.offset, request.bytes,
                               &iov, 1, flags);
    } else {
        ++*bucket(guest, GUEST_AT_ONCE);
    }
    ++*bucket(guest, GUEST_WRITE);
    end_write(&request, ret, "write", true, false);
}

static void co_zero(struct guest *guest)
{
    struct request request = { .guest = guest };
    bool all = random_once_in(&guest->disk->world->random, 30);

    pick_range(&request, all ? BLOCKS_MAX : REQUEST_BLOCKS);
    begin_write(&request);
    int ret = co_block_write_zeroes(guest->disk->node, request.offset,
                                    request.bytes, BLOCK_MAY_UNMAP);
    ++*bucket(guest, GUEST_ZEROES);
    end_write(&request, ret, "zeroing", false, false);
}

static void co_trim(struct guest *guest)
{
    struct request request = { .guest = guest };

    pick_range(&request, REQUEST_BLOCKS);
    begin_write(&request);
    int ret =
        co_block_discard(guest->disk->node, request.offset, request.bytes);
    ++*bucket(guest, GUEST_DISCARD);
    end_write(&request, ret, "discard", false, true);
}

/* --- Reading ---------------------------------------------------------------- */

static void check_read(const struct request *request,
                       const uint32_t *generations)
{
    const struct disk *disk = request->guest->disk;

    for (unsigned int i = request->first; i < request->end; i++) {
        const struct expectation *expected = &disk->expected[i];
        uint64_t stamp;

        memcpy(&stamp, stamp_in(request, i), sizeof(stamp));
        if (expected->writers == 0 && !expected->unclear &&
            expected->generation == generations[i - request->first] &&
            stamp != expected->stamp) {
            violation("a guest read %" PRIx64 " from block %u of %s, where "
                      "%" PRIx64 " had been written",
                      stamp, i, disk->name, expected->stamp);
        }
    }
}

static void co_read(struct guest *guest)
{
    struct disk *disk = guest->disk;
    struct request request = { .guest = guest };
    struct iovec iov = { .iov_base = guest->buffer };
    uint32_t generations[REQUEST_BLOCKS];
    int ret = -EAGAIN;

    pick_range(&request, REQUEST_BLOCKS);
    iov.iov_len = request.bytes;
    guest->injected = 0;
    guest->pays = false;
    for (unsigned int i = request.first; i < request.end; i++) {
        /* One that is under way now may end before the read does. */
        generations[i - request.first] = disk->expected[i].writers > 0
                                             ? disk->expected[i].generation - 1
                                             : disk->expected[i].generation;
    }
    if (random_once_in(&disk->world->random, 2)) {
        ret = block_try_preadv(disk->node, request.offset, request.bytes, &iov,
                               1);
    }
    if (ret == -EAGAIN) {
        ret =
            co_block_preadv(disk->node, request.offset, request.bytes, &iov, 1);
    } else {
        ++*bucket(guest, GUEST_AT_ONCE);
    }
    ++*bucket(guest, GUEST_READ);
    check_result(guest, ret, "read");
    if (ret == 0) {
        check_read(&request, generations);
    }
}

static void co_sync(struct guest *guest)
{
    struct disk *disk = guest->disk;
    uint64_t written = disk->writes_applied;

    guest->injected = 0;
    guest->pays = false;
    int ret = co_block_flush(disk->node);
    ++*bucket(guest, GUEST_FLUSH);
    check_result(guest, ret, "flush");
    if (ret == 0 && disk->writes_durable < written) {
        violation("a guest's flush of %s left writes behind", disk->name);
    }
}

/* --- Living ----------------------------------------------------------------- */

static void co_one_request(struct guest *guest)
{
    struct world *world = guest->disk->world;
    uint64_t kind = random_below(&world->random, 100);

    guest->begun_ns = loop_now_ns();
    world->operations++;
    if (kind < 45) {
        co_write(guest);
    } else if (kind < 80) {
        co_read(guest);
    } else if (kind < 88) {
        co_zero(guest);
    } else if (kind < 95) {
        co_trim(guest);
    } else {
        co_sync(guest);
    }
    guest->begun_ns = 0;
}

static void co_run_guest(void *opaque)
{
    struct guest *guest = opaque;
    struct disk *disk = guest->disk;
    struct random *random = &disk->world->random;

    guest->self = co_self();
    while (!disk->quiescing && !disk->closing) {
        co_one_request(guest);
        if (random_once_in(random, 3)) {
            co_sleep_until(loop_now_ns() + random_below(random, 20 * MS));
        } else {
            co_reschedule();
        }
    }
    guest->self = NULL;
    guest->runs = false;
    disk->guests_running--;
    co_queue_wake_all(&disk->stopped);
}

static struct disk *disk_of_user(struct block_user *user)
{
    return LIST_ENTRY(user, struct disk, user);
}

static int co_quiesce(struct block_user *user, uint64_t deadline_ns)
{
    struct disk *disk = disk_of_user(user);

    disk->quiescing = true;
    while (disk->guests_running > 0) {
        if (!co_queue_wait_until(&disk->stopped, deadline_ns) &&
            disk->guests_running > 0) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

/* Guests that a failed move has not brought to a stop just go on. */
static void resume(struct block_user *user)
{
    struct disk *disk = disk_of_user(user);

    disk->quiescing = false;
    for (unsigned int i = 0; i < disk->guest_count && !disk->closing; i++) {
        struct guest *guest = &disk->guests[i];

        if (!guest->runs) {
            guest->runs = true;
            disk->guests_running++;
            co_spawn(loop_current(), co_run_guest, guest);
        }
    }
}

void co_guests_start(struct disk *disk)
{
    struct loop *main = loop_current();
    g_autoptr(GError) err = NULL;

    co_queue_init(&disk->stopped);
    disk->user = (struct block_user){
        .kind = "export",
        .id = disk->name,
        .permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .co_quiesce = co_quiesce,
        .resume = resume,
    };
    for (unsigned int i = 0; i < disk->guest_count; i++) {
        disk->guests[i] = (struct guest){ .disk = disk };
        disk->guests[i].buffer = g_malloc0(REQUEST_BLOCKS * BLOCK_BYTES);
    }
    if (block_attach(disk->node, &disk->user, &err) < 0) {
        violation("guests cannot attach: %s", err->message);
    }
    co_move(block_home(disk->node));
    resume(&disk->user);
    co_move(main);
}

void co_guests_stop(struct disk *disk)
{
    struct loop *main = loop_current();

    co_block_graph_lock(disk->world->engine.graph);
    disk->closing = true;
    co_move(block_home(disk->node));
    while (disk->guests_running > 0) {
        co_queue_wait(&disk->stopped);
    }
    co_move(main);
    block_detach(&disk->user);
    block_graph_unlock(disk->world->engine.graph);
    for (unsigned int i = 0; i < disk->guest_count; i++) {
        g_free(disk->guests[i].buffer);
    }
}
