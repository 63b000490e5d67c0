# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 disks and backup targets, in chains."""
from support.create import create_qcow2, file_node
from support.images import qemu_img


def qcow2_options(name, path, **more):
    return {"driver": "qcow2", "node-name": name, "discard": "unmap",
            "file": {**file_node(path), "discard": "unmap"}, **more}


def add_qcow2(daemon, name, path, export=True, **more):
    """A qcow2 node over an image, with a writable export of the same name."""
    daemon.qmp.command("blockdev-add", qcow2_options(name, path, **more))
    if export:
        daemon.qmp.command("block-export-add", type="nbd", id=f"export-{name}",
                           node_name=name, name=name, writable=True)
    return str(path)


def new_layer(daemon, name, size, backing=None, backing_format="qcow2",
              export=False, **options):
    """A new image in the daemon's folder, opened; over `backing` if given."""
    if backing is not None:
        options.update(backing_file=str(backing), backing_fmt=backing_format)
    path = create_qcow2(daemon, daemon.folder / f"{name}.qcow2", size,
                        **options)
    return add_qcow2(daemon, name, path, export)


def close_node(daemon, name):
    daemon.qmp.command("blockdev-del", node_name=name)


def assert_sound(path):
    """No leak and no corruption, says qemu-img."""
    qemu_img("check", "-q", "-U", "-f", "qcow2", path)


def assert_equal_images(path, reference, reference_format="raw"):
    """The same content, read by qemu-img through all backing files."""
    said = qemu_img("compare", "-U", "-f", "qcow2", "-F", reference_format,
                    path, reference)
    assert said.startswith("Images are identical"), said
