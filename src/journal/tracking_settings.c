/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/tracking_settings.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

_Static_assert(TRACKER_POWER == 0, "all zeroes is the default");

static int check_range(const struct json_value *options, GError **err)
{
    if (json_dict_get(options, "over-marking") != NULL &&
        json_dict_uint(options, "over-marking", 0) <
            TRACKING_OVER_MARKING_MIN) {
        return error_set(err, -EINVAL,
                         "over-marking is %" G_GUINT64_FORMAT
                         " bytes; it must be 16M at least",
                         json_dict_uint(options, "over-marking", 0));
    }
    if (json_dict_get(options, "checkpoint-interval") != NULL &&
        json_dict_uint(options, "checkpoint-interval", 0) <
            TRACKING_CHECKPOINT_MS_MIN) {
        return error_set(err, -EINVAL,
                         "checkpoint-interval is %" G_GUINT64_FORMAT
                         " ms; it must be %d at least",
                         json_dict_uint(options, "checkpoint-interval", 0),
                         TRACKING_CHECKPOINT_MS_MIN);
    }
    return 0;
}

/* Does the enum member `key` say `word`? What is left out stays as it was. */
static bool says(const struct json_value *options,
                 const char *key,
                 const char *word,
                 bool before)
{
    const char *found = json_dict_string(options, key, NULL);

    return found == NULL ? before : strcmp(found, word) == 0;
}

int tracking_settings_read(struct tracking_settings *settings,
                           const struct json_value *options,
                           GError **err)
{
    int ret = options == NULL ? 0 : check_range(options, err);

    if (ret < 0 || options == NULL) {
        return ret;
    }
    settings->durability = says(options, "durability", "process",
                                settings->durability == TRACKER_PROCESS)
                               ? TRACKER_PROCESS
                               : TRACKER_POWER;
    settings->stop_on_error =
        says(options, "on-tracking-error", "stop", settings->stop_on_error);
    settings->over_marking_bytes =
        json_dict_uint(options, "over-marking", settings->over_marking_bytes);
    if (json_dict_get(options, "checkpoint-interval") != NULL) {
        settings->checkpoint_ns =
            json_dict_uint(options, "checkpoint-interval", 0) * 1000000;
    }
    settings->in_state_directory =
        says(options, "location", "state-dir", settings->in_state_directory);
    return 0;
}

int tracking_settings_read_node(const struct tracking_settings *defaults,
                                const struct json_value *options,
                                struct tracking_settings *ret_settings,
                                GError **err)
{
    struct tracking_settings settings = *defaults;
    int ret = tracking_settings_read(&settings, options, err);

    if (ret == 0 && defaults->durability == TRACKER_PROCESS &&
        settings.durability == TRACKER_POWER) {
        ret = error_set(err, -EINVAL,
                        "durability=power cannot be had from a daemon that was "
                        "started with --tracking durability=process: its log "
                        "of transactions does not survive a loss of power");
    }
    if (ret == 0) {
        *ret_settings = settings;
    }
    return ret;
}
