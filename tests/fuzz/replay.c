/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a fuzz target over its corpus and over random changes of it.
 *
 *     fuzz_NAME_replay CORPUS [ROUNDS [SEED]]
 *
 * The seed is printed; the same seed gives the same changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "target.h"

#define ROUNDS_DEFAULT  2000
#define INPUT_BYTES_MAX 8192

static void unref_bytes(gpointer bytes)
{
    g_bytes_unref(bytes);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    const char *const *first = a;
    const char *const *second = b;

    return strcmp(*first, *second);
}

/* Names in their order, so that the seed alone decides. */
static GPtrArray *load_corpus(const char *folder)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    GPtrArray *inputs = g_ptr_array_new_with_free_func(unref_bytes);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;

    if (dir == NULL) {
        g_printerr("cannot open the corpus '%s'\n", folder);
        exit(1);
    }
    while ((name = g_dir_read_name(dir)) != NULL) {
        g_ptr_array_add(names, g_build_filename(folder, name, NULL));
    }
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++) {
        char *bytes;
        gsize length;

        if (g_file_get_contents(names->pdata[i], &bytes, &length, NULL)) {
            g_ptr_array_add(inputs, g_bytes_new_take(bytes, length));
        }
    }
    return inputs;
}

static GBytes *pick(GRand *rand, const GPtrArray *inputs)
{
    return inputs->pdata[g_rand_int_range(rand, 0, (gint)inputs->len)];
}

/* Puts a piece of another input, a random byte, or nothing in place of up to
 * seven bytes. */
static void change(GRand *rand, const GPtrArray *inputs, GString *text)
{
    gssize at = g_rand_int_range(rand, 0, (gint)text->len + 1);
    gssize cut = g_rand_int_range(rand, 0, 8);
    gsize length;
    const char *other = g_bytes_get_data(pick(rand, inputs), &length);

    g_string_erase(text, at, MIN(cut, (gssize)text->len - at));
    switch (g_rand_int_range(rand, 0, 3)) {
    case 0:
        if (length > 0) {
            gint from = g_rand_int_range(rand, 0, (gint)length);
            gint bytes = g_rand_int_range(rand, 0, 32);

            g_string_insert_len(text, at, other + from,
                                MIN(bytes, (gint)length - from));
        }
        break;
    case 1:
        g_string_insert_c(text, at, (gchar)g_rand_int_range(rand, 0, 256));
        break;
    default: break;
    }
}

static void run(const char *bytes, gsize length)
{
    /* Exactly as long as the input, so that ASan sees a read beyond it. */
    g_autofree uint8_t *copy = g_memdup2(bytes, MAX(length, 1));

    (void)LLVMFuzzerTestOneInput(copy, length); /* it aborts, or is content */
}

int main(int argc, char **argv)
{
    g_assert(argc >= 2);

    guint rounds =
        argc > 2 ? (guint)g_ascii_strtoull(argv[2], NULL, 10) : ROUNDS_DEFAULT;
    guint32 seed = argc > 3 ? (guint32)g_ascii_strtoull(argv[3], NULL, 10)
                            : g_random_int();
    g_autoptr(GPtrArray) inputs = load_corpus(argv[1]);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    g_log_set_always_fatal(G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING);
    printf("%u inputs, %u rounds, seed %u\n", inputs->len, rounds, seed);
    fflush(stdout); /* a crash must not lose the seed */
    g_assert(inputs->len > 0);
    for (guint i = 0; i < inputs->len; i++) {
        gsize length;
        const char *bytes = g_bytes_get_data(inputs->pdata[i], &length);

        run(bytes != NULL ? bytes : "", length);
    }
    for (guint i = 0; i < rounds; i++) {
        gsize length;
        const char *bytes = g_bytes_get_data(pick(rand, inputs), &length);
        g_autoptr(GString) text =
            g_string_new_len(bytes, (gssize)MIN(length, INPUT_BYTES_MAX));

        for (gint n = g_rand_int_range(rand, 1, 5); n > 0; n--) {
            change(rand, inputs, text);
        }
        run(text->str, text->len);
    }
    return 0;
}
