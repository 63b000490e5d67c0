# SPDX-License-Identifier: BSD-3-Clause
"""Brings a backup job into each state that lasts, and keeps it there.

Each function takes a daemon with disks a and b and their targets (add_disks()),
starts job "job-a" and returns when it is in the state the function is named
for. In `waiting`, "job-b" is its peer."""
from support.disks import add_bitmap, backup_action, new_disk, new_target
from support.images import MIB
from support.waiting import wait_until

SIZE = 4 * MIB
ID = "job-a"


def add_disks(daemon):
    for disk in "ab":
        new_disk(daemon, disk, SIZE, seed=1)
        add_bitmap(daemon, disk)
        new_target(daemon, f"{disk}-target", SIZE)


def start(daemon, disk="a", **more):
    daemon.qmp.command(*backup_action(disk, f"{disk}-target", **more))


def running(daemon):
    start(daemon, speed=1)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="running")


def paused(daemon):
    running(daemon)
    daemon.qmp.command("job-pause", id=ID)
    wait_until(lambda: status(daemon) == "paused", 30, "paused")


def waiting(daemon):
    daemon.qmp.transaction(backup_action("a", "a-target"),
                           backup_action("b", "b-target", speed=1),
                           grouped=True)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="waiting")


def pending(daemon):
    start(daemon, auto_finalize=False)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=ID)


def concluded(daemon):
    start(daemon, auto_dismiss=False)
    daemon.qmp.wait_event("JOB_STATUS_CHANGE", id=ID, status="concluded")


STATES = [running, paused, waiting, pending, concluded]


def status(daemon, job=ID):
    for info in daemon.qmp.command("query-jobs"):
        if info["id"] == job:
            return info["status"]
    return "gone"


# Verbs: command, the key of the id, other members, and where a backup job
# allows it.
WORKING = ("running", "paused")
ENDLESS = WORKING + ("waiting", "pending")
VERBS = [
    ("job-cancel", "id", {}, ENDLESS),
    ("block-job-cancel", "device", {"force": True}, ENDLESS),
    ("block-job-cancel", "device", {}, ("running", "waiting", "pending")),
    ("job-pause", "id", {}, ("running",)),
    ("block-job-pause", "device", {}, ("running",)),
    ("job-resume", "id", {}, ("paused",)),
    ("block-job-resume", "device", {}, ("paused",)),
    ("block-job-set-speed", "device", {"speed": 4096}, WORKING),
    ("block-job-change", "id", {"type": "backup"}, ()),
    ("job-complete", "id", {}, ()),
    ("block-job-complete", "device", {}, ()),
    ("job-finalize", "id", {}, ("pending",)),
    ("block-job-finalize", "id", {}, ("pending",)),
    ("job-dismiss", "id", {}, ("concluded",)),
    ("block-job-dismiss", "id", {}, ("concluded",)),
]


def verb_name(verb):
    return f"{verb[0]}{'-force' if verb[2].get('force') else ''}"
