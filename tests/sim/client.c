/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include "qmp/dispatch.h"

#include "model.h"

#define MS UINT64_C(1000000)

static const struct qmp_command *const tables[] = {
    qmp_commands_block,  qmp_commands_bitmap,      qmp_commands_job,
    qmp_commands_backup, qmp_commands_transaction, NULL,
};

static void note_duration(struct world *world,
                          const char *name,
                          uint64_t duration_ns)
{
    struct histogram *histogram = world->histogram;

    if (duration_ns > histogram->longest_command_ns) {
        histogram->longest_command_ns = duration_ns;
        histogram->longest_command = name;
        histogram->longest_command_seed = world->seed;
    }
}

/* Sends `arguments` (consumed) and returns whether it succeeded. The command's
 * actions have been noted before. */
static bool co_send(struct world *world,
                    const char *name,
                    struct json_value *arguments)
{
    g_autoptr(json_value) request = json_dict_new();
    g_autoptr(json_value) reply = NULL;
    const struct json_value *error;
    enum qmp_mode mode = QMP_MODE_COMMAND;

    world->operations++;
    world->command.name = name;
    world->command_begun_ns = loop_now_ns();
    json_dict_set_string(request, "execute", name);
    json_dict_set(request, "arguments", arguments);
    if (world->trace) {
        g_autoptr(GString) text = g_string_new(NULL);

        json_write(request, false, text);
        trace(world, "-> %s", text->str);
    }
    reply = co_qmp_dispatch(tables, &world->engine, &mode, request);
    note_duration(world, name, loop_now_ns() - world->command_begun_ns);
    world->command_begun_ns = 0;
    error = json_dict_get(reply, "error");
    trace(world, "<- %s",
          error == NULL ? "ok" : json_dict_string(error, "desc", ""));
    return error == NULL;
}

/* --- Transactions ----------------------------------------------------------- */

static void note_action(struct world *world,
                        const char *type,
                        const struct json_value *data)
{
    struct command *command = &world->command;

    command->types[command->action_count] = type;
    command->data[command->action_count++] = data;
}

static void add_action(struct world *world,
                       struct json_value *list,
                       const char *type,
                       struct json_value *data)
{
    struct json_value *action = json_dict_new();

    note_action(world, type, data);
    json_dict_set_string(action, "type", type);
    json_dict_set(action, "data", data);
    json_list_append(list, action);
}

static void co_transaction(struct world *world)
{
    struct random *random = &world->random;
    struct json_value *arguments = json_dict_new();
    struct json_value *list = json_list_new();
    bool grouped = random_once_in(random, 2);
    unsigned int count = (unsigned int)random_between(
        random, 1, random_once_in(random, 4) ? ACTIONS_MAX : 3);

    for (unsigned int i = 0; i < count; i++) {
        const char *type = "blockdev-backup";
        struct json_value *data;

        if (random_once_in(random, 30)) {
            type = "abort";
            data = json_dict_new();
        } else if (random_percent(random, grouped ? 70 : 40)) {
            data = random_backup(world);
        } else {
            data = random_bitmap_action(world, &type);
        }
        add_action(world, list, type, data);
    }
    json_dict_set(arguments, "actions", list);
    if (grouped) {
        struct json_value *properties = json_dict_new();

        world->command.grouped = true;
        json_dict_set_string(properties, "completion-mode", "grouped");
        json_dict_set(arguments, "properties", properties);
    }
    model_command_ended(world, co_send(world, "transaction", arguments));
}

static void co_single_action(struct world *world, bool backup)
{
    const char *type = "blockdev-backup";
    struct json_value *data =
        backup ? random_backup(world) : random_bitmap_action(world, &type);

    note_action(world, type, data);
    model_command_ended(world, co_send(world, type, data));
}

/* --- Verbs of jobs ------------------------------------------------------------ */

static struct job_model *random_job(struct world *world)
{
    unsigned int start = (unsigned int)random_below(&world->random, JOBS_MAX);

    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        struct job_model *job = &world->jobs[(start + i) % JOBS_MAX];

        if (job->used && job->begun) {
            return job;
        }
    }
    return NULL;
}

static enum sim_verb random_verb(struct random *random,
                                 const struct job_model *job)
{
    /* What moves it on, as often as not. */
    if (random_once_in(random, 2)) {
        if (job->state == JOB_PAUSED) {
            return VERB_RESUME;
        }
        if (job->state == JOB_PENDING) {
            return random_once_in(random, 8) ? VERB_CANCEL : VERB_FINALIZE;
        }
        if (job->state == JOB_CONCLUDED) {
            return VERB_DISMISS;
        }
    }
    if (random_once_in(random, 6)) {
        return random_once_in(random, 3) ? VERB_CANCEL_SOFT : VERB_CANCEL;
    }
    /* Few cancels, or no job would ever get anywhere. */
    enum sim_verb verb = random_below(random, SIM_VERBS);

    return verb == VERB_CANCEL || verb == VERB_CANCEL_SOFT ? VERB_PAUSE : verb;
}

static const char *id_key(enum sim_verb verb)
{
    return verb == VERB_CANCEL_SOFT || verb == VERB_SET_SPEED ? "device" : "id";
}

static void co_job_verb(struct world *world)
{
    struct random *random = &world->random;
    const struct job_model *job = random_job(world);
    struct json_value *arguments = json_dict_new();
    enum job_state state;
    enum sim_verb verb;
    char id[8];
    bool ok;

    if (job == NULL) {
        model_command_ended(world, co_send(world, "query-jobs", arguments));
        return;
    }
    g_strlcpy(id, job->id, sizeof(id));
    state = job->state;
    verb = random_verb(random, job);
    json_dict_set_string(arguments, id_key(verb), id);
    if (verb == VERB_SET_SPEED) {
        json_dict_set_int(arguments, "speed",
                          random_once_in(random, 2)
                              ? 0
                              : (int64_t)random_below(random, 8 << 20));
    }
    ok = co_send(world, sim_verb_names[verb], arguments);
    model_verb_ended(world, verb, id, state, ok);
    model_command_ended(world, ok);
}

/* --- Nodes -------------------------------------------------------------------- */

bool co_add_node(struct disk *disk, GError **err)
{
    struct block_graph *graph = disk->world->engine.graph;
    g_autoptr(json_value) options = json_dict_new();
    struct json_value *driver = options;
    char index[8];
    int ret;

    json_dict_set_string(options, "node-name", disk->name);
    json_dict_set_string(options, "discard", "unmap");
    if (disk->over_raw) {
        driver = json_dict_new();
        json_dict_set_string(options, "driver", "raw");
        json_dict_set_string(driver, "discard", "unmap");
        json_dict_set(options, "file", driver);
    }
    json_dict_set_string(driver, "driver", "simdisk");
    g_snprintf(index, sizeof(index), "%u", disk->index);
    json_dict_set_string(driver, "file", index);
    co_block_graph_lock(graph);
    ret = co_block_add(graph, options, true, &disk->node, err);
    block_graph_unlock(graph);
    return ret == 0;
}

static bool is_used(const struct world *world, const struct disk *disk)
{
    if (!disk->is_target) {
        return true; /* by its guests */
    }
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &world->jobs[i];

        if (job->used && job->begun && !job->told &&
            (job->source == disk || job->target == disk)) {
            return true;
        }
    }
    return false;
}

static void co_delete_and_add(struct world *world)
{
    struct disk *disk =
        &world->disks[random_below(&world->random, world->disk_count)];
    struct json_value *arguments = json_dict_new();
    g_autoptr(GError) err = NULL;
    bool used_before = is_used(world, disk);
    bool ok;

    json_dict_set_string(arguments, "node-name", disk->name);
    ok = co_send(world, "blockdev-del", arguments);
    if (ok && is_used(world, disk)) {
        violation("%s was deleted while it was in use", disk->name);
    }
    world->histogram->buckets[DELETE_REFUSED] += !ok && used_before;
    if (ok) {
        world->histogram->buckets[DELETE_DONE]++;
        model_forget_bitmaps(disk);
        disk->node = NULL;
        if (!co_add_node(disk, &err)) {
            violation("%s cannot be added again: %s", disk->name, err->message);
        }
    }
    model_command_ended(world, ok);
}

static void co_change_home(struct world *world)
{
    struct random *random = &world->random;
    struct disk *disk = &world->disks[random_below(random, world->disk_count)];
    struct block_graph *graph = world->engine.graph;
    struct loop *home =
        world->scheduler
            .loops[random_below(random, world->scheduler.loop_count)];

    world->operations++;
    co_block_graph_lock(graph);
    if (disk->node != NULL && block_home(disk->node) != home &&
        co_block_move(disk->node, home, NULL) == 0) {
        world->histogram->buckets[HOME_MOVED]++;
    }
    block_graph_unlock(graph);
}

/* --- Living --------------------------------------------------------------------- */

static void co_query(struct world *world)
{
    static const char *const queries[] = { "query-jobs", "query-block-jobs",
                                           "query-named-block-nodes" };
    const char *name =
        queries[random_below(&world->random, G_N_ELEMENTS(queries))];

    if (!co_send(world, name, json_dict_new())) {
        violation("%s failed", name);
    }
    model_command_ended(world, true);
}

static void co_one_command(struct world *world)
{
    uint64_t kind = random_below(&world->random, 100);

    world->command = (struct command){ .name = NULL };
    if (kind < 28) {
        co_transaction(world);
    } else if (kind < 36) {
        co_single_action(world, true);
    } else if (kind < 52) {
        co_single_action(world, false);
    } else if (kind < 88) {
        co_job_verb(world);
    } else if (kind < 93) {
        co_delete_and_add(world);
    } else if (kind < 96) {
        co_change_home(world);
    } else {
        co_query(world);
    }
}

void co_run_client(void *opaque)
{
    struct world *world = opaque;
    struct random *random = &world->random;
    static const uint64_t paces_ns[] = { 2 * MS, 10 * MS, 40 * MS };

    world->client_pace_ns =
        paces_ns[random_below(random, G_N_ELEMENTS(paces_ns))];
    while (!world->client_stops) {
        co_one_command(world);
        /* Sometimes one right after the other. */
        if (random_once_in(random, 4)) {
            co_reschedule();
        } else {
            co_sleep_until(loop_now_ns() +
                           random_below(random, world->client_pace_ns));
        }
    }
    world->client_running = false;
}
