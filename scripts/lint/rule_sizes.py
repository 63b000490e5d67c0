# SPDX-License-Identifier: BSD-3-Clause
"""A file stays within 600 lines (a header within 300), a function within 70.

Files and functions that were longer before a limit came are listed in
scripts/lint/sizes.txt with their size; they may only shrink."""
import re

from source_tree import c_files, code_of, text_of

FILE_LINES = 600
HEADER_LINES = 300
FUNCTION_LINES = 70
FUNCTION_START = re.compile(r"^[A-Za-z_][^;={}#]*?\b([a-z_][a-z0-9_]*)\s*"
                            r"\([^;{}]*\)[^;{}()=]*\n\{\n", re.MULTILINE)


def functions(code):
    """(name, lines) of each function; the house style puts its opening and
    closing braces in column one."""
    for match in FUNCTION_START.finditer(code):
        end = code.find("\n}", match.end() - 1)
        if end >= 0:
            yield match.group(1), code.count("\n", match.end(), end) + 1


def allowed_sizes(root):
    path = root / "scripts/lint/sizes.txt"
    allowed = {}
    if path.exists():
        for line in text_of(path).splitlines():
            if line and not line.startswith("#"):
                name, size = line.rsplit(" ", 1)
                allowed[name] = int(size)
    return allowed


def judge(name, lines, limit, allowed):
    bound = allowed.pop(name, None)
    if lines <= limit:
        if bound is not None:
            return f"{name}: within the limit now; delete it from sizes.txt"
        return None
    if bound is None:
        return f"{name}: {lines} lines, the limit is {limit}"
    if lines > bound:
        return f"{name}: grew from {bound} to {lines} lines; it may not"
    if lines < bound:
        return f"{name}: shrank to {lines} lines; say so in sizes.txt"
    return None


def check(root):
    problems = []
    allowed = allowed_sizes(root)
    for path in c_files(root):
        name = str(path.relative_to(root))
        limit = HEADER_LINES if path.suffix == ".h" else FILE_LINES
        problems.append(judge(name, len(text_of(path).splitlines()), limit,
                              allowed))
        for function, lines in functions(code_of(path)):
            problems.append(judge(f"{name}:{function}", lines, FUNCTION_LINES,
                                  allowed))
    problems += [f"{name}: in sizes.txt, but not in the tree"
                 for name in allowed]
    return [problem for problem in problems if problem]
