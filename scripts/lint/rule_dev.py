# SPDX-License-Identifier: BSD-3-Clause
"""Shell scripts parse under a POSIX sh, and tests are listed: every test_*.c
is named in the meson.build of its folder."""
import subprocess

from source_tree import files, text_of


def check(root):
    problems = []
    dev = root / "dev"
    if dev.exists():
        result = subprocess.run(["sh", "-n", str(dev)], capture_output=True,
                                text=True, check=False)
        if result.returncode != 0:
            problems.append(f"dev: {result.stderr.strip()}")
    for path in files(root, ("test_*.c",), ("tests",)):
        listing = path.parent / "meson.build"
        name = path.name[:-len(".c")]
        if not listing.exists() or name[len("test_"):] not in \
                text_of(listing):
            problems.append(f"{path.relative_to(root)}: not named in "
                            f"{listing.relative_to(root)}, so it never runs")
    return problems
