/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: the first BEGIN makes the run's lock file and part 0, with the
 * frame already in it. Later frames are appended one by one, each written and
 * synced before the next, into space that was written out before.
 *
 *     header | frame 0 | frame 1 | zeroes, kept for COMMITs |
 *                                ^ end                      ^ allocated
 *
 * Failures: a part in which a write or a sync went wrong is closed for ever (what
 * it holds from then on is anyone's guess); the next frame goes into a new part,
 * which appears whole or not at all. Its number is the next one that is not known
 * to be durable, so there are no gaps.
 */
#include "journal/commit_log.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/trace.h"
#include "loop/co_lock.h"
#include "loop/loop.h"

/* Space is made in such pieces, */
#define ALLOCATE_BYTES (64 * KIB)
/* and so much is always kept for ABORTs. */
#define SPARE_BYTES 256
/* A part that has grown by so much, and thrice over, is worth starting over. */
#define LONG_BYTES MIB

struct commit_log {
    struct state_directory *directory;
    struct co_mutex mutex;
    struct storage_file *run_file; /* locked; NULL: nothing began yet */
    struct storage_file *part;     /* NULL: the next frame starts a new one */
    struct commit_header header;   /* of the current or next part */
    struct commit_file_end end;
    uint64_t allocated;     /* offset; up to there nothing needs new space */
    uint64_t kept;          /* bytes, for COMMITs that may come */
    uint64_t started_bytes; /* the current part's size when it was made */
};

struct commit_log *commit_log_new(struct state_directory *directory)
{
    struct commit_log *log = g_new0(struct commit_log, 1);

    log->directory = directory;
    co_mutex_init(&log->mutex);
    log->header.kind = COMMIT_FILE_LOG;
    log->header.run = journal_id_new();
    log->header.made_us = loop_wall_clock_us();
    log->header.is_process = state_directory_is_process(directory);
    if (log->header.is_process) {
        memcpy(log->header.boot_id, state_directory_boot_id(directory),
               STORAGE_BOOT_ID_BYTES);
    }
    return log;
}

void co_commit_log_close(struct commit_log *log)
{
    if (log != NULL) {
        g_assert(!log->mutex.locked);
        co_storage_close(&log->part);
        co_storage_close(&log->run_file);
        g_free(log);
    }
}

const struct journal_id *commit_log_run(const struct commit_log *log)
{
    return &log->header.run;
}

/* --- Parts ------------------------------------------------------------------------ */

static unsigned int put_flags(const struct commit_log *log)
{
    return log->header.is_process ? STATE_PUT_UNSYNCED : 0;
}

static int co_make_run_file(struct commit_log *log, GError **err)
{
    g_autoptr(GByteArray) empty = g_byte_array_new();
    char run[JOURNAL_ID_TEXT_BYTES];
    g_autofree char *name = NULL;

    if (log->run_file != NULL) {
        return 0;
    }
    journal_id_format(&log->header.run, run);
    name = g_strdup_printf("commit-%s.run", run);
    return co_state_directory_put(log->directory, name, empty,
                                  STATE_PUT_LOCKED | put_flags(log),
                                  &log->run_file, NULL, err);
}

/* The bytes of a part: header, frames, and zeroes for what is to come. */
static GByteArray *fill_part(struct commit_log *log,
                             const GPtrArray *payloads,
                             struct commit_file_end *ret_end)
{
    GByteArray *content = g_byte_array_new();
    uint64_t bytes;

    g_byte_array_set_size(content, COMMIT_HEADER_BYTES);
    commit_header_encode(&log->header, content->data);
    for (guint i = 0; i < payloads->len; i++) {
        g_autoptr(GByteArray) frame = commit_frame_encode(
            &log->header, i, g_ptr_array_index(payloads, i));

        g_byte_array_append(content, frame->data, frame->len);
    }
    ret_end->offset = content->len;
    ret_end->frames = payloads->len;
    bytes = round_up(content->len + log->kept + SPARE_BYTES, ALLOCATE_BYTES);
    g_byte_array_set_size(content, (guint)bytes);
    memset(content->data + ret_end->offset, 0, bytes - ret_end->offset);
    return content;
}

static char *part_name(const struct commit_log *log, uint32_t part)
{
    char run[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&log->header.run, run);
    return g_strdup_printf("commit-%s-%04" PRIu32 ".log", run, part);
}

/* Makes part `log->header.part`. */
static int co_start_part(struct commit_log *log,
                         const GPtrArray *payloads,
                         bool *ret_maybe,
                         GError **err)
{
    g_autofree char *name = part_name(log, log->header.part);
    struct commit_file_end end;
    g_autoptr(GByteArray) content = fill_part(log, payloads, &end);
    int ret =
        co_state_directory_put(log->directory, name, content, put_flags(log),
                               &log->part, ret_maybe, err);

    if (ret == 0) {
        log->end = end;
        log->allocated = content->len;
        log->started_bytes = end.offset;
    }
    return ret;
}

/* Nothing may be written to this part any more. */
static void give_up_part(struct commit_log *log)
{
    co_storage_close(&log->part);
    log->header.part++;
}

/* --- Frames ----------------------------------------------------------------------- */

/* Room for `bytes` at the end, beside what is kept. Space that cannot be had
 * leaves the part as good as it was. */
static int co_make_room(struct commit_log *log, uint64_t bytes, GError **err)
{
    uint64_t needed = log->end.offset + bytes + log->kept + SPARE_BYTES;
    uint64_t allocated = round_up(needed, ALLOCATE_BYTES);
    int ret;

    if (needed <= log->allocated) {
        return 0;
    }
    ret = co_storage_allocate(log->part, log->allocated,
                              allocated - log->allocated);
    if (ret < 0) {
        error_set_errno(err, ret, "Cannot make room in '%s'", log->part->path);
        if (ret != -ENOSPC && ret != -EDQUOT) {
            give_up_part(log);
        }
        return ret;
    }
    log->allocated = allocated;
    return 0;
}

/* Writes and syncs; on failure the frame may be there. */
static int co_write_frame(struct commit_log *log,
                          const GByteArray *payload,
                          GError **err)
{
    g_autoptr(GByteArray) frame =
        commit_frame_encode(&log->header, log->end.frames, payload);
    int ret =
        co_storage_write(log->part, log->end.offset, frame->data, frame->len);

    if (ret == 0 && !log->header.is_process) {
        ret = co_storage_sync(log->part);
    }
    if (ret < 0) {
        error_set_errno(err, ret, "Cannot write commit log '%s'",
                        log->part->path);
        give_up_part(log);
        return ret;
    }
    log->end.offset += frame->len;
    log->end.frames++;
    return 0;
}

/* `is_kept`: its space was kept, so no more is needed. `*ret_maybe` is set on
 * failure: the frame may be on disk. Mutex held. */
static int co_append(struct commit_log *log,
                     GByteArray *payload,
                     bool is_kept,
                     bool *ret_maybe,
                     GError **err)
{
    int ret;

    *ret_maybe = false;
    ret = co_make_run_file(log, err);
    if (ret < 0) {
        return ret;
    }
    if (log->part != NULL && !is_kept) {
        ret = co_make_room(log, commit_frame_bytes(payload->len), err);
        if (ret < 0) {
            return ret;
        }
    }
    if (log->part == NULL) {
        g_autoptr(GPtrArray) payloads = g_ptr_array_new();

        g_ptr_array_add(payloads, payload);
        return co_start_part(log, payloads, ret_maybe, err);
    }
    ret = co_write_frame(log, payload, err);
    *ret_maybe = ret < 0;
    return ret;
}

/* --- Records ---------------------------------------------------------------------- */

static GByteArray *payload_of(enum commit_record_type type,
                              const struct commit_transaction *transaction)
{
    GByteArray *payload = g_byte_array_new();

    commit_payload_add_transaction(payload, type, transaction);
    return payload;
}

static int check_size(const struct commit_transaction *transaction,
                      const GByteArray *payload,
                      GError **err)
{
    if (transaction->members->len > COMMIT_MEMBERS_MAX ||
        payload->len > COMMIT_PAYLOAD_BYTES_MAX / 2) {
        return error_set(err, -E2BIG,
                         "A transaction changes at most %d persistent bitmaps, "
                         "not %u",
                         COMMIT_MEMBERS_MAX, transaction->members->len);
    }
    return 0;
}

int co_commit_log_begin(struct commit_log *log,
                        const struct commit_transaction *transaction,
                        struct log_segment *ret_segment,
                        GError **err)
{
    g_autoptr(GByteArray) payload =
        payload_of(COMMIT_RECORD_BEGIN, transaction);
    uint64_t kept = commit_frame_bytes(payload->len);
    bool maybe;
    int ret = check_size(transaction, payload, err);

    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&log->mutex);
    log->kept += kept;
    trace_commit_log_begin("begin");
    ret = co_append(log, payload, false, &maybe, err);
    trace_commit_log_end("begin", ret);
    if (ret < 0) {
        log->kept -= kept;
    } else {
        ret_segment->run = log->header.run;
        ret_segment->part = log->header.part;
    }
    co_mutex_unlock(&log->mutex);
    return ret;
}

int co_commit_log_commit(struct commit_log *log,
                         const struct commit_transaction *transaction,
                         bool *ret_in_doubt,
                         GError **err)
{
    g_autoptr(GByteArray) payload =
        payload_of(COMMIT_RECORD_COMMIT, transaction);
    bool maybe;
    int ret;

    co_mutex_lock(&log->mutex);
    trace_commit_log_begin("commit");
    ret = co_append(log, payload, true, &maybe, err);
    trace_commit_log_end("commit", ret);
    if (ret == 0) {
        log->kept -= commit_frame_bytes(payload->len);
    } else {
        *ret_in_doubt = maybe;
    }
    co_mutex_unlock(&log->mutex);
    return ret;
}

int co_commit_log_abort(struct commit_log *log,
                        const struct commit_transaction *transaction,
                        GError **err)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    bool maybe;
    int ret;

    commit_payload_add_abort(payload, &transaction->txid, loop_wall_clock_us());
    co_mutex_lock(&log->mutex);
    trace_commit_log_begin("abort");
    ret = co_append(log, payload, true, &maybe, err);
    trace_commit_log_end("abort", ret);
    co_mutex_unlock(&log->mutex);
    return ret;
}

int co_commit_log_acknowledge(struct commit_log *log,
                              const GByteArray *payload,
                              GError **err)
{
    g_autoptr(GByteArray) copy = g_byte_array_new();
    bool maybe;
    int ret;

    g_byte_array_append(copy, payload->data, payload->len);
    co_mutex_lock(&log->mutex);
    trace_commit_log_begin("acknowledged");
    ret = co_append(log, copy, false, &maybe, err);
    trace_commit_log_end("acknowledged", ret);
    co_mutex_unlock(&log->mutex);
    return ret;
}

void commit_log_release(struct commit_log *log,
                        const struct commit_transaction *transaction)
{
    g_autoptr(GByteArray) payload =
        payload_of(COMMIT_RECORD_COMMIT, transaction);

    log->kept -= commit_frame_bytes(payload->len);
}

/* --- Starting over ------------------------------------------------------------------ */

bool commit_log_is_long(const struct commit_log *log)
{
    return log->part != NULL &&
           log->end.offset > LONG_BYTES + 2 * log->started_bytes;
}

static void free_payload(gpointer payload)
{
    g_byte_array_unref(payload);
}

/* Parts that no header counts any more. What stays is ignored. */
static void co_remove_parts(struct commit_log *log, uint32_t from, uint32_t to)
{
    for (uint32_t part = from; part < to; part++) {
        g_autofree char *name = part_name(log, part);

        (void)co_state_directory_remove(log->directory, name, NULL);
    }
}

int co_commit_log_compact(struct commit_log *log,
                          commit_log_fill_fn fill,
                          void *opaque,
                          GError **err)
{
    g_autoptr(GPtrArray) payloads =
        g_ptr_array_new_with_free_func(free_payload);
    uint32_t first_part = log->header.first_part;
    int ret;

    co_mutex_lock(&log->mutex);
    fill(opaque, payloads);
    if (log->part != NULL) {
        give_up_part(log);
    }
    log->header.first_part = log->header.part;
    ret = co_start_part(log, payloads, NULL, err);
    if (ret == 0) {
        co_remove_parts(log, first_part, log->header.part);
    } else {
        log->header.first_part = first_part;
    }
    co_mutex_unlock(&log->mutex);
    return ret;
}
