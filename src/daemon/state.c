/* SPDX-License-Identifier: BSD-3-Clause */
#include "daemon/state.h"

#include <stdlib.h>
#include <unistd.h>

#include "journal/state_directory.h"

void daemon_state_init(struct daemon_state *state,
                       const char *option,
                       const struct tracking_settings *defaults,
                       struct loop *main,
                       coordinator_event_fn event,
                       void *opaque)
{
    const struct state_directory_places places = {
        .option = option,
        .state_directory = getenv("STATE_DIRECTORY"),
        .xdg_state_home = getenv("XDG_STATE_HOME"),
        .home = getenv("HOME"),
        .is_root = geteuid() == 0,
    };
    g_autoptr(GError) error = NULL;
    struct coordinator_options options = {
        .storage = storage_real(),
        .is_process = defaults->durability == TRACKER_PROCESS,
        .event = event,
        .opaque = opaque,
    };

    state->directory = state_directory_choose(&places, &error);
    options.path = state->directory;
    options.path_error = error;
    state->coordinator = coordinator_new(&options);
    outcome_source_init(&state->outcomes, state->coordinator, main);
    tracking_init(&state->tracking, storage_real(), state->directory, defaults,
                  &state->outcomes.outcomes, main);
}

void co_daemon_state_close(struct daemon_state *state)
{
    co_coordinator_close(state->coordinator);
    state->coordinator = NULL;
    tracking_release(&state->tracking);
    g_clear_pointer(&state->directory, g_free);
}
