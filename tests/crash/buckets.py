# SPDX-License-Identifier: BSD-3-Clause
"""Where a daemon was when it was killed, by what its trace says it had begun and
not ended. Only what reached the block layer is told there."""
import re

# What opens and closes a span; nodes apart.
SPANS = {
    "first write waits for its intent":
        ("tracking_intents_begin", "tracking_intents_end"),
    "flip: pages": ("tracking_flip_begin", "tracking_flip_(pages|end)"),
    "flip: superblock": ("tracking_flip_pages", "tracking_flip_end"),
    "prepare of a member": ("tracking_prepare_begin", "tracking_prepare_end"),
    "record BEGIN": ("commit_log_begin record=begin",
                     "commit_log_end record=begin"),
    "record COMMIT": ("commit_log_begin record=commit",
                      "commit_log_end record=commit"),
    "record ACKNOWLEDGED": ("commit_log_begin record=acknowledged",
                            "commit_log_end record=acknowledged"),
    "seal": ("commit_log_seal_begin", "commit_log_seal_end"),
    "resize": ("tracking_resize_begin", "tracking_resize_end"),
    "clean close": ("tracking_close_begin", "tracking_close_end"),
    "recovery": ("tracking_recovery_begin", "tracking_recovery_end"),
    "fence": ("transaction_fence_begin", "transaction_(release|abort)"),
    "jobs at work": ("group_start", "group_prepare_begin|group_abort_begin"),
    "all jobs pending": ("to=pending", "group_prepare_begin|group_abort_begin"),
    "some members prepared":
        ("tracking_prepare_end", "group_prepare_end|commit_log_begin"),
    "committed, no bitmap has given way":
        ("commit_log_end record=commit", "bitmap_abdicate|group_commit_end"),
    "some bitmaps have given way": ("bitmap_abdicate", "group_commit_end"),
    "committed, not acknowledged":
        ("group_commit_end", "commit_log_begin record=acknowledged"),
}
PER_NODE = re.compile(r"\bnode=(\S+)")
COMPILED = {name: (re.compile(opens), re.compile(closes))
            for name, (opens, closes) in SPANS.items()}
VERBS = ("add", "remove", "clear", "enable", "disable", "merge")


def open_spans(lines):
    """The names of the spans that are open at the end."""
    spans = {}
    for line in lines:
        if " cohortd " not in line and " default-" not in line:
            continue
        node = PER_NODE.search(line)
        node = node[1] if node else None
        for name, (opens, closes) in COMPILED.items():
            if closes.search(line):
                if node is None or "bitmap_abdicate" in line:
                    spans.pop(name, None)
                else:
                    spans.get(name, set()).discard(node)
            if opens.search(line):
                spans.setdefault(name, set()).add(node)
    return {name for name, nodes in spans.items() if nodes}


def reached(lines, verb):
    """The last command that was a transaction began with that verb."""
    for line in reversed(lines):
        if " transaction_begin " in line:
            return False
        if f"action=block-dirty-bitmap-{verb} " in line + " ":
            return True
    return False


class Histogram:
    def __init__(self):
        self.counts = {}

    def add(self, name, count=1):
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, other):
        for name, count in other.counts.items():
            self.add(name, count)

    def text(self):
        width = max(map(len, self.counts), default=0)
        return "\n".join(f"  {name:<{width}} {count:6}" for name, count in
                         sorted(self.counts.items()))

    def empty(self, names):
        return [name for name in names if not self.counts.get(name)]
