# SPDX-License-Identifier: BSD-3-Clause
"""No note to oneself without an issue to follow it (write `TODO(#12): what
and why`), no tabs, no trailing blanks, no drawer called util."""
import re

from source_tree import files, text_of

NOTE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\): \S)")
DRAWER = re.compile(r"(^|_)(utils?|misc|helpers?|manager|common)(_|$)")
PATTERNS = ("*.c", "*.h", "*.py", "*.md", "*.sh", "meson.build")
FOLDERS = ("src", "tests", "bench", "docs", "scripts/demo")


def check(root):
    problems = []
    for path in files(root, PATTERNS, FOLDERS):
        name = path.relative_to(root)
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if NOTE.search(line):
                problems.append(f"{name}:{number}: a note without an issue")
            if line != line.rstrip():
                problems.append(f"{name}:{number}: blanks at the end")
            if "\t" in line:
                problems.append(f"{name}:{number}: a tab")
        if path.suffix in (".c", ".h") and DRAWER.search(path.stem):
            problems.append(f"{name}: name the file for what it holds")
    return problems
