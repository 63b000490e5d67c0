# SPDX-License-Identifier: BSD-3-Clause
"""What the lint rules share: finding files, and C without its comments."""
import re

# Lowest first: a room includes only from rooms before it, and itself.
ROOMS = ["base", "loop", "block", "drivers", "bitmap", "journal", "job",
         "backup", "nbd", "qmp", "daemon", "repo", "cli"]


def files(root, patterns, under=("src", "tests")):
    """Files below the given folders, sorted; build folders are not there."""
    found = set()
    for folder in under:
        for pattern in patterns:
            found.update((root / folder).rglob(pattern))
    return sorted(path for path in found if path.is_file())


def c_files(root, under=("src", "tests")):
    return files(root, ("*.c", "*.h"), under)


def text_of(path):
    return path.read_text(encoding="utf-8")


def blank(match):
    """The same number of lines and columns, without the text."""
    return re.sub(r"[^\n]", " ", match.group())


COMMENT_OR_STRING = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    re.DOTALL)


def code_of(path):
    """The file with comments and literals blanked; line numbers stay."""
    return COMMENT_OR_STRING.sub(blank, text_of(path))


def line_of(text, position):
    return text.count("\n", 0, position) + 1
