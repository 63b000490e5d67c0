/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state directory's dead runs.
 *
 * Each call, under the directory's lock: list the files; take in every run that
 * is dead (its lock can be had): seal it if it is not sealed, else seal it anew if
 * files of its log are left, for then it is not known that the sealing was durable;
 * purge what is over; and only then answer from what is sealed.
 *
 *     .run .log ──seal──> .sealed ──all acknowledged──> a line in commit.retired
 *
 * Dying between any two steps leaves what the next caller goes on with.
 */
#include "journal/outcome.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "journal/outcome_priv.h"
#include "loop/loop.h"

#define PREFIX       "commit-"
#define PREFIX_BYTES 7
#define RETIRED_NAME "commit.retired"
#define RETIRED_MAX  65536

/* What the directory holds of one run. */
struct run_files {
    struct journal_id run;
    bool has_run;
    bool has_sealed;
    GArray *parts;        /* uint32_t, ascending */
    GPtrArray *leftovers; /* names of temporary files; owned */
    bool is_alive;
};

/* One call's view; the lock is held. */
struct scan {
    struct state_directory *directory;
    struct storage_file *lock;
    GPtrArray *runs;   /* struct run_files */
    GPtrArray *sealed; /* struct sealed_run, of dead runs */
    GArray *retired;   /* struct journal_id, oldest first */
};

/* --- Listing ---------------------------------------------------------------------- */

static void free_run_files(gpointer opaque)
{
    struct run_files *files = opaque;

    g_array_unref(files->parts);
    g_ptr_array_unref(files->leftovers);
    g_free(files);
}

static void free_sealed(gpointer run)
{
    sealed_run_free(run);
}

static struct run_files *files_of(struct scan *scan,
                                  const struct journal_id *run)
{
    struct run_files *files;

    for (guint i = 0; i < scan->runs->len; i++) {
        files = g_ptr_array_index(scan->runs, i);
        if (journal_id_equal(&files->run, run)) {
            return files;
        }
    }
    files = g_new0(struct run_files, 1);
    files->run = *run;
    files->parts = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    files->leftovers = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(scan->runs, files);
    return files;
}

static int compare_parts(gconstpointer a, gconstpointer b)
{
    const uint32_t *one = a;
    const uint32_t *other = b;

    return *one < *other ? -1 : *one > *other;
}

/* commit-RUN.run, .sealed, -NNNN.log, and any of these with .tmp-... behind. */
static void sort_in(struct scan *scan, const char *name)
{
    struct journal_id run;
    const char *rest = name + PREFIX_BYTES + 2 * JOURNAL_ID_BYTES;
    struct run_files *files;

    if (!g_str_has_prefix(name, PREFIX) ||
        !journal_id_parse(name + PREFIX_BYTES, &run)) {
        return;
    }
    files = files_of(scan, &run);
    if (strstr(rest, ".tmp-") != NULL) {
        /* Without other files of its run it may be that of a daemon which is
         * just starting; then it stays. */
        g_ptr_array_add(files->leftovers, g_strdup(name));
    } else if (strcmp(rest, ".run") == 0) {
        files->has_run = true;
    } else if (strcmp(rest, ".sealed") == 0) {
        files->has_sealed = true;
    } else if (rest[0] == '-' && g_str_has_suffix(rest, ".log")) {
        guint64 part = g_ascii_strtoull(rest + 1, NULL, 10);

        if (part < UINT32_MAX) {
            uint32_t number = (uint32_t)part;

            g_array_append_val(files->parts, number);
        }
    }
}

static char *name_of(const struct journal_id *run, const char *suffix)
{
    char text[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(run, text);
    return g_strdup_printf(PREFIX "%s%s", text, suffix);
}

/* --- Retired runs -------------------------------------------------------------------- */

static int read_retired_record(void *opaque,
                               struct commit_record *record,
                               GError **err)
{
    GArray *retired = opaque;

    if (record->type != COMMIT_RECORD_RETIRED) {
        return error_set(err, -EINVAL, "It has a record of another kind");
    }
    g_array_append_val(retired, record->txid);
    return 0;
}

/* A damaged list is as good as none: its runs are unknown then. But nothing may be
 * sealed, or the list written anew, because it could not be read just now. */
static int co_read_retired(struct scan *scan, GError **err)
{
    g_autoptr(GByteArray) content = NULL;
    struct commit_header header;
    struct commit_file_end end;
    int ret = co_state_directory_get(scan->directory, RETIRED_NAME,
                                     COMMIT_FILE_BYTES_MAX, &content, err);

    if (ret == -ENOENT || ret == -EFBIG) {
        g_clear_error(err);
        return 0;
    }
    if (ret == 0 && commit_file_parse(content->data, content->len, RETIRED_NAME,
                                      read_retired_record, scan->retired,
                                      &header, &end, NULL) < 0) {
        g_array_set_size(scan->retired, 0);
    }
    return ret;
}

static bool is_retired(const struct scan *scan, const struct journal_id *run)
{
    for (guint i = 0; i < scan->retired->len; i++) {
        if (journal_id_equal(
                &g_array_index(scan->retired, struct journal_id, i), run)) {
            return true;
        }
    }
    return false;
}

/* --- One run ------------------------------------------------------------------------ */

/* `*ret_lock`: of a dead run, NULL if it has no such file. */
static int co_is_alive(struct scan *scan,
                       struct run_files *files,
                       struct storage_file **ret_lock,
                       GError **err)
{
    g_autofree char *name = name_of(&files->run, ".run");
    g_autofree char *path = state_directory_file(scan->directory, name);
    int ret;

    if (!files->has_run) {
        return 0;
    }
    ret = co_storage_open(state_directory_storage(scan->directory), path,
                          STORAGE_WRITABLE, ret_lock, err);
    if (ret < 0) {
        return ret;
    }
    ret = co_storage_lock(*ret_lock, true);
    if (ret < 0) {
        co_storage_close(ret_lock);
    }
    if (ret == -EAGAIN) {
        files->is_alive = true;
        return 0;
    }
    return ret < 0 ? error_set_errno(err, ret, "Cannot lock '%s'", path) : 0;
}

/* The sealed file is durable. What cannot be removed now is ignored and removed
 * by the next one. */
static void co_remove_log(struct scan *scan, const struct run_files *files)
{
    g_autofree char *run_name = name_of(&files->run, ".run");

    for (guint i = 0; i < files->leftovers->len; i++) {
        (void)co_state_directory_remove(
            scan->directory, g_ptr_array_index(files->leftovers, i), NULL);
    }
    for (guint i = 0; i < files->parts->len; i++) {
        g_autofree char *suffix = g_strdup_printf(
            "-%04u.log", g_array_index(files->parts, uint32_t, i));
        g_autofree char *name = name_of(&files->run, suffix);

        (void)co_state_directory_remove(scan->directory, name, NULL);
    }
    if (files->has_run) {
        (void)co_state_directory_remove(scan->directory, run_name, NULL);
    }
}

/* A run on the list of retired ones is over, whatever lies about of it: a power cut
 * may have brought back its log without what was sealed of it. */
static void co_remove_all(struct scan *scan, const struct run_files *files)
{
    g_autofree char *sealed_name = name_of(&files->run, ".sealed");

    co_remove_log(scan, files);
    (void)co_state_directory_remove(scan->directory, sealed_name, NULL);
}

/* A dead run: sealed, and its log removed. */
static int co_take_in(struct scan *scan,
                      const struct run_files *files,
                      GError **err)
{
    g_autoptr(sealed_run) sealed = sealed_run_new(&files->run);
    g_autofree char *name = name_of(&files->run, ".sealed");
    bool has_log = files->has_run || files->parts->len > 0;
    int ret = 0;

    if (files->has_sealed) {
        co_sealed_run_read(scan->directory, name, sealed);
    } else if (files->parts->len > 0) {
        co_sealed_run_read_log(scan->directory, files->parts, sealed);
    }
    if (has_log && (files->has_sealed || files->parts->len > 0)) {
        ret = co_sealed_run_write(scan->directory, name, sealed, err);
    }
    if (ret < 0) {
        return ret;
    }
    if (has_log || files->has_sealed) {
        co_remove_log(scan, files);
    }
    if (files->has_sealed || files->parts->len > 0) {
        g_ptr_array_add(scan->sealed, g_steal_pointer(&sealed));
    }
    return 0;
}

static int co_take_in_if_dead(struct scan *scan,
                              struct run_files *files,
                              GError **err)
{
    struct storage_file *lock = NULL;
    int ret = co_is_alive(scan, files, &lock, err);

    g_array_sort(files->parts, compare_parts);
    if (ret == 0 && !files->is_alive && is_retired(scan, &files->run)) {
        co_remove_all(scan, files);
    } else if (ret == 0 && !files->is_alive) {
        ret = co_take_in(scan, files, err);
    }
    co_storage_close(&lock);
    return ret;
}

/* --- Purging --------------------------------------------------------------------- */

static int co_write_retired(struct scan *scan, GError **err)
{
    struct commit_header header = {
        .kind = COMMIT_FILE_RETIRED,
        .made_us = loop_wall_clock_us(),
    };
    g_autoptr(GByteArray) content = g_byte_array_new();
    g_autoptr(GByteArray) payload = g_byte_array_new();
    g_autoptr(GByteArray) frame = NULL;

    for (guint i = 0; i < scan->retired->len; i++) {
        commit_payload_add_retired(
            payload, &g_array_index(scan->retired, struct journal_id, i),
            header.made_us);
    }
    g_byte_array_set_size(content, COMMIT_HEADER_BYTES);
    commit_header_encode(&header, content->data);
    frame = commit_frame_encode(&header, 0, payload);
    g_byte_array_append(content, frame->data, frame->len);
    return co_state_directory_put(scan->directory, RETIRED_NAME, content, 0,
                                  NULL, NULL, err);
}

/* Runs of which nobody will ask any more: first the list, durably, then the
 * files. */
static int co_purge(struct scan *scan, GError **err)
{
    g_autoptr(GPtrArray) over = g_ptr_array_new();
    int ret;

    for (guint i = 0; i < scan->sealed->len; i++) {
        struct sealed_run *run = g_ptr_array_index(scan->sealed, i);

        if (sealed_run_is_over(run)) {
            g_ptr_array_add(over, run);
            if (!is_retired(scan, &run->run)) {
                g_array_append_val(scan->retired, run->run);
            }
        }
    }
    if (over->len == 0) {
        return 0;
    }
    if (scan->retired->len > RETIRED_MAX) {
        g_array_remove_range(scan->retired, 0,
                             scan->retired->len - RETIRED_MAX);
    }
    ret = co_write_retired(scan, err);
    for (guint i = 0; ret == 0 && i < over->len; i++) {
        struct sealed_run *run = g_ptr_array_index(over, i);
        g_autofree char *name = name_of(&run->run, ".sealed");

        (void)co_state_directory_remove(scan->directory, name, NULL);
        g_ptr_array_remove(scan->sealed, run);
    }
    return ret;
}

/* --- The scan ------------------------------------------------------------------------- */

static void scan_end(struct scan *scan)
{
    co_storage_close(&scan->lock);
    g_ptr_array_unref(scan->runs);
    g_ptr_array_unref(scan->sealed);
    g_array_unref(scan->retired);
}

static int co_scan_files(struct scan *scan, GError **err)
{
    g_autoptr(GPtrArray) names = NULL;
    int ret = co_storage_list(state_directory_storage(scan->directory),
                              state_directory_path(scan->directory), &names);

    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot list state directory '%s'",
                               state_directory_path(scan->directory));
    }
    for (guint i = 0; i < names->len; i++) {
        sort_in(scan, g_ptr_array_index(names, i));
    }
    for (guint i = 0; ret == 0 && i < scan->runs->len; i++) {
        ret = co_take_in_if_dead(scan, g_ptr_array_index(scan->runs, i), err);
    }
    return ret;
}

/* To be ended by scan_end() if it succeeds. */
static int co_scan_begin(struct scan *scan,
                         struct state_directory *directory,
                         GError **err)
{
    int ret;

    *scan = (struct scan){ .directory = directory };
    ret = co_state_directory_lock(directory, &scan->lock, err);
    if (ret < 0) {
        return ret;
    }
    scan->runs = g_ptr_array_new_with_free_func(free_run_files);
    scan->sealed = g_ptr_array_new_with_free_func(free_sealed);
    scan->retired = g_array_new(FALSE, FALSE, sizeof(struct journal_id));
    ret = co_read_retired(scan, err);
    ret = ret < 0 ? ret : co_scan_files(scan, err);
    if (ret < 0) {
        scan_end(scan);
        return ret;
    }
    (void)co_purge(scan, NULL); /* what stays is only kept for longer */
    return 0;
}

/* --- Asking ------------------------------------------------------------------------- */

static struct sealed_run *find_sealed(const struct scan *scan,
                                      const struct journal_id *run)
{
    for (guint i = 0; i < scan->sealed->len; i++) {
        struct sealed_run *sealed = g_ptr_array_index(scan->sealed, i);

        if (journal_id_equal(&sealed->run, run)) {
            return sealed;
        }
    }
    return NULL;
}

static bool is_alive(const struct scan *scan, const struct journal_id *run)
{
    for (guint i = 0; i < scan->runs->len; i++) {
        const struct run_files *files = g_ptr_array_index(scan->runs, i);

        if (files->is_alive && journal_id_equal(&files->run, run)) {
            return true;
        }
    }
    return false;
}

static enum outcome ask_run(const struct scan *scan,
                            const struct journal_id *run,
                            const struct journal_id *txid,
                            char **ret_reason)
{
    const struct sealed_run *sealed = find_sealed(scan, run);
    char text[JOURNAL_ID_TEXT_BYTES];

    if (sealed != NULL) {
        return sealed_run_ask(sealed, txid, ret_reason);
    }
    if (is_alive(scan, run)) {
        return OUTCOME_PENDING;
    }
    if (is_retired(scan, run)) {
        return OUTCOME_ABORTED;
    }
    if (ret_reason != NULL) {
        journal_id_format(run, text);
        *ret_reason = g_strdup_printf(
            "The commit log of run %s is not in state directory '%s': it was "
            "lost, or the daemon had another one then",
            text, state_directory_path(scan->directory));
    }
    return OUTCOME_UNKNOWN;
}

/* Who does not know in which run may look at all: only a COMMIT says something. */
static enum outcome ask_all(const struct scan *scan,
                            const struct journal_id *txid,
                            char **ret_reason)
{
    for (guint i = 0; i < scan->sealed->len; i++) {
        const struct sealed_run *run = g_ptr_array_index(scan->sealed, i);

        if (sealed_run_find(run, txid) != NULL || run->damage != NULL) {
            return sealed_run_ask(run, txid, ret_reason);
        }
    }
    return OUTCOME_ABORTED;
}

int co_outcome_look_up(struct state_directory *directory,
                       const struct log_segment *segment_or_null,
                       const struct journal_id *txid,
                       enum outcome *ret_outcome,
                       char **ret_reason,
                       GError **err)
{
    struct scan scan;
    int ret = co_scan_begin(&scan, directory, err);

    if (ret < 0) {
        return ret;
    }
    *ret_outcome =
        segment_or_null == NULL
            ? ask_all(&scan, txid, ret_reason)
            : ask_run(&scan, &segment_or_null->run, txid, ret_reason);
    scan_end(&scan);
    return 0;
}

static int compare_times(gconstpointer a, gconstpointer b)
{
    const struct commit_transaction *one =
        *(const struct commit_transaction *const *)a;
    const struct commit_transaction *other =
        *(const struct commit_transaction *const *)b;

    return one->began_us > other->began_us ? -1
                                           : one->began_us < other->began_us;
}

int co_outcome_list(struct state_directory *directory,
                    GPtrArray **ret_transactions,
                    GError **err)
{
    struct scan scan;
    int ret = co_scan_begin(&scan, directory, err);

    if (ret < 0) {
        return ret;
    }
    *ret_transactions =
        g_ptr_array_new_with_free_func((GDestroyNotify)commit_transaction_free);
    for (guint i = 0; i < scan.sealed->len; i++) {
        struct sealed_run *run = g_ptr_array_index(scan.sealed, i);

        g_ptr_array_extend_and_steal(*ret_transactions,
                                     g_steal_pointer(&run->transactions));
        run->transactions = g_ptr_array_new();
    }
    g_ptr_array_sort(*ret_transactions, compare_times);
    scan_end(&scan);
    return 0;
}

/* --- Acknowledging --------------------------------------------------------------------- */

/* Returns how many transactions of the run it was new for. */
static uint64_t note(struct sealed_run *run,
                     const struct outcome_acknowledgement *who)
{
    uint64_t count = 0;

    for (guint i = 0; i < run->transactions->len; i++) {
        struct commit_transaction *transaction =
            g_ptr_array_index(run->transactions, i);

        if (who->txid == NULL ||
            journal_id_equal(who->txid, &transaction->txid)) {
            count += commit_transaction_acknowledge(transaction, who->disk);
        }
    }
    return count;
}

int co_outcome_acknowledge(struct state_directory *directory,
                           const struct outcome_acknowledgement *who,
                           uint64_t *ret_count,
                           GError **err)
{
    struct scan scan;
    uint64_t total = 0;
    int ret = co_scan_begin(&scan, directory, err);

    if (ret < 0) {
        return ret;
    }
    for (guint i = 0; ret == 0 && i < scan.sealed->len; i++) {
        struct sealed_run *run = g_ptr_array_index(scan.sealed, i);
        g_autofree char *name = name_of(&run->run, ".sealed");
        uint64_t count = note(run, who);

        if (count > 0 && !sealed_run_is_over(run)) {
            ret = co_sealed_run_write(directory, name, run, err);
        }
        total += count;
    }
    if (ret == 0) {
        ret = co_purge(&scan, err);
    }
    scan_end(&scan);
    if (ret == 0 && ret_count != NULL) {
        *ret_count = total;
    }
    return ret;
}
