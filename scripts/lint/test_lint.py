# SPDX-License-Identifier: BSD-3-Clause
"""Each lint rule sees what it is there to see, and leaves the rest alone."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import rule_banned  # noqa: E402
import rule_braces  # noqa: E402
import rule_dev  # noqa: E402
import rule_format  # noqa: E402
import rule_headers  # noqa: E402
import rule_links  # noqa: E402
import rule_manuals  # noqa: E402
import rule_patches  # noqa: E402
import rule_rooms  # noqa: E402
import rule_sizes  # noqa: E402
import rule_trace  # noqa: E402
import rule_words  # noqa: E402

SPDX = "/* SPDX-License-Identifier: BSD-3-Clause */\n"


@pytest.fixture
def tree(tmp_path):
    def put(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tmp_path
    return put


def test_rooms_refuses_an_arrow_upwards(tree):
    root = tree("src/base/list.c", '#include "loop/loop.h"\n')
    assert "loop stands above base" in rule_rooms.check(root)[0]


def test_rooms_allows_an_arrow_downwards(tree):
    root = tree("src/loop/loop.c",
                '#include "loop/loop.h"\n\n#include <glib.h>\n\n'
                '#include "base/list.h"\n')
    assert rule_rooms.check(root) == []


def test_rooms_keeps_private_headers_private(tree):
    root = tree("src/job/job.c", '#include "block/node_priv.h"\n')
    assert "private to its folder" in rule_rooms.check(root)[0]


def test_rooms_wants_the_own_header_first(tree):
    root = tree("src/job/job.c",
                '#include <glib.h>\n\n#include "job/job.h"\n')
    assert "not included first" in rule_rooms.check(root)[0]


def test_rooms_wants_system_headers_before_other_rooms(tree):
    root = tree("src/job/job.c", '#include "job/job.h"\n'
                '#include "base/list.h"\n#include <glib.h>\n')
    assert "before a system header" in rule_rooms.check(root)[0]


def test_rooms_takes_a_siblings_header_for_the_own(tree):
    root = tree("src/job/job_run.c", '#include "job/job_priv.h"\n\n'
                '#include <glib.h>\n\n#include "base/list.h"\n')
    assert rule_rooms.check(root) == []


def test_sizes_refuses_a_long_function(tree):
    body = "    call();\n" * 71
    root = tree("src/base/a.c", f"int long_one(int a)\n{{\n{body}}}\n")
    assert rule_sizes.check(root) == [
        "src/base/a.c:long_one: 71 lines, the limit is 70"]


def test_sizes_lets_an_old_giant_shrink_only(tree):
    body = "    call();\n" * 80
    root = tree("src/base/a.c", f"int giant(int a)\n{{\n{body}}}\n")
    tree("scripts/lint/sizes.txt", "src/base/a.c:giant 80\n")
    assert rule_sizes.check(root) == []
    tree("scripts/lint/sizes.txt", "src/base/a.c:giant 75\n")
    assert "grew" in rule_sizes.check(root)[0]


def test_banned_sees_a_call_and_not_a_comment(tree):
    root = tree("src/base/a.c",
                '/* strcpy( */ void f(void)\n{\n    strcpy(a, "atoi(");\n}\n')
    assert rule_banned.check(root) == [
        "src/base/a.c:3: strcpy() is banned; use g_strlcpy or g_strdup"]


def test_banned_keeps_the_clock_in_the_loop(tree):
    root = tree("src/job/a.c", "int a = clock_gettime(0, &b);\n")
    tree("src/loop/a.c", "int a = clock_gettime(0, &b);\n")
    assert len(rule_banned.check(root)) == 1


def test_banned_leaves_members_and_longer_names_alone(tree):
    root = tree("src/job/a.c", "int a = x->read(1) + co_poll(2) + y.time();\n")
    assert rule_banned.check(root) == []


def test_headers_wants_licence_guard_and_purpose(tree):
    root = tree("src/base/a.h", "#ifndef A_H\n#define A_H\n#endif\n")
    found = "\n".join(rule_headers.check(root))
    assert "SPDX" in found and "BASE_A_H" in found
    tree("src/base/a.h", SPDX + "/* Purpose. */\n#ifndef BASE_A_H\n"
         "#define BASE_A_H\n#endif\n")
    assert rule_headers.check(root) == []


def test_links_finds_dead_files_and_dead_headings(tree):
    root = tree("README.md", "# Top\n[a](docs/b.md) [c](#top) [d](#no)\n")
    found = rule_links.check(root)
    assert len(found) == 2 and "docs/b.md" in found[0] and "#no" in found[1]


def test_words_refuses_a_bare_note(tree):
    root = tree("src/base/a.c", "/* TO" "DO later */\n")
    assert "without an issue" in rule_words.check(root)[0]
    tree("src/base/a.c", "/* TO" "DO(#12): grow, since it may be slow */\n")
    assert rule_words.check(root) == []


def test_words_refuses_a_drawer(tree):
    root = tree("src/base/string_utils.c", "int a;\n")
    assert "what it holds" in rule_words.check(root)[0]


def test_format_refuses_what_clang_format_would_change(tree):
    root = tree("src/base/a.c", "int  a ;\n")
    tree(".clang-format", "BasedOnStyle: LLVM\n")
    assert "./dev fmt" in rule_format.check(root)[0]
    tree("src/base/a.c", "int a;\n")
    assert rule_format.check(root) == []


def test_manuals_refuses_broken_mdoc(tree):
    root = tree("man/a.1", ".Dd broken\n.Bogus\n")
    assert rule_manuals.check(root)


def test_dev_refuses_a_test_that_nobody_runs(tree):
    root = tree("tests/unit/base/test_list.c", "int a;\n")
    tree("tests/unit/base/meson.build", "foreach name : []\nendforeach\n")
    assert "never runs" in rule_dev.check(root)[0]
    tree("tests/unit/base/meson.build", "foreach name : ['list']\n")
    assert rule_dev.check(root) == []


def test_braces_wants_them_around_one_line_too(tree):
    root = tree("src/base/a.c", "void f(void)\n{\n    if (a)\n        b();\n"
                "    else if (c) {\n        d();\n    } else\n        e();\n"
                "    do {\n        g();\n    } while (h);\n}\n")
    assert [problem.split(":")[1] for problem in rule_braces.check(root)] == [
        "3", "7"]


def test_trace_refuses_an_event_that_never_happens(tree):
    tree("src/base/trace_events.def",
         'TRACE_EVENT(job_state,\n            "It moves.", (text, job))\n'
         'TRACE_EVENT(job_gone,\n            "It went.", (text, job))\n')
    root = tree("src/job/job.c", "trace_job_state(id); /* trace_job_gone() */")
    assert rule_trace.check(root) == [
        "src/base/trace_events.def: job_gone never happens"]


def test_patches_refuses_a_planted_bug_that_does_not_apply(tree):
    tree("src/job/job.c", "one\ntwo\nthree\n")
    planted = "Why.\n\n--- a/src/job/job.c\n+++ b/src/job/job.c\n" \
        "@@ -1,3 +1,3 @@\n one\n-{}\n+2\n three\n"
    tree("tests/good.patch", planted.format("two"))
    root = tree("tests/stale.patch", planted.format("too"))
    problem, = rule_patches.check(root)
    assert problem.startswith("tests/stale.patch: ")
