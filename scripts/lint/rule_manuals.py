# SPDX-License-Identifier: BSD-3-Clause
"""Manual pages pass mandoc's checks."""
import subprocess

from source_tree import files


def check(root):
    problems = []
    for path in files(root, ("*.1", "*.5", "*.7"), ("man",)):
        result = subprocess.run(
            ["mandoc", "-Tlint", "-Wwarning", str(path)],
            capture_output=True, text=True, check=False)
        problems += [line.replace(f"{root}/", "")
                     for line in result.stdout.splitlines() if line]
    return problems
