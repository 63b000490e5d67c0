# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures for the tests that drive real processes.

    def test_a_new_node_is_listed(cohortd):
        "A node that blockdev-add made shows in query-named-block-nodes."
        daemon = cohortd("--blockdev", "null-co,node-name=a,size=1048576")
        assert daemon.qmp.node("a")["drv"] == "null-co"

Fixtures:
  folder      a short-named temporary directory, gone after the test
  cohortd     starts build/cohortd (or $COHORTD): cohortd(*options, nbd=False,
              qmp=True, env=None). May be called again for a second daemon.
              Each is ended after the test and must then end with exit code 0
              and no word from a sanitizer; a test that kills it says so with
              .kill() or sets .expected_exit.
  qsd         the same for qemu-storage-daemon, for interoperation
  cohort      runs build/cohort (or $COHORT) to its end: cohort("list", repo)
              returns .returncode, .stdout, .stderr; check=True to insist on 0
  nbd_client  a libnbd handle, connected: nbd_client(daemon.nbd_uri("disk"))
  hanging_disk  an image of 1 MiB (.path) whose I/O hangs from .hang() to
              .go_on(); named after
              `cohortd` among a test's arguments, so that it goes on first
  background  starts a helper process that is killed after the test

What a daemon object offers is in tests/support/daemon.py, the QMP client in
qmp.py, images and qemu-io in images.py: `from support.images import qemu_io`.

The rules: a test is named for its promise; no sleep to let something happen
(wait for its event); a needed program that is missing is a failure, not a
skip, since ./dev installs all of them.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
os.environ["PATH"] += ":/usr/sbin:/sbin"  # losetup, mke2fs

from support import daemon as daemons  # noqa: E402
from support.hung import HangingDisk  # noqa: E402
from support.images import MIB, run  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Lets fixtures see whether their test has failed."""
    report = (yield).get_result()
    if report.when == "call":
        item.failed = report.failed


@pytest.fixture
def folder():
    """Unix socket paths may have 107 bytes, so tmp_path is too long."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="cohort-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def daemon_factory(request, folder, start, name):
    started = []

    def new(*options, **keywords):
        place = folder / (name if not started else f"{name}{len(started)}")
        started.append(start(place, *options, **keywords))
        return started[-1]
    yield new
    problems = []
    for daemon in reversed(started):
        try:
            daemon.finish()
        except AssertionError as problem:
            problems.append(str(problem))
    if getattr(request.node, "failed", False):
        for daemon in started:
            print(f"--- stderr of {' '.join(daemon.words)}")
            print(daemon.stderr())
    assert not problems, "\n".join(problems)


@pytest.fixture
def cohortd(request, folder):
    yield from daemon_factory(request, folder, daemons.cohortd, "d")


@pytest.fixture
def qsd(request, folder):
    yield from daemon_factory(request, folder, daemons.qemu_storage_daemon,
                              "q")


@pytest.fixture
def cohort():
    def call(*words, check=False, timeout=120, **keywords):
        return run(daemons.cohort_binary(), *words, check=check,
                   timeout=timeout, **keywords)
    return call


@pytest.fixture
def nbd_client():
    import nbd
    handles = []

    def connect(uri, meta_contexts=(), structured_replies=True):
        handle = nbd.NBD()
        handle.set_request_structured_replies(structured_replies)
        for context in meta_contexts:
            handle.add_meta_context(context)
        handle.connect_uri(uri)
        handles.append(handle)
        return handle
    yield connect
    for handle in handles:
        try:
            handle.shutdown()
        except nbd.Error:
            pass  # the test may have ended its server


@pytest.fixture
def background():
    processes = []

    def start(*words, **keywords):
        processes.append(subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL,
            **keywords))
        return processes[-1]
    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def hanging_disk(folder, background):
    disk = HangingDisk(folder, background, MIB)
    yield disk
    disk.close()
