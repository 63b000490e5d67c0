# SPDX-License-Identifier: BSD-3-Clause
"""Rounds that QEMU writes and cohortd reads.

At the end of a round cohortd shows the image: alone, and as the backing file of
another one that QEMU has written to. Each is read from begin to end and in
random pieces, and must be what QEMU's programs read.
"""
import nbd

from support.daemon import cohortd
from support.disk_model import DiskModel
from support.images import KIB, MIB
from support.qcow2_disk import check_status
from support.qcow2_images import child, create, scribble, to_raw
from support.qcow2_rounds import Round
from support.qcow2_variants import SECTOR

PIECES = 60


def check_reads(client, content, chance):
    """All of it, in pieces in order and then at random."""
    model, size = DiskModel(content), len(content)
    assert client.get_size() == size, (client.get_size(), size)
    step = chance.choice([64 * KIB, MIB])
    for offset in range(0, size, step):
        model.check(offset, client.pread(min(step, size - offset), offset))
    for _ in range(PIECES):
        length = min(size, chance.choice([1, SECTOR, 4 * KIB, 100000]))
        offset = chance.randrange(0, size - length + 1)
        model.check(offset, client.pread(length, offset))
    check_status(client, content)


class ChainedRound(Round):
    def check_end(self):
        super().check_end()
        self.shown = 0
        self.reader = cohortd(self.folder / "reader", nbd=True)
        try:
            self.show(self.path, bytes(self.disk.model.content))
            for name, then in self.snapshots.items():
                self.show(self.path, then, {"x-cohort-snapshot": name})
            self.show_above()
        finally:
            self.reader.finish()

    def show_above(self):
        chance = self.chance
        size = chance.choice([self.disk.model.size, self.disk.model.size +
                              chance.randint(1, 200) * SECTOR])
        options = chance.choice([
            {"cluster_size": 512}, {"cluster_size": 4 * KIB}, {},
            {"extended_l2": "on"}, {"compat": "0.10"},
            {"cluster_size": 2 * MIB, "extended_l2": "on"}])
        self.say(f"above it {options} of {size}")
        above = create(self.folder / "above.qcow2", size, "disk.qcow2",
                       "qcow2", **options)
        scribble(above, chance.randrange(1 << 30), count=10)
        with open(to_raw(above, self.folder / "above.raw"), "rb") as file:
            self.show(above, file.read())

    def show(self, path, content, options=None):
        """One image in cohortd, read-only."""
        name = f"n{self.shown}"
        self.shown += 1
        qmp = self.reader.qmp
        qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": name, "read-only": True,
            "file": child(path), **(options or {})})
        qmp.command("block-export-add", type="nbd", id=name, node_name=name,
                    name=name)
        client = nbd.NBD()
        client.add_meta_context("base:allocation")
        client.connect_uri(self.reader.nbd_uri(name))
        check_reads(client, content, self.chance)
        client.shutdown()
