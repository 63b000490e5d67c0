/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images that name other images: from name to options, and opening what an
 * image names. The format is one of the test: a file whose first line is the
 * name of the backing file, and the second its format. It goes by the name of
 * "raw", since options are checked against the schema of this build.
 */
#include "block/filename.h"
#include "block_test.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "drivers/drivers.h"

static char *folder;

static struct block_node *file_of(struct block_node *node)
{
    return block_child(node, "file");
}

/* The lines of the image's file. */
static char **co_read_lines(struct block_node *node)
{
    uint64_t bytes = MIN(block_size(file_of(node)), 8192);
    g_autofree char *text = g_malloc0(bytes + 1);
    struct iovec iov = { text, bytes };

    assert_int_equal(co_block_child_preadv(file_of(node), 0, bytes, &iov, 1),
                     0);
    return g_strsplit(text, "\n", -1);
}

static int co_layer_discover(struct block_node *node,
                             struct json_value **ret_children,
                             GError **err)
{
    g_auto(GStrv) lines = co_read_lines(node);
    g_autoptr(json_value) children = json_dict_new();
    struct json_value *backing;

    if (g_strv_length(lines) > 1 && *lines[0] != 0 &&
        !block_child_is_given(node, "backing")) {
        backing = co_block_filename_to_options(lines[0],
                                               *lines[1] == 0 ? NULL : lines[1],
                                               block_filename(node), err);
        if (backing == NULL) {
            return -EINVAL;
        }
        json_dict_set(children, "backing", backing);
    }
    *ret_children = g_steal_pointer(&children);
    return 0;
}

static int co_layer_open(struct block_node *node,
                         const struct json_value *options,
                         GError **err)
{
    (void)options;
    (void)err;
    block_set_size(node, 512);
    return 0;
}

static int co_layer_preadv(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    return co_block_child_preadv(file_of(node), offset, bytes, iov, iov_count);
}

static const struct block_child_role layer_children[] = {
    { .name = "file", .required = true },
    { .name = "backing", .read_only = true },
    { .name = NULL },
};

static const struct block_driver driver_layer = {
    .name = "raw",
    .children = layer_children,
    .co_discover = co_layer_discover,
    .co_open = co_layer_open,
    .co_preadv = co_layer_preadv,
};

static const struct block_driver *const drivers[] = { &driver_layer,
                                                      &driver_file,
                                                      &driver_null, NULL };

/* The schema of this build, and "backing". */
static const struct schema_member layer_members[] = {
    { .name = "driver", .type = &schema_string, .required = true },
    { .name = "node-name", .type = &schema_string },
    { .name = "file", .type = &blockdev_ref_type },
    { .name = "size", .type = &schema_size },
    { .name = "backing", .type = &blockdev_ref_or_null_type },
    { .name = "read-only", .type = &schema_bool },
    { .name = NULL },
};

static const struct schema_type layer_type = {
    .kind = SCHEMA_STRUCT,
    .members = layer_members,
};

static char *path_of(const char *name)
{
    return g_strdup_printf("%s/%s", folder, name);
}

static void write_image(const char *name, const char *text)
{
    g_autofree char *path = path_of(name);
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *padded = g_strdup_printf("%-1024s", text);

    assert_int_equal(g_mkdir_with_parents(directory, 0700), 0);
    assert_true(g_file_set_contents(path, padded, -1, NULL));
}

/* blockdev-add of the image, with more options ("" for none). */
static char *options_of(const char *name, const char *more)
{
    return g_strdup_printf("raw,node-name=top,file.driver=file,"
                           "file.filename=%s/%s%s%s",
                           folder, name, *more == 0 ? "" : ",", more);
}

static struct block_node *co_open(struct block_graph *graph,
                                  const char *name,
                                  const char *more)
{
    g_autofree char *options = options_of(name, more);

    return co_add(graph, options);
}

static void co_open_fails(struct block_graph *graph,
                          const char *name,
                          const char *more,
                          const char *part)
{
    g_autofree char *options = options_of(name, more);

    co_add_fails(graph, options, part);
    assert_null(block_next(graph, NULL)); /* nothing is left behind */
}

static void co_backing_is_opened(struct block_graph *graph, void *opaque)
{
    struct block_node *top;
    struct block_node *backing;
    g_autofree char *expected = path_of("d/base");

    (void)opaque;
    write_image("d/base", "\n\n");
    write_image("top", "d/base\nraw\n");
    top = co_open(graph, "top", "");
    backing = block_child(top, "backing");
    assert_non_null(backing);
    assert_string_equal(block_filename(backing), expected);
    assert_true(block_is_read_only(backing));
    assert_false(block_is_read_only(top));
    assert_false(block_is_named_by_user(backing));
}

static void backing_is_opened_for_reading(void **unused)
{
    (void)unused;
    run_in_graph(drivers, 1, co_backing_is_opened, NULL);
}

static void co_options_win(struct block_graph *graph, void *opaque)
{
    struct block_node *top;
    g_autofree char *nested = g_strdup_printf(
        "backing.driver=file,backing.filename=%s/other", folder);
    g_autoptr(GError) err = NULL;

    (void)opaque;
    write_image("other", "\n\n");
    write_image("top", "missing\nraw\n");
    top = co_open(graph, "top", nested);
    assert_string_equal(block_driver_of(block_child(top, "backing"))->name,
                        "file");
    assert_int_equal(co_block_del(graph, "top", &err), 0);
    top = co_open(graph, "top", "backing=");
    assert_null(block_child(top, "backing"));
}

static void options_win_over_the_image(void **unused)
{
    (void)unused;
    run_in_graph(drivers, 1, co_options_win, NULL);
}

static void co_chain(struct block_graph *graph, void *opaque)
{
    const unsigned int *length = opaque;
    struct block_node *node;
    unsigned int found = 0;

    for (unsigned int i = 0; i < *length; i++) {
        g_autofree char *name = g_strdup_printf("c%u", i);
        g_autofree char *text = g_strdup_printf("c%u\nraw\n", i + 1);

        write_image(name, i + 1 < *length ? text : "\n\n");
    }
    if (*length > 64) {
        co_open_fails(graph, "c0", "", "more than 64");
        return;
    }
    for (node = co_open(graph, "c0", ""); node != NULL;
         node = block_child(node, "backing")) {
        found++;
    }
    assert_int_equal(found, *length);
}

static void a_chain_of_60_opens(void **unused)
{
    unsigned int length = 60;

    (void)unused;
    run_in_graph(drivers, 1, co_chain, &length);
}

static void a_chain_of_70_is_refused(void **unused)
{
    unsigned int length = 70;

    (void)unused;
    run_in_graph(drivers, 1, co_chain, &length);
}

static void co_bad_names(struct block_graph *graph, void *opaque)
{
    static const struct {
        const char *text;
        const char *part;
    } rows[] = {
        { "missing\nraw\n", "missing" },
        { "top\nraw\n", "has no end" },
        { "b\nraw\n", "has no end" }, /* which names top */
        { "nbd:localhost:10809\nraw\n", "protocol 'nbd'" },
        { "d\nvmdk\n", "vmdk" },
        { "json:{\nraw\n", "json:" },
        { "json:[]\nraw\n", "no object" },
        { "json:{\"driver\": \"nope\"}\n\n", "nope" },
        { "json:{\"driver\": \"null-co\", \"node-name\": \"n\"}\n\n",
          "node-name" },
        { "json:{\"driver\":\"raw\",\"file.node-name\":\"n\"}\n\n",
          "node-name" },
        { "json:{\"driver\":\"raw\",\"file\":\"top\"}\n\n", "top" },
        { "json:{\"driver\":\"raw\",\"file.a\":1,\"file\":\"x\"}\n\n",
          "twice" },
        { "json:{\"driver\":\"raw\",\"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
          "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a\":1}\n\n",
          "too deep" },
    };

    (void)opaque;
    write_image("b", "top\nraw\n");
    write_image("d", "\n\n");
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        write_image("top", rows[i].text);
        co_open_fails(graph, "top", "read-only=on", rows[i].part);
    }
}

static void bad_names_are_refused(void **unused)
{
    (void)unused;
    run_in_graph(drivers, 1, co_bad_names, NULL);
}

static void co_json_names(struct block_graph *graph, void *opaque)
{
    static const char *const texts[] = {
        "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", "
        "\"filename\": \"%s\"}}\n\n",
        "json:{\"driver\": \"raw\", \"file.driver\": \"file\", "
        "\"file.filename\": \"%s\"}\nraw\n",
        "json:{'driver': 'file', 'filename': '%s'}\nraw\n",
        "json:{'driver': 'raw', 'file': {'driver': 'file'}, "
        "'file.filename': '%s'}\n\n",
        "file:%s\nraw\n",
        "%s\n\n",
    };
    g_autofree char *base = path_of("base");

    (void)opaque;
    write_image("base", "\n\n");
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_auto(GStrv) parts = g_strsplit(texts[i], "%s", 2);
        g_autofree char *text = g_strjoinv(base, parts);
        struct block_node *top;

        write_image("top", text);
        top = co_open(graph, "top", "");
        assert_string_equal(block_filename(block_child(top, "backing")), base);
        assert_int_equal(co_block_del(graph, "top", NULL), 0);
    }
}

static void names_in_every_form_are_understood(void **unused)
{
    (void)unused;
    run_in_graph(drivers, 1, co_json_names, NULL);
}

static void relative_names_follow_their_image(void **unused)
{
    static const struct {
        const char *name;
        const char *base;
        const char *expected;
    } rows[] = {
        { "b", "/x/a", "/x/b" },
        { "../b", "/x/a", "/x/../b" },
        { "b", "a", "b" },
        { "b", "x/a", "x/b" },
        { "/y/b", "/x/a", "/y/b" },
        { "/y/b", NULL, "/y/b" },
        { "./c:d", "/x/a", "/x/./c:d" },
    };

    g_autoptr(GError) err = NULL;

    (void)unused;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *path =
            block_filename_resolve(rows[i].name, rows[i].base, &err);

        assert_string_equal(path, rows[i].expected);
    }
    assert_null(block_filename_resolve("b", NULL, &err));
    assert_error(&err, "relative");
}

static int set_up(void **unused)
{
    (void)unused;
    folder = g_dir_make_tmp("cohort-filename-XXXXXX", NULL);
    return folder == NULL;
}

static void remove_below(const char *path)
{
    GDir *directory = g_dir_open(path, 0, NULL);
    const char *name;

    while (directory != NULL && (name = g_dir_read_name(directory)) != NULL) {
        g_autofree char *below = g_build_filename(path, name, NULL);

        remove_below(below);
    }
    if (directory != NULL) {
        g_dir_close(directory);
    }
    (void)g_remove(path); /* nothing hangs on it */
}

static int tear_down(void **unused)
{
    (void)unused;
    remove_below(folder);
    g_clear_pointer(&folder, g_free);
    return 0;
}

#define IN_FOLDER(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(backing_is_opened_for_reading),
        IN_FOLDER(options_win_over_the_image),
        IN_FOLDER(a_chain_of_60_opens),
        IN_FOLDER(a_chain_of_70_is_refused),
        IN_FOLDER(bad_names_are_refused),
        IN_FOLDER(names_in_every_form_are_understood),
        cmocka_unit_test(relative_names_follow_their_image),
    };

    test_options_type = &layer_type;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
