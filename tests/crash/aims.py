# SPDX-License-Identifier: BSD-3-Clause
"""How a round hits one bucket of the histogram: what goes on, who is killed, and at
which line of the daemon's trace. A campaign aims at what chance has left empty."""
from typing import NamedTuple, Optional

from buckets import SPANS, VERBS

ACTIVITY_OF_SPAN = {
    "flip: pages": "verbs",
    "flip: superblock": "verbs",
    "resize": "resize",
    "clean close": "close",
    "seal": "recovery",
    "recovery": "recovery",
}   # all others: backup


class Aim(NamedTuple):
    activity: Optional[str] = None      # None: as the seed chooses
    victim: Optional[str] = None
    pattern: Optional[str] = None
    most: int = 1                       # the n-th line at most
    with_fio: bool = False
    early: bool = False                 # before guests have written anything


def aim_at_span(span):
    activity = ACTIVITY_OF_SPAN.get(span, "backup")
    if span == "first write waits for its intent":
        return Aim("load", "daemon", SPANS[span][0], early=True)
    if span == "record COMMIT":     # soon over: what comes just before
        return Aim(activity, "daemon", "group_prepare_end")
    most = {"all jobs pending": 3, "some members prepared": 2}.get(span, 1)
    return Aim(activity, "daemon", SPANS[span][0], most)


def aim_at(bucket):
    """The best that is known for that bucket."""
    kind, _, name = bucket.partition(" ")
    if kind == "in" and name in SPANS:
        return aim_at_span(name)
    if kind == "in" and name.startswith("verb "):
        verb = name.removeprefix("verb ")
        assert verb in VERBS, bucket
        return Aim("verbs", "daemon",
                   f"transaction_prepare .*block-dirty-bitmap-{verb}\\b")
    if kind == "during":
        return Aim(name)
    if kind == "killed:":
        return Aim("backup" if name != "daemon" else None, name)
    if kind == "fio:":
        return Aim(with_fio=True)
    return {
        "points made under load":
            Aim("backup", "daemon", "commit_log_end record=ack"),
        "settled: published": Aim("backup", "both", "bitmap_abdicate", 3),
        "settled: not published": Aim("backup", "both", "group_start"),
        "cuts: all is forgotten": Aim(),
        "cuts: a part is forgotten": Aim(),
    }[bucket]
