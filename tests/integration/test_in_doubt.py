# SPDX-License-Identifier: BSD-3-Clause
"""The record that decides a group cannot be synced: real disks that fail under
the state directory, and what daemon, bitmaps and `cohort` make of it."""
import threading

import pytest

from support.disks import (add_bitmap, add_disk, backup_action, dirty_bytes,
                           new_disk, new_target)
from support.failing import FailingFilesystem
from support.images import KIB, MIB, qemu_io
from test_cli_backup import OK, Rig, change
from test_cli_crash import BOTH, disks_of, kill_cohort, transactions

SIZE = 4 * MIB
DISKS = ("a", "b", "c")


@pytest.fixture
def state(folder, background):
    place = FailingFilesystem(folder / "failing", background)
    yield place
    place.close()


def start(cohortd, state):
    return cohortd("--state-dir", str(state.path / "state"), nbd=True)


@pytest.fixture
def pending(state, cohortd):
    "A group over three disks, all of whose work is done."
    daemon = start(cohortd, state)
    for disk in DISKS:
        new_disk(daemon, disk, SIZE)
        add_bitmap(daemon, disk, persistent=True)
        qemu_io(daemon.nbd_uri(disk), "write -P 7 0 128k", "flush")
        new_target(daemon, f"{disk}-target", SIZE)
    daemon.qmp.command(
        "transaction",
        {"actions": [{"type": kind, "data": data} for kind, data in (
            backup_action(disk, f"{disk}-target", sync="incremental",
                          bitmap="b0", auto_finalize=False)
            for disk in DISKS)],
         "properties": {"completion-mode": "grouped",
                        "x-cohort-transaction-id": "L"}})
    for disk in DISKS:
        daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=f"job-{disk}")
    return daemon


def outcome(daemon):
    found, = daemon.qmp.command("x-cohort-query-transactions", id="L")
    return found["outcome"]


def get_into_doubt(daemon, state):
    state.fail()
    daemon.qmp.command("job-finalize", id="job-a")
    event = daemon.qmp.wait_event("X_COHORT_TRANSACTION_IN_DOUBT")
    assert event["data"]["id"] == "L"
    assert outcome(daemon) == "in-doubt"


def test_when_the_sync_of_commit_fails_no_end_is_told(state, pending):
    "Jobs stay, nothing is consumed; once ABORT is durable all have failed."
    get_into_doubt(pending, state)
    assert len(pending.qmp.command("query-jobs")) == 3
    for disk in DISKS:
        assert pending.qmp.bitmap(disk, "b0")["busy"]
    state.mend()
    for disk in DISKS:
        end = pending.qmp.wait_job_gone(f"job-{disk}")
        assert end["event"] == "BLOCK_JOB_CANCELLED" or "error" in end["data"]
    assert outcome(pending) == "aborted"
    assert all(dirty_bytes(pending, disk) == 128 * KIB for disk in DISKS)


@pytest.mark.parametrize("absent", [(), ("b",)])
def test_killed_in_doubt_all_disks_end_alike(state, pending, cohortd, absent):
    "What the log holds decides for all, and for one that comes later."
    get_into_doubt(pending, state)
    pending.kill()
    state.mend()
    other = start(cohortd, state)
    for disk in DISKS:
        if disk not in absent:
            add_disk(other, disk, pending.folder / f"{disk}.raw")
    told = outcome(other)
    assert told in ("aborted", "committed")
    for disk in absent:
        add_disk(other, disk, pending.folder / f"{disk}.raw")
    for disk in DISKS:
        found = other.qmp.bitmap(disk, "b0")
        assert "inconsistent" not in found
        assert bool(found["x-cohort-base"]) == (told == "committed")
        assert told == "committed" or found["count"] >= 128 * KIB
    assert outcome(other) == told


def test_changes_let_go_in_doubt_lose_no_bit(state, cohortd):
    """The daemon ends and nobody knows: enabling and merging stand, as they would
    if the group was committed, and do no harm if it was not."""
    daemon = start(cohortd, state)
    for disk in ("a", "b"):
        new_disk(daemon, disk, SIZE)
        add_bitmap(daemon, disk, persistent=True)
        qemu_io(daemon.nbd_uri(disk), "write -P 7 0 128k", "flush")
    add_bitmap(daemon, "b", "off", persistent=True, disabled=True)
    add_bitmap(daemon, "b", "sum", persistent=True)
    new_target(daemon, "a-target", SIZE)
    kind, data = backup_action("a", "a-target", sync="incremental",
                               bitmap="b0", auto_finalize=False)
    actions = [(kind, data),
               ("block-dirty-bitmap-enable", {"node": "b", "name": "off"}),
               ("block-dirty-bitmap-merge",
                {"node": "b", "target": "sum", "bitmaps": ["b0"]})]
    daemon.qmp.command(
        "transaction",
        {"actions": [{"type": kind, "data": data} for kind, data in actions],
         "properties": {"completion-mode": "grouped",
                        "x-cohort-transaction-id": "L"}})
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    get_into_doubt(daemon, state)
    daemon.quit()
    state.mend()
    other = start(cohortd, state)
    add_disk(other, "b", daemon.folder / "b.raw")
    for name, count in (("off", 0), ("sum", 128 * KIB)):
        found = other.qmp.bitmap("b", name)
        assert "inconsistent" not in found and found["x-cohort-base"] == []
        assert found["recording"] and found["count"] == count


# The same through `cohort`.

@pytest.fixture
def rig(state, folder, cohortd, cohort):
    class OnFailingState(Rig):
        def start_daemon(self):
            self.state_options = ("--state-dir", str(state.path / "state"))
            super().start_daemon()
    return OnFailingState(folder, cohortd, cohort)


def start_into_doubt(rig, state):
    """A run that waits, and says so; the failure comes with its job-finalize. The
    log has nothing else to take down by then: what failed before COMMIT would
    fail the backup without a doubt."""
    rig.backup()
    rig.daemon.quit()
    rig.start_daemon()
    change(rig, 1)
    rig.proxy.before("job-finalize", state.fail)
    copies = rig.snapshot()
    process = rig.start()
    said = threading.Event()
    lines = []

    def read():
        for line in process.stderr:
            lines.append(line)
            if "in doubt" in line:
                said.set()
    reader = threading.Thread(target=read)
    reader.start()
    assert said.wait(60), lines
    rig.proxy.clear()
    return process, reader, lines, copies


def test_a_backup_in_doubt_waits_and_tells_the_end(rig, state):
    "One line; when the disk works again the run ends, and nothing is lost."
    process, reader, lines, _ = start_into_doubt(rig, state)
    assert sum("in doubt" in line for line in lines) == 1
    state.mend()
    assert process.wait(60) != OK
    reader.join()
    process.stdout.close()
    assert len(rig.points()) == 1 and rig.partials() == []
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == BOTH
    rig.check_everything()
    rig.check_nothing_left()


def test_a_backup_that_finds_a_group_in_doubt_settles_it(rig, state):
    "The client died meanwhile: the next one says so in a line, and goes on."
    process, reader, _, copies = start_into_doubt(rig, state)
    kill_cohort(process)
    reader.join()
    process.stdout.close()
    labels = rig.partials()
    assert len(labels) == 1
    change(rig, 2)
    rig.proxy.after("x-cohort-query-transactions", state.mend, nth=2)
    result = rig.backup()
    assert result.stderr.count("in doubt about the outcome of") == 1
    assert "discarded the unfinished" in result.stderr
    assert rig.kinds() == BOTH
    rig.keep_if_published(labels, copies)
    rig.check_everything()
    rig.check_nothing_left()


def test_a_daemon_killed_in_doubt_is_settled_by_the_next_run(rig, state):
    """Between prepare and commit: after the restart one line says what became of
    the point, and one, if anything was, what was recovered."""
    process, reader, _, copies = start_into_doubt(rig, state)
    kill_cohort(process)
    reader.join()
    process.stdout.close()
    labels = rig.partials()
    rig.daemon.kill()
    state.mend()
    rig.start_daemon()
    told = [found["outcome"] for found in transactions(rig)
            if found["id"] == labels[0]]
    change(rig, 2)
    result = rig.backup()
    assert result.stderr.count("recovered the record of changes") <= 1
    assert result.stderr.count("discarded the unfinished") == \
        told.count("aborted")
    assert result.stderr.count("published it") == told.count("committed")
    assert len(told) == 1 and len(rig.points()) == 2 + told.count("committed")
    rig.keep_if_published(labels, copies)
    assert rig.kinds() == BOTH
    rig.check_everything()
    rig.check_nothing_left()


def test_the_bases_after_it_are_those_of_the_newest_point(rig, state):
    "What was in doubt left no half of itself in the bitmaps."
    process, reader, _, _ = start_into_doubt(rig, state)
    state.mend()
    process.wait(60)
    reader.join()
    process.stdout.close()
    rig.backup()
    for name, disk in disks_of(rig).items():
        found = rig.daemon.qmp.bitmap(name, disk["bitmap"])
        assert found["x-cohort-base"] == [disk["base"]]
