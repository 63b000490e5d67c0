# SPDX-License-Identifier: BSD-3-Clause
"""What fio has written can be told from what it has not, sector by sector."""
import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from fio_guest import FioGuests  # noqa: E402
from record import NEVER, Wrong, firm_after_kill, read_record  # noqa: E402
from support.daemon import cohort_binary, cohortd_binary  # noqa: E402
from world import MIB, World  # noqa: E402

SECTOR = 512


@pytest.fixture
def killed(folder):
    """A disk that fio wrote to until its daemon was killed; and the record."""
    world = World(folder, folder, cohortd_binary(), cohort_binary(), ["raw"],
                  3 * MIB)
    world.create()
    world.serve()
    fio = FioGuests(world.uris(), world.disks, 1 << 40, random.Random(1),
                    folder)
    try:
        fio.wait_for_first_writes()
        world.daemon.kill()
        fio.join()
    finally:
        fio.kill()
        world.release()
    return world.disks[0], read_record(f"{folder}/none", fio.runs[0])


def check(disk, data, writes):
    return disk.known.check(bytes(data), writes, firm_after_kill, "the disk")


def contents(disk):
    return bytearray(pathlib.Path(disk.path).read_bytes())


def a_firm_sector(writes):
    return next(write.first for write in writes if write.replied < NEVER)


def test_what_fio_wrote_until_the_kill_agrees_with_its_record(killed):
    disk, writes = killed
    numbers = check(disk, contents(disk), writes)
    assert {write.number for write in writes} >= set(numbers) - {0}
    assert any(numbers[disk.own_bytes // SECTOR:])


def test_one_wrong_bit_in_what_fio_wrote_is_found(killed):
    disk, writes = killed
    data = contents(disk)
    data[a_firm_sector(writes) * SECTOR + 300] ^= 1
    with pytest.raises(Wrong, match="is none that fio wrote"):
        check(disk, data, writes)


def test_a_lost_write_of_fio_is_found(killed):
    disk, writes = killed
    data = contents(disk)
    at = a_firm_sector(writes) * SECTOR
    data[at:at + SECTOR] = bytes(SECTOR)
    with pytest.raises(Wrong, match="holds write 0, which it must not"):
        check(disk, data, writes)


def test_a_write_of_fio_in_the_wrong_place_is_found(killed):
    disk, writes = killed
    data = contents(disk)
    at = a_firm_sector(writes) * SECTOR
    other = disk.own_bytes if at != disk.own_bytes else at + SECTOR
    data[other:other + SECTOR] = data[at:at + SECTOR]
    with pytest.raises(Wrong, match="holds what fio wrote to"):
        check(disk, data, writes)
