# SPDX-License-Identifier: BSD-3-Clause
"""The repository and a daemon that keeps bitmaps: whatever is killed when, the
next command is right, and most of the time an increment."""
import json
import os
import shutil
import subprocess
import threading

import pytest

from support.daemon import cohort_binary, cohortd_binary
from support.disks import add_disk
from support.images import sparse_image
from support.qmp_proxy import DROP
from test_cli_backup import OK, Rig, change, wait_concluded

BOTH = {"disk-a": "incremental", "disk-b": "incremental"}


@pytest.fixture
def rig(folder, cohortd, cohort):
    return Rig(folder, cohortd, cohort)


def disks_of(rig, point=None):
    manifest = rig.manifest(point or rig.points()[-1])
    return {disk["node"]: disk for disk in manifest["disks"]}


def transactions(rig):
    return rig.daemon.qmp.command("x-cohort-query-transactions")


def undecided(rig):
    return [found["id"] for found in transactions(rig)
            if found["outcome"] not in ("committed", "aborted")]


def kill_daemon(rig):
    if rig.daemon.is_alive():
        rig.daemon.kill()


def restart(rig):
    kill_daemon(rig)
    rig.start_daemon()


def run_until(rig, moment, command, nth, action):
    "A run of `cohort backup` in which `action` happens at that command."
    happened = threading.Event()

    def act():
        result = action(process)
        happened.set()
        return result
    getattr(rig.proxy, moment)(command, act, nth=nth)
    copies = rig.snapshot()
    process = rig.start()
    process.communicate(timeout=60)
    assert happened.wait(30), f"a run has no {command} number {nth}"
    labels = rig.partials()
    for point in rig.points():
        rig.kept.setdefault(point, copies)
    rig.proxy.clear()
    return labels, copies


def kill_cohort(process):
    process.kill()
    process.wait()


def go_on(rig, labels, copies):
    "Two more backups, of which the last must be incremental; all restores."
    change(rig, 4)
    result = rig.backup()
    rig.keep_if_published(labels, copies)
    change(rig, 5)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()
    rig.check_nothing_left()
    check_forgotten(rig)
    return result


def check_forgotten(rig):
    """Nobody will ask for a transaction any more: the disks have settled when
    they are closed, the client has acknowledged."""
    rig.daemon.quit()
    rig.start_daemon()
    assert transactions(rig) == []


def kill_and_drop(process):
    kill_cohort(process)
    return DROP


STEPS = [("blockdev-add", 2), ("transaction", 1), ("query-jobs", 4),
         ("x-cohort-query-backup-extents", 2),
         ("x-cohort-query-transactions", 4), ("job-finalize", 1),
         ("query-jobs", 6), ("job-dismiss", 1), ("blockdev-del", 1),
         ("x-cohort-acknowledge", 1)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("command,nth", STEPS,
                         ids=[f"{name}-{nth}" for name, nth in STEPS])
@pytest.mark.parametrize("victim", ["daemon", "both"])
def test_killed_at_any_step_the_next_run_is_an_increment(rig, victim, command,
                                                         nth, moment):
    "kill -9 of the daemon, or of both: no step costs a full backup."
    rig.backup()
    change(rig, 3)

    def kill(process):
        if victim == "both":
            kill_cohort(process)
        kill_daemon(rig)
    labels, copies = run_until(rig, moment, command, nth, kill)
    restart(rig)
    change(rig, 4)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.keep_if_published(labels, copies)
    go_on(rig, labels, copies)


@pytest.mark.parametrize("command,nth", [("block-dirty-bitmap-add", 2),
                                         ("transaction", 1),
                                         ("job-finalize", 1),
                                         ("job-dismiss", 1)])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_both_killed_during_the_first_backup(rig, command, nth, moment):
    "No increment builds on a full backup that was not published."
    def kill(process):
        kill_cohort(process)
        kill_daemon(rig)
    labels, copies = run_until(rig, moment, command, nth, kill)
    restart(rig)
    go_on(rig, labels, copies)


def test_a_killed_daemon_costs_no_more_than_it_says(rig):
    "One line tells what was recovered; the backup after it tells nothing."
    rig.backup()
    change(rig, 1)
    restart(rig)
    result = rig.backup()
    assert result.stderr.count("recovered the record of changes of 2 disks") \
        == 1
    assert rig.kinds() == BOTH
    change(rig, 2)
    assert "recovered" not in rig.backup().stderr
    rig.check_everything()


def test_a_commit_before_the_crash_is_published_after_it(rig):
    "The daemon's log is asked: the point appears, and is built upon."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        wait_concluded(rig)
        kill_daemon(rig)
    labels, copies = run_until(rig, "after", "job-finalize", 1, kill)
    assert len(labels) == 1 and len(rig.points()) == 1
    restart(rig)
    assert [found["outcome"] for found in transactions(rig)
            if found["id"] == labels[0]] == ["committed"]
    result = go_on(rig, labels, copies)
    assert "had been committed by the daemon: published" in result.stderr
    assert len(rig.points()) == 4


def test_an_abort_by_the_crash_is_discarded_after_it(rig):
    "Prepared, and never finalized: no point, and nothing is lost."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        kill_daemon(rig)
    labels, copies = run_until(rig, "before", "job-finalize", 1, kill)
    restart(rig)
    result = go_on(rig, labels, copies)
    assert "discarded the unfinished" in result.stderr
    assert len(rig.points()) == 3


def test_a_reply_that_is_lost_changes_nothing(rig):
    "The client dies before the reply to job-finalize, or never gets it."
    rig.backup()
    change(rig, 1)
    rig.proxy.after("job-finalize", lambda: DROP)
    copies = rig.snapshot()
    process = rig.start("--timeout", "2")
    process.communicate(timeout=60)
    for point in rig.points():
        rig.kept.setdefault(point, copies)
    rig.proxy.clear()
    go_on(rig, [], copies)
    assert len(rig.points()) == 4   # the clean-up asked, and published


@pytest.mark.parametrize("tracking", ["kept", "lost"])
def test_an_outcome_that_is_lost_is_kept_and_never_built_upon(rig, tracking):
    """The state directory is gone, with the only record of it: the point stays
    unpublished, and the next one holds all since the last that was: as an
    increment, while the tracking files keep both sides, else in full."""
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        wait_concluded(rig)
        kill_daemon(rig)
    labels, _ = run_until(rig, "after", "job-finalize", 1, kill)
    shutil.rmtree(rig.folder / "state")
    if tracking == "lost":
        lose_tracking(rig)
    rig.start_daemon()
    change(rig, 2)
    result = rig.backup()
    assert "not known" in result.stderr
    first, second = rig.points()
    assert set(rig.kinds().values()) == {
        "incremental" if tracking == "kept" else "full"}
    for disk in disks_of(rig, second).values():
        assert disk["previous"] == (first if tracking == "kept" else None)
    assert rig.partials() == labels
    change(rig, 3)
    result = rig.backup()
    assert "not known" in result.stderr and rig.partials() == labels
    assert rig.kinds() == BOTH
    rig.check_everything()


def lose_tracking(rig):
    for image in rig.images.values():
        image.with_name(image.name + ".cbt").unlink()


def test_a_base_tells_the_outcome_when_the_log_is_lost(rig):
    "Only a commit sets a base: the point that it names had been committed."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        wait_concluded(rig)
    labels, copies = run_until(rig, "after", "job-finalize", 1, kill)
    rig.daemon.quit()
    shutil.rmtree(rig.folder / "state")
    rig.start_daemon()
    result = go_on(rig, labels, copies)
    assert "published" in result.stderr
    assert len(rig.points()) == 4


def swap_disks(rig):
    images = rig.images
    images["disk-a"], images["disk-b"] = images["disk-b"], images["disk-a"]


def test_two_disks_swapped_in_the_configuration_go_full(rig):
    "Same names, same size, each with a bitmap of the right name: not its disk."
    os.truncate(rig.images["disk-b"], os.stat(rig.images["disk-a"]).st_size)
    rig.daemon.quit()
    rig.start_daemon()
    rig.backup()
    rig.daemon.quit()
    swap_disks(rig)
    rig.start_daemon()
    change(rig, 1)
    result = rig.backup()
    for disk in disks_of(rig).values():
        assert disk["kind"] == "full"
        assert "not the disk that point" in disk["reason"]
    assert "not the disk" in result.stdout
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()


def test_a_disk_that_was_rolled_back_goes_full_alone(rig):
    "Image and tracking file of before: its base is an older point's."
    rig.backup()
    change(rig, 1)
    rig.daemon.quit()
    old = rig.folder / "old"
    old.mkdir()
    for name in os.listdir(rig.folder):
        if name.startswith("b.raw"):
            subprocess.run(["cp", "-p", rig.folder / name, old], check=True)
    rig.start_daemon()
    rig.backup()
    rig.daemon.quit()
    for name in os.listdir(old):
        subprocess.run(["cp", "-p", old / name, rig.folder], check=True)
    rig.start_daemon()
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "full"}
    change(rig, 3)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()


def test_a_disk_that_comes_back_after_three_transactions(rig):
    "Absent when the outcome was settled: it learns it then, and goes on."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        wait_concluded(rig)
        kill_daemon(rig)
    labels, copies = run_until(rig, "after", "job-finalize", 1, kill)
    absent = rig.images.pop("disk-b")
    rig.start_daemon()
    for number in range(3):
        rig.write("disk-a", f"write -P {number + 40} {number}M 70k")
        rig.backup()
        assert rig.kinds() == {"disk-a": "incremental"}
    rig.keep_if_published(labels, copies)
    rig.images["disk-b"] = absent
    add_disk(rig.daemon, "disk-b", absent)
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()
    rig.check_nothing_left()
    check_forgotten(rig)


def test_a_transaction_that_someone_named_alike_decides_nothing(rig):
    "An id used again after the abort: the point is of the other, and goes."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        kill_daemon(rig)
    labels, copies = run_until(rig, "before", "job-finalize", 1, kill)
    restart(rig)
    use_again(rig, labels[0])
    result = rig.backup()
    assert "discarded" in result.stderr and len(rig.points()) == 2
    rig.check_everything()


def use_again(rig, label):
    "A committed transaction of the same id, on a bitmap of someone else's."
    qmp = rig.daemon.qmp
    qmp.command("block-dirty-bitmap-add", node="disk-a", name="theirs",
                persistent=True)
    sparse_image(rig.folder / "their.raw", os.stat(
        rig.images["disk-a"]).st_size)
    qmp.command("blockdev-add", {
        "driver": "file", "node-name": "their-target",
        "filename": str(rig.folder / "their.raw")})
    qmp.command("transaction", actions=[
        {"type": "blockdev-backup", "data": {
            "job-id": "theirs", "device": "disk-a", "target": "their-target",
            "sync": "full", "bitmap": "theirs",
            "bitmap-mode": "on-success"}}],
        properties={"completion-mode": "grouped",
                    "x-cohort-transaction-id": label})
    qmp.wait_event("BLOCK_JOB_COMPLETED")
    qmp.command("blockdev-del", node_name="their-target")
    assert {found["outcome"] for found in transactions(rig)
            if found["id"] == label} == {"committed", "aborted"}


def test_a_foreign_change_of_the_base_means_full(rig):
    "Someone cleared the bitmap: it is relative to nothing that anyone knows."
    rig.backup()
    change(rig, 1)
    name = disks_of(rig)["disk-a"]["bitmap"]
    rig.daemon.qmp.command("block-dirty-bitmap-clear", node="disk-a",
                           name=name)
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "incremental"}
    assert "relative to no backup" in disks_of(rig)["disk-a"]["reason"]
    rig.check_everything()


def test_the_manifest_tells_the_bases(rig):
    "What an increment demanded is what the point before it left."
    rig.backup()
    change(rig, 1)
    rig.backup()
    first, second = rig.points()
    assert rig.manifest(second)["txid"] != rig.manifest(first)["txid"]
    for name, disk in disks_of(rig, second).items():
        before = disks_of(rig, first)[name]
        assert before["previous-base"] is None
        assert disk["previous-base"] == before["base"]
        assert disk["base"] == {"txid": rig.manifest(second)["txid"],
                                "disk": before["base"]["disk"]}
        found = rig.daemon.qmp.bitmap(name, disk["bitmap"])
        assert found["x-cohort-base"] == [disk["base"]]


def test_a_client_that_died_leaves_nothing_pending_for_ever(rig):
    "Its jobs are cancelled by the next run, its id is forgotten."
    rig.backup()
    change(rig, 1)
    run_until(rig, "before", "job-finalize", 1, kill_and_drop)
    assert len(undecided(rig)) == 1
    rig.backup()
    assert rig.kinds() == BOTH and len(rig.points()) == 2
    rig.check_everything()
    rig.check_nothing_left()
    check_forgotten(rig)


def traced_backup(rig):
    "Its syncs and what it says, one line each, in order."
    trace = rig.folder / "trace"
    process = subprocess.run(
        ["strace", "-f", "-y", "-s", "400", "-o", trace,
         "-e", "trace=fsync,write,sendto,sendmsg",
         cohort_binary(), *map(str, rig.words())],
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert process.returncode == OK, process.stderr
    return trace.read_text().splitlines()


def test_what_is_found_is_synced_before_it_is_acknowledged(rig):
    """The run before may have died between the rename that publishes and the
    sync of the directory: the record must not go before the name is durable."""
    rig.backup()
    change(rig, 1)
    run_until(rig, "before", "x-cohort-acknowledge", 2, kill_and_drop)
    assert len(rig.points()) == 2
    lines = traced_backup(rig)
    acknowledged = next(i for i, line in enumerate(lines)
                        if "x-cohort-acknowledge" in line)
    synced = [line for line in lines[:acknowledged]
              if "fsync(" in line and f"<{rig.repo}>)" in line]
    assert synced, "\n".join(lines[:acknowledged])


def test_a_prepared_point_is_synced_before_it_is_published(rig):
    "Its manifest, its directory, then the name."
    rig.backup()
    change(rig, 1)

    def kill(process):
        kill_cohort(process)
        wait_concluded(rig)
    run_until(rig, "after", "job-finalize", 1, kill)
    partial, = [name for name in os.listdir(rig.repo)
                if name.startswith(".partial-")]
    lines = traced_backup(rig)
    published = next(i for i, line in enumerate(lines)
                     if "fsync(" in line and f"<{rig.repo}>)" in line)
    directory = rig.repo / partial
    for found in (directory / "manifest.json", directory):
        assert any("fsync(" in line and f"<{found}>)" in line
                   for line in lines[:published]), "\n".join(lines)


def test_status_does_not_wait_or_settle(rig):
    "It reads: a pending group and its point stay as they are."
    rig.backup()
    change(rig, 1)
    labels, _ = run_until(rig, "before", "job-finalize", 1,
                          kill_and_drop)
    assert undecided(rig) == labels
    result = rig.run("status", rig.repo, "--qmp", rig.daemon.qmp_path)
    assert result.returncode == OK, result.stderr
    assert "unfinished" in result.stdout
    assert rig.partials() == labels and undecided(rig) == labels


def test_status_tells_what_is_kept_and_recovered(rig):
    "Persistence, base and recovered bytes of each disk, as JSON."
    rig.backup()
    change(rig, 1)
    restart(rig)
    found = json.loads(rig.run("status", rig.repo, "--json", "--qmp",
                               rig.daemon.qmp_path, check=True).stdout)
    for disk in found["next"]:
        assert disk["record"] == "persistent"
        assert disk["base"] == disks_of(rig)[disk["node"]]["base"]
        assert disk["recovered"] >= 0
    text = rig.run("status", rig.repo, "--qmp", rig.daemon.qmp_path,
                   check=True).stdout
    assert "persistent" in text and rig.points()[0] in text


def test_leftovers_of_a_killed_daemon_do_not_block_the_next(folder, cohortd):
    "Same socket, pid file and state directory: it just starts."
    place = folder / "daemon"
    place.mkdir()
    words = [cohortd_binary(), "--pidfile", place / "pid", "--daemonize",
             "--state-dir", place / "state", "--chardev",
             f"socket,id=q,path={place}/q,server=on,wait=off", "--monitor",
             "chardev=q", "--nbd-server",
             f"addr.type=unix,addr.path={place}/n"]
    seen = set()
    for _ in range(3):
        result = subprocess.run(list(map(str, words)), text=True,
                                capture_output=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        pid = int((place / "pid").read_text())
        assert pid not in seen
        seen.add(pid)
        os.kill(pid, 9)
    assert {"pid", "q", "n"} <= set(os.listdir(place))
