# SPDX-License-Identifier: BSD-3-Clause
"""What ends though a disk hangs, and what is said of what cannot."""
import pathlib
import signal

import nbd
import pytest

from support.disks import add_disk, backup_action, new_disk, raw_options
from support.images import KIB, MIB, qemu_io
from support.waiting import wait_until


@pytest.fixture
def hung(cohortd, nbd_client, hanging_disk, request):
    """A daemon with a request under way in the disk `slow`, and an idle export
    of `quick`."""
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    add_disk(daemon, "slow", hanging_disk.path)
    new_disk(daemon, "quick", MIB)
    client = nbd_client(daemon.nbd_uri("slow"))
    hanging_disk.hang()
    client.aio_pread(nbd.Buffer(64 * KIB), 0)
    # It is under way when a later one, which is refused at once, is answered.
    client.set_strict_mode(client.get_strict_mode() & ~nbd.STRICT_BOUNDS)
    refused = client.aio_pread(nbd.Buffer(512), MIB)
    while True:
        try:
            if client.aio_command_completed(refused):
                break
        except nbd.Error:
            break
        client.poll(-1)
    return daemon


def says(daemon, *parts):
    """Waits for it to tell these on standard error."""
    def told():
        assert daemon.is_alive(), daemon.stderr()
        return all(part in daemon.stderr() for part in parts)
    wait_until(told, 30, f"{parts} in {daemon.stderr()}")


def test_stopping_tells_of_exports_before_it_returns(cohortd, nbd_client):
    "With clients connected, each BLOCK_EXPORT_DELETED precedes the reply."
    daemon = cohortd(nbd=True)
    for disk in "abc":
        new_disk(daemon, disk, MIB)
        nbd_client(daemon.nbd_uri(disk)).pread(512, 0)
    daemon.qmp.command("nbd-server-stop")
    gone = [event["data"]["id"] for event in daemon.qmp.events
            if event["event"] == "BLOCK_EXPORT_DELETED"]
    assert sorted(gone) == ["export-a", "export-b", "export-c"]


def test_stopping_does_not_wait_for_a_hung_disk(hung, hanging_disk):
    "It names the export, which shows as shutting down and goes in the end."
    error = hung.qmp.error("nbd-server-stop")
    assert "requests of export 'export-slow' of node 'slow'" in error.desc
    assert "quick" not in error.desc
    hung.qmp.wait_event("BLOCK_EXPORT_DELETED", id="export-quick")
    assert hung.qmp.command("query-block-exports") == [
        {"id": "export-slow", "type": "nbd", "node-name": "slow",
         "shutting-down": True}]
    assert "'export-slow'" in hung.qmp.error("nbd-server-stop").desc
    address = {"type": "unix", "data": {"path": hung.nbd_path}}
    assert "still stopping" in hung.qmp.error("nbd-server-start",
                                              addr=address).desc

    hanging_disk.go_on()
    hung.qmp.wait_event("BLOCK_EXPORT_DELETED", id="export-slow")
    hung.qmp.command("nbd-server-start", addr=address)
    hung.qmp.command("block-export-add", type="nbd", id="again",
                     node_name="slow")
    qemu_io(hung.nbd_uri("slow"), "read 0 64k", read_only=True)


def test_a_shutdown_tells_what_export_it_waits_for(hung, hanging_disk):
    "It goes on to a clean end when the disk does."
    hung.signal(signal.SIGTERM)
    says(hung, "waiting for requests of export 'export-slow' of node 'slow'")
    hanging_disk.go_on()
    assert hung.wait() == 0
    assert not pathlib.Path(hung.pidfile).exists()


def test_a_shutdown_tells_what_job_it_waits_for(cohortd, hanging_disk,
                                                request):
    daemon = cohortd(nbd=True)
    request.addfinalizer(hanging_disk.go_on)
    new_disk(daemon, "disk", MIB, seed=1)
    daemon.qmp.command("blockdev-add",
                       raw_options("target", hanging_disk.path))
    hanging_disk.hang()
    daemon.qmp.command(*backup_action("disk", "target"))
    # Returns with what it overwrote on its way to the target.
    qemu_io(daemon.nbd_uri("disk"), "write 0 64k")
    daemon.signal(signal.SIGTERM)
    says(daemon, "waiting for job 'job-disk' (running)")
    hanging_disk.go_on()
    assert daemon.wait() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_by_force(hung, hanging_disk, second):
    "Exit code 1, at once as far as the kernel lets go of the disk."
    hung.signal(signal.SIGTERM)
    hung.signal(signal.SIGHUP)  # does not count
    says(hung, "waiting for requests of export 'export-slow'")
    hung.signal(second)
    wait_until(lambda: "ended by force" in hung.stderr(), 30, "the word")
    hanging_disk.go_on()
    hung.expected_exit = 1
    assert hung.wait() == 1
