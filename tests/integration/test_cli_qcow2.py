# SPDX-License-Identifier: BSD-3-Clause
"""`cohort` with disks that are qcow2 images: one over a backing file, with small
clusters; one with large ones."""
import json

import pytest

from support.chains import add_qcow2
from support.create import create_qcow2
from support.images import (KIB, MIB, TIB, allocated_bytes, assert_same,
                            qemu_img, qemu_io, random_image)
from support.qmp_proxy import QmpProxy
from test_cli_backup import OTHER_SIZE, SIZE, Rig, change


class Qcow2Rig(Rig):
    def start_daemon(self):
        self.daemon = self.new_daemon(nbd=True)
        base = random_image(self.folder / "base.raw", SIZE // 2, seed=3)
        create_qcow2(self.daemon, self.images["disk-a"], SIZE,
                     backing_file=base, backing_fmt="raw",
                     cluster_size=4 * KIB)
        create_qcow2(self.daemon, self.images["disk-b"], OTHER_SIZE,
                     cluster_size=256 * KIB)
        for name, path in self.images.items():
            add_qcow2(self.daemon, name, path)
        proxies = self.folder / "p"
        proxies.mkdir()
        self.proxy = QmpProxy(proxies, self.daemon.qmp_path)

    def snapshot(self):
        """What the disks hold now, as a guest sees them."""
        copies = {}
        for name in self.images:
            self.copies += 1
            copies[name] = self.folder / f"copy{self.copies}.raw"
            qemu_img("convert", "-O", "raw", self.daemon.nbd_uri(name),
                     copies[name])
        return copies


@pytest.fixture
def rig(folder, cohortd, cohort):
    return Qcow2Rig(folder, cohortd, cohort)


def test_points_of_qcow2_disks(rig):
    "A full point and increments restore, verify, and convert without us."
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    for seed in range(1, 5):
        change(rig, seed)
        rig.backup()
        assert rig.kinds() == {"disk-a": "incremental",
                               "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()
    listed = json.loads(rig.run("list", rig.repo, "--json", check=True).stdout)
    assert len(listed["points"]) == 5


def test_a_large_sparse_disk_makes_small_points(folder, cohortd, cohort):
    "1 TiB with little on it: each point takes what it holds."
    daemon = cohortd(nbd=True)
    path = create_qcow2(daemon, folder / "huge.qcow2", TIB)
    add_qcow2(daemon, "huge", path)
    repo = folder / "repo"
    uri = daemon.nbd_uri("huge")
    for number in range(2):
        qemu_io(uri, *(f"write -P 5 {place * TIB // 8 + number * MIB} 64k"
                       for place in range(8)))
        cohort("backup", repo, "--qmp", daemon.qmp_path, check=True)
    images = sorted(repo.glob("*/huge.qcow2"), key=lambda path: path.parent)
    assert len(images) == 2
    for image in images:
        qemu_img("check", "-q", image)
        assert allocated_bytes(image) < 16 * MIB
    said = qemu_img("compare", "-f", "qcow2", "-F", "raw", images[1], uri)
    assert said.startswith("Images are identical")


def test_a_point_can_be_a_guest_disk(rig):
    "An image of a repository opens in cohortd, with all that it builds on."
    rig.backup()
    change(rig, 2)
    rig.backup()
    point = rig.points()[-1]
    qmp = rig.daemon.connect()
    qmp.command("blockdev-add", {
        "driver": "qcow2", "node-name": "old", "read-only": True,
        "file": {"driver": "file",
                 "filename": str(rig.repo / point / "disk-a.qcow2")}})
    qmp.command("block-export-add", type="nbd", id="old", node_name="old",
                name="old")
    plain = rig.folder / "plain.raw"
    qemu_img("convert", "-O", "raw", rig.daemon.nbd_uri("old"), plain)
    assert_same(plain, rig.kept[point]["disk-a"])
    qmp.close()


def test_compressed_points_restore_and_verify(rig):
    """--compress, each time or at times: points of either kind build on each
    other, and qemu-img reads them alone."""
    for seed, options in enumerate([["--compress"], ["--compress"], [],
                                    ["--compress", "--full"], ["--compress"]]):
        change(rig, seed + 1)
        rig.backup(*options)
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()
    for number, point in enumerate(rig.points()):
        image = rig.repo / point / "disk-b.qcow2"
        found = json.loads(qemu_img("check", "--output=json", image))
        assert (found.get("compressed-clusters", 0) > 0) == (number != 2)
        assert {path.suffix for path in image.parent.iterdir()} == {
            ".qcow2", ".hashes", ".json"}


def test_a_compressed_point_is_small(folder, cohortd, cohort):
    "Text takes a fraction of its space."
    daemon = cohortd(nbd=True)
    path = create_qcow2(daemon, folder / "disk.qcow2", 32 * MIB)
    add_qcow2(daemon, "disk", path)
    text = folder / "text"
    text.write_bytes(b"".join(b"line %d of a log\n" % number
                              for number in range(1 << 20)))
    assert text.stat().st_size > 16 * MIB
    qemu_io(daemon.nbd_uri("disk"), f"write -s {text} 0 16M")
    for repo, *options in [["plain"], ["packed", "--compress"]]:
        cohort("backup", folder / repo, "--qmp", daemon.qmp_path, *options,
               check=True)
    plain, packed = (next((folder / repo).glob("*/disk.qcow2"))
                     for repo in ("plain", "packed"))
    assert allocated_bytes(packed) * 4 < allocated_bytes(plain)
    said = qemu_img("compare", "-f", "qcow2", "-F", "qcow2", plain, packed)
    assert said.startswith("Images are identical")
