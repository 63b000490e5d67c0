# SPDX-License-Identifier: BSD-3-Clause
"""C files are as clang-format leaves them (`./dev fmt`)."""
import subprocess

from source_tree import c_files


def check(root):
    paths = [str(path) for path in c_files(root)]
    if not paths:
        return []
    result = subprocess.run(
        ["clang-format", "--dry-run", "-ferror-limit=1", *paths],
        cwd=root, capture_output=True, text=True, check=False)
    problems = [line.split(": warning")[0].replace(f"{root}/", "") +
                ": not as clang-format leaves it; run ./dev fmt"
                for line in result.stderr.splitlines()
                if "clang-format-violations" in line]
    if result.returncode != 0 and not problems:
        problems.append(f"clang-format failed: {result.stderr.strip()}")
    seen = {}
    for problem in problems:
        seen.setdefault(problem.split(":")[0], problem)
    return list(seen.values())
