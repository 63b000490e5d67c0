/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a machine: the engine as the daemon makes it, disks that are opened
 * and recovered, guests, backup commands, verbs; then the shut-down, as the
 * daemon's. When the storage dies everything fails, so the same shut-down unwinds
 * it; what it says then, nobody hears.
 */
#include "mixed/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "drivers/drivers.h"
#include "qmp/dispatch.h"

#define STATE_DIRECTORY "/state"
#define LIVES           10
#define REGION_BYTES    UINT64_C(16384)
#define TURNS_MAX       4000000
#define DOUBT_PAUSE_NS  UINT64_C(1000000000)

static struct world *current;

struct world *world_current(void)
{
    return current;
}

void world_count(struct world *world, enum world_count what)
{
    world->counts[what]++;
}

bool world_is_dead(const struct world *world)
{
    return storage_memory_is_dead(world->memory);
}

void world_fail(struct world *world, const char *format, ...)
{
    va_list arguments;
    g_autofree char *text = NULL;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    world_trace(world, "VIOLATION: %s", text);
    if (world->problem == NULL) {
        world->problem =
            g_strdup_printf("seed %" G_GUINT64_FORMAT
                            ", life %u, point %" G_GUINT64_FORMAT ": %s",
                            world->seed, world->lives,
                            storage_memory_points(world->memory), text);
    }
}

void world_trace(const struct world *world, const char *format, ...)
{
    va_list arguments;

    if (!world->trace) {
        return;
    }
    printf("%2u %12.6f  ", world->lives, (double)world->scheduler.now_ns / 1e9);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void co_world_pause(struct world *world, uint64_t most_ns)
{
    if (faults_are_waited_for(world)) {
        most_ns = MAX(most_ns, DOUBT_PAUSE_NS);
    }
    co_sleep_until(loop_now_ns() + random_below(&world->random, most_ns));
    co_reschedule();
}

/*
 * Commands.
 */

static const struct qmp_command *const tables[] = {
    qmp_commands_block,
    qmp_commands_bitmap,
    qmp_commands_job,
    qmp_commands_backup,
    qmp_commands_outcome,
    qmp_commands_transaction,
    NULL,
};

static void trace_request(const struct world *world,
                          const struct json_value *request)
{
    g_autoptr(GString) text = g_string_new(NULL);

    if (world->trace) {
        json_write(request, false, text);
        world_trace(world, "-> %s", text->str);
    }
}

bool co_world_command(struct world *world,
                      const char *name,
                      struct json_value *arguments,
                      struct json_value **ret_value,
                      char **ret_error)
{
    g_autoptr(json_value) request = json_dict_new();
    g_autoptr(json_value) reply = NULL;
    const struct json_value *error;
    enum qmp_mode mode = QMP_MODE_COMMAND;

    json_dict_set_string(request, "execute", name);
    json_dict_set(request, "arguments", arguments);
    co_mutex_lock(&world->commands);
    trace_request(world, request);
    reply = co_qmp_dispatch(tables, &world->engine, &mode, request);
    error = json_dict_get(reply, "error");
    world_trace(world, "<- %s",
                error == NULL ? "ok" : json_dict_string(error, "desc", ""));
    world_answered(world, error == NULL && !world_is_dead(world));
    co_mutex_unlock(&world->commands);
    if (error == NULL && ret_value != NULL) {
        *ret_value = json_copy(json_dict_get(reply, "return"));
    }
    if (error != NULL && ret_error != NULL) {
        *ret_error = g_strdup(json_dict_string(error, "desc", ""));
    }
    return error == NULL;
}

/*
 * The engine.
 */

static void drop_event(void *opaque, const char *event, struct json_value *data)
{
    world_trace(opaque, "  event %s %s", event,
                json_dict_string(data, "status", ""));
    if (strcmp(event, "X_COHORT_TRANSACTION_IN_DOUBT") == 0) {
        faults_tell_doubt(opaque);
    }
    json_free(data);
}

static void on_trouble(void *opaque,
                       const char *node,
                       const char *reason,
                       bool is_durable)
{
    struct world *world = opaque;

    (void)is_durable;
    for (int i = 0; i < DISKS; i++) {
        if (strcmp(node, world->disks[i].name) == 0 &&
            world->disks[i].may_tell_loss) {
            return;
        }
    }
    if (!world_is_dead(world) && reason != NULL) {
        world_fail(world, "tracking of %s failed: %s", node, reason);
    }
}

static const struct block_driver *const format_drivers[] = {
    &driver_raw,
    &driver_qcow2,
    NULL,
};

static void make_engine(struct world *world)
{
    struct coordinator_options options = {
        .storage = storage_memory_storage(world->memory),
        .path = STATE_DIRECTORY,
        .is_process = world->is_process,
        .event = drop_event,
        .opaque = world,
    };
    const struct tracking_settings settings = {
        .durability = world->is_process ? TRACKER_PROCESS : TRACKER_POWER,
        .over_marking_bytes = REGION_BYTES * 5,
        .checkpoint_ns = 250000,
    };
    struct engine *engine = &world->engine;

    *engine = (struct engine){ .main = world->scheduler.loops[0] };
    engine->graph = block_graph_new(engine->main, image_disk_drivers);
    block_graph_add_drivers(engine->graph, format_drivers);
    for (unsigned int i = 1; i < world->scheduler.loop_count; i++) {
        block_graph_add_loop(engine->graph, world->scheduler.loops[i]);
    }
    engine->jobs = job_list_new(drop_event, world);
    engine->coordinator = coordinator_new(&options);
    outcome_source_init(&world->outcomes, engine->coordinator, engine->main);
    tracking_init(&world->tracking, options.storage, STATE_DIRECTORY, &settings,
                  &world->outcomes.outcomes, engine->main);
    world->tracking.region_bytes = REGION_BYTES;
    world->tracking.on_trouble = on_trouble;
    world->tracking.opaque = world;
    engine->tracking = &world->tracking;
    block_graph_set_watcher(engine->graph, &world->tracking.watcher);
}

/*
 * A life.
 */

static void co_make_images(struct world *world)
{
    if (world->lives == 0) {
        world->making = true;
        for (int i = 0; i < DISKS; i++) {
            co_disk_make(&world->disks[i]);
        }
        storage_memory_sync_all(world->memory);
        world->making = false;
    }
}

static void co_open_disks(struct world *world)
{
    /* One of them is not there at first, now and then. */
    unsigned int absent =
        world->lives == 0
            ? DISKS
            : (unsigned int)random_below(&world->random, DISKS + 4);

    for (unsigned int i = 0; i < DISKS && world->problem == NULL; i++) {
        struct disk *disk = &world->disks[i];

        if (i == absent) {
            world_count(world, WORLD_ABSENT);
        } else if (!world_is_dead(world)) {
            co_disk_open(disk);
        }
    }
}

static bool is_idle(const struct world *world)
{
    for (int i = 0; i < DISKS; i++) {
        if (world->disks[i].guests > 0) {
            return false;
        }
    }
    for (int i = 0; i < REPOSITORIES; i++) {
        if (world->repositories[i].is_running) {
            return false;
        }
    }
    return !world->verbs_run;
}

/* Not while the log cannot be asked: what it knows would be unknown to the disk. */
static void co_bring_back(struct world *world)
{
    for (int i = 0; i < DISKS && !world->doubt.lasts; i++) {
        struct disk *disk = &world->disks[i];

        if (disk->node == NULL && !world_is_dead(world) &&
            random_once_in(&world->random, 10)) {
            co_disk_open(disk);
            if (disk->node != NULL && world->problem == NULL) {
                world_count(world, WORLD_CAME_LATE);
                disk_start_guests(disk);
            }
        }
    }
}

/* It has not come to where it was to die. */
static void die_at_last(struct world *world)
{
    if (world->doubt.plan == DOUBT_BY_CHANCE && world->aim != AT_CLOSE_IMAGE &&
        world->aim != AT_CLOSE_TRACKING && world->aim != AT_CLOSE_LOG &&
        !random_once_in(&world->random, 4)) {
        world->aim = -1;
        world->crash_at = storage_memory_points(world->memory) +
                          random_between(&world->random, 1, 30);
    }
}

static void co_work(struct world *world)
{
    uint64_t end_ns =
        loop_now_ns() + random_below(&world->random, WORLD_LIFE_NS);

    world->stopping = false;
    for (int i = 0; i < DISKS; i++) {
        if (world->disks[i].node != NULL) {
            disk_start_guests(&world->disks[i]);
        }
    }
    for (int i = 0; i < REPOSITORIES; i++) {
        world->repositories[i].is_running = true;
        co_spawn(world->engine.main, co_repository_command,
                 &world->repositories[i]);
    }
    world->verbs_run = true;
    co_spawn(world->engine.main, co_world_verbs, world);
    while (!world_is_dead(world) && loop_now_ns() < end_ns &&
           world->problem == NULL) {
        co_world_pause(world, 400000);
        co_bring_back(world);
        co_faults_attend(world, &end_ns);
    }
    die_at_last(world);
    world->stopping = true;
    while (!is_idle(world)) {
        if (world_is_dead(world)) {
            coordinator_let_go(world->engine.coordinator);
        }
        co_sleep_until(loop_now_ns() + 50000);
    }
}

static void co_shut_down(struct world *world)
{
    struct engine *engine = &world->engine;

    world->coverage.phase.finalizing = 0;
    faults_shut_down(world);
    coordinator_let_go(engine->coordinator);
    co_job_cancel_all(engine->jobs);
    co_coordinator_drain(engine->coordinator);
    world->coverage.phase.closing = true;
    co_block_graph_lock(engine->graph);
    co_block_del_all(engine->graph);
    block_graph_unlock(engine->graph);
    for (int i = 0; i < DISKS; i++) {
        durability_closed(&world->disks[i]);
        world->disks[i].node = NULL;
    }
    co_coordinator_close(engine->coordinator);
    engine->coordinator = NULL;
    tracking_release(&world->tracking);
}

static void co_life(void *opaque)
{
    struct world *world = opaque;
    bool was_dead;

    co_make_images(world);
    co_open_disks(world);
    was_dead = world_is_dead(world);
    if (was_dead) {
        world_count(world, WORLD_CRASHED_OPENING);
        world->died_opening = true;
    } else {
        world->died_opening = false;
    }
    if (world->problem == NULL) {
        co_work(world);
    }
    was_dead = world_is_dead(world);
    co_shut_down(world);
    if (!world_is_dead(world)) {
        world_count(world, WORLD_CLEAN);
        if (world->doubt.is_let_go) {
            world_count(world, WORLD_LET_GO_CLEAN);
        }
    } else if (!was_dead) {
        world_count(world, WORLD_CRASHED_CLOSING);
    }
    world->over = true;
}

/*
 * Its end.
 */

static enum storage_verdict observe(void *opaque,
                                    const struct storage_step *step)
{
    struct world *world = opaque;
    uint64_t places;
    bool dies = false;

    if (world->making) {
        return STORAGE_GOES_ON;
    }
    places = coverage_places(&world->coverage, step);
    if (world->aim >= 0 && (places & PLACE_BIT(world->aim)) != 0) {
        dies = --world->aim_count == 0;
    }
    if (!dies && faults_decide(world, step, places)) {
        return STORAGE_FAILS;
    }
    dies |= storage_memory_points(world->memory) == world->crash_at;
    coverage_step(&world->coverage, step, places, dies);
    if (dies) {
        world_note_death(world);
        world_trace(world, "dies at %s %" G_GUINT64_FORMAT " (%s)", step->path,
                    step->offset,
                    world->aim < 0 ? "by chance" : coverage_name(world->aim));
    }
    return dies ? STORAGE_DIES : STORAGE_GOES_ON;
}

/* Where it dies. Of the places that can be aimed at, the one with the fewest hits
 * comes half of the time. */
static void plan_death(struct world *world)
{
    struct random *random = &world->random;

    world->crash_at = 0;
    world->aim_count =
        random_once_in(random, 2) ? 1 : random_between(random, 1, 6);
    world->aim = (int)random_below(
        random, world_has_process(world) ? COVERAGE_PLACE_COUNT : AT_PROCESS);
    if (world->killed && random_once_in(random, 2)) {
        /* A kill, then a power cut before recovery has made anything durable. */
        world->aim = AT_RECOVERY;
        world->aim_count = random_between(random, 1, 14);
        world->power_follows = true;
    } else if (random_once_in(random, 12)) {
        world->aim = -1;
        world->crash_at = storage_memory_points(world->memory) +
                          random_between(random, 1, 600);
    }
    faults_plan(world);
}

static void end_life(struct world *world)
{
    bool clean = !world_is_dead(world);
    bool power = world->power_follows || random_once_in(&world->random, 2);

    if (!clean) {
        world_count(world, WORLD_CRASHES);
        world_count(world, world->power_follows ? WORLD_KILL_THEN_POWER
                           : power              ? WORLD_POWER_CUTS
                                                : WORLD_KILLS);
    }
    world_trace(world, "ends: %s",
                clean   ? "cleanly"
                : power ? "power cut"
                        : "killed");
    if (power) {
        world_power_is_cut(world, clean);
    }
    storage_memory_reboot(world->memory,
                          power ? STORAGE_CRASH_POWER : STORAGE_CRASH_KILL);
    world->killed = !power && !clean;
    world->power_follows = false;
}

static void live(struct world *world)
{
    static const char *const names[] = { "main", "thread0", "thread1" };
    unsigned int loops = (unsigned int)random_between(&world->random, 1, 3);
    uint64_t turns = 0;

    scheduler_init(&world->scheduler, &world->random);
    world->scheduler.now_ns += world->clock_ns; /* it never goes back */
    for (unsigned int i = 0; i < loops; i++) {
        scheduler_add_loop(&world->scheduler, names[i]);
    }
    world_choose_durability(world);
    make_engine(world);
    co_mutex_init(&world->commands);
    storage_memory_set_clock(world->memory, &world->scheduler.now_ns);
    coverage_reset(&world->coverage);
    world->coverage.phase.died_opening = world->died_opening;
    world->over = false;
    plan_death(world);
    co_spawn(world->engine.main, co_life, world);
    while (!world->over && scheduler_turn(&world->scheduler)) {
        if (turns++ > TURNS_MAX) {
            world_fail(world, "it goes on and on");
            return;
        }
    }
    if (!world->over) {
        world_fail(world, "nothing can happen any more");
        return;
    }
    while (scheduler_turn(&world->scheduler)) {
    }
    end_life(world);
    faults_release(world);
    job_list_free(world->engine.jobs);
    block_graph_free(world->engine.graph);
    storage_memory_set_clock(world->memory, NULL);
    world->clock_ns = world->scheduler.now_ns;
    scheduler_release(&world->scheduler);
    world_count(world, WORLD_LIVES);
}

static void free_fate(void *opaque)
{
    struct fate *fate = opaque;

    for (int i = 0; i < DISKS; i++) {
        g_clear_pointer(&fate->cut[i], g_bytes_unref);
    }
    g_free(fate);
}

static void make_world(struct world *world)
{
    static const char *const bitmaps[] = { "one", "two" };
    static const char *const folders[] = { "/repo0", "/repo1" };

    random_init(&world->random, world->seed);
    world->memory = storage_memory_new(&world->random);
    world->fates = g_ptr_array_new_with_free_func(free_fate);
    world->told = g_ptr_array_new();
    image_disk_use(storage_memory_storage(world->memory));
    for (unsigned int i = 0; i < DISKS; i++) {
        disk_init(world, i);
    }
    for (unsigned int i = 0; i < REPOSITORIES; i++) {
        world->repositories[i] = (struct repository){
            .world = world,
            .index = i,
            .bitmap = bitmaps[i],
            .folder = folders[i],
        };
        storage_memory_make_folder(world->memory, folders[i]);
    }
    storage_memory_make_folder(world->memory, STATE_DIRECTORY);
    coverage_init(&world->coverage, world->memory);
    storage_memory_observe(world->memory, observe, world);
}

static void free_world(struct world *world)
{
    for (unsigned int i = 0; i < DISKS; i++) {
        disk_release(&world->disks[i]);
    }
    coverage_release(&world->coverage);
    g_ptr_array_unref(world->told);
    g_ptr_array_unref(world->fates);
    storage_memory_free(world->memory);
    g_free(world);
}

char *world_run(uint64_t seed,
                bool with_trace,
                struct coverage *totals,
                uint64_t *counts)
{
    struct world *world = g_new0(struct world, 1);
    char *problem;

    current = world;
    world->seed = seed;
    world->trace = with_trace;
    world->counts = counts;
    make_world(world);
    for (; world->lives < LIVES && world->problem == NULL; world->lives++) {
        live(world);
    }
    for (int i = 0; i < COVERAGE_PLACE_COUNT; i++) {
        totals->hits[i] += world->coverage.hits[i];
        totals->passed[i] += world->coverage.passed[i];
    }
    problem = world->problem;
    current = NULL;
    if (problem == NULL) { /* else it may be in the middle of anything */
        free_world(world);
    }
    return problem;
}
