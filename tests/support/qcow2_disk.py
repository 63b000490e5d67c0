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
import errno

import nbd

from support.disk_model import SECTOR, DiskModel, first_difference
from support.images import KIB, MIB, run
from support.qcow2_images import child, to_raw
from support.qmp import QmpError

REFUSED_BY_QEMU = "Failed to zero out new clusters: Operation not supported"
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
        elif self.kind == "flush":
            self.cookie = client.aio_flush()
        elif self.kind == "trim":
            self.cookie = client.aio_trim(self.length, self.offset)
        else:
            if self.kind == "zero":
                flags |= nbd.CMD_FLAG_NO_HOLE
            self.cookie = client.aio_zero(self.length, self.offset,
                                          flags=flags)

    def finish(self):
        """Did it succeed?"""
        try:
            assert self.client.aio_command_completed(self.cookie)
            return True
        except nbd.Error:
            return False


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
            if flags & nbd.STATE_ZERO and piece != bytes(len(piece)):
                at = first_difference(piece, bytes(len(piece)))
                raise AssertionError(f"{offset + at} is said to be zero, in "
                                     f"the extent {offset}+{length}")
            offset = end


class Fault:
    """One request to an image's file fails, the `number`th of its kind."""

    KINDS = {"write": "write_aio", "write-zeroes": "pwritev_zero",
             "read": "read_aio", "flush": "flush_to_disk"}

    def __init__(self, chance):
        self.kind = chance.choice(["write", "write", "write", "write-zeroes",
                                   "read", "flush"])
        self.number = chance.randint(1, {"write": 25, "read": 15}.get(
            self.kind, 6))
        self.error = chance.choice([errno.EIO, errno.ENOSPC])

    def words(self):
        return f"{self.kind} {self.number} fails"

    def over(self, file):
        """The node with it, above the file's node."""
        event = self.KINDS[self.kind]
        steps = [{"event": event, "state": state, "new_state": state + 1}
                 for state in range(1, self.number)]
        return {"driver": "blkdebug", "image": file, "set-state": steps,
                "inject-error": [{"event": event, "iotype": self.kind,
                                  "state": self.number, "once": True,
                                  "errno": self.error}]}


class Qcow2Disk:
    def __init__(self, host, path, content, cluster, chance):
        self.host, self.path, self.chance = host, path, chance
        self.cluster = cluster
        self.model = DiskModel(content)
        self.clients = []
        self.options, self.fault = {}, None
        self.failures = 0  # requests that failed, as some must
        self.is_lost = False  # a sync has failed, and that is final

    # Opening and closing.

    def open(self, fault=None, **options):
        """With a `fault` (Fault) one request to the file fails; it may be one
        of opening."""
        self.options, self.fault, self.is_lost = options, fault, False
        file = {**child(self.path), "discard": "unmap"}
        try:
            self._add(file if fault is None else fault.over(file))
        except QmpError:
            self._note_failure("opening")
            self._add(file)
        self.connect()

    def _add(self, file):
        self.host.daemon.qmp.command("blockdev-add", {
            "driver": "qcow2", "node-name": "disk", **self.options,
            "file": file})

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
        if self.fault is not None:
            self.flush()  # closing tells nobody
        self.disconnect()
        self.host.daemon.qmp.command("blockdev-del", node_name="disk")
        if not self.is_lost:
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
        """All at once; but one after the other to QEMU 7.2, which now and then
        mixes up parallel writes and discards."""
        for request in requests:
            if self.host.is_qemu:
                self._wait()
            flags = nbd.CMD_FLAG_FUA if self.chance.random() < 0.05 else 0
            request.send(self.chance.choice(self.clients), flags)

    def _wait(self):
        for client in self.clients:
            while client.aio_in_flight() > 0:
                client.poll(-1)

    def batch(self, count, flush=False):
        """With `flush`, one is under way together with the rest: what was
        done before is durable after it."""
        requests = self.plan(count)
        self._send(requests)
        barrier = None
        if flush:
            barrier = Request("flush", 0, 0, None)
            barrier.send(self.chance.choice(self.clients), 0)
        self._wait()
        if barrier is not None and barrier.finish():
            self.model.flushed()
        elif barrier is not None:
            self._note_failed_flush()
        for request in requests:
            done = request.finish()
            if not done:
                self._note_failure(request.kind)
            self._apply(request, done)
        self.model.batch_done()

    def _note_failure(self, what):
        assert self.fault is not None, f"{what} failed"
        self.failures += 1

    def _note_failed_flush(self):
        self._note_failure("a flush")
        self.is_lost = self.fault.kind == "flush"

    def _apply(self, request, done):
        offset, length = request.offset, request.length
        if self.host.is_qemu:
            return  # what it made of it is read when it has closed the image
        if request.kind == "read":
            if done:
                self.model.check(offset, request.buffer)
        elif request.kind == "trim" or not done:
            old = bytes(self.model.content[offset:offset + length])
            found = bytes(self.pread(length, offset))
            self.model.after_either(offset, old, request.data, found)
        else:
            self.model.change(offset, request.data)

    def flush(self):
        """After a fault, again: only a failed sync is final."""
        client = self.chance.choice(self.clients)
        for _ in range(2):
            try:
                client.flush()
            except nbd.Error:
                self._note_failed_flush()
                continue
            assert not self.is_lost, "a flush succeeds after a failed sync"
            self.model.flushed()
            return
        assert self.is_lost, "two flushes failed"

    # Looking.

    def pread(self, length, offset):
        """After a fault, again."""
        try:
            return self.clients[0].pread(length, offset)
        except nbd.Error:
            self._note_failure("a read")
            return self.clients[0].pread(length, offset)

    def read(self, step=MIB):
        size = self.model.size
        return b"".join(self.pread(min(step, size - offset), offset)
                        for offset in range(0, size, step))

    def verify(self):
        """As a whole, in random pieces, and what is told of zeroes."""
        if self.host.is_qemu:
            return
        self.model.check(0, self.read())
        for _ in range(20):
            offset, length = self._place([])
            self.model.check(offset, self.pread(length, offset))
        try:
            check_status(self.clients[0], self.model.content)
        except nbd.Error:
            self._note_failure("block status")

    def resize(self, size):
        if self.host.is_qemu:
            self._resize_with_qemu_img(size)
            return
        self.disconnect()
        try:
            self.host.daemon.qmp.command("block_resize", {
                "node-name": "disk", "size": size})
            self.model.resize(size)
        except QmpError:
            self._note_failure("block_resize")
        self.connect()
        assert self.clients[0].get_size() == self.model.size

    def _resize_with_qemu_img(self, size):
        """Since qemu-storage-daemon 7.2 refuses while there is an export, and
        aborts when there is none. What was behind the end of the disk in its
        last cluster comes back when it grows, so that is read again. qemu-img
        7.2 does not grow a disk with extended L2 entries over a backing file if
        its last cluster is compressed: it cannot make a part of that zero."""
        self.close()
        result = run("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink",
                     self.path, str(size), check=False)
        if result.returncode != 0:
            assert REFUSED_BY_QEMU in result.stderr, result.stderr
            size = self.model.size
        raw = to_raw(self.path, self.path.with_suffix(".raw"))
        with open(raw, "rb") as file:
            self.model.replace(file.read())
        assert self.model.size == size
        self.open(**self.options)

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
