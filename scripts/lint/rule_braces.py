# SPDX-License-Identifier: BSD-3-Clause
"""The body of if, else, for, while and do has braces, also of one line."""
import re

from source_tree import c_files, code_of, line_of

KEYWORD = re.compile(r"\b(if|else|for|while|do|LIST_FOREACH|"
                     r"LIST_FOREACH_SAFE)\b")


def after_parenthesis(code, position):
    """The place behind the parenthesis that opens at or after `position`."""
    depth = 0
    for index in range(code.index("(", position), len(code)):
        depth += {"(": 1, ")": -1}.get(code[index], 0)
        if depth == 0:
            return index + 1
    return len(code)


def without_macros(code):
    """Preprocessor lines blanked, with their continuations."""
    return re.sub(r"^[ \t]*#(?:.*\\\n)*.*$",
                  lambda match: re.sub(r"[^\n]", " ", match.group()), code,
                  flags=re.MULTILINE)


def closes_a_do(code, position):
    """Is this `while` the end of do { } while?"""
    return code[:position].rstrip().endswith("}") and \
        re.match(r"\s*;", code[after_parenthesis(code, position):])


def check_file(name, code):
    for match in KEYWORD.finditer(code):
        word, position = match.group(1), match.end()
        if word == "while" and closes_a_do(code, match.start()):
            continue
        if word not in ("else", "do"):
            position = after_parenthesis(code, position)
        rest = code[position:].lstrip()
        if not rest.startswith("{") and not (
                word == "else" and rest.startswith("if")):
            yield f"{name}:{line_of(code, match.start())}: " \
                f"the body of this {word} has no braces"


def check(root):
    return [problem for path in c_files(root)
            for problem in check_file(path.relative_to(root),
                                      without_macros(code_of(path)))]
