# SPDX-License-Identifier: BSD-3-Clause
"""Transactions over persistent bitmaps: their outcomes survive the daemon."""
import pytest

from support.disks import (add_bitmap, add_disk, backup_action, dirty_bytes,
                           new_disk, new_target)
from support.images import KIB, MIB, qemu_io

SIZE = 4 * MIB
DISKS = ("a", "b", "c")


def start(cohortd, tmp_path):
    return cohortd("--state-dir", str(tmp_path / "state"), nbd=True)


@pytest.fixture
def daemon(cohortd, tmp_path):
    daemon = start(cohortd, tmp_path)
    for disk in DISKS:
        new_disk(daemon, disk, SIZE)
        add_bitmap(daemon, disk, persistent=True)
        qemu_io(daemon.nbd_uri(disk), "write -P 7 0 128k", "flush")
        new_target(daemon, f"{disk}-target", SIZE)
    return daemon


def again(cohortd, tmp_path, daemon, disks=DISKS):
    "A new daemon with disks of one that has ended."
    other = start(cohortd, tmp_path)
    for disk in disks:
        add_disk(other, disk, daemon.folder / f"{disk}.raw")
    return other


def run_group(daemon, label="L", disks=DISKS, **more):
    actions = [backup_action(disk, f"{disk}-target", sync="full", bitmap="b0",
                             bitmap_mode="on-success", **more)
               for disk in disks]
    return daemon.qmp.command(
        "transaction",
        {"actions": [{"type": kind, "data": data} for kind, data in actions],
         "properties": {"completion-mode": "grouped",
                        "x-cohort-transaction-id": label}})


def wait_all(daemon, disks=DISKS):
    return [daemon.qmp.wait_job_gone(f"job-{disk}")["event"]
            .rpartition("_")[2] for disk in disks]


def query(daemon, **which):
    return daemon.qmp.command("x-cohort-query-transactions", **which)


def bases(daemon, disks=DISKS):
    return [[base["txid"] for base in
             daemon.qmp.bitmap(disk, "b0")["x-cohort-base"]]
            for disk in disks]


def state_files(tmp_path):
    return sorted(path.name.rpartition(".")[2]
                  for path in (tmp_path / "state").glob("commit*"))


def test_a_committed_group_gives_all_bitmaps_its_base(daemon):
    "Base, outcome and members tell of the same transaction."
    run_group(daemon)
    assert wait_all(daemon) == ["COMPLETED"] * 3
    found, = query(daemon, id="L")
    assert found["outcome"] == "committed"
    assert bases(daemon) == [[found["txid"]]] * 3
    assert [(member["node"], member["job-id"], member["bitmap"])
            for member in found["members"]] == \
        [(disk, f"job-{disk}", "b0") for disk in DISKS]
    assert [dirty_bytes(daemon, disk) for disk in DISKS] == [0, 0, 0]


def test_the_outcome_can_be_asked_for_after_a_kill(daemon, cohortd, tmp_path):
    "kill -9 after success: committed, and the bases stand."
    run_group(daemon)
    assert wait_all(daemon) == ["COMPLETED"] * 3
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    found, = query(other, id="L")
    assert found["outcome"] == "committed"
    assert bases(other) == [[found["txid"]]] * 3


def test_a_group_killed_while_pending_has_aborted(daemon, cohortd, tmp_path):
    "Nothing was consumed, and the daemon that comes back says so."
    run_group(daemon, auto_finalize=False)
    for disk in DISKS:
        daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=f"job-{disk}")
    assert query(daemon, id="L")[0]["outcome"] == "pending"
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert query(other, id="L")[0]["outcome"] == "aborted"
    assert bases(other) == [[], [], []]
    assert all(dirty_bytes(other, disk) >= 128 * KIB for disk in DISKS)


def test_the_group_after_a_cancelled_one_finds_room(daemon):
    "Undone and frozen anew at once, with writes before each prepare."
    for number in range(6):
        run_group(daemon, label=f"L{number}", auto_finalize=False)
        for disk in DISKS:
            daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=f"job-{disk}")
            qemu_io(daemon.nbd_uri(disk),
                    f"write -P 8 {1024 + number * 64}k 64k")
        if number % 2 == 0:
            daemon.qmp.command("job-cancel", id="job-a")
            assert wait_all(daemon) == ["CANCELLED"] * 3
        else:
            daemon.qmp.command("job-finalize", id="job-a")
            assert wait_all(daemon) == ["COMPLETED"] * 3


def test_enabling_what_records_already_can_be_undone(daemon, cohortd,
                                                     tmp_path):
    "The group dies: the bitmap records as before, and keeps its base."
    run_group(daemon)
    wait_all(daemon)
    before = bases(daemon)
    kind, data = backup_action("a", "a-target", sync="full",
                               auto_finalize=False)
    daemon.qmp.transaction(
        (kind, data), *[("block-dirty-bitmap-enable",
                         {"node": disk, "name": "b0"}) for disk in DISKS],
        grouped=True)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    for disk in DISKS:  # makes durable what is undecided
        add_bitmap(daemon, disk, "b1", persistent=True)
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert all(other.qmp.bitmap(disk, "b0")["recording"] for disk in DISKS)
    assert bases(other) == before
    other.qmp.command("block-dirty-bitmap-enable", node="a", name="b0")
    assert bases(other) == before


def test_a_cancelled_group_has_aborted(daemon):
    "One cancel: all keep their bits, and the outcome says so."
    run_group(daemon, auto_finalize=False)
    for disk in DISKS:
        daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=f"job-{disk}")
    daemon.qmp.command("job-cancel", id="job-b")
    assert wait_all(daemon) == ["CANCELLED"] * 3
    assert query(daemon, id="L")[0]["outcome"] == "aborted"
    assert bases(daemon) == [[], [], []]
    assert all(dirty_bytes(daemon, disk) >= 128 * KIB for disk in DISKS)


def test_a_label_used_twice_tells_both_latest_first(daemon):
    "The first attempt aborts, the second commits."
    run_group(daemon, auto_finalize=False)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    daemon.qmp.command("job-cancel", id="job-a")
    wait_all(daemon)
    run_group(daemon)
    assert wait_all(daemon) == ["COMPLETED"] * 3
    assert [found["outcome"] for found in query(daemon, id="L")] == \
        ["committed", "aborted"]


def test_an_absent_disk_learns_the_outcome_when_it_comes_back(
        daemon, cohortd, tmp_path):
    "The record stays until the disk has been opened."
    run_group(daemon)
    wait_all(daemon)
    daemon.kill()
    other = again(cohortd, tmp_path, daemon, disks=("a", "b"))
    txid = query(other, id="L")[0]["txid"]
    other.qmp.command("x-cohort-acknowledge", id="L")
    add_disk(other, "c", daemon.folder / "c.raw")
    assert bases(other) == [[txid]] * 3


def test_what_all_have_acknowledged_leaves_nothing_behind(daemon, tmp_path):
    "After acknowledgement and a clean end only the list of runs is there."
    run_group(daemon)
    wait_all(daemon)
    daemon.qmp.command("x-cohort-acknowledge", id="L")
    daemon.quit()
    daemon.wait()
    assert state_files(tmp_path) == ["lock", "retired"]


def test_without_persistent_bitmaps_there_is_no_state(cohortd, tmp_path):
    "A group of transient bitmaps touches no state directory."
    daemon = start(cohortd, tmp_path)
    for disk in DISKS:
        new_disk(daemon, disk, SIZE)
        add_bitmap(daemon, disk)
        new_target(daemon, f"{disk}-target", SIZE)
    run_group(daemon)
    assert wait_all(daemon) == ["COMPLETED"] * 3
    assert query(daemon) == []
    assert not (tmp_path / "state").exists()


def test_who_does_not_know_says_unknown(daemon):
    "Asked for by name, and not there: unknown, without txid."
    assert query(daemon, id="never") == [
        {"id": "never", "outcome": "unknown", "members": []}]
    assert query(daemon) == []


def test_acknowledging_what_is_not_there_is_refused(daemon):
    "Misuse has its sentence."
    for arguments in ({"id": "never"}, {"txid": "0" * 31}, {}):
        assert daemon.qmp.error("x-cohort-acknowledge", arguments)
    run_group(daemon, auto_finalize=False)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    assert "not decided" in \
        str(daemon.qmp.error("x-cohort-acknowledge", id="L"))
    daemon.qmp.command("job-cancel", id="job-a")
    wait_all(daemon)


def base_of(daemon, disk):
    return daemon.qmp.bitmap(disk, "b0")["x-cohort-base"][0]


def increment(disk, base):
    return backup_action(disk, f"{disk}-target", sync="incremental",
                         bitmap="b0", **{"x-cohort-base": base})


def test_a_job_demands_a_base_and_gets_it_or_is_refused(daemon):
    "The right base is accepted; another disk's, an old one or none is not."
    run_group(daemon)
    wait_all(daemon)
    right, other = base_of(daemon, "a"), base_of(daemon, "b")
    kind, data = increment("a", other)
    assert "no difference" in str(daemon.qmp.error(kind, data))
    daemon.qmp.command("block-dirty-bitmap-disable", node="a", name="b0")
    kind, data = increment("a", right)
    assert "disabled" in str(daemon.qmp.error(kind, data))
    daemon.qmp.command("block-dirty-bitmap-enable", node="a", name="b0")
    assert "no difference" in str(daemon.qmp.error(kind, data))
    kind, data = increment("b", other)
    daemon.qmp.command(kind, data)
    assert wait_all(daemon, ("b",)) == ["COMPLETED"]
    assert base_of(daemon, "b")["txid"] != other["txid"]
    assert base_of(daemon, "b")["disk"] == other["disk"]


def test_changes_of_several_bitmaps_survive_a_kill_together(
        daemon, cohortd, tmp_path):
    "Clear on one disk, disable on another, remove on a third: one record."
    daemon.qmp.transaction(
        ("block-dirty-bitmap-clear", {"node": "a", "name": "b0"}),
        ("block-dirty-bitmap-disable", {"node": "b", "name": "b0"}),
        ("block-dirty-bitmap-remove", {"node": "c", "name": "b0"}))
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    assert dirty_bytes(other, "a") == 0
    assert not other.qmp.bitmap("b", "b0")["recording"]
    assert not any(found.get("name") == "b0" for found in
                   other.qmp.node("c").get("dirty-bitmaps", []))


def test_adding_and_disabling_on_three_disks_is_one_record(
        daemon, cohortd, tmp_path):
    "A checkpoint: a new bitmap on each disk, the old one stops."
    daemon.qmp.transaction(*[
        action for disk in DISKS for action in (
            ("block-dirty-bitmap-add",
             {"node": disk, "name": "b1", "persistent": True}),
            ("block-dirty-bitmap-disable", {"node": disk, "name": "b0"}))])
    daemon.kill()
    other = again(cohortd, tmp_path, daemon)
    for disk in DISKS:
        assert other.qmp.bitmap(disk, "b1")["recording"]
        assert not other.qmp.bitmap(disk, "b0")["recording"]
