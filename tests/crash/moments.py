# SPDX-License-Identifier: BSD-3-Clause
"""Moments to kill at, by what is going on: lines of the daemon's trace."""
import re
import threading
import time

# Lines to wait for: (pattern, how often at most)
MOMENTS = {
    "load": [(None, 1), ("tracking_intents_begin", 3),
             ("tracking_intents_end", 3)],
    "backup": [
        (None, 1), ("commit_log_begin record=begin", 2),
        ("transaction_fence_begin", 2), ("transaction_fence_done", 2),
        ("bitmap_freeze", 3), ("transaction_release", 2), ("group_start", 2),
        ("group_member_end", 3), ("to=pending", 3), ("to=pending", 3),
        ("group_prepare_begin", 2), ("tracking_prepare_begin", 3),
        ("tracking_flip_pages", 3), ("tracking_prepare_end", 3),
        ("tracking_prepare_end", 3), ("group_prepare_end", 2),
        ("commit_log_begin record=commit", 2),
        ("commit_log_end record=commit", 2), ("bitmap_abdicate", 3),
        ("group_commit_end", 2), ("group_end", 2), ("to=null", 3),
        ("commit_log_begin record=ack", 2), ("commit_log_end record=ack", 2)],
    "verbs": [
        ("transaction_begin", 12), ("transaction_fence_begin", 12),
        ("transaction_commit", 12), ("transaction_release", 12),
        ("tracking_flip_begin", 12), ("tracking_flip_pages", 12),
        ("tracking_flip_end", 12), ("commit_log_begin", 4),
        ("commit_log_end", 4), ("tracking_prepare_begin", 4),
        ("tracking_prepare_end", 6)],
    "resize": [("tracking_resize_begin", 3), ("tracking_flip_pages", 5),
               ("tracking_flip_end", 5), ("tracking_resize_end", 2)],
    "close": [("tracking_close_begin", 3), ("tracking_flip_begin", 4),
              ("tracking_flip_pages", 4), ("tracking_flip_end", 4),
              ("tracking_close_end", 3), ("commit_log_seal_begin", 1)],
    "recovery": [("tracking_recovery_begin", 4), ("tracking_flip_begin", 4),
                 ("tracking_flip_pages", 4), ("tracking_recovery_end", 4),
                 ("commit_log_seal_begin", 1), ("commit_log_seal_end", 1)],
    "checkpoint": [("tracking_flip_begin", 3), ("tracking_flip_pages", 3),
                   ("tracking_flip_end", 3)],
}


class Trigger:
    """Fires once, at the n-th line that matches."""

    def __init__(self, pattern, nth, delay_s, fire):
        self.pattern = re.compile(pattern) if pattern else None
        self.left = nth
        self.delay_s = delay_s
        self.fire = fire
        self.firing = threading.Event()
        self.fired = threading.Event()

    def line(self, line):
        if self.pattern is not None and self.pattern.search(line):
            self.left -= 1
            if self.left == 0:
                self.go()

    def go(self):
        if not self.firing.is_set():
            self.firing.set()
            if self.delay_s > 0:
                time.sleep(self.delay_s)
            self.fire()
            self.fired.set()
