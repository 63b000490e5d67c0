# SPDX-License-Identifier: BSD-3-Clause
"""`cohort` on the command line: usage, wrong input, clear refusals."""
import os
import socket
import threading

import pytest

from support.disks import new_disk
from support.images import MIB

OK, FAILED, USAGE, LOCKED, DAMAGED, UNREACHABLE, NOT_FOUND = range(7)
COMMANDS = ["backup", "list", "verify", "restore", "status"]


def test_help_lists_every_command(cohort):
    "cohort --help, on standard output."
    result = cohort("--help", check=True)
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert "Example:" in result.stdout and result.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(cohort, command):
    "cohort COMMAND --help, on standard output."
    result = cohort(command, "--help", check=True)
    assert f"cohort {command} " in result.stdout
    assert "Example:" in result.stdout


def test_version(cohort):
    "cohort --version says one line."
    assert cohort("--version", check=True).stdout.startswith("cohort ")


@pytest.mark.parametrize("words", [
    (), ("sing",), ("list",), ("list", "a", "b"), ("list", "--nonsense", "a"),
    ("backup", "repo"), ("restore", "repo"), ("backup", "--qmp", "x"),
    ("backup", "repo", "--qmp", "x", "--timeout", "0"),
    ("backup", "repo", "--qmp", "x", "--freeze-timeout", "999999"),
    ("verify", "a", "b", "c")], ids=" ".join)
def test_wrong_usage_is_code_2(cohort, folder, words):
    "And nothing is made."
    result = cohort(*words, cwd=folder)
    assert result.returncode == USAGE
    assert result.stderr and not result.stdout
    assert os.listdir(folder) == []


def test_what_is_no_repository_is_said_so(cohort, folder):
    "Missing, empty, and not empty."
    assert cohort("list", folder / "none").returncode == NOT_FOUND
    (folder / "empty").mkdir()
    result = cohort("list", folder / "empty")
    assert result.returncode == NOT_FOUND and "no repository" in result.stderr


def test_a_strange_directory_is_not_taken_over(cohort, cohortd, folder):
    "backup does not make a repository among other people's files."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", MIB)
    (folder / "home").mkdir()
    (folder / "home" / "letter").write_text("dear")
    result = cohort("backup", folder / "home", "--qmp", daemon.qmp_path)
    assert result.returncode == FAILED and "letter" in result.stderr
    assert os.listdir(folder / "home") == ["letter"]


def test_no_daemon_is_code_5(cohort, folder):
    "No socket, nobody listening, a host that refuses."
    for address in (folder / "none.sock", "localhost:1"):
        result = cohort("backup", folder / "repo", "--qmp", address)
        assert result.returncode == UNREACHABLE, result.stderr


def test_a_server_that_speaks_no_qmp_is_code_5(cohort, folder):
    "Silence, chatter, the wrong JSON, a hang-up: no crash, no endless wait."
    for words in (b"", b"HTTP/1.0 200 OK\r\n\r\n", b'{"hello": 1}\r\n', b"[]",
                  b'{"QMP": 1}'):
        path = folder / "s.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()

        def answer():
            client, _ = listener.accept()
            client.sendall(words)
            if not words.startswith(b"HTTP"):
                client.close()
            else:
                client.recv(1)
        threading.Thread(target=answer, daemon=True).start()
        result = cohort("backup", folder / "repo", "--qmp", path,
                        "--timeout", "1")
        assert result.returncode == UNREACHABLE, result.stderr
        listener.close()
        path.unlink()


def test_an_unknown_disk_is_named(cohort, cohortd, folder):
    "Code 6, and no repository point."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", MIB)
    result = cohort("backup", folder / "repo", "--qmp", daemon.qmp_path,
                    "--disk", "disc")
    assert result.returncode == NOT_FOUND and "'disc'" in result.stderr


def test_a_disk_given_twice_is_refused(cohort, cohortd, folder):
    "Rather than backed up twice."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", MIB)
    result = cohort("backup", folder / "repo", "--qmp", daemon.qmp_path,
                    "--disk", "disk", "--disk", "disk")
    assert result.returncode == FAILED and "twice" in result.stderr


def test_no_disk_at_all_is_said_so(cohort, cohortd, folder):
    "A daemon without a writable export has nothing to back up."
    daemon = cohortd(nbd=True)
    result = cohort("backup", folder / "repo", "--qmp", daemon.qmp_path)
    assert result.returncode == NOT_FOUND and "--disk" in result.stderr


def test_restore_replaces_nothing_unasked(cohort, cohortd, folder):
    "An existing file stays as it is, without --force."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", MIB, seed=1)
    cohort("backup", folder / "repo", "--qmp", daemon.qmp_path, check=True)
    out = folder / "out"
    out.mkdir()
    (out / "disk.raw").write_text("mine")
    result = cohort("restore", folder / "repo", "--to", out)
    assert result.returncode == FAILED and "--force" in result.stderr
    assert (out / "disk.raw").read_text() == "mine"
    cohort("restore", folder / "repo", "--to", out, "--force", check=True)
    assert (out / "disk.raw").stat().st_size == MIB


def test_restore_keeps_holes(cohort, cohortd, folder):
    "An empty disk takes no space when restored."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", 64 * MIB)
    cohort("backup", folder / "repo", "--qmp", daemon.qmp_path, check=True)
    cohort("restore", folder / "repo", "--to", folder / "out", check=True)
    status = os.stat(folder / "out" / "disk.raw")
    assert status.st_size == 64 * MIB and status.st_blocks * 512 < MIB


def test_unknown_points_and_disks_are_code_6(cohort, cohortd, folder):
    "restore and verify name what they do not find."
    daemon = cohortd(nbd=True)
    new_disk(daemon, "disk", MIB)
    repo = folder / "repo"
    cohort("backup", repo, "--qmp", daemon.qmp_path, check=True)
    assert cohort("verify", repo, "yesterday").returncode == NOT_FOUND
    assert cohort("restore", repo, "../x", "--to",
                  folder / "out").returncode == NOT_FOUND
    assert cohort("restore", repo, "--to", folder / "out", "--disk",
                  "disc").returncode == NOT_FOUND
