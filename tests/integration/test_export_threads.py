# SPDX-License-Identifier: BSD-3-Clause
"""Which thread serves an export: iothread and fixed-iothread.

Where a node lives shows in object-del, which refuses to end a thread that is a
node's home, and names the node."""
import pytest

from support.disks import backup_action, new_disk, new_target
from support.images import KIB, MIB, qemu_io


@pytest.fixture
def daemon(cohortd):
    """Nodes go to the threads in turn: `disk` is on i0."""
    daemon = cohortd("--object", "iothread,id=i0", "--object",
                     "iothread,id=i1", nbd=True)
    new_disk(daemon, "disk", MIB, seed=1, export=False)
    return daemon


def lives_on(daemon, thread, node):
    return f"'{node}'" in daemon.qmp.error("object-del", id=thread).desc


def export(daemon, node, **more):
    return {"type": "nbd", "id": f"export-{node}", "node-name": node,
            "writable": True,
            **{key.replace("_", "-"): value for key, value in more.items()}}


def test_an_export_takes_its_node_to_the_thread_it_names(daemon):
    "The node moves, the thread it left can go, and the export works."
    daemon.qmp.command("block-export-add",
                       export(daemon, "disk", iothread="i1"))
    assert lives_on(daemon, "i1", "disk")
    daemon.qmp.command("object-del", id="i0")
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 0 64k", "read -P 7 0 64k")


def test_an_unknown_thread_is_refused_by_name(daemon):
    "No export is made, and the node stays."
    error = daemon.qmp.error("block-export-add",
                             export(daemon, "disk", iothread="i7"))
    assert "no iothread named 'i7'" in error.desc
    assert "export-disk" in error.desc
    assert daemon.qmp.command("query-block-exports") == []
    assert lives_on(daemon, "i0", "disk")


def test_the_option_takes_a_thread_as_the_command_does(cohortd):
    "--export with iothread= and fixed-iothread=on."
    daemon = cohortd(
        "--object", "iothread,id=i0", "--object", "iothread,id=i1",
        "--blockdev", "null-co,node-name=disk,size=1M", "--export",
        "nbd,id=e,node-name=disk,iothread=i1,fixed-iothread=on", nbd=True)
    assert lives_on(daemon, "i1", "disk")


def test_a_node_that_cannot_move_stays_or_is_refused(daemon):
    "Best effort without fixed-iothread; with it, the reason."
    daemon.qmp.command("block-export-add",
                       export(daemon, "disk", fixed_iothread=True))
    second = export(daemon, "disk", iothread="i1")
    second.update(id="second", name="second")
    daemon.qmp.command("block-export-add", second)
    assert lives_on(daemon, "i0", "disk")
    third = {**second, "id": "third", "name": "third", "fixed-iothread": True}
    error = daemon.qmp.error("block-export-add", third)
    assert "Cannot export 'third' from iothread 'i1'" in error.desc
    assert "export 'export-disk'" in error.desc
    assert len(daemon.qmp.command("query-block-exports")) == 2


def test_a_fixed_export_makes_the_other_side_move(daemon):
    "A backup brings the target to the disk; when both are fixed it is refused."
    daemon.qmp.command("block-export-add",
                       export(daemon, "disk", fixed_iothread=True))
    new_target(daemon, "target", MIB)
    assert lives_on(daemon, "i1", "target")
    daemon.qmp.command(*backup_action("disk", "target"))
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    daemon.qmp.command("object-del", id="i1")

    daemon.qmp.command("object-add", qom_type="iothread", id="i2")
    new_disk(daemon, "other", MIB, export=False)
    other = export(daemon, "other", iothread="i2", fixed_iothread=True)
    other["writable"] = False
    daemon.qmp.command("block-export-add", other)
    error = daemon.qmp.error(*backup_action("disk", "other"))
    assert "cannot move to another thread" in error.desc
    daemon.qmp.command("block-export-del", id="export-other")
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED", id="export-other")
    daemon.qmp.command(*backup_action("disk", "other"))
    assert "error" not in daemon.qmp.wait_job_gone("job-disk")["data"]
    qemu_io(daemon.nbd_uri("disk"), f"write 0 {64 * KIB}")
