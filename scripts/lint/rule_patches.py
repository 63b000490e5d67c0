# SPDX-License-Identifier: BSD-3-Clause
"""A planted bug (tests/**/*.patch) applies to the tree as it is, to the line's
context: one that does not is found by nobody."""
import subprocess

from source_tree import files


def check(root):
    problems = []
    for path in files(root, ("*.patch",), ("tests",)):
        with path.open("rb") as patch:
            tried = subprocess.run(
                ["patch", "--dry-run", "--silent", "--batch", "-F0", "-p1"],
                cwd=root, stdin=patch, capture_output=True, text=True,
                check=False)
        if tried.returncode != 0:
            said = " ".join((tried.stdout + tried.stderr).split())
            problems.append(f"{path.relative_to(root)}: {said}")
    return problems
