/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The reader of QMP's JSON dialect, in what it takes, what it refuses, and how
 * it goes on. The expected sequences of errors and values are those that
 * qemu-storage-daemon 7.2 gives for the same bytes, except where a comment says
 * otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_reader.h"
#include "base/limits.h"

/* Appends what the reader makes of `bytes` to `out`, a line each: the value, or
 * "!" for an error. */
static void feed(struct json_reader *reader,
                 const char *bytes,
                 size_t length,
                 GString *out)
{
    for (;;) {
        g_autoptr(GError) err = NULL;
        g_autoptr(json_value) value = NULL;

        switch (json_reader_next(reader, &bytes, &length, &value, &err)) {
        case JSON_READER_VALUE: json_write(value, false, out); break;
        case JSON_READER_ERROR:
            assert_true(g_str_has_prefix(err->message, "Malformed JSON: "));
            assert_true(g_utf8_validate(err->message, -1, NULL));
            assert_true(strlen(err->message) < 200);
            g_string_append_c(out, '!');
            break;
        case JSON_READER_MORE:
        default: assert_int_equal(length, 0); return;
        }
        g_string_append_c(out, '\n');
    }
}

/* The lines for `bytes` fed whole, which must be those for any split. */
static char *lines_of(const char *bytes, size_t length)
{
    g_autoptr(json_reader) whole = json_reader_new();
    g_autoptr(json_reader) split = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);
    g_autoptr(GString) out_split = g_string_new(NULL);

    feed(whole, bytes, length, out);
    for (size_t i = 0; i < length; i++) {
        /* A block of one byte, so that ASan sees a read beyond it. */
        g_autofree char *byte = g_memdup2(bytes + i, 1);

        feed(split, byte, 1, out_split);
    }
    assert_string_equal(out->str, out_split->str);
    return g_strdup(out->str);
}

static void expect(const char *bytes, const char *expected)
{
    g_autofree char *lines = lines_of(bytes, strlen(bytes));

    if (strcmp(lines, expected) != 0) {
        fail_msg("'%s' gives\n%sbut should give\n%s", bytes, lines, expected);
    }
}

static void values_need_no_separator(void **state)
{
    (void)state;
    expect("{}{}[]", "{}\n{}\n[]\n");
    expect("{\"a\":[1,{\"b\":null}]}\r\n\t {}",
           "{\"a\": [1, {\"b\": null}]}\n{}\n");
    expect("\"a\"\"b\"null{}", "\"a\"\n\"b\"\nnull\n{}\n");
    expect("1-2 ", "1\n-2\n");
}

static void a_scalar_ends_at_its_token(void **state)
{
    (void)state;
    expect("1", ""); /* more digits may come */
    expect("1 ", "1\n");
    expect("nul", "");
    expect("'a'", "\"a\"\n");
    expect("true[", "true\n");
}

static void strings_take_either_quote_and_every_escape(void **state)
{
    (void)state;
    expect("{'it': 'it\\'s \"q\"'}", "{\"it\": \"it's \\\"q\\\"\"}\n");
    expect("\"it's \\'\"", "\"it's '\"\n");
    expect("'\\\"\\\\\\/\\b\\f\\n\\r\\t'", "\"\\\"\\\\/\\b\\f\\n\\r\\t\"\n");
    expect("'%d %s %%'", "\"%d %s %%\"\n");
    expect("'\x7f'", "\"\\u007f\"\n");
}

static void unicode_escapes_come_alone_or_in_pairs(void **state)
{
    (void)state;
    expect("'\\u0041\\u00e9\\u20AC'", "\"A\\u00e9\\u20ac\"\n");
    expect("'\\ud83d\\ude00'", "\"\\ud83d\\ude00\"\n");
    expect("'\\u0000'", "\"\\u0000\"\n");
    expect("'\\ud83d'", "!\n");
    expect("'\\ud83dx'", "!\n");
    expect("'\\ud83d\\u0041'", "!\n");
    expect("'\\ude00'", "!\n");
    expect("'\\u12'", "!\n");
    expect("'\\u00zz' 1 ", "!\n1\n");
    expect("'\\q'", "!\n");
    expect("'\\\xc3\xa9'", "!\n"); /* the sentence is UTF-8 all the same */
    expect("'\\u000\xc3\xa9'", "!\n");
}

static void utf8_is_checked(void **state)
{
    (void)state;
    expect("'\xc3\xa9\xf0\x9f\x98\x80'", "\"\\u00e9\\ud83d\\ude00\"\n");
    /* Noncharacters are valid UTF-8 and taken, unlike there. */
    expect("'\xef\xbf\xbf'", "\"\\uffff\"\n");
    expect("'\xed\xa0\x80'", "!\n");         /* a surrogate */
    expect("'\xc0\x80'", "!\n");             /* overlong; taken there */
    expect("'\xc1\xa9'", "!\n");             /* overlong */
    expect("'\xf4\x90\x80\x80'", "!\n");     /* above U+10FFFF */
    expect("'\xf8\x88\x80\x80\x80'", "!\n"); /* five bytes */
    expect("'\x80'", "!\n");
    expect("'\xc3' 1 ", "!\n1\n");
    expect("{'\xc3':1}", "!\n");
}

static void integers_are_exact(void **state)
{
    (void)state;
    expect("[9223372036854775807, -9223372036854775808]",
           "[9223372036854775807, -9223372036854775808]\n");
    expect("18446744073709551615 ", "18446744073709551615\n");
    expect("18446744073709551616 ", "1.8446744073709552e+19\n");
    expect("-9223372036854775809 ", "-9.223372036854776e+18\n");
    expect("[0,-0]", "[0, 0]\n");
}

static void fractions_and_exponents_make_doubles(void **state)
{
    (void)state;
    expect("[1.0,-1.5e3,1E-2,1e+2,0.0]", "[1.0, -1500.0, 0.01, 100.0, 0.0]\n");
    expect("0e5 ", "0.0\n");   /* refused there */
    expect("1e400 ", "!\n");   /* becomes inf there */
    expect("[-1e400]", "!\n"); /* as well */
    expect("1e-400 ", "0.0\n");
}

static void ill_formed_numbers_are_refused(void **state)
{
    (void)state;
    expect("01 ", "!\n");
    expect("-\n", "!\n");
    expect("-x\n", "!\n");
    expect("1.\n", "!\n");
    expect("1e\n", "!\n");
    expect("1e+\n", "!\n");
    expect(".5\n", "!\n");
    expect("+5\n", "!\n");
    expect("1.5.6\n", "1.5\n!\n");
    expect("1x\n", "1\n!\n");
}

static void keywords_are_three(void **state)
{
    (void)state;
    expect("[true,false,null]", "[true, false, null]\n");
    expect("nul ", "!\n");
    expect("truex ", "!\n");
    expect("nulltrue 1 ", "!\n1\n");
    expect("{'a':tru}{}", "!\n{}\n");
    expect("TRUE\n1 ", "!\n1\n");
}

static void a_repeated_key_is_refused(void **state)
{
    (void)state;
    expect("{'a':1,'b':2,'a':3}{}", "!\n{}\n");
    expect("{'a':{'b':1,'b':1}}{}", "!\n{}\n");
    expect("{'a':1,'\\u0061':2}{}", "!\n{}\n");
    expect("{'a':{'a':1},'b':{'a':1}}",
           "{\"a\": {\"a\": 1}, \"b\": {\"a\": 1}}\n");
}

static void wrong_grammar_is_told_when_the_brackets_balance(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{'a' 1}",  "{'a':1,}", "[1,2,]",     "{1:2}",         "{'a'}",
        "{,}",      "[1,,2]",   "[1 2]",      "{'a':1 2}",     "{'a':}",
        "[}",       "{[}]",     "[{]}",       "[1:2]",         "{'a','b'}",
        "{null:1}", "[,]",      "{'a' 1,[}]", "{'a':1 'b':2}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *text = g_strconcat(texts[i], "{}", NULL);

        expect(text, "!\n{}\n");
    }
    expect("{'a':{]{}", "!\n{}\n");   /* one ] too many ends it */
    expect("{]}{}", "!\n!\n{}\n");    /* and the } is alone */
    expect("{'a' 1,{'b' 2}", "");     /* not balanced yet */
    expect("{'a' 1,{'b' 2}}", "!\n"); /* one error for the whole */
    expect("{'a':1}}{}", "{\"a\": 1}\n!\n{}\n");
}

static void a_lone_separator_or_closer_is_an_error_each(void **state)
{
    (void)state;
    expect("}{}", "!\n{}\n");
    expect("]{}", "!\n{}\n");
    expect(":,{}", "!\n!\n{}\n");
    expect("1,2 ", "1\n!\n2\n");
}

static void behind_a_broken_token_the_line_is_skipped(void **state)
{
    (void)state;
    expect("@@@", "!\n");
    expect("@ 1 'x' null\n1 ", "!\n1\n");
    expect("@ 1\r1 ", "!\n1\n");
    expect("@\t1\n", "!\n");
    expect("[1 @\n 5 ", "!\n5\n"); /* the list is dropped */
    expect("'abc\n1 \n1 ", "!\n1\n");
    expect("'a\tb' 1\n1 ", "!\n1\n");
    expect("[ /* no comments */ 1]\n{}", "!\n!\n{}\n");
    expect("\xef\xbb\xbf{}", "!\n{}\n"); /* no byte order mark */
}

static void skipping_ends_before_structure(void **state)
{
    (void)state;
    expect("@ x {}", "!\n{}\n");
    expect("{'a':@}{}", "!\n!\n{}\n");
    expect("{'a' @ 'x'}{}", "!\n!\n{}\n");
    expect("@:1 ", "!\n!\n1\n");
    expect("-{'a':1}", "!\n!\n1\n!\n"); /* the { broke the number */
}

static void a_control_character_resets_the_reader(void **state)
{
    (void)state;
    expect("{'a':[[[\x01{}", "!\n{}\n");
    expect("\x01\x01{}", "!\n!\n{}\n");
    expect("@\x01{}", "!\n!\n{}\n");
    expect("[12\x01]", "!\n!\n");
    expect("[nul\x7f\n", "!\n");
    expect("'abc\x01 d'\n{}", "!\n{}\n");
    expect("'\\\x01 d'\n{}", "!\n{}\n");
    expect("\x0b\x0c{}", "!\n!\n{}\n");
}

static void the_byte_ff_resets_the_reader_too(void **state)
{
    (void)state;
    expect("{'a':\xff{}", "!\n{}\n");
    expect("\xff\xff{}", "!\n!\n{}\n");
    expect("'x\xff'{}", "!\n{}\n");
    expect("12\xff{}", "12\n!\n{}\n");
    expect("@\xfe\xff{}", "!\n!\n!\n{}\n");
    expect("1e\xff 1\n", "!\n");
}

static void a_nul_byte_is_a_control_character(void **state)
{
    (void)state;
    g_autofree char *lines = lines_of("[\0{}@\0\0'\0\n{}", 12);

    assert_string_equal(lines, "!\n{}\n!\n!\n!\n!\n{}\n");
}

static void reset_forgets_what_was_half_read(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "{'a':[1,'b", 10, out);
    json_reader_reset(reader);
    feed(reader, "{}", 2, out);
    feed(reader, "@", 1, out);
    json_reader_reset(reader);
    feed(reader, "1 ", 2, out);
    assert_string_equal(out->str, "{}\n!\n1\n");
}

static void feed_repeated(struct json_reader *reader,
                          const char *text,
                          size_t times,
                          GString *out)
{
    size_t length = strlen(text);
    const size_t batch = 4096;
    g_autoptr(GString) chunk = g_string_new(NULL);

    for (size_t i = 0; i < batch; i++) {
        g_string_append(chunk, text);
    }
    for (; times >= batch; times -= batch) {
        feed(reader, chunk->str, chunk->len, out);
    }
    feed(reader, chunk->str, times * length, out);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed_repeated(reader, "[", LIMIT_JSON_NESTING, out);
    feed_repeated(reader, "]", LIMIT_JSON_NESTING, out);
    assert_int_equal(out->len, 2 * LIMIT_JSON_NESTING + 1);
    g_string_truncate(out, 0);
    feed_repeated(reader, "{'a':[", LIMIT_JSON_NESTING / 2, out);
    assert_string_equal(out->str, "");
    feed(reader, "[", 1, out);
    assert_string_equal(out->str, "!\n");
    feed(reader, "{}", 2, out); /* nothing is left over */
    assert_string_equal(out->str, "!\n{}\n");
}

static void tokens_are_bounded(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "[0", 2, out);
    feed_repeated(reader, ",0", LIMIT_JSON_TOKENS / 2 - 1, out);
    assert_string_equal(out->str, "");
    feed(reader, ",", 1, out);
    assert_string_equal(out->str, "!\n");
    feed(reader, "{}", 2, out);
    assert_string_equal(out->str, "!\n{}\n");
}

static void tokens_of_a_faulty_value_count_too(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "{[", 2, out);
    feed_repeated(reader, ",", LIMIT_JSON_TOKENS - 2, out);
    assert_string_equal(out->str, "");
    feed(reader, ",", 1, out);
    assert_string_equal(out->str, "!\n");
}

static void text_is_bounded(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "['", 2, out);
    feed_repeated(reader, "a", LIMIT_JSON_TEXT_BYTES - 2, out);
    assert_string_equal(out->str, "");
    feed_repeated(reader, "a", 5000, out);
    assert_string_equal(out->str, "!\n"); /* once: the rest is skipped */
    feed(reader, "a'\n{}", 5, out);
    assert_string_equal(out->str, "!\n{}\n");
}

static void white_space_is_no_token_text(void **state)
{
    (void)state;
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "[", 1, out);
    feed_repeated(reader, " \n", LIMIT_JSON_TEXT_BYTES / 2 + 1, out);
    feed(reader, "]", 1, out);
    assert_string_equal(out->str, "[]\n");
}

static void a_large_transaction_is_read(void **state)
{
    (void)state;
    g_autoptr(GString) text = g_string_new("{'actions':[");
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(json_value) value = NULL;
    const char *bytes;
    size_t length;

    for (int i = 0; i < 50000; i++) {
        g_string_append_printf(text, "%s{'type':'abort','data':{'n':%d}}",
                               i > 0 ? "," : "", i);
    }
    g_string_append(text, "]}");
    bytes = text->str;
    length = text->len;
    assert_int_equal(json_reader_next(reader, &bytes, &length, &value, NULL),
                     JSON_READER_VALUE);
    assert_int_equal(json_list_length(json_dict_get(value, "actions")), 50000);
}

static void a_text_is_one_value(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", " ", "{", "'a", "{} {}", "{} x", "{}}", "@", "[1", "- ", "1 2",
    };
    g_autoptr(json_value) dict = json_read_text(" {'a': 1} \n", NULL);
    g_autoptr(json_value) number = json_read_text("12", NULL);
    int64_t integer;

    assert_int_equal(json_dict_int(dict, "a", 0), 1);
    assert_true(json_get_int(number, &integer));
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autoptr(GError) err = NULL;

        assert_null(json_read_text(refused[i], &err));
        assert_non_null(err);
    }
    json_reader_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_need_no_separator),
        cmocka_unit_test(a_scalar_ends_at_its_token),
        cmocka_unit_test(strings_take_either_quote_and_every_escape),
        cmocka_unit_test(unicode_escapes_come_alone_or_in_pairs),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(fractions_and_exponents_make_doubles),
        cmocka_unit_test(ill_formed_numbers_are_refused),
        cmocka_unit_test(keywords_are_three),
        cmocka_unit_test(a_repeated_key_is_refused),
        cmocka_unit_test(wrong_grammar_is_told_when_the_brackets_balance),
        cmocka_unit_test(a_lone_separator_or_closer_is_an_error_each),
        cmocka_unit_test(behind_a_broken_token_the_line_is_skipped),
        cmocka_unit_test(skipping_ends_before_structure),
        cmocka_unit_test(a_control_character_resets_the_reader),
        cmocka_unit_test(the_byte_ff_resets_the_reader_too),
        cmocka_unit_test(a_nul_byte_is_a_control_character),
        cmocka_unit_test(reset_forgets_what_was_half_read),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(tokens_are_bounded),
        cmocka_unit_test(tokens_of_a_faulty_value_count_too),
        cmocka_unit_test(text_is_bounded),
        cmocka_unit_test(white_space_is_no_token_text),
        cmocka_unit_test(a_large_transaction_is_read),
        cmocka_unit_test(a_text_is_one_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
