# SPDX-License-Identifier: BSD-3-Clause
"""`cohort` against qemu-storage-daemon: it speaks the same QMP."""
import json
import shutil

from support.disks import add_disk, raw_options
from support.images import MIB, assert_same, qemu_io, random_image


def hang_up(daemon):
    """QEMU serves one client of a monitor at a time."""
    daemon.qmp.close()
    daemon.client = None


def test_backups_of_qemus_daemon_are_full_and_right(folder, qsd, cohort):
    "Each point restores; nothing of ours stays in the daemon."
    daemon = qsd(nbd=True)
    path = folder / "disk.raw"
    random_image(path, 4 * MIB)
    add_disk(daemon, "disk", path)
    hang_up(daemon)
    for pattern in (1, 2):
        qemu_io(daemon.nbd_uri("disk"), f"write -P {pattern} 1M 100k")
        shutil.copy(path, folder / f"then{pattern}.raw")
        result = cohort("backup", folder / "repo", "--qmp", daemon.qmp_path,
                        "--disk", "disk", "--json", check=True)
        point = json.loads(result.stdout)
        assert point["disks"][0]["kind"] == "full"
        cohort("restore", folder / "repo", "--to", folder / f"out{pattern}",
               check=True)
        assert_same(folder / f"out{pattern}" / "disk.raw",
                    folder / f"then{pattern}.raw")
    assert "cannot tell" in point["disks"][0]["reason"]
    assert daemon.qmp.command("query-jobs") == []
    names = [node["node-name"]
             for node in daemon.qmp.command("query-named-block-nodes")]
    assert not [name for name in names if name.startswith("cohort-")]
    cohort("verify", folder / "repo", check=True)


def test_a_failed_target_of_qemus_daemon_leaves_nothing(folder, qsd, cohort):
    "A read error of the source ends the run with code 1 and no point."
    daemon = qsd(nbd=True)
    path = folder / "disk.raw"
    random_image(path, MIB)
    daemon.qmp.command("blockdev-add", {
        "driver": "blkdebug", "node-name": "disk",
        "image": raw_options("below", path),
        "inject-error": [{"event": "none", "iotype": "read", "errno": 5,
                          "sector": 256}]})
    hang_up(daemon)
    result = cohort("backup", folder / "repo", "--qmp", daemon.qmp_path,
                    "--disk", "disk")
    assert result.returncode == 1 and "disk" in result.stderr
    assert daemon.qmp.command("query-jobs") == []
    listing = json.loads(cohort("list", folder / "repo", "--json",
                                check=True).stdout)
    assert listing["points"] == []
