# SPDX-License-Identifier: BSD-3-Clause
"""The transaction command: all or nothing, at one instant."""
import pytest

from support.disks import (add_bitmap, backup_action, dirty_bytes,
                           failing_node, new_disk, new_target)
from support.images import KIB, MIB, assert_same, qemu_io

SIZE = 4 * MIB


@pytest.fixture
def daemon(cohortd):
    daemon = cohortd(nbd=True)
    for disk in ("a", "b"):
        new_disk(daemon, disk, SIZE, seed=1)
        add_bitmap(daemon, disk)
        qemu_io(daemon.nbd_uri(disk), "write -P 7 0 128k")
        new_target(daemon, f"{disk}-target", SIZE)
    return daemon


def incremental(disk, target=None, **more):
    return backup_action(disk, target or f"{disk}-target", sync="incremental",
                         bitmap="b0", **more)


def bitmap_action(verb, disk, name="b0", **more):
    return (f"block-dirty-bitmap-{verb}", {"node": disk, "name": name, **more})


def ends(daemon, *jobs):
    return [daemon.qmp.wait_job_gone(job)["event"].rpartition("_")[2]
            for job in jobs]


def test_a_group_that_succeeds_consumes_all_bitmaps(daemon):
    "Both jobs complete, both bitmaps start anew."
    daemon.qmp.transaction(incremental("a"), incremental("b"), grouped=True)
    assert ends(daemon, "job-a", "job-b") == ["COMPLETED", "COMPLETED"]
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [0, 0]


def test_a_group_that_fails_keeps_all_bitmaps_and_can_be_repeated(daemon):
    "One EIO: both jobs end, no bitmap lost, the same command succeeds later."
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.transaction(incremental("a"), incremental("b", "bad"),
                           grouped=True)
    first, second = (daemon.qmp.wait_job_gone(job) for job in
                     ("job-a", "job-b"))
    assert first["event"] == "BLOCK_JOB_CANCELLED"
    assert second["event"] == "BLOCK_JOB_COMPLETED"
    assert "error" in second["data"]
    for disk in "ab":
        assert dirty_bytes(daemon, disk) == 128 * KIB
        assert not daemon.qmp.bitmap(disk, "b0")["busy"]
    qemu_io(daemon.nbd_uri("a"), "write -P 9 1M 64k")

    daemon.qmp.transaction(incremental("a"), incremental("b"), grouped=True)
    assert ends(daemon, "job-a", "job-b") == ["COMPLETED", "COMPLETED"]
    qemu_io(daemon.folder / "a-target.raw", "read -P 7 0 128k",
            "read -P 9 1M 64k", read_only=True)
    qemu_io(daemon.folder / "b-target.raw", "read -P 7 0 128k",
            read_only=True)


def test_a_member_without_work_still_waits_for_the_others(daemon):
    "A job that is done at once ends cancelled when a peer fails."
    daemon.qmp.command("block-dirty-bitmap-clear", node="a", name="b0")
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.transaction(incremental("a"), incremental("b", "bad"),
                           grouped=True)
    assert ends(daemon, "job-a", "job-b") == ["CANCELLED", "COMPLETED"]


@pytest.mark.parametrize("whom", ["job-a", "job-b"])
def test_cancelling_one_cancels_all(daemon, whom):
    "A cancelled member takes the group down, and bitmaps stay."
    daemon.qmp.transaction(incremental("a"),
                           backup_action("b", "b-target", speed=1, bitmap="b0",
                                         bitmap_mode="on-success"),
                           grouped=True)
    daemon.qmp.command("job-cancel", id=whom)
    assert ends(daemon, "job-a", "job-b") == ["CANCELLED", "CANCELLED"]
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [128 * KIB] * 2


def test_individual_jobs_end_each_by_itself(daemon):
    "Without a group one fails and the other succeeds."
    daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.transaction(incremental("a"), incremental("b", "bad"))
    assert ends(daemon, "job-a", "job-b") == ["COMPLETED", "COMPLETED"]
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [0, 128 * KIB]


def test_finalizing_one_finalizes_the_group(daemon):
    "A group waits in pending for one job-finalize, on any member."
    daemon.qmp.transaction(incremental("a"),
                           incremental("b", auto_finalize=False),
                           grouped=True)
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-b")
    assert {job["status"] for job in daemon.qmp.command("query-jobs")} == \
        {"pending"}
    daemon.qmp.command("job-finalize", id="job-a")
    assert ends(daemon, "job-a", "job-b") == ["COMPLETED", "COMPLETED"]


@pytest.mark.parametrize("actions", [
    [bitmap_action("add", "a", "new")],
    [bitmap_action("clear", "a")],
    [bitmap_action("remove", "a")],
    [bitmap_action("disable", "a")],
    [incremental("a")],
    [incremental("a"), incremental("b"), bitmap_action("add", "b", "new")],
])
def test_an_abort_undoes_everything_before_it(daemon, actions):
    "After a transaction that ends in abort all is as it was."
    before = daemon.qmp.command("query-named-block-nodes")
    with pytest.raises(Exception, match="abort"):
        daemon.qmp.transaction(*actions, ("abort", {}))
    assert daemon.qmp.command("query-named-block-nodes") == before
    assert daemon.qmp.command("query-jobs") == []
    daemon.qmp.transaction(incremental("a"))
    daemon.qmp.wait_job_gone("job-a")


def test_later_actions_see_earlier_ones(daemon):
    "Add, merge into it, remove the old one: one step."
    daemon.qmp.transaction(
        bitmap_action("add", "a", "new", disabled=True),
        ("block-dirty-bitmap-merge",
         {"node": "a", "target": "new", "bitmaps": ["b0"]}),
        bitmap_action("remove", "a"),
        bitmap_action("add", "a", granularity=4096))
    assert dirty_bytes(daemon, "a", "new") == 128 * KIB
    assert daemon.qmp.bitmap("a", "b0")["granularity"] == 4096
    assert dirty_bytes(daemon, "a") == 0


def test_merge_across_nodes_and_threads(daemon):
    "Bits of one disk's bitmap go to another disk's."
    qemu_io(daemon.nbd_uri("b"), "write 1M 64k")
    daemon.qmp.command("block-dirty-bitmap-merge", node="a", target="b0",
                       bitmaps=[{"node": "b", "name": "b0"}])
    assert dirty_bytes(daemon, "a") == 192 * KIB


def test_clear_and_full_backup_start_a_chain(daemon):
    "Clear and full backup at one instant; then increments go on from there."
    daemon.qmp.transaction(bitmap_action("clear", "a"),
                           backup_action("a", "a-target", "job-a"))
    daemon.qmp.wait_job_gone("job-a")
    qemu_io(daemon.nbd_uri("a"), "write -P 3 3M 64k")
    daemon.qmp.transaction(incremental("a"))
    daemon.qmp.wait_job_gone("job-a")
    assert_same(daemon.folder / "a.raw", daemon.folder / "a-target.raw")


@pytest.mark.parametrize("actions, word", [
    ([bitmap_action("remove", "a"), bitmap_action("clear", "a")], "b0"),
    ([bitmap_action("add", "a", "n"), bitmap_action("add", "a", "n")], "'n'"),
    ([incremental("a"), bitmap_action("clear", "a")], "job-a"),
    ([incremental("a"), incremental("b", "a-target")], "job-a"),
    ([incremental("a"), incremental("b", job="job-a")], "job-a"),
    ([incremental("a"), incremental("b", "nowhere")], "nowhere"),
])
def test_actions_that_contradict_each_other_are_refused(daemon, actions, word):
    "The second action's error is the reply, and nothing of the first stays."
    before = daemon.qmp.command("query-named-block-nodes")
    with pytest.raises(Exception, match=word):
        daemon.qmp.transaction(*actions)
    assert daemon.qmp.command("query-named-block-nodes") == before
    assert daemon.qmp.command("query-jobs") == []


def run_group(daemon, *actions, fails):
    """Runs a grouped transaction that backs up disk a, and b to a good or a
    bad target; returns when both jobs are gone."""
    if fails:
        daemon.qmp.command("blockdev-add", failing_node("bad", SIZE))
    daemon.qmp.transaction(
        *actions, backup_action("a", "a-target"),
        backup_action("b", "bad" if fails else "b-target"), grouped=True)
    ends(daemon, "job-a", "job-b")


def bitmaps(daemon, disk):
    return {entry["name"]: (entry["count"] // KIB, entry["recording"],
                            entry["busy"])
            for entry in daemon.qmp.node(disk).get("dirty-bitmaps", [])}


BEFORE = {"b0": (128, True, False)}


@pytest.mark.parametrize("action, succeeded, failed", [
    (bitmap_action("add", "a", "new"),
     {**BEFORE, "new": (0, True, False)}, BEFORE),
    (bitmap_action("clear", "a"), {"b0": (0, True, False)}, BEFORE),
    (bitmap_action("remove", "a"), {}, BEFORE),
    (bitmap_action("disable", "a"), {"b0": (128, False, False)}, BEFORE),
    (bitmap_action("enable", "a"), BEFORE, BEFORE),
    (("block-dirty-bitmap-merge",
      {"node": "a", "target": "b0", "bitmaps": [{"node": "b", "name": "b0"}]}),
     {"b0": (256, True, False)}, BEFORE),
])
def test_bitmap_actions_share_the_fate_of_their_group(daemon, action,
                                                      succeeded, failed):
    "What a grouped transaction does to a bitmap stands or falls with its jobs."
    daemon.qmp.command("block-dirty-bitmap-clear", node="b", name="b0")
    qemu_io(daemon.nbd_uri("b"), "write 1M 128k")
    run_group(daemon, action, fails=True)
    assert bitmaps(daemon, "a") == failed
    daemon.qmp.command("blockdev-del", node_name="bad")
    run_group(daemon, action, fails=False)
    assert bitmaps(daemon, "a") == succeeded


def test_a_full_backup_that_fails_does_not_cost_the_old_chain(daemon):
    "Clear and full backup of many disks is one step that can fail whole."
    clears = [bitmap_action("clear", disk) for disk in "ab"]
    run_group(daemon, *clears, fails=True)
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [128 * KIB] * 2
    run_group(daemon, *clears, fails=False)
    assert [dirty_bytes(daemon, disk) for disk in "ab"] == [0, 0]


def test_writes_during_a_group_are_in_its_bitmaps(daemon):
    "Whatever becomes of the group, writes after the instant are recorded."
    for verdict in ("cancel", "finalize"):
        daemon.qmp.transaction(
            bitmap_action("clear", "a"), bitmap_action("add", "a", verdict),
            backup_action("a", "a-target", auto_finalize=False), grouped=True)
        daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
        qemu_io(daemon.nbd_uri("a"), "write 2M 64k")
        daemon.qmp.command(f"job-{verdict}", id="job-a")
        daemon.qmp.wait_job_gone("job-a")
        after = {"cancel": {"b0": (192, True, False)},
                 "finalize": {"b0": (64, True, False),
                              "finalize": (64, True, False)}}
        assert bitmaps(daemon, "a") == after[verdict]


def test_a_bitmap_in_an_undecided_group_is_busy(daemon):
    "Until the group ends its bitmaps and nodes are held, and errors say so."
    daemon.qmp.transaction(
        bitmap_action("add", "a", "new"), bitmap_action("remove", "b"),
        backup_action("a", "a-target", auto_finalize=False), grouped=True)
    for disk, name in (("a", "new"), ("b", "b0")):
        error = daemon.qmp.error("block-dirty-bitmap-clear", node=disk,
                                 name=name)
        assert "job-a" in error.desc
    daemon.qmp.command("block-export-del", id="export-b", mode="hard")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED", id="export-b")
    assert "job-a" in daemon.qmp.error("blockdev-del", node_name="b").desc
    daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
    daemon.qmp.command("job-finalize", id="job-a")
    daemon.qmp.wait_job_gone("job-a")
    assert bitmaps(daemon, "b") == {}
    daemon.qmp.command("blockdev-del", node_name="b")


def test_a_new_bitmap_can_be_used_in_its_own_group(daemon):
    "Added, merged into and consumed by one grouped transaction."
    merge = ("block-dirty-bitmap-merge",
             {"node": "a", "target": "new", "bitmaps": ["b0"]})
    for verdict, left in (("cancel", BEFORE),
                          ("finalize", {**BEFORE, "new": (0, True, False)})):
        daemon.qmp.transaction(
            bitmap_action("add", "a", "new"), merge,
            backup_action("a", "a-target", sync="incremental", bitmap="new",
                          auto_finalize=False), grouped=True)
        end = daemon.qmp.wait_event("BLOCK_JOB_PENDING", id="job-a")
        daemon.qmp.command(f"job-{verdict}", id="job-a")
        end = daemon.qmp.wait_job_gone("job-a")
        assert end["data"]["len"] == 128 * KIB
        assert bitmaps(daemon, "a") == left


def test_a_group_without_jobs_is_done_at_once(daemon):
    "Bitmap actions alone have no one to wait for."
    daemon.qmp.transaction(bitmap_action("clear", "a"),
                           bitmap_action("remove", "b"), grouped=True)
    assert bitmaps(daemon, "a") == {"b0": (0, True, False)}
    assert bitmaps(daemon, "b") == {}


def test_a_grouped_abort_undoes_prepared_bitmap_changes(daemon):
    "A grouped transaction that fails to prepare leaves nothing held."
    with pytest.raises(Exception, match="abort"):
        daemon.qmp.transaction(
            bitmap_action("add", "a", "new"), bitmap_action("clear", "a"),
            bitmap_action("remove", "b"), backup_action("a", "a-target"),
            ("abort", {}), grouped=True)
    assert bitmaps(daemon, "a") == BEFORE
    assert bitmaps(daemon, "b") == BEFORE


def test_an_empty_transaction_succeeds(daemon):
    "Nothing to do is done."
    daemon.qmp.transaction()
    daemon.qmp.transaction(grouped=True)


def test_a_thousand_actions(daemon):
    "1,000 bitmaps are added in one step, and removed in another."
    names = [f"n{index}" for index in range(1000)]
    daemon.qmp.transaction(*(bitmap_action("add", "a", name)
                             for name in names))
    assert len(daemon.qmp.node("a")["dirty-bitmaps"]) == 1001
    daemon.qmp.transaction(*(bitmap_action("remove", "a", name)
                             for name in names))
    assert len(daemon.qmp.node("a")["dirty-bitmaps"]) == 1


def test_unknown_actions_and_modes_are_refused(daemon):
    "The error names the word that is not known."
    assert "explode" in daemon.qmp.error(
        "transaction", actions=[{"type": "explode", "data": {}}]).desc
    assert "sometimes" in daemon.qmp.error(
        "transaction", actions=[],
        properties={"completion-mode": "sometimes"}).desc
    assert "data" in daemon.qmp.error(
        "transaction", actions=[{"type": "abort"}]).desc
