# SPDX-License-Identifier: BSD-3-Clause
"""Compressed writes into an image: by a backup of a disk that differs a bit."""
import nbd

from support.images import KIB
from support.qcow2_images import child

REQUESTS = 6


def _change(daemon, content, chance, disk):
    """Random writes to the source, noted in `content`."""
    client = nbd.NBD()
    client.connect_uri(daemon.nbd_uri("source"))
    for _ in range(REQUESTS):
        request = next(r for r in iter(lambda: disk.plan(1), None) if r)[0]
        if request.data is None:
            continue
        if chance.random() < 0.7:  # else it may be incompressible
            request.data = (request.data[:16] * (request.length // 16 + 1))[
                :request.length]
        client.pwrite(request.data, request.offset)
        content[request.offset:request.offset + request.length] = request.data
    client.shutdown()


def compressed_backup(daemon, disk, folder):
    """The image becomes equal to a source that was its copy and has changed
    since: the changed clusters are written, compressed."""
    qmp, chance = daemon.qmp, disk.chance
    source = folder / "source.raw"
    content = bytearray(disk.model.content)
    source.write_bytes(content)
    qmp.command("blockdev-add", {"driver": "raw", "node-name": "source",
                                 "file": child(source)})
    qmp.command("block-dirty-bitmap-add", node="source", name="changed",
                granularity=chance.choice([4 * KIB, 64 * KIB]))
    qmp.command("block-export-add", type="nbd", id="source",
                node_name="source", name="source", writable=True)
    _change(daemon, content, chance, disk)
    qmp.command("block-export-del", id="source", mode="hard")
    qmp.wait_event("BLOCK_EXPORT_DELETED", id="source")
    qmp.command("blockdev-add", {"driver": "qcow2", "node-name": "disk",
                                 "file": child(disk.path)})
    qmp.command("blockdev-backup", job_id="backup", device="source",
                target="disk", sync="incremental", bitmap="changed",
                compress=True)
    end = qmp.wait_job_gone("backup")
    assert "error" not in end["data"], end
    for name in ("disk", "source"):
        qmp.command("blockdev-del", node_name=name)
    source.unlink()
    disk.model.replace(content)
