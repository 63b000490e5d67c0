# SPDX-License-Identifier: BSD-3-Clause
"""When changes can no longer be recorded: guests go on, bitmaps do not lie."""
import os
import resource

import nbd
import pytest

from support.disks import add_bitmap, raw_options
from support.filesystem import Filesystem
from support.images import MIB, run, sparse_image
from support.trace_lines import events

SIZE = 16 * MIB


@pytest.fixture
def filesystem(folder):
    place = Filesystem(folder / "fs")
    yield place
    place.close()


def start(cohortd, path, state, tracking=None, **keywords):
    daemon = cohortd("--trace", "tracking_*", "--state-dir", state, nbd=True,
                     **keywords)
    more = {} if tracking is None else {"x-cohort-tracking": tracking}
    daemon.qmp.command("blockdev-add", raw_options("disk", path, **more))
    daemon.qmp.command("block-export-add", type="nbd", id="export-disk",
                       node_name="disk", name="disk", writable=True)
    return daemon


def connect(daemon):
    handle = nbd.NBD()
    handle.connect_uri(daemon.nbd_uri("disk"))
    return handle


def check_lost(daemon, durable):
    "The event, the query and the log all tell of it."
    data = daemon.qmp.wait_event("X_COHORT_TRACKING_FAILED")["data"]
    assert data["node-name"] == "disk" and data["durable"] is durable
    found = daemon.qmp.bitmap("disk", "b0")
    assert found["inconsistent"] and found["x-cohort-reason"] == data["reason"]
    assert ("must not be believed" in daemon.stderr()) is not durable
    assert events(daemon, "tracking_poisoned")[0]["durable"] == \
        str(int(durable))
    return data["reason"]


def lose_the_place(cohortd, folder, filesystem, policy):
    """A daemon whose tracking file and state directory lie on a file system that
    has failed, but not its image."""
    image = folder / "disk.raw"
    sparse_image(image, SIZE)
    tracking = {"location": "state-dir"}
    if policy is not None:
        tracking["on-tracking-error"] = policy
    daemon = start(cohortd, image, filesystem.path / "state", tracking)
    add_bitmap(daemon, "disk", persistent=True)
    filesystem.shut_down()
    return daemon, connect(daemon)


@pytest.mark.parametrize("policy", [None, "report"])
def test_writes_go_on_when_nothing_can_be_stored(cohortd, folder, filesystem,
                                                 policy):
    "By default; and it is said loudly that nobody may believe the bitmap."
    daemon, guest = lose_the_place(cohortd, folder, filesystem, policy)
    guest.pwrite(b"\1" * 512, 5 * MIB)
    guest.pwrite(b"\2" * 512, 9 * MIB)
    assert "cannot be written" in check_lost(daemon, durable=False)
    assert guest.pread(512, 9 * MIB) == b"\2" * 512
    guest.shutdown()


def test_writes_stop_if_the_user_wants_it_so(cohortd, folder, filesystem):
    "on-tracking-error=stop: none goes that a crash could hide; reads do."
    daemon, guest = lose_the_place(cohortd, folder, filesystem, "stop")
    for _ in range(2):
        with pytest.raises(nbd.Error) as error:
            guest.pwrite(b"\1" * 512, 5 * MIB)
        assert error.value.errno == "EIO"
    check_lost(daemon, durable=False)
    assert guest.pread(512, 5 * MIB) == bytes(512)
    guest.shutdown()
    assert (folder / "disk.raw").read_bytes() == bytes(SIZE)


def test_a_tombstone_outlives_the_file_that_lied(cohortd, folder, filesystem):
    """The tracking file cannot be written, nor unlinked, but its file system
    comes back as it was: the state directory says that it is lost."""
    image = folder / "disk.raw"
    sparse_image(image, SIZE)
    link = filesystem.path / "disk.raw"  # its tracking file is beside the link
    link.symlink_to(image)
    state = folder / "state"
    daemon = start(cohortd, link, state, {"on-tracking-error": "stop"})
    add_bitmap(daemon, "disk", persistent=True)
    os.sync()
    filesystem.shut_down()
    guest = connect(daemon)
    guest.pwrite(b"\1" * 512, 5 * MIB)  # for its loss is durable
    check_lost(daemon, durable=True)
    daemon.kill()
    filesystem.mount_again()
    assert link.with_name("disk.raw.cbt").exists()
    other = start(cohortd, link, state)
    found = other.qmp.bitmap("disk", "b0")
    assert found["inconsistent"] and "tracking failed" in \
        found["x-cohort-reason"]


@pytest.fixture
def limited(cohortd, folder):
    """A daemon that can write nothing beyond the first 4 KiB of any file from
    the moment that .limit() is called; it can unlink."""
    image = folder / "disk.raw"
    sparse_image(image, SIZE)
    daemon = start(cohortd, image, folder / "state",
                   wrapper=("env", "--ignore-signal=XFSZ"))
    daemon.image = image
    add_bitmap(daemon, "disk", persistent=True)
    daemon.limit = lambda: resource.prlimit(
        daemon.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return daemon


def test_a_file_that_cannot_be_written_is_not_believed_later(
        cohortd, folder, limited):
    "The loss is durable before the write goes; after a kill nothing is there."
    limited.limit()
    guest = connect(limited)
    guest.pwrite(b"\1" * 512, 0)
    assert guest.pread(512, 0) == b"\1" * 512
    assert "File too large" in check_lost(limited, durable=True)
    limited.kill()
    other = start(cohortd, limited.image, folder / "state")
    for found in other.qmp.node("disk").get("dirty-bitmaps", []):
        assert found["inconsistent"]


def test_a_verb_that_cannot_be_stored_fails_and_tells(limited):
    "clear is refused with the cause, and not half done."
    limited.limit()
    error = limited.qmp.error("block-dirty-bitmap-clear", node="disk",
                              name="b0")
    assert "File too large" in str(error)
    check_lost(limited, durable=True)


def test_a_job_does_not_consume_what_is_lost(limited):
    "An incremental backup is refused, with the reason."
    limited.limit()
    guest = connect(limited)
    guest.pwrite(b"\1" * 512, 0)
    check_lost(limited, durable=True)
    limited.qmp.command("blockdev-add", driver="null-co", node_name="target",
                        size=SIZE)
    error = limited.qmp.error("blockdev-backup", job_id="job", device="disk",
                              target="target", sync="incremental", bitmap="b0")
    assert "inconsistent" in str(error)


def test_a_job_that_runs_when_it_fails_fails_too(limited):
    "Prepare cannot be made durable: the group aborts, nothing is consumed."
    limited.qmp.command("blockdev-add", driver="null-co", node_name="target",
                        size=SIZE)
    limited.qmp.command("blockdev-backup", job_id="job", device="disk",
                        target="target", sync="full", bitmap="b0",
                        bitmap_mode="on-success", auto_finalize=False)
    limited.qmp.wait_event("BLOCK_JOB_PENDING", id="job")
    limited.limit()
    limited.qmp.command("job-finalize", id="job")
    assert "error" in limited.qmp.wait_job_gone("job")["data"]
    check_lost(limited, durable=True)


@pytest.fixture
def unwritable(folder):
    "Makes directories refuse new names and the end of old ones, for a while."
    changed = []

    def set_to(sign, *paths):
        for path in paths:
            run("chattr", f"{sign}i", path)
            changed.append(path)
    yield set_to
    for path in changed:
        run("chattr", "-i", path)


def test_a_bitmap_that_failed_can_be_removed_in_the_end(folder, limited,
                                                        unwritable):
    "Refused as long as its loss cannot be stored; then a new start is made."
    state = folder / "state"
    unwritable("+", folder, state)
    limited.limit()
    guest = connect(limited)
    guest.pwrite(b"\1" * 512, 0)
    check_lost(limited, durable=False)
    limited.qmp.error("block-dirty-bitmap-clear", node="disk", name="b0")
    unwritable("-", folder, state)
    limited.qmp.command("block-dirty-bitmap-remove", node="disk", name="b0")
    assert events(limited, "tracking_poisoned")[-1]["durable"] == "1"
    add_bitmap(limited, "disk")
    guest.pwrite(b"\1" * 512, 0)
    assert limited.qmp.bitmap("disk", "b0")["count"] == 64 * 1024
    guest.shutdown()


def test_a_node_that_is_opened_again_is_tracked_again(folder, limited):
    "After the trouble: remove, close, open, add; nobody restarts the daemon."
    limited.limit()
    guest = connect(limited)
    guest.pwrite(b"\1" * 512, 0)
    check_lost(limited, durable=True)
    guest.shutdown()
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    error = limited.qmp.error("block-dirty-bitmap-add", node="disk",
                              name="b1", persistent=True)
    assert "open it again" in str(error)
    limited.qmp.command("block-export-del", id="export-disk", mode="hard")
    limited.qmp.wait_event("BLOCK_EXPORT_DELETED")
    limited.qmp.command("blockdev-del", node_name="disk")
    limited.qmp.command("blockdev-add", raw_options("disk", limited.image))
    for found in limited.qmp.node("disk").get("dirty-bitmaps", []):
        limited.qmp.command("block-dirty-bitmap-remove", node="disk",
                            name=found["name"])
    add_bitmap(limited, "disk", persistent=True)
    assert "inconsistent" not in limited.qmp.bitmap("disk", "b0")
