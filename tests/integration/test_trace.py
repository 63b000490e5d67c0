# SPDX-License-Identifier: BSD-3-Clause
"""Trace events: in the log with --trace, as probes in the binary; and the one
line that each group leaves."""
import re
import subprocess

import pytest

from support.daemon import ROOT, cohortd_binary
from support.disks import (add_bitmap, backup_action, failing_node, new_disk,
                           new_target)
from support.images import KIB, MIB, qemu_io, run
from support.qmp import Qmp
from support.waiting import wait_until

SIZE = 4 * MIB
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ (\S+)((?: .*)?)")
FIELD = re.compile(r' (\w+)=("(?:\\.|[^"\\])*"|\S+)')


def all_events():
    return run(cohortd_binary(), "--trace", "help").stdout.split()


def events(daemon, pattern="."):
    """(name, fields) of each line of the log whose event's name matches."""
    found = []
    for line in daemon.stderr().splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        if re.match(pattern, match.group(1)):
            found.append((match.group(1), dict(FIELD.findall(match.group(2)))))
    return found


def group_ends(daemon):
    return [fields for _, fields in events(daemon, "group_end$")]


@pytest.fixture
def traced(cohortd):
    """A daemon with disks a and b, each with a bitmap and a target; traces
    what is asked for."""
    def start(*words):
        daemon = cohortd(*words, nbd=True)
        for disk in ("a", "b"):
            new_disk(daemon, disk, SIZE, seed=1)
            add_bitmap(daemon, disk)
            qemu_io(daemon.nbd_uri(disk), "write -P 7 0 128k")
            new_target(daemon, f"{disk}-target", SIZE)
        return daemon
    return start


def incremental(disk, target=None, **more):
    return backup_action(disk, target or f"{disk}-target", sync="incremental",
                         bitmap="b0", **more)


def fail_b(daemon):
    """A group of a and b, of which b fails: its target takes nothing."""
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.transaction(incremental("a"), incremental("b", "bad"),
                           grouped=True)
    for job in ("job-a", "job-b"):
        daemon.qmp.wait_job_gone(job)


def test_transitions_of_a_failing_group_are_told(traced):
    "--trace 'job_*': each change of state of both jobs, and the failure."
    daemon = traced("--trace", "job_*")
    fail_b(daemon)
    moves = {"job-a": [], "job-b": []}
    for _, fields in events(daemon, "job_state$"):
        moves[fields["job"]].append((fields["from"], fields["to"]))
    for job, steps in moves.items():
        assert steps[0] == ("undefined", "created")
        assert steps[-2:] == [("aborting", "concluded"),
                              ("concluded", "null")]
        assert all(one[1] == next_one[0] for one, next_one in
                   zip(steps, steps[1:])), (job, steps)
    failures = {fields["job"]: fields for _, fields in
                events(daemon, "job_failed$")}
    assert failures["job-a"]["error"] == "ECANCELED"
    assert failures["job-b"]["error"] == "EIO"
    assert ("job_io_error", {"job": "job-b", "operation": "write",
                             "action": "report"}) in events(daemon)
    assert {name for name, _ in events(daemon)} == \
        {"job_state", "job_failed", "job_io_error", "group_end"}


def test_a_failed_group_leaves_one_line_with_the_cause(traced):
    "Without --trace: id, members, instant, bytes, outcome, who and why."
    daemon = traced()
    fail_b(daemon)
    (fields,) = group_ends(daemon)
    assert fields["members"] == "job-a,job-b"
    assert fields["group"] == "job-a"
    assert fields["outcome"] == "failed"
    assert fields["job"] == "job-b"
    assert "'bad'" in fields["reason"] and "error" in fields["reason"]
    assert int(fields["transaction"]) > 0
    assert int(fields["instant_ns"]) > 0
    assert len(events(daemon)) == 1


def test_a_group_that_cannot_be_flushed_says_so(traced):
    "All have done their work; the last step of one fails."
    daemon = traced("--trace", "group_*")
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE, "flush"))
    daemon.qmp.transaction(incremental("a"), incremental("b", "bad"),
                           grouped=True)
    for job in ("job-a", "job-b"):
        daemon.qmp.wait_job_gone(job)
    told = [(name, fields.get("error")) for name, fields
            in events(daemon, "group_")]
    assert told[1:] == [
        ("group_member_end", "0"), ("group_member_end", "0"),
        ("group_prepare_begin", None), ("group_abort", None),
        ("group_prepare_end", "EIO"), ("group_abort_begin", None),
        ("group_abort_end", None), ("group_end", None)]
    (fields,) = group_ends(daemon)
    assert (fields["outcome"], fields["job"]) == ("failed", "job-b")
    assert "flush" in fields["reason"]


def test_a_completed_group_leaves_one_line(traced):
    "It tells the bytes that were copied; the instants are counted up."
    daemon = traced()
    for _ in range(2):
        daemon.qmp.transaction(incremental("a"), incremental("b"),
                               grouped=True)
        for job in ("job-a", "job-b"):
            daemon.qmp.wait_job_gone(job)
    first, second = group_ends(daemon)
    assert (first["outcome"], first["job"], first["reason"]) == \
        ("completed", "-", "-")
    assert int(first["bytes"]) == 256 * KIB
    assert int(second["bytes"]) == 0
    assert int(second["transaction"]) == int(first["transaction"]) + 1


def test_a_cancelled_group_names_whom(traced):
    "The member that the client cancelled, not those that went with it."
    daemon = traced()
    daemon.qmp.transaction(incremental("a"), incremental("b", speed=1),
                           grouped=True)
    daemon.qmp.command("job-cancel", id="job-b")
    for job in ("job-a", "job-b"):
        daemon.qmp.wait_job_gone(job)
    (fields,) = group_ends(daemon)
    assert (fields["outcome"], fields["job"], fields["reason"]) == \
        ("cancelled", "job-b", "cancelled")


def test_jobs_of_their_own_leave_a_line_each(traced):
    "A job alone is a group of one; the transaction's number is the same."
    daemon = traced()
    daemon.qmp.transaction(incremental("a"), incremental("b"))
    for job in ("job-a", "job-b"):
        daemon.qmp.wait_job_gone(job)
    lines = group_ends(daemon)
    assert sorted(line["members"] for line in lines) == ["job-a", "job-b"]
    assert len({line["transaction"] for line in lines}) == 1


def test_the_course_of_a_failing_group_can_be_followed(traced):
    "From prepare to release, member by member, to the bitmaps given back."
    daemon = traced("--trace", "transaction_*", "--trace", "group_*",
                    "--trace", "enable=bitmap_re*", "-T", "bitmap_freeze")
    fail_b(daemon)
    number = group_ends(daemon)[0]["transaction"]
    of_this = [name for name, fields in events(daemon, "transaction_")
               if fields["transaction"] == number]
    assert of_this == ["transaction_begin", "transaction_prepare",
                       "transaction_prepare", "transaction_prepare",
                       "transaction_fence_begin",
                       "transaction_fence_done", "transaction_commit",
                       "transaction_release"]
    of_group = [name for name, _ in events(daemon, "group_")]
    assert of_group[0] == "group_start"
    assert of_group.count("group_member_end") == 2
    assert [name for name in of_group if name != "group_member_end"] == [
        "group_start", "group_abort", "group_abort_begin", "group_abort_end",
        "group_end"]
    abort = dict(events(daemon, "group_abort$"))["group_abort"]
    assert (abort["group"], abort["job"]) == ("job-a", "job-b")
    bitmaps = [(name, fields["node"]) for name, fields
               in events(daemon, "bitmap_")]
    assert sorted(bitmaps[:2]) == [("bitmap_freeze", "a"),
                                   ("bitmap_freeze", "b")]
    assert sorted(bitmaps[2:]) == [("bitmap_reclaim", "a"),
                                   ("bitmap_reclaim", "b")]


def test_a_refused_transaction_tells_which_action(traced):
    "The second action fails to prepare; one is undone."
    daemon = traced("--trace", "transaction_*")
    daemon.qmp.error("transaction", actions=[
        {"type": "block-dirty-bitmap-clear",
         "data": {"node": "a", "name": "b0"}},
        {"type": "abort", "data": {}}])
    (_, begin), (_, first), (_, second), (_, abort) = \
        events(daemon, "transaction_")[-4:]
    assert begin["actions"] == "3"  # with the record of what is durable
    assert (first["index"], first["action"], first["error"]) == \
        ("0", "block-dirty-bitmap-clear", "0")
    assert (second["index"], second["action"], second["error"]) == \
        ("1", "abort", "ECANCELED")
    assert abort["prepared"] == "1"


def test_every_verb_of_bitmaps_is_told(traced):
    daemon = traced("--trace", "bitmap_*")
    for verb in ("disable", "enable", "clear"):
        daemon.qmp.command(f"block-dirty-bitmap-{verb}", node="a", name="b0")
    daemon.qmp.command("block-dirty-bitmap-merge", node="a", target="b0",
                       bitmaps=[{"node": "b", "name": "b0"}])
    daemon.qmp.command("block-dirty-bitmap-remove", node="a", name="b0")
    told = [name for name, fields in events(daemon, "bitmap_")
            if fields["node"] == "a"]
    assert told == [f"bitmap_{verb}" for verb in
                    ("add", "disable", "enable", "clear", "merge", "remove")]
    merge = dict(events(daemon, "bitmap_merge"))["bitmap_merge"]
    assert (merge["source_node"], merge["source"]) == ("b", "b0")


def test_a_guest_that_breaks_a_backup_is_told(traced):
    "The target fails while saving what a guest overwrites."
    daemon = traced("--trace", "copy_break")
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.command(*backup_action("a", "bad", sync="none"))
    qemu_io(daemon.nbd_uri("a"), "write -P 9 1M 64k")
    daemon.qmp.wait_job_gone("job-a")
    (_, fields), = events(daemon, "copy_break")
    assert fields == {"source": "a", "target": "bad", "side": "target",
                      "offset": str(MIB), "error": "EIO"}


def test_a_pattern_with_a_minus_switches_off(traced):
    "Also the line of each group, which is on by itself."
    daemon = traced("--trace", "*", "--trace", "-*")
    fail_b(daemon)
    assert daemon.stderr() == ""


def test_every_event_is_a_probe():
    "readelf -n lists each, of the provider cohort."
    notes = run("readelf", "-n", cohortd_binary()).stdout
    probes = re.findall(r"Provider: cohort\s+Name: (\w+)", notes)
    assert sorted(set(probes)) == sorted(all_events())


def test_in_the_background_a_file_gets_the_log(folder):
    "Where standard error is none, --trace is refused: nobody would read it."
    words = [cohortd_binary(), "--daemonize", "--pidfile", folder / "pid",
             "--trace", "bitmap_*", "--blockdev", "null-co,node-name=a"]
    refused = subprocess.run(words, stdin=subprocess.DEVNULL, timeout=60,
                             capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "standard error must be a file" in refused.stderr


def test_in_the_background_the_log_goes_on(folder):
    "What happens after the parent has gone is in the file."
    log = folder / "log"
    with open(log, "wb") as errors:
        subprocess.run(
            [cohortd_binary(), "--daemonize", "--pidfile", folder / "pid",
             "--trace", "bitmap_*", "--blockdev",
             "null-co,node-name=a,size=1048576", "--chardev",
             f"socket,id=q,path={folder}/qmp,server=on,wait=off",
             "--monitor", "q"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=errors, timeout=60, check=True)
    with Qmp(str(folder / "qmp")) as qmp:
        qmp.command("block-dirty-bitmap-add", node="a", name="b0")
        qmp.command("quit")
    wait_until(lambda: not (folder / "pid").exists(), 30, "its end")
    assert log.read_text().splitlines()[0].endswith(
        " bitmap_add node=a bitmap=b0")


def test_the_guide_shows_lines_that_there_are():
    "Each event and field in its examples is one of the table's."
    guide = (ROOT / "docs/guides/tracing.md").read_text()
    reference = (ROOT / "docs/reference/trace.md").read_text()
    shown = re.findall(r"^    (?:\S+Z cohortd )?([a-z]+_[a-z_]+) (\w+=.*)$",
                       guide, re.MULTILINE)
    assert len(shown) > 10
    for name, fields in shown:
        section = reference.split(f"## {name}\n")[1].split("\n## ")[0]
        for field in re.findall(r"(\w+)=", fields):
            assert f"`{field}`" in section, (name, field)
