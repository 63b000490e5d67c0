# SPDX-License-Identifier: BSD-3-Clause
"""Disks of a daemon under test: nodes over image files, exported over NBD."""
from support.images import KIB, random_image, sparse_image


def raw_options(name, path, **more):
    return {"driver": "raw", "node-name": name, "discard": "unmap",
            "file": {"driver": "file", "filename": str(path)}, **more}


def add_disk(daemon, name, path, export=True):
    """A raw node over an image, with a writable export of the same name."""
    daemon.qmp.command("blockdev-add", raw_options(name, path))
    if export:
        daemon.qmp.command("block-export-add", type="nbd", id=f"export-{name}",
                           node_name=name, name=name, writable=True)
    return str(path)


def new_disk(daemon, name, size, seed=None, export=True):
    """As add_disk() on a new image in the daemon's folder; `seed`: random
    content, else all holes."""
    path = daemon.folder / f"{name}.raw"
    if seed is None:
        sparse_image(path, size)
    else:
        random_image(path, size, seed)
    return add_disk(daemon, name, path, export)


def new_target(daemon, name, size):
    """An empty node to back up to, without an export."""
    return new_disk(daemon, name, size, export=False)


def add_bitmap(daemon, node, name="b0", granularity=64 * KIB, **more):
    daemon.qmp.command("block-dirty-bitmap-add", node=node, name=name,
                       granularity=granularity, **more)


def backup_action(disk, target, job=None, sync="full", **more):
    """A (type, data) pair for Qmp.transaction()."""
    return ("blockdev-backup",
            {"job-id": job or f"job-{disk}", "device": disk, "target": target,
             "sync": sync,
             **{key.replace("_", "-"): value for key, value in more.items()}})


def dirty_bytes(daemon, node, name="b0"):
    return daemon.qmp.bitmap(node, name)["count"]


# A node that fails: blkdebug over null-co or a file.

def failing_node(name, size, iotype="write", once=False, path=None,
                 at=None):
    """Options of a node whose requests of a kind fail with EIO, only those that
    touch byte `at` if that is given."""
    image = {"driver": "null-co", "size": size} if path is None else \
        {"driver": "file", "filename": str(path)}
    rule = {"event": "none", "iotype": iotype, "errno": 5, "once": once}
    if at is not None:
        rule["sector"] = at // 512
    return {"driver": "blkdebug", "node-name": name, "image": image,
            "inject-error": [rule]}
