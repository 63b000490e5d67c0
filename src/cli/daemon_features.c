/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/daemon_features.h"

#include <errno.h>

static bool has_command(const json_t *commands, const char *wanted)
{
    for (size_t i = 0; i < json_array_size(commands); i++) {
        const json_t *name =
            json_object_get(json_array_get(commands, i), "name");
        if (g_strcmp0(json_string_value(name), wanted) == 0) {
            return true;
        }
    }
    return false;
}

void daemon_features_clear(struct daemon_features *features)
{
    g_clear_pointer(&features->refusal, g_free);
}

/* Its state directory may be of no use. */
static int try_records(struct qmp_client *client,
                       struct daemon_features *features,
                       GError **err)
{
    g_autoptr(GError) why = NULL;
    int ret =
        qmp_command(client, "x-cohort-query-transactions", NULL, NULL, &why);

    if (ret == -EREMOTEIO) {
        features->keeps_records = false;
        features->refusal = g_strdup(why->message);
        return 0;
    }
    if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&why));
    }
    return ret;
}

int daemon_features_query(struct qmp_client *client,
                          struct daemon_features *ret_features,
                          GError **err)
{
    json_t *commands = NULL;
    int ret = qmp_command(client, "query-commands", NULL, &commands, err);

    if (ret < 0) {
        return ret;
    }
    ret_features->tells_extents =
        has_command(commands, "x-cohort-query-backup-extents");
    ret_features->keeps_records =
        has_command(commands, "x-cohort-query-transactions") &&
        has_command(commands, "x-cohort-acknowledge");
    json_decref(commands);
    return ret_features->keeps_records ? try_records(client, ret_features, err)
                                       : 0;
}
