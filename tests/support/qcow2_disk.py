# SPDX-License-Identifier: BSD-3-Clause
"""A qcow2 image in a daemon, under random requests over NBD, beside the byte
array that it must equal.

    disk = Qcow2Disk(host, path, content, chance)
    disk.open(options)       opens the node and an export, connects
    disk.batch(16)           requests that do not overlap, all at once
    disk.flush(), disk.verify(), disk.resize(size)
    disk.close()             or disk.crash(): SIGKILL in the middle of a batch

`host` has a .daemon (cohortd or qemu-storage-daemon) and starts another with
.restart(). What is drawn from `chance` depends on nothing that is read.
"""
import nbd

from support.disk_model import SECTOR, DiskModel, first_difference
from support.images import KIB, MIB, qemu_img
from support.qcow2_images import child

KINDS = ["write"] * 7 + ["zero", "zero", "unmap", "trim", "trim", "read",
                         "read"]


class Request:
    def __init__(self, kind, offset, length, data):
        self.kind, self.offset, self.length = kind, offset, length
        self.data = data  # what is there afterwards; None: the same
        self.client = self.cookie = self.buffer = None

    def send(self, client, flags):
        self.client = client
        if self.kind == "read":
            self.buffer = bytearray(self.length)
            self.cookie = client.aio_pread(self.buffer, self.offset)
        elif self.kind == "write":
            self.buffer = bytes(self.data)
            self.cookie = client.aio_pwrite(self.buffer, self.offset,
                                            flags=flags)
        elif self.kind == "trim":
            self.cookie = client.aio_trim(self.length, self.offset)
        else:
            if self.kind == "zero":
                flags |= nbd.CMD_FLAG_NO_HOLE
            self.cookie = client.aio_zero(self.length, self.offset,
                                          flags=flags)

    def finish(self):
        assert self.client.aio_command_completed(self.cookie)


def check_status(client, content):
    """What is told to be zero is zero."""
    size, offset = len(content), 0
    while offset < size:
        extents = []

        def told(context, _offset, entries, _error, extents=extents):
            if context == "base:allocation":
                extents += entries
        client.block_status(size - offset, offset, told)
        assert extents
        for length, flags in zip(extents[::2], extents[1::2]):
            end = min(offset + length, size)
            piece = content[offset:end]
            if flags & nbd.STATE_ZERO and any(piece):
                at = first_difference(piece, bytes(len(piece)))
                raise AssertionError(f"{offset + at} is said to be zero, in "
                                     f"the extent {offset}+{length}")
            offset = end


class Qcow2Disk:
    def __init__(self, host, path, content, cluster, chance):
        self.host, self.path, self.chance = host, path, chance
        self.cluster = cluster
        self.model = DiskModel(content)
        self.clients = []
        self.options = {}

    # Opening and closing.

    def open(self, **options):
        self.options = options
        self.host.daemon.qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": "disk", **options,
            "file": {**child(self.path), "discard": "unmap"}})
        self.connect()

    def connect(self):
        self.host.daemon.qmp.command(
            "block-export-add", type="nbd", id="export", node_name="disk",
            name="disk", writable=True)
        for _ in range(self.chance.choice([1, 1, 2])):
            client = nbd.NBD()
            client.add_meta_context("base:allocation")
            client.connect_uri(self.host.daemon.nbd_uri("disk"))
            self.clients.append(client)

    def disconnect(self):
        for client in self.clients:
            client.shutdown()
        self.clients = []
        qmp = self.host.daemon.qmp
        qmp.command("block-export-del", id="export", mode="hard")
        qmp.wait_event("BLOCK_EXPORT_DELETED", id="export")

    def close(self):
        self.disconnect()
        self.host.daemon.qmp.command("blockdev-del", node_name="disk")
        self.model.flushed()

    # Requests.

    def _place(self, taken):
        chance, size = self.chance, self.model.size
        unit = chance.choice([1, SECTOR, 4 * KIB, self.cluster, self.cluster])
        limit = chance.choice([300 * KIB, 300 * KIB, 3 * MIB])
        length = max(1, min(unit * chance.randint(1, 5), size, limit))
        offset = chance.randrange(0, size - length + 1) // unit * unit
        start = offset // SECTOR * SECTOR
        end = -(-(offset + length) // SECTOR) * SECTOR
        if any(start < other_end and other_start < end
               for other_start, other_end in taken):
            return None
        taken.append((start, end))
        return offset, length

    def _data(self, kind, length):
        if kind == "read":
            return None
        if kind != "write":
            return bytes(length)
        draw = self.chance.random()
        if draw < 0.6:
            return self.chance.randbytes(length)
        if draw < 0.7:
            return bytes(length)
        return bytes([self.chance.randrange(256)]) * length

    def plan(self, count):
        taken, requests = [], []
        for _ in range(count):
            kind = self.chance.choice(KINDS)
            place = self._place(taken)
            if place is not None:
                data = self._data(kind, place[1])
                requests.append(Request(kind, *place, data))
        return requests

    def _send(self, requests):
        for request in requests:
            flags = nbd.CMD_FLAG_FUA if self.chance.random() < 0.05 else 0
            request.send(self.chance.choice(self.clients), flags)

    def _wait(self, cookies=()):
        for client in self.clients:
            while client.aio_in_flight() > 0:
                client.poll(-1)
        for client, cookie in cookies:
            assert client.aio_command_completed(cookie)

    def batch(self, count, flush=False):
        """With `flush`, one is under way together with the rest: what was
        done before is durable after it."""
        requests = self.plan(count)
        self._send(requests)
        flushes = []
        if flush:
            client = self.chance.choice(self.clients)
            flushes = [(client, client.aio_flush())]
        self._wait(flushes)
        if flush:
            self.model.flushed()
        for request in requests:
            request.finish()
            self._apply(request)
        self.model.batch_done()

    def _apply(self, request):
        offset, length = request.offset, request.length
        if request.kind == "read":
            self.model.check(offset, request.buffer)
        elif request.kind == "trim":
            old = bytes(self.model.content[offset:offset + length])
            found = bytes(self.clients[0].pread(length, offset))
            self.model.after_trim(offset, old, found)
        else:
            self.model.change(offset, request.data)

    def flush(self):
        self.chance.choice(self.clients).flush()
        self.model.flushed()

    # Looking.

    def read(self, step=MIB):
        size, client = self.model.size, self.clients[0]
        return b"".join(client.pread(min(step, size - offset), offset)
                        for offset in range(0, size, step))

    def verify(self):
        """As a whole, in random pieces, and what is told of zeroes."""
        self.model.check(0, self.read())
        for _ in range(20):
            offset, length = self._place([])
            self.model.check(offset, self.clients[0].pread(length, offset))
        check_status(self.clients[0], self.model.content)

    def resize(self, size):
        """qemu-storage-daemon 7.2 refuses while there is an export and aborts
        when there is none, so qemu-img does it there."""
        if self.host.is_qemu:
            self.close()
            qemu_img("resize", "-q", "-f", "qcow2", "--shrink", self.path,
                     str(size))
            self.model.resize(size)
            self.open(**self.options)
            return
        self.disconnect()
        self.host.daemon.qmp.command("block_resize", {
            "node-name": "disk", "size": size})
        self.model.resize(size)
        self.connect()

    # Crashing.

    def crash(self, count, answers):
        """Kills the daemon when `answers` of a batch's requests are done."""
        requests = self.plan(count)
        self._send(requests)
        for client in self.clients:
            while client.aio_in_flight() > max(0, count - answers):
                client.poll(-1)
        for request in requests:
            if request.data is not None:
                self.model.change(request.offset, request.data)
        self.model.batch_done()
        self.host.daemon.kill()
        self.clients = []
        self.host.restart()
