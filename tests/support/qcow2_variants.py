# SPDX-License-Identifier: BSD-3-Clause
"""Which qcow2 image a random round is about, how it is made and opened.

A variant is drawn from a random.Random, so a seed names it: the layout, what
is below it, who makes it and what is in it at the start. Nothing here looks at
anything but the seed, so the same seed gives the same image.
"""
import dataclasses
import os
import random

from support.create import create_qcow2, file_node
from support.images import KIB, MIB, patchy_image, qemu_img
from support.qcow2_images import create, scribble

SECTOR = 512


def sectors(chance, smallest, largest):
    """A size, to the sector."""
    return chance.randint(smallest // SECTOR, largest // SECTOR) * SECTOR


@dataclasses.dataclass
class Variant:
    size: int
    options: dict  # as of qemu-img create -o
    backing: tuple  # (format, size) or ()
    data_file: str  # "", "plain" or "raw"
    maker: str  # "qemu-img" or "blockdev-create"
    content: str  # "", "scribbled", "compressed", "snapshot" or "converted"
    content_seed: int

    @property
    def cluster(self):
        return self.options.get("cluster_size", 64 * KIB)

    @property
    def version_2(self):
        return self.options.get("compat") == "0.10"

    def may_compress(self):
        return not self.data_file

    def may_snapshot(self):
        return not self.data_file

    def words(self):
        backing = f"{self.backing[0]} of {self.backing[1]}" \
            if self.backing else "none"
        return (f"size {self.size}, {self.options}, backing file {backing}, "
                f"data file {self.data_file or 'none'}, by {self.maker}, "
                f"content {self.content or 'none'}")


def _pick_options(chance):
    options = {}
    if chance.random() < 0.85:
        options["cluster_size"] = 1 << chance.choice(
            [*range(9, 22), 9, 9, 10, 12, 12, 12, 14, 16, 16])
    if chance.random() < 0.12:
        options["compat"] = "0.10"
        return options
    if chance.random() < 0.5:
        options["refcount_bits"] = chance.choice([1, 2, 4, 8, 16, 32, 64, 64])
    if options.get("cluster_size", 64 * KIB) >= 16 * KIB and \
            chance.random() < 0.45:
        options["extended_l2"] = "on"
    if chance.random() < 0.4:
        options["compression_type"] = "zstd"
    if chance.random() < 0.15:
        options["lazy_refcounts"] = "on"
    return options


def _pick_size(chance, cluster):
    if chance.random() < 0.1:
        return sectors(chance, SECTOR, 256 * KIB)
    if cluster >= 512 * KIB:
        return sectors(chance, 2 * MIB, 8 * MIB)
    return sectors(chance, 256 * KIB, 4 * MIB)


def pick_variant(chance):
    options = _pick_options(chance)
    size = _pick_size(chance, options.get("cluster_size", 64 * KIB))
    backing, data_file = (), ""
    if chance.random() < 0.45:
        other = chance.choice([size, sectors(chance, SECTOR, size),
                               size + sectors(chance, SECTOR, 2 * MIB)])
        backing = (chance.choice(["raw", "qcow2"]), other)
    if "compat" not in options and chance.random() < 0.15:
        data_file = "plain" if backing else chance.choice(["plain", "raw"])
    if chance.random() < 0.2 and (not backing or "extended_l2" in options):
        options["preallocation"] = chance.choice(
            ["metadata", "metadata", "falloc", "full"])
    kinds = ["", "", "scribbled"]
    if not data_file:
        kinds += ["snapshot"]
        if "preallocation" not in options:  # qemu-io overwrites no cluster so
            kinds += ["compressed"] if backing else ["compressed", "converted"]
    content = chance.choice(kinds)
    # A count of one bit has no room for a snapshot.
    if content == "snapshot" and options.get("refcount_bits") == 1:
        content = "scribbled"
    return Variant(size, options, backing, data_file,
                   chance.choice(["qemu-img", "blockdev-create"]),
                   content, chance.randrange(1 << 30))


def _make_backing(variant, folder):
    kind, size = variant.backing
    seed = variant.content_seed
    if kind == "raw":
        patchy_image(folder / "base", size, seed=seed)
    else:
        create(folder / "base", size, cluster_size=4 * KIB)
        scribble(folder / "base", seed=seed, count=15)


def _make_with_qemu_img(variant, folder, path):
    options = dict(variant.options)
    if variant.data_file:
        options["data_file"] = folder / "data"
        if variant.data_file == "raw":
            options["data_file_raw"] = "on"
    backing = ("base", variant.backing[0]) if variant.backing else ()
    create(path, variant.size, *backing, **options)


def _make_with_blockdev_create(variant, folder, path, daemon):
    options = {name: value == "on" if value in ("on", "off") else value
               for name, value in variant.options.items()}
    if options.pop("compat", None) == "0.10":
        options["version"] = "v2"
    if variant.data_file:
        data = folder / "data"
        data.touch()
        daemon.qmp.command("blockdev-add", {"node-name": "data",
                                            **file_node(data)})
        options.update(data_file="data",
                       data_file_raw=variant.data_file == "raw")
    if variant.backing:
        options.update(backing_file="base", backing_fmt=variant.backing[0])
    create_qcow2(daemon, path, variant.size, **options)
    if variant.data_file:
        daemon.qmp.command("blockdev-del", node_name="data")


def _convert(variant, folder, path):
    """A whole image of qemu-img convert, compressed, in place of an empty
    one."""
    patchy_image(folder / "source", variant.size, seed=variant.content_seed,
                 piece=24 * KIB, share=0.5)
    words = ["-o", ",".join(f"{name}={value}"
                            for name, value in variant.options.items())]
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2",
             *(words if variant.options else []), folder / "source", path)
    os.unlink(folder / "source")


def make_image(variant, folder, daemon):
    """In `folder` as disk.qcow2; blockdev-create runs in `daemon`."""
    path = folder / "disk.qcow2"
    if variant.backing:
        _make_backing(variant, folder)
    if variant.content == "converted":
        _convert(variant, folder, path)
    elif variant.maker == "qemu-img":
        _make_with_qemu_img(variant, folder, path)
    else:
        _make_with_blockdev_create(variant, folder, path, daemon)
    if variant.content in ("scribbled", "compressed", "snapshot"):
        scribble(path, seed=variant.content_seed, count=20,
                 compress=variant.content == "compressed")
    return path


def pick_node_options(chance, variant):
    """How it is opened: small caches, what becomes of discards."""
    options = {"discard": chance.choice(["unmap", "unmap", "ignore"]),
               "detect-zeroes": chance.choice(["off", "off", "on"])}
    if chance.random() < 0.4:
        entry = min(variant.cluster, 1 << chance.choice([9, 10, 12]))
        options["l2-cache-entry-size"] = entry
        options["l2-cache-size"] = entry * chance.choice([1, 2, 5])
    if chance.random() < 0.3:
        options["refcount-cache-size"] = chance.choice([512, 4 * KIB])
    if chance.random() < 0.3:
        options["pass-discard-request"] = chance.random() < 0.5
        options["pass-discard-other"] = chance.random() < 0.5
    return options


def backing_bytes(folder):
    """To see that nobody writes below an image."""
    path = folder / "base"
    return path.read_bytes() if path.exists() else None


def fresh(seed):
    return random.Random(seed)
