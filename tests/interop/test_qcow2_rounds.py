# SPDX-License-Identifier: BSD-3-Clause
"""Random rounds on qcow2 images, in which everything may happen to them.

tests/support/qcow2_rounds.py tells what a round is. A few seeds are fixed, the
others are new each time and printed:

    ./dev test qcow2-rounds --rounds N     N rounds, fresh seeds
    ./dev test qcow2-rounds --seed N       one round again, the same

or the environment variables QCOW2_ROUNDS and QCOW2_SEED.
"""
import os
import pathlib
import random
import shutil
import tempfile

import pytest
from support.qcow2_chained import ChainedRound
from support.qcow2_rounds import Host, Round, qemu_host
from support.round_runner import run_rounds

FIXED = [73, 97, 877604005578]  # they found something once
FRESH = 6


def seeds_to_run():
    if "QCOW2_SEED" in os.environ:
        return [int(os.environ["QCOW2_SEED"])]
    if "QCOW2_ROUNDS" in os.environ:
        first = random.SystemRandom().randrange(1 << 40)
        return list(range(first, first + int(os.environ["QCOW2_ROUNDS"])))
    first = random.SystemRandom().randrange(1 << 40)
    return FIXED + list(range(first, first + FRESH))


@pytest.fixture
def fast_folder():
    """In memory: the programs sync much, and no power fails here."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = pathlib.Path(tempfile.mkdtemp(prefix="cohort-", dir=place))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_an_image_holds_what_was_written_whatever_happens(fast_folder):
    """Written by cohortd, now and then by QEMU's programs; to both it reads as
    the byte array beside it, and nothing is wrong in it at the end."""
    run_rounds(Host, Round, seeds_to_run(), fast_folder)


def test_what_qemu_wrote_reads_the_same_here(fast_folder):
    """The same rounds with qemu-storage-daemon as the writer; cohortd reads the
    image at the end, alone and below another one."""
    run_rounds(qemu_host, ChainedRound, seeds_to_run(), fast_folder)
