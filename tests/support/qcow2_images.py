# SPDX-License-Identifier: BSD-3-Clause
"""qcow2 images of all kinds, made by qemu-img and qemu-io for tests."""
import json
import os
import random

from support.images import KIB, MIB, qemu_img, run

SECTOR = 512


def create(path, size, backing=None, backing_format=None, **options):
    """A new image; `options` as of qemu-img create -o, with '_'."""
    words = ["create", "-q", "-f", "qcow2"]
    if backing is not None:
        words += ["-b", backing, "-F", backing_format]
    if options:
        words += ["-o", ",".join(f"{name}={value}"
                                 for name, value in options.items())]
    qemu_img(*words, path, str(size))
    return str(path)


def image_json(path):
    """What qemu-img info tells."""
    return json.loads(qemu_img("info", "-U", "--output=json", path))


def random_commands(chance, size, cluster, count, compress=False, zeroes=True):
    """qemu-io commands that write, zero and discard all over a disk: whole
    clusters, several, and pieces of them down to a sector."""
    kinds = ["write"] * 6
    if zeroes:
        kinds += ["zero", "zero", "unmap", "discard"]
    commands = []
    if compress:  # before all others: a compressed write overwrites nothing
        for index in chance.sample(range(size // cluster),
                                   min(count, size // cluster * 2 // 3)):
            commands.append(f"write -c -P {chance.randint(1, 255)} "
                            f"{index * cluster} {cluster}")
    for _ in range(count):
        kind = chance.choice(kinds)
        unit = chance.choice([SECTOR, 4 * KIB, cluster, cluster])
        length = min(unit * chance.randint(1, 4), size)
        offset = chance.randrange(0, size - length + 1) // unit * unit
        if kind == "write":
            commands.append(f"write -P {chance.randint(1, 255)} "
                            f"{offset} {length}")
        else:
            word = {"zero": "write -z", "unmap": "write -z -u",
                    "discard": "discard"}[kind]
            commands.append(f"{word} {offset} {length}")
    return commands


def scribble(path, seed, count=60, compress=False, zeroes=True):
    """Random operations on an image, the same for the same seed."""
    chance = random.Random(seed)
    about = image_json(path)
    target = "json:" + json.dumps(
        {"driver": "qcow2", "discard": "unmap",
         "file": child(path)})
    commands = random_commands(chance, about["virtual-size"],
                               about["cluster-size"], count, compress, zeroes)
    # qemu-io takes only so many words at a time; -f would contradict json:
    for start in range(0, len(commands), 200):
        words = []
        for command in commands[start:start + 200]:
            words += ["-c", command]
        result = run("qemu-io", *words, target)
        output = result.stdout + result.stderr
        assert "failed" not in output and "error" not in output, output


def leave_dirty(path):
    """Ends a writer without closing: lazy refcounts stay behind."""
    words = ["-c", f"write -P 77 0 {3 * MIB}", "-c", "flush", "-c", "abort"]
    run("qemu-io", "-f", "qcow2", *words, path, check=False)


def to_raw(path, raw, *words):
    """The whole disk as qemu-img reads it."""
    qemu_img("convert", "-U", *words, "-O", "raw", path, raw)
    return str(raw)


def child(path):
    return {"driver": "file", "filename": os.fspath(path)}


def blockdev(path, name="disk", **members):
    """The words of a --blockdev option for an image that is only read."""
    return ["--blockdev", json.dumps(
        {"driver": "qcow2", "node-name": name, "read-only": True,
         "file": child(path), **members})]
