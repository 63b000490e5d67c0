/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REDRAW_US  INT64_C(100000)
#define LINE_US    INT64_C(10000000) /* between lines where there are no bars */
#define BAR_CELLS  30
#define BARS_MAX   20 /* more disks than that share one bar */
#define ERASE_LINE "\r\033[K"

struct bar {
    char *disk;
    char *phase;
    uint64_t done;
    uint64_t total;
    int64_t told_us; /* when a line was last printed */
};

struct progress {
    bool quiet;
    bool has_bars;
    GPtrArray *bars; /* struct bar *, owned */
    guint drawn;     /* lines on the terminal */
    int64_t drawn_us;
};

static void bar_free(void *pointer)
{
    struct bar *bar = pointer;

    g_free(bar->disk);
    g_free(bar->phase);
    g_free(bar);
}

struct progress *progress_new(bool quiet)
{
    struct progress *progress = g_new0(struct progress, 1);
    const char *terminal = g_getenv("TERM");

    progress->quiet = quiet;
    progress->has_bars =
        isatty(STDERR_FILENO) == 1 && g_strcmp0(terminal, "dumb") != 0;
    progress->bars = g_ptr_array_new_with_free_func(bar_free);
    return progress;
}

static unsigned percent(uint64_t done, uint64_t total)
{
    if (total == 0 || done >= total) {
        return 100;
    }
    return (unsigned)((double)done * 100.0 / (double)total);
}

static void draw_bar(const char *name,
                     const char *phase,
                     uint64_t done,
                     uint64_t total)
{
    unsigned now = percent(done, total);
    char cells[BAR_CELLS + 1];
    unsigned full = now * BAR_CELLS / 100;

    memset(cells, '.', BAR_CELLS);
    memset(cells, '#', full);
    cells[BAR_CELLS] = '\0';
    (void)fprintf(stderr, ERASE_LINE "%-20s %-8s [%s] %3u %%\n", name, phase,
                  cells, now);
}

static void erase(struct progress *progress)
{
    for (; progress->drawn > 0; progress->drawn--) {
        (void)fputs("\033[A" ERASE_LINE, stderr);
    }
}

static void draw(struct progress *progress)
{
    uint64_t done = 0;
    uint64_t total = 0;

    erase(progress);
    for (guint i = 0; i < progress->bars->len; i++) {
        const struct bar *bar = progress->bars->pdata[i];
        done += MIN(bar->done, bar->total);
        total += bar->total;
        if (progress->bars->len <= BARS_MAX) {
            draw_bar(bar->disk, bar->phase, bar->done, bar->total);
            progress->drawn++;
        }
    }
    if (progress->bars->len > BARS_MAX) {
        g_autofree char *name =
            g_strdup_printf("%u disks", progress->bars->len);
        draw_bar(name, "", done, total);
        progress->drawn = 1;
    }
    (void)fflush(stderr);
    progress->drawn_us = g_get_monotonic_time();
}

void progress_free(struct progress *progress)
{
    if (progress == NULL) {
        return;
    }
    if (progress->has_bars && progress->drawn > 0) {
        draw(progress);
    }
    g_ptr_array_unref(progress->bars);
    g_free(progress);
}

static struct bar *find_bar(struct progress *progress, const char *disk)
{
    for (guint i = 0; i < progress->bars->len; i++) {
        struct bar *bar = progress->bars->pdata[i];
        if (strcmp(bar->disk, disk) == 0) {
            return bar;
        }
    }
    struct bar *bar = g_new0(struct bar, 1);
    bar->disk = g_strdup(disk);
    g_ptr_array_add(progress->bars, bar);
    return bar;
}

void progress_update(struct progress *progress,
                     const char *disk,
                     const char *phase,
                     uint64_t done,
                     uint64_t total)
{
    int64_t now_us = g_get_monotonic_time();

    if (progress->quiet) {
        return;
    }
    struct bar *bar = find_bar(progress, disk);
    bool is_new = g_strcmp0(bar->phase, phase) != 0;
    bool is_end = done >= total && (bar->done < bar->total || is_new);
    if (is_new) {
        g_free(bar->phase);
        bar->phase = g_strdup(phase);
        bar->told_us = now_us;
    }
    bar->done = done;
    bar->total = total;
    if (progress->has_bars) {
        if (is_new || is_end || now_us - progress->drawn_us >= REDRAW_US) {
            draw(progress);
        }
        return;
    }
    if (is_end || now_us - bar->told_us >= LINE_US) {
        (void)fprintf(stderr, "%s: %s %u %%\n", disk, phase,
                      percent(done, total));
        bar->told_us = now_us;
    }
}

void progress_say(struct progress *progress, const char *format, ...)
{
    va_list arguments;

    erase(progress);
    (void)fputs("cohort: ", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}
