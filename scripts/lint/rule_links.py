# SPDX-License-Identifier: BSD-3-Clause
"""Relative links in Markdown lead to a file, and to a heading it has."""
import re

from source_tree import files, text_of

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(path):
    """The anchors that GitHub makes of a file's headings."""
    found = set()
    for title in re.findall(r"^#+ +(.*)$", FENCE.sub("", text_of(path)),
                            re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", title.strip().lower())
        found.add(words.replace(" ", "-"))
    return found


def check_link(root, path, target):
    name = path.relative_to(root)
    if re.match(r"[a-z]+:", target):
        return None
    place, _, anchor = target.partition("#")
    goal = (path.parent / place).resolve() if place else path
    if not goal.exists():
        return f"{name}: link to {target}, which does not exist"
    if anchor and goal.suffix == ".md" and anchor not in anchors(goal):
        return f"{name}: link to {target}, but there is no such heading"
    return None


def check(root):
    pages = sorted(root.glob("*.md")) + files(root, ("*.md",),
                                              ("docs", "bench", "tests"))
    return [problem for path in pages
            for target in LINK.findall(FENCE.sub("", text_of(path)))
            if (problem := check_link(root, path, target))]
