# SPDX-License-Identifier: BSD-3-Clause
"""The NBD server's commands and options, by QMP and by libnbd."""
import errno
import os
import socket

import nbd
import pytest
from support.images import MIB, random_image, read_at
from support.qmp import QmpError
from support.waiting import wait_until


def blockdev(path, name="disk", **more):
    words = [f"file,node-name={name},filename={path}"]
    words += [f"{key}={value}" for key, value in more.items()]
    return "--blockdev", ",".join(words)


def refused(qmp, command, part, **arguments):
    with pytest.raises(QmpError) as info:
        qmp.command(command, **arguments)
    assert part in str(info.value), str(info.value)


def test_the_server_starts_and_stops_by_command(cohortd, folder, nbd_client):
    """nbd-server-start, block-export-add, a client, nbd-server-stop; twice."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path))
    address = {"type": "unix", "data": {"path": daemon.nbd_path}}
    for _ in range(2):
        daemon.qmp.command("nbd-server-start", addr=address)
        refused(daemon.qmp, "nbd-server-start", "running", addr=address)
        daemon.qmp.command("block-export-add", type="nbd", id="e",
                           **{"node-name": "disk"})
        client = nbd_client(daemon.nbd_uri("disk"))
        assert client.pread(512, 0) == read_at(path, 0, 512)
        daemon.qmp.command("nbd-server-stop")
        with pytest.raises(nbd.Error):
            client.pread(512, 0)
        assert daemon.qmp.command("query-block-exports") == []
        assert not os.path.exists(daemon.nbd_path)
        assert daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")["data"] == \
            {"id": "e"}
    refused(daemon.qmp, "nbd-server-stop", "not running")


def test_tcp_serves_as_well(cohortd, folder, nbd_client):
    """An inet address, port 0: the kernel picks one."""
    path = random_image(folder / "disk", MIB)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = cohortd(*blockdev(path), "--nbd-server",
                     f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}",
                     "--export", "nbd,id=e,node-name=disk,name=tcp")
    client = nbd_client(f"nbd://127.0.0.1:{port}/tcp")
    assert client.pread(MIB, 0) == read_at(path, 0, MIB)


def test_an_export_has_a_name_and_a_description(cohortd, folder, nbd_client):
    """They need not be the node's, and the read-only default holds."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk,name=other,description=a text",
                     nbd=True)
    assert daemon.qmp.command("query-block-exports") == [
        {"id": "e", "type": "nbd", "node-name": "disk",
         "shutting-down": False}]
    client = nbd_client(daemon.nbd_uri("other"))
    assert client.is_read_only()
    with pytest.raises(nbd.Error):
        nbd_client(daemon.nbd_uri("disk"))
    lister = nbd.NBD()
    lister.set_opt_mode(True)
    lister.connect_uri(daemon.nbd_uri())
    found = []
    lister.opt_list(lambda name, description:
                    found.append((name, description)))
    assert found == [("other", "a text")]
    lister.opt_abort()


def test_export_mistakes_are_named(cohortd, folder):
    """Each error says which option of which export is wrong, and why."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path, **{"read-only": "on"}), nbd=True)
    add = {"type": "nbd", "id": "e", "node-name": "disk"}

    def refuse(part, **changes):
        merged = {**add, **{key.replace("_", "-"): value
                            for key, value in changes.items()}}
        refused(daemon.qmp, "block-export-add", part, **merged)

    refuse("nothing", node_name="nothing")
    refuse("read-only", writable=True)
    refuse("1e", id="1e")
    refuse("too long", name="n" * 4097)
    refuse("too long", description="d" * 4097)
    refuse("fuse", type="fuse")
    refuse("bitmaps", bitmaps=["b"])
    refuse("allocation-depth", **{"allocation_depth": True})
    daemon.qmp.command("block-export-add", **add)
    refuse("'e'")
    refuse("'disk'", id="f")
    refused(daemon.qmp, "block-export-del", "'g'", id="g")
    daemon.qmp.command("block-export-del", id="e")


def test_a_busy_export_is_not_deleted_safely(cohortd, folder, nbd_client):
    """mode=safe leaves the client alone, mode=hard sends it away."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--export", "nbd,id=e,node-name=disk",
                     nbd=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    refused(daemon.qmp, "block-export-del", "in use", id="e")
    client.pread(512, 0)
    daemon.qmp.command("block-export-del", id="e", mode="hard")
    assert daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")["data"]["id"] == "e"
    with pytest.raises(nbd.Error):
        client.pread(512, 0)
    daemon.qmp.command("blockdev-del", **{"node-name": "disk"})


def test_several_exports_and_clients(cohortd, folder, nbd_client):
    """Three disks, three clients each, every write lands in its own image."""
    names = ["a", "b", "c"]
    options = []
    for name in names:
        options += blockdev(random_image(folder / name, MIB), name)
        options += ["--export", f"nbd,id={name},node-name={name},writable=on"]
    daemon = cohortd(*options, nbd=True)
    clients = [(name, nbd_client(daemon.nbd_uri(name)))
               for _ in range(3) for name in names]
    for i, (name, client) in enumerate(clients):
        client.pwrite(name.encode() * 512, i * 512)
    clients[-1][1].flush()
    for i, (name, client) in enumerate(clients):
        assert read_at(folder / name, i * 512, 512) == name.encode() * 512
        for j, (other, second) in enumerate(clients):
            if other == name:
                assert second.pread(512, i * 512) == name.encode() * 512


def test_two_exports_of_one_node(cohortd, folder, nbd_client):
    """One writes, the other, read-only, sees it."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path),
                     "--export", "nbd,id=w,node-name=disk,name=w,writable=on",
                     "--export", "nbd,id=r,node-name=disk,name=r", nbd=True)
    writer = nbd_client(daemon.nbd_uri("w"))
    reader = nbd_client(daemon.nbd_uri("r"))
    writer.pwrite(b"x" * 4096, 8192)
    assert reader.pread(4096, 8192) == b"x" * 4096
    reader.set_strict_mode(0)
    with pytest.raises(nbd.Error) as info:
        reader.pwrite(b"x" * 512, 0)
    assert info.value.errno == "EPERM"


def test_an_odd_sized_image_is_served_to_its_last_byte(cohortd, folder,
                                                       nbd_client):
    """The size is the file's own; nothing is rounded away."""
    path = random_image(folder / "disk", MIB + 77)
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk,writable=on", nbd=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    assert client.get_size() == MIB + 77
    assert client.pread(77, MIB) == read_at(path, MIB, 77)
    client.pwrite(b"last", MIB + 73)
    assert read_at(path, MIB + 73, 4) == b"last"
    assert os.path.getsize(path) == MIB + 77


def test_requests_beyond_the_end_fail_and_do_no_harm(cohortd, folder,
                                                     nbd_client):
    """EINVAL for reads, ENOSPC for writes; the client stays connected."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk,writable=on", nbd=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    client.set_strict_mode(0)
    for call, code in ((lambda: client.pread(1024, MIB - 512), "EINVAL"),
                       (lambda: client.pwrite(bytes(1024), MIB - 512),
                        "ENOSPC"),
                       (lambda: client.zero(1024, MIB - 512), "ENOSPC"),
                       (lambda: client.trim(1024, MIB - 512), "EINVAL")):
        with pytest.raises(nbd.Error) as info:
            call()
        assert info.value.errno == code
    assert client.pread(512, 0) == read_at(path, 0, 512)
    assert os.path.getsize(path) == MIB


def test_connections_are_limited_as_asked(cohortd, folder, nbd_client):
    """With max-connections=1 multi-conn is off and a second client waits."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--nbd-server",
                     f"addr.type=unix,addr.path={folder}/s,max-connections=1",
                     "--export", "nbd,id=e,node-name=disk")
    uri = f"nbd+unix:///disk?socket={folder}/s"
    first = nbd_client(uri)
    assert not first.can_multi_conn()
    with socket.socket(socket.AF_UNIX) as second:
        second.connect(f"{folder}/s")
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)
        first.shutdown()
        second.setblocking(True)
        second.settimeout(10)
        assert second.recv(8) == b"NBDMAGIC"


def test_a_silent_client_is_sent_away(cohortd, folder):
    """handshake-max-seconds bounds how long negotiating may take."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--nbd-server",
                     f"addr.type=unix,addr.path={folder}/s,"
                     "handshake-max-seconds=1",
                     "--export", "nbd,id=e,node-name=disk")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/s")
        client.settimeout(10)
        assert len(client.recv(100)) == 18
        assert client.recv(100) == b""
    assert daemon.is_alive()


def test_garbage_from_many_clients_does_no_harm(cohortd, folder, nbd_client):
    """HTTP, noise and early departures; descriptors are given back."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--export", "nbd,id=e,node-name=disk",
                     nbd=True)
    files = daemon.open_files()
    for garbage in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, b"\xff" * 64,
                    b"\0\0\0\3IHAVEOPT" + b"\xff" * 8,
                    b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\6\xff\xff\xff\xff\0\0"):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(daemon.nbd_path)
                client.sendall(garbage)
    assert nbd_client(daemon.nbd_uri("disk")).pread(1, 0)
    wait_until(lambda: daemon.open_files() <= files + 2, 10,
               "the descriptors are given back")


def test_writethrough_writes_are_synced(cohortd, folder, nbd_client):
    """The data is there, and a flush has nothing left to fail."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(*blockdev(path), "--export",
                     "nbd,id=e,node-name=disk,writable=on,writethrough=on",
                     nbd=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    client.pwrite(b"w" * 4096, 4096)
    assert read_at(path, 4096, 4096) == b"w" * 4096


def test_a_disk_error_fails_the_request_not_the_client(cohortd, folder,
                                                       nbd_client):
    """An injected EIO reaches the client as EIO, once."""
    path = random_image(folder / "disk", MIB)
    daemon = cohortd(
        "--blockdev", "blkdebug,node-name=disk,image.driver=file,"
        f"image.filename={path},inject-error.0.event=none,"
        f"inject-error.0.errno={errno.EIO},inject-error.0.once=on,"
        "inject-error.0.iotype=read",
        "--export", "nbd,id=e,node-name=disk", nbd=True)
    client = nbd_client(daemon.nbd_uri("disk"))
    with pytest.raises(nbd.Error) as info:
        client.pread(512, 0)
    assert info.value.errno == "EIO"
    assert client.pread(512, 0) == read_at(path, 0, 512)
