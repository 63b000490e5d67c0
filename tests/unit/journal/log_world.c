/* SPDX-License-Identifier: BSD-3-Clause */
#include "log_world.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

#define DISK_MAGIC UINT64_C(0x6b7369646c616572)

/* --- Disks ------------------------------------------------------------------------- */

struct journal_id log_world_disk_id(int disk)
{
    struct journal_id id = { { 0xd1, (uint8_t)(disk + 1) } };

    return id;
}

static void disk_path(int disk, char *ret_path)
{
    g_snprintf(ret_path, 16, "/img/disk-%d", disk);
}

static void encode(const struct disk_state *state, uint8_t *sector)
{
    memset(sector, 0, STORAGE_SECTOR_BYTES);
    store_le64(sector, DISK_MAGIC);
    sector[8] = state->is_prepared;
    memcpy(sector + 16, &state->base, 16);
    memcpy(sector + 32, &state->txid, 16);
    memcpy(sector + 48, &state->segment.run, 16);
    store_le32(sector + 64, state->segment.part);
}

struct disk_state log_world_disk(struct log_world *world, int disk)
{
    struct disk_state state = { 0 };
    char path[16];
    const uint8_t *sector;
    uint64_t bytes;

    disk_path(disk, path);
    sector = storage_memory_peek(world->memory, path, &bytes);
    assert_non_null(sector);
    assert_int_equal(load_le64(sector), DISK_MAGIC);
    state.is_prepared = sector[8];
    memcpy(&state.base, sector + 16, 16);
    memcpy(&state.txid, sector + 32, 16);
    memcpy(&state.segment.run, sector + 48, 16);
    state.segment.part = load_le32(sector + 64);
    return state;
}

static int co_write_disk(struct log_world *world,
                         int disk,
                         const struct disk_state *state)
{
    struct storage_file *file = NULL;
    uint8_t sector[STORAGE_SECTOR_BYTES];
    char path[16];
    int ret;

    disk_path(disk, path);
    encode(state, sector);
    ret = co_storage_open(storage_memory_storage(world->memory), path,
                          STORAGE_WRITABLE, &file, NULL);
    if (ret == 0) {
        ret = co_storage_write(file, 0, sector, sizeof(sector));
    }
    if (ret == 0) {
        ret = co_storage_sync(file);
    }
    co_storage_close(&file);
    return ret;
}

/* --- The world ----------------------------------------------------------------------- */

static void co_make_disks(struct log_world *world)
{
    const struct disk_state plain = { 0 };
    struct storage *storage = storage_memory_storage(world->memory);

    assert_int_equal(co_storage_make_directory(storage, "/img"), 0);
    for (int i = 0; i < DISKS; i++) {
        struct storage_file *file = NULL;
        char path[16];

        disk_path(i, path);
        assert_int_equal(
            co_storage_open(storage, path, STORAGE_CREATE, &file, NULL), 0);
        co_storage_close(&file);
        assert_int_equal(co_write_disk(world, i, &plain), 0);
    }
}

struct log_world *log_world_new(uint64_t seed)
{
    struct log_world *world = g_new0(struct log_world, 1);

    random_init(&world->random, seed);
    scheduler_init(&world->scheduler, &world->random);
    world->loop = scheduler_add_loop(&world->scheduler, "main");
    world->memory = storage_memory_new(&world->random);
    world->client_id = LABEL;
    log_world_run(world, co_make_disks);
    storage_memory_sync_all(world->memory);
    return world;
}

void log_world_free(struct log_world *world)
{
    if (world == NULL) {
        return;
    }
    scheduler_release(&world->scheduler);
    storage_memory_free(world->memory);
    g_free(world);
}

struct world_run {
    struct log_world *world;
    void (*co_run)(struct log_world *world);
    bool ended;
};

static void co_run_in_world(void *opaque)
{
    struct world_run *run = opaque;

    run->co_run(run->world);
    run->ended = true;
}

void log_world_run(struct log_world *world,
                   void (*co_run)(struct log_world *world))
{
    struct world_run run = { .world = world, .co_run = co_run };

    co_spawn(world->loop, co_run_in_world, &run);
    while (scheduler_turn(&world->scheduler)) {
    }
    assert_true(run.ended);
}

bool log_world_run_until(struct log_world *world,
                         void (*co_run)(struct log_world *world),
                         uint64_t point,
                         enum storage_crash crash)
{
    bool died;

    storage_memory_crash_at(world->memory, point);
    log_world_run(world, co_run);
    died = storage_memory_is_dead(world->memory);
    if (died) {
        storage_memory_reboot(world->memory, crash);
    }
    storage_memory_crash_at(world->memory, 0);
    return died;
}

/* --- The daemon ------------------------------------------------------------------------ */

static void drop_event(void *opaque, const char *event, struct json_value *data)
{
    (void)opaque;
    (void)event;
    json_free(data);
}

struct coordinator *log_world_coordinator(struct log_world *world)
{
    const struct coordinator_options options = {
        .storage = storage_memory_storage(world->memory),
        .path = STATE_PATH,
        .is_process = world->is_process,
        .event = drop_event,
        .opaque = world,
    };

    return coordinator_new(&options);
}

struct attempt_member {
    struct log_world *world;
    int disk;
};

static int co_prepare_disk(void *opaque,
                           const struct journal_id *txid,
                           const struct log_segment *segment,
                           GError **err)
{
    struct attempt_member *member = opaque;
    struct disk_state state = log_world_disk(member->world, member->disk);

    (void)err;
    assert_false(state.is_prepared);
    if (member->world->fail_prepare == member->disk + 1) {
        g_set_error(err, G_FILE_ERROR, 0, "the tracking file is broken");
        return -EIO;
    }
    state.is_prepared = true;
    state.txid = *txid;
    state.segment = *segment;
    return co_write_disk(member->world, member->disk, &state);
}

static const struct group_member_ops member_ops = {
    .co_prepare = co_prepare_disk,
};

static bool on_doubt(void *opaque, const GError *why)
{
    struct log_world *world = opaque;

    assert_non_null(why);
    world->doubts++;
    if (world->on_doubt != NULL) {
        world->on_doubt(world);
    } else {
        coordinator_let_go(world->coordinator);
    }
    return true;
}

static void tell(struct log_world *world, enum told told)
{
    if (!storage_memory_is_dead(world->memory)) {
        world->told = told;
    }
}

/* What the daemon does with a disk once it knows: durable, then acknowledged. */
static void co_settle(struct log_world *world,
                      struct coordinator *coordinator,
                      int disk,
                      bool committed)
{
    struct disk_state state = log_world_disk(world, disk);
    struct journal_id txid = state.txid;
    struct journal_id id = log_world_disk_id(disk);

    if (!state.is_prepared) {
        return;
    }
    state.is_prepared = false;
    if (committed) {
        state.base = txid;
    }
    if (co_write_disk(world, disk, &state) == 0) {
        co_coordinator_settled(coordinator, &id, &txid);
    }
}

static struct group_commit *make_group(struct log_world *world,
                                       struct attempt_member *members)
{
    struct group_commit *group =
        group_commit_new(world->coordinator, world->client_id);

    for (int i = 0; i < DISKS; i++) {
        if ((world->absent & 1U << i) != 0) {
            continue;
        }
        members[i] = (struct attempt_member){ .world = world, .disk = i };
        const struct group_member member = {
            .ops = &member_ops,
            .opaque = &members[i],
            .disk = log_world_disk_id(i),
            .gets_base = true,
            .node = "disk",
            .job = "job",
            .bitmap = "b0",
        };

        group_commit_add(group, &member);
    }
    return group;
}

/* 0, aborted (a negative errno), or -EINPROGRESS. */
static int co_run_group(struct group_commit *group, struct log_world *world)
{
    int ret = co_group_commit_begin(group, NULL);

    if (ret == 0) {
        group_commit_set_pending(group);
        ret = co_group_commit_prepare(group, NULL);
        if (ret == 0 && world->aborts) {
            ret = -ECANCELED;
        }
        if (ret == 0) {
            if (world->co_before_decision != NULL) {
                world->co_before_decision(world);
            }
            return co_group_commit_decide(group, on_doubt, world, NULL);
        }
        group_commit_abort(group);
    }
    return ret;
}

void co_transact(struct log_world *world)
{
    struct attempt_member members[DISKS];
    struct group_commit *group;
    int ret;

    world->told = TOLD_NOTHING;
    group = make_group(world, members);
    world->txid = *group_commit_txid(group);
    ret = co_run_group(group, world);
    if (ret != -EINPROGRESS) {
        tell(world, ret == 0 ? TOLD_COMMITTED : TOLD_FAILED);
        for (int i = 0; i < DISKS; i++) {
            if (((world->absent | world->lagging) & 1U << i) == 0) {
                co_settle(world, world->coordinator, i, ret == 0);
            }
        }
    }
    co_group_commit_end(&group);
}

void co_attempt(struct log_world *world)
{
    world->coordinator = log_world_coordinator(world);
    co_transact(world);
    co_coordinator_close(world->coordinator);
}

void co_settle_disk(struct log_world *world,
                    struct coordinator *coordinator,
                    int disk)
{
    struct disk_state state = log_world_disk(world, disk);
    struct journal_id id = log_world_disk_id(disk);
    enum outcome outcome = OUTCOME_PENDING;

    /* What was read may be in a cache only. */
    if (co_write_disk(world, disk, &state) < 0) {
        return;
    }
    if (state.is_prepared) {
        g_autofree char *reason = NULL;

        if (co_coordinator_look_up(coordinator, &state.segment, &state.txid,
                                   &outcome, &reason, NULL) < 0 ||
            outcome == OUTCOME_PENDING) {
            return;
        }
        assert_int_not_equal(outcome, OUTCOME_UNKNOWN);
        co_settle(world, coordinator, disk, outcome == OUTCOME_COMMITTED);
    }
    if (!log_world_disk(world, disk).is_prepared &&
        !storage_memory_is_dead(world->memory)) {
        co_coordinator_settled(coordinator, &id, NULL);
    }
}

void co_recover(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);

    for (int i = 0; i < DISKS; i++) {
        if ((world->absent & 1U << i) == 0) {
            co_settle_disk(world, coordinator, i);
        }
    }
    co_coordinator_close(coordinator);
}

void co_recover_and_acknowledge(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);

    for (int i = 0; i < DISKS; i++) {
        co_settle_disk(world, coordinator, i);
    }
    (void)co_coordinator_acknowledge(coordinator, LABEL, NULL, NULL, NULL);
    co_coordinator_close(coordinator);
}

/* The first sync of a part that has its name is that of COMMIT. */
void fail_commit(struct log_world *world)
{
    storage_memory_fail_sync(world->memory, "-0000.log", 1);
}

/* --- What must hold --------------------------------------------------------------------- */

void assert_alike(struct log_world *world)
{
    struct disk_state first = log_world_disk(world, 0);

    for (int i = 0; i < DISKS; i++) {
        struct disk_state state = log_world_disk(world, i);

        assert_false(state.is_prepared);
        assert_memory_equal(&state.base, &first.base, sizeof(state.base));
    }
    if (world->told != TOLD_NOTHING) {
        assert_int_equal(journal_id_equal(&first.base, &world->txid),
                         world->told == TOLD_COMMITTED);
    }
}

struct listing {
    struct log_world *world;
    const char *suffix;
    size_t count;
};

static void co_list(void *opaque)
{
    struct listing *listing = opaque;
    g_autoptr(GPtrArray) names = NULL;

    if (co_storage_list(storage_memory_storage(listing->world->memory),
                        STATE_PATH, &names) < 0) {
        return;
    }
    for (guint i = 0; i < names->len; i++) {
        listing->count +=
            g_str_has_suffix(g_ptr_array_index(names, i), listing->suffix);
    }
}

size_t count_state_files(struct log_world *world, const char *suffix)
{
    struct listing listing = { .world = world, .suffix = suffix };

    co_spawn(world->loop, co_list, &listing);
    while (scheduler_turn(&world->scheduler)) {
    }
    return listing.count;
}

char *co_outcome_text(struct coordinator *coordinator)
{
    struct json_value *list = NULL;
    char *text;

    assert_int_equal(
        co_coordinator_query(coordinator, LABEL, NULL, &list, NULL), 0);
    text =
        g_strdup(json_list_length(list) == 0
                     ? ""
                     : json_dict_string(json_list_get(list, 0), "outcome", ""));
    json_free(list);
    return text;
}
