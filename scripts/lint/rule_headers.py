# SPDX-License-Identifier: BSD-3-Clause
"""Every source file names its licence in its first lines; every header of
src/ is guarded by ROOM_FILE_H and opens with a comment on what it is for."""
import re

from source_tree import files, text_of

PATTERNS = ("*.c", "*.h", "*.def", "*.py", "*.sh")
FOLDERS = ("src", "tests", "scripts", "bench")


def check_header(name, path, root):
    text = text_of(path)
    parts = path.relative_to(root / "src").with_suffix("").parts
    guard = "_".join(parts).upper().replace("-", "_") + "_H"
    if f"#ifndef {guard}\n#define {guard}\n" not in text:
        return f"{name}: its include guard is not {guard}"
    opening = text.split(f"#ifndef {guard}")[0]
    if len(re.findall(r"/\*", opening)) < 2:
        return f"{name}: does not say what it is for, above the guard"
    return None


def check(root):
    problems = []
    for path in files(root, PATTERNS, FOLDERS):
        name = path.relative_to(root)
        first = "\n".join(text_of(path).splitlines()[:2])
        # An empty file has nothing to license.
        if first and "SPDX-License-Identifier: BSD-3-Clause" not in first:
            problems.append(f"{name}: no SPDX line at the top")
        if path.suffix == ".h" and (root / "src") in path.parents:
            problems.append(check_header(name, path, root))
    return [problem for problem in problems if problem]
