/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/blkdebug_rules.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

#define SECTOR_BYTES 512

/* In the order of enum blkdebug_event. */
static const char *const event_words[] = {
    "none",         "read_aio",    "write_aio",     "pwritev", "pwritev_zero",
    "pwritev_done", "flush_to_os", "flush_to_disk", NULL,
};

static const struct schema_type event_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlkdebugEvent",
    .doc = "What can happen in a node that passes requests on: a read "
           "(read_aio), a write (write_aio, pwritev, and pwritev_done "
           "afterwards), a zeroing or discard (pwritev_zero, pwritev_done), a "
           "flush (flush_to_os, flush_to_disk); none happens when the node is "
           "opened.",
    .values = event_words,
};

/* In the order of enum blkdebug_iotype. */
static const char *const iotype_words[] = {
    "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL,
};

static const struct schema_type iotype_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlkdebugIOType",
    .values = iotype_words,
};

static const struct schema_member inject_error_members[] = {
    { .name = "event",
      .type = &event_type,
      .doc = "What makes the rule active.",
      .required = true },
    { .name = "state",
      .type = &schema_int,
      .doc = "The state in which it does; 0: any.",
      .fallback = "0" },
    { .name = "iotype",
      .type = &iotype_type,
      .doc = "The requests that fail.",
      .fallback = "read, write, write-zeroes, discard and flush" },
    { .name = "errno",
      .type = &schema_int,
      .doc = "The error, by its number on Linux.",
      .fallback = "5 (EIO)" },
    { .name = "sector",
      .type = &schema_int,
      .doc = "Only requests that touch this sector of 512 bytes fail.",
      .fallback = "any request" },
    { .name = "once",
      .type = &schema_bool,
      .doc = "The rule is used up when it has hit.",
      .fallback = "false" },
    { .name = "immediately",
      .type = &schema_bool,
      .doc = "Fail at once, without letting other requests run first.",
      .fallback = "false" },
    { .name = NULL },
};

static const struct schema_type inject_error_element = {
    .kind = SCHEMA_STRUCT,
    .name = "BlkdebugInjectErrorOptions",
    .members = inject_error_members,
};

const struct schema_type blkdebug_inject_error_type = {
    .kind = SCHEMA_LIST,
    .element = &inject_error_element,
};

static const struct schema_member set_state_members[] = {
    { .name = "event",
      .type = &event_type,
      .doc = "What makes the state change.",
      .required = true },
    { .name = "state",
      .type = &schema_int,
      .doc = "The state from which it does; 0: any.",
      .fallback = "0" },
    { .name = "new_state",
      .type = &schema_int,
      .doc = "The new state; the node begins in state 1.",
      .required = true },
    { .name = NULL },
};

static const struct schema_type set_state_element = {
    .kind = SCHEMA_STRUCT,
    .name = "BlkdebugSetStateOptions",
    .members = set_state_members,
};

const struct schema_type blkdebug_set_state_type = {
    .kind = SCHEMA_LIST,
    .element = &set_state_element,
};

struct blkdebug_rule {
    enum blkdebug_event event;
    int64_t state; /* 0: any */
    bool is_set_state;
    int64_t new_state;
    unsigned int iotypes; /* bits by enum blkdebug_iotype */
    int error;            /* negative errno */
    int64_t sector;       /* -1: any */
    bool once;
    bool immediately;
    bool active;
    bool used_up;
};

struct blkdebug_rules {
    GArray *rules; /* struct blkdebug_rule, in the order of the options */
    int64_t state;
};

static unsigned int index_of(const char *const *words, const char *word)
{
    unsigned int index = 0;

    while (strcmp(words[index], word) != 0) {
        index++;
    }
    return index;
}

static int parse_inject_error(const struct json_value *options,
                              struct blkdebug_rule *ret_rule,
                              GError **err)
{
    const char *iotype = json_dict_string(options, "iotype", NULL);
    int64_t error = json_dict_int(options, "errno", EIO);
    int64_t sector = json_dict_int(options, "sector", -1);

    if (error < 0 || error > 4095) {
        return error_set(err, -EINVAL,
                         "inject-error: %" G_GINT64_FORMAT
                         " is no errno, which are 0 to 4095",
                         error);
    }
    if (sector < -1 || sector > INT64_MAX / SECTOR_BYTES) {
        return error_set(err, -EINVAL,
                         "inject-error: there is no sector %" G_GINT64_FORMAT,
                         sector);
    }
    *ret_rule = (struct blkdebug_rule){
        .iotypes = 1U << BLKDEBUG_READ | 1U << BLKDEBUG_WRITE |
                   1U << BLKDEBUG_WRITE_ZEROES | 1U << BLKDEBUG_DISCARD |
                   1U << BLKDEBUG_FLUSH,
        .error = -(int)error,
        .sector = sector,
        .once = json_dict_bool(options, "once", false),
        .immediately = json_dict_bool(options, "immediately", false),
    };
    if (iotype != NULL) {
        ret_rule->iotypes = 1U << index_of(iotype_words, iotype);
    }
    return 0;
}

static int parse_list(struct blkdebug_rules *rules,
                      const struct json_value *list,
                      bool is_set_state,
                      GError **err)
{
    size_t count = list == NULL ? 0 : json_list_length(list);

    for (size_t i = 0; i < count; i++) {
        const struct json_value *options = json_list_get(list, i);
        struct blkdebug_rule rule = { 0 };
        int ret = 0;

        if (is_set_state) {
            rule.is_set_state = true;
            rule.new_state = json_dict_int(options, "new_state", 0);
        } else {
            ret = parse_inject_error(options, &rule, err);
        }
        if (ret < 0) {
            return ret;
        }
        rule.event =
            index_of(event_words, json_dict_string(options, "event", "none"));
        rule.state = json_dict_int(options, "state", 0);
        g_array_append_val(rules->rules, rule);
    }
    return 0;
}

int blkdebug_rules_new(const struct json_value *options,
                       struct blkdebug_rules **ret_rules,
                       GError **err)
{
    struct blkdebug_rules *rules = g_new0(struct blkdebug_rules, 1);
    int ret;

    rules->rules = g_array_new(FALSE, FALSE, sizeof(struct blkdebug_rule));
    rules->state = 1;
    ret = parse_list(rules, json_dict_get(options, "inject-error"), false, err);
    if (ret == 0) {
        ret = parse_list(rules, json_dict_get(options, "set-state"), true, err);
    }
    if (ret < 0) {
        blkdebug_rules_free(rules);
        return ret;
    }
    blkdebug_rules_happen(rules, BLKDEBUG_NONE);
    *ret_rules = rules;
    return 0;
}

void blkdebug_rules_free(struct blkdebug_rules *rules)
{
    if (rules != NULL) {
        g_array_free(rules->rules, TRUE);
        g_free(rules);
    }
}

static struct blkdebug_rule *rule_at(struct blkdebug_rules *rules, guint index)
{
    return &g_array_index(rules->rules, struct blkdebug_rule, index);
}

static bool rule_is_meant(const struct blkdebug_rule *rule,
                          enum blkdebug_event event,
                          int64_t state)
{
    return rule->event == event && (rule->state == 0 || rule->state == state);
}

void blkdebug_rules_happen(struct blkdebug_rules *rules,
                           enum blkdebug_event event)
{
    /* All rules see the state as it was when the event happened. */
    int64_t state = rules->state;
    bool replaced = false;

    for (guint i = 0; i < rules->rules->len; i++) {
        struct blkdebug_rule *rule = rule_at(rules, i);

        if (rule->used_up || !rule_is_meant(rule, event, state)) {
            continue;
        }
        if (rule->is_set_state) {
            rules->state = rule->new_state;
            continue;
        }
        for (guint k = 0; !replaced && k < rules->rules->len; k++) {
            rule_at(rules, k)->active = false;
        }
        replaced = true;
        rule->active = true;
    }
}

static bool rule_hits(const struct blkdebug_rule *rule,
                      enum blkdebug_iotype iotype,
                      uint64_t offset,
                      uint64_t bytes)
{
    uint64_t sector_offset = (uint64_t)rule->sector * SECTOR_BYTES;

    if (!rule->active || (rule->iotypes & (1U << iotype)) == 0) {
        return false;
    }
    return rule->sector < 0 || (sector_offset < offset + bytes &&
                                sector_offset + SECTOR_BYTES > offset);
}

int blkdebug_rules_apply(struct blkdebug_rules *rules,
                         enum blkdebug_iotype iotype,
                         uint64_t offset,
                         uint64_t bytes,
                         bool *ret_immediately)
{
    for (guint i = 0; i < rules->rules->len; i++) {
        struct blkdebug_rule *rule = rule_at(rules, i);

        if (!rule_hits(rule, iotype, offset, bytes)) {
            continue;
        }
        if (rule->once) {
            rule->active = false;
            rule->used_up = true;
        }
        *ret_immediately = rule->immediately;
        return rule->error;
    }
    return 0;
}
