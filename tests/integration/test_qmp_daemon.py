# SPDX-License-Identifier: BSD-3-Clause
"""cohortd as a process: options, start-up, endings."""
import errno
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

from support.daemon import cohortd_binary
from support.images import MIB, qemu_io, sparse_image
from support.qmp import Qmp
from support.waiting import wait_until


def run_cohortd(*words, cwd=None):
    return subprocess.run([cohortd_binary(), *map(str, words)], text=True,
                          capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=60, check=False, cwd=cwd)


def refused(*words, naming=()):
    "It ends with code 1 and one line on stderr that names these words."
    result = run_cohortd(*words)
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("cohortd: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    for word in naming:
        assert word in result.stderr, result.stderr
    return result.stderr


def chardev(path, name="qmp"):
    return ("--chardev", f"socket,id={name},path={path},server=on,wait=off",
            "--monitor", f"chardev={name}")


# Options.

def test_help_teaches():
    result = run_cohortd("--help")
    assert result.returncode == 0
    assert "Example:" in result.stdout
    for option in ("--blockdev", "--chardev", "--monitor", "--nbd-server",
                   "--export", "--object", "--pidfile", "--daemonize"):
        assert option in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert run_cohortd("-h").stdout == result.stdout


def test_version_names_the_program():
    for option in ("--version", "-V"):
        result = run_cohortd(option)
        assert result.returncode == 0
        assert re.match(r"cohortd \d+\.\d+\.\d+ ", result.stdout)


@pytest.mark.parametrize("words, naming", [
    (("--nonsense",), ("--nonsense",)),
    (("--blockdev",), ("--blockdev",)),
    (("extra",), ("extra",)),
    (("--daemonize=yes",), ("--daemonize",)),
    (("--trace", "job_stat"), ("--trace", "job_stat", "'job_state'")),
    (("-T", "zzz*"), ("trace", "zzz*", "--trace help")),
    (("--trace", "enable=*,file=log"), ("--trace", "file")),
    (("--trace", "events=list"), ("--trace", "events")),
    (("--blockdev", "driver=nonsense,node-name=a"), ("--blockdev", "nonsense")),
    (("--blockdev", "null-co,size=1M"), ("--blockdev", "node-name")),
    (("--blockdev", "null-co,node-name=a,size=x"), ("size",)),
    (("--blockdev", "null-co,node-name=a,typo=1"), ("typo",)),
    (("--blockdev", "{'driver': "), ("--blockdev",)),
    (("--blockdev", '{"driver": "null-co"} {}'), ("--blockdev",)),
    (("--blockdev", "file,node-name=a,filename=/no/such/file"),
     ("--blockdev", "/no/such/file")),
    (("--blockdev", "null-co,node-name=a", "--blockdev",
      "null-co,node-name=a"), ("'a'",)),
    (("--monitor", "chardev=none"), ("--monitor", "'none'")),
    (("--monitor", "none,mode=readline"), ("--monitor", "readline")),
    (("--chardev", "stdio,id=a"), ("--chardev", "stdio")),
    (("--chardev", "socket,id=a,server=on"), ("--chardev", "path")),
    (("--chardev", "socket,id=a,path=/no/such/folder/s,server=on,wait=off"),
     ("--chardev", "/no/such/folder/s")),
    (("--chardev", "socket,id=a,path=/tmp/x"), ("--chardev", "server=on")),
    (("--chardev", "socket,id=7,path=/tmp/x,server=on"), ("--chardev", "'7'")),
    (("--export", "nbd,id=e,node-name=none"), ("--export",)),
    (("--nbd-server", "addr.type=vsock,addr.cid=1,addr.port=1"),
     ("--nbd-server", "vsock")),
    (("--nbd-server", "addr.type=unix"), ("--nbd-server", "path")),
    (("--object", "nonsense,id=a"), ("--object", "nonsense")),
    (("--object", "iothread"), ("--object", "id")),
    (("--object", "iothread,id=a", "--object", "iothread,id=a"), ("'a'",)),
    (("--pidfile", "/no/such/folder/pid"),
     ("--pidfile", "/no/such/folder/pid")),
])
def test_a_bad_option_is_named_with_the_reason(words, naming):
    refused(*words, naming=naming)


def test_options_act_in_the_order_given(folder):
    "A node must be there before its export."
    sock = f"addr.type=unix,addr.path={folder}/nbd"
    refused("--nbd-server", sock, "--export", "nbd,id=e,node-name=a",
            "--blockdev", "null-co,node-name=a", naming=("--export", "'a'"))
    assert not os.path.exists(folder / "nbd")


def test_a_failed_start_leaves_nothing(folder):
    refused(*chardev(folder / "qmp"), "--pidfile", folder / "pid",
            "--blockdev", "file,node-name=a,filename=/no/such")
    assert os.listdir(folder) == []


def test_json_and_dotted_options_mean_the_same(cohortd, folder):
    image = sparse_image(folder / "a,b.img", MIB)
    doubled = image.replace(",", ",,")
    daemon = cohortd(
        "--blockdev", f"raw,node-name=dotted,read-only=on,file.driver=file,"
        f"file.filename={doubled}",
        "--blockdev", '{"driver": "raw", "node-name": "json", "read-only": '
        f'true, "file": {{"driver": "file", "filename": "{image}"}}}}')
    dotted, from_json = daemon.qmp.node("dotted"), daemon.qmp.node("json")
    assert dotted["image"]["virtual-size"] == MIB
    assert dotted["file"] == from_json["file"]
    assert dotted["ro"] and from_json["ro"]


def test_an_export_from_the_command_line_serves(cohortd, folder):
    image = sparse_image(folder / "disk", MIB)
    daemon = cohortd("--blockdev", f"file,node-name=d,filename={image}",
                     "--export", "nbd,id=e,node-name=d,name=disk,writable=on",
                     nbd=True)
    qemu_io(daemon.nbd_uri("disk"), "write -P 7 0 4k", "read -P 7 0 4k")
    assert daemon.qmp.command("query-block-exports") == [
        {"id": "e", "type": "nbd", "node-name": "d", "shutting-down": False}]


def test_iothreads_are_there_by_default(cohortd):
    daemon = cohortd()
    threads = daemon.qmp.command("query-iothreads")
    assert 1 <= len(threads) <= 4
    for thread in threads:
        comm = pathlib.Path(f"/proc/{daemon.pid}/task/{thread['thread-id']}"
                            "/comm").read_text().strip()
        assert thread["id"].startswith(comm)


def test_given_iothreads_replace_the_default(cohortd):
    daemon = cohortd("--object", "iothread,id=t0", "--object",
                     '{"qom-type": "iothread", "id": "t1"}')
    ids = [thread["id"] for thread in daemon.qmp.command("query-iothreads")]
    assert ids == ["t0", "t1"]


def test_the_descriptor_limit_is_raised(cohortd):
    daemon = cohortd()
    limits = pathlib.Path(f"/proc/{daemon.pid}/limits").read_text()
    soft, hard = re.search(r"Max open files +(\S+) +(\S+)", limits).groups()
    assert soft == hard


def test_wait_on_waits_for_the_first_client(folder):
    path = folder / "qmp"
    process = subprocess.Popen(
        [cohortd_binary(), "--chardev", f"socket,id=c,path={path},server=on",
         "--monitor", "c", "--pidfile", str(folder / "pid")],
        stderr=subprocess.PIPE, text=True)
    try:
        assert str(path) in process.stderr.readline()
        assert not os.path.exists(folder / "pid")
        with Qmp(str(path)) as client:
            wait_until(lambda: os.path.exists(folder / "pid"), 30, "pidfile")
            client.command("quit")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_start_that_waits_ends_on_a_signal(folder):
    path = folder / "qmp"
    process = subprocess.Popen(
        [cohortd_binary(), "--chardev", f"socket,id=c,path={path},server=on"],
        stderr=subprocess.PIPE, text=True)
    try:
        process.stderr.readline()
        process.terminate()
        assert process.wait(30) == 0
        assert not os.path.exists(path)
    finally:
        process.kill()
        process.wait()


# Sockets and pidfile.

def test_a_socket_in_use_is_refused_and_left_alone(cohortd):
    daemon = cohortd()
    refused(*chardev(daemon.qmp_path), naming=("--chardev", daemon.qmp_path))
    with daemon.connect() as client:
        client.command("query-version")


def nobody_listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def test_a_socket_left_by_a_dead_process_is_taken_over(cohortd):
    daemon = cohortd()
    daemon.kill()
    assert os.path.exists(daemon.qmp_path)
    # The kernel lets go of what io_uring holds a little after the process.
    wait_until(lambda: nobody_listens(daemon.qmp_path), 30, "the socket's end")
    second = cohortd(*chardev(daemon.qmp_path, "old"))
    with Qmp(daemon.qmp_path) as client:
        client.command("query-version")
    assert second.is_alive()


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused("--chardev", f"socket,id=c,host=127.0.0.1,port={port},"
                "server=on,wait=off", naming=("--chardev", str(port)))


def test_the_pidfile_holds_the_process_id_and_goes_at_the_end(cohortd):
    daemon = cohortd()
    assert pathlib.Path(daemon.pidfile).read_text() == f"{daemon.pid}\n"
    assert daemon.quit() == 0
    assert not os.path.exists(daemon.pidfile)


def test_a_pidfile_of_a_living_daemon_is_refused(cohortd):
    daemon = cohortd()
    refused("--pidfile", daemon.pidfile, naming=("--pidfile", daemon.pidfile))
    assert pathlib.Path(daemon.pidfile).read_text() == f"{daemon.pid}\n"


def test_a_pidfile_of_a_dead_daemon_is_taken_over(cohortd):
    daemon = cohortd()
    daemon.kill()
    assert os.path.exists(daemon.pidfile)
    process = subprocess.Popen([cohortd_binary(), "--pidfile", daemon.pidfile])
    wait_until(lambda: pathlib.Path(daemon.pidfile).read_text() ==
               f"{process.pid}\n", 30, "the new process id")
    process.terminate()
    assert process.wait(30) == 0


# --daemonize.

def test_daemonize_returns_when_everything_is_ready(folder):
    result = run_cohortd("--daemonize", "--pidfile", "pid", *chardev("qmp"),
                         cwd=folder)
    assert result.returncode == 0, result.stderr
    pid = int((folder / "pid").read_text())
    watch = os.pidfd_open(pid)
    with Qmp(str(folder / "qmp")) as client:
        assert os.getsid(pid) == pid
        client.command("quit")
    wait_until(lambda: not os.path.exists(folder / "pid"), 30, "its end")
    os.close(watch)
    assert not os.path.exists(folder / "qmp")


def test_daemonize_tells_why_it_failed(folder):
    refused("--daemonize", "--blockdev",
            "file,node-name=a,filename=/no/such/file",
            naming=("--blockdev", "/no/such/file"))


# Endings.

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT,
                                    signal.SIGHUP])
def test_a_signal_ends_it_cleanly(cohortd, number):
    daemon = cohortd(nbd=True)
    with daemon.connect():
        daemon.signal(number)
        assert daemon.wait() == 0
    for path in (daemon.qmp_path, daemon.nbd_path, daemon.pidfile):
        assert not os.path.exists(path)


def test_quit_is_answered_before_the_end(cohortd):
    daemon = cohortd()
    assert daemon.qmp.request({"execute": "quit", "id": 1}) == {
        "return": {}, "id": 1}
    assert daemon.qmp.at_end()
    assert daemon.wait() == 0


@pytest.mark.parametrize("end", ["quit", "signal"])
def test_an_end_cancels_jobs_and_drops_clients(cohortd, nbd_client, folder,
                                               end):
    daemon = cohortd(nbd=True)
    qmp = daemon.qmp
    for name in ("a", "b"):
        image = sparse_image(folder / name, 64 * MIB)
        qmp.command("blockdev-add", driver="file", node_name=name,
                    filename=image)
    qmp.command("block-export-add", type="nbd", id="e", node_name="a",
                writable=True)
    handle = nbd_client(daemon.nbd_uri("a"))
    handle.pwrite(b"x" * MIB, 0)
    qmp.command("block-dirty-bitmap-add", node="a", name="m")
    qmp.command("blockdev-backup", job_id="j", device="a", target="b",
                sync="full", speed=1)
    if end == "quit":
        qmp.command("quit")
    else:
        daemon.signal(signal.SIGTERM)
    event = qmp.wait_job("j")
    assert event["event"] == "BLOCK_JOB_CANCELLED"
    assert daemon.wait() == 0


def test_a_client_that_does_not_read_does_not_hold_up_the_end(cohortd):
    daemon = cohortd()
    with daemon.connect() as deaf:
        deaf.send_raw(b"{'execute': 'query-qmp-schema'}" * 50)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


def test_a_broken_pipe_does_not_kill_it(cohortd):
    daemon = cohortd()
    for _ in range(20):
        client = daemon.connect()
        client.send_raw(b"{'execute': 'query-qmp-schema'}" * 5)
        client.close()
    daemon.qmp.command("query-version")
    wait_until(lambda: daemon.open_files() < 40, 30, "closed sockets")
