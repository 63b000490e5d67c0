# SPDX-License-Identifier: BSD-3-Clause
"""Disk images for tests, and the programs that look into them."""
import os
import random
import subprocess

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def run(*words, check=True, timeout=120, **keywords):
    """Runs a program to its end; on failure shows what it said."""
    result = subprocess.run([str(word) for word in words], text=True,
                            errors="replace", stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=timeout, check=False,
                            **keywords)
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, words))}: exit code {result.returncode}\n"
            f"{result.stdout}{result.stderr}")
    return result


def sparse_image(path, size):
    """All holes."""
    with open(path, "wb") as file:
        file.truncate(size)
    return str(path)


def random_image(path, size, seed=1):
    """All data, the same for the same seed."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        left = size
        while left > 0:
            piece = min(left, MIB)
            file.write(chance.randbytes(piece))
            left -= piece
    return str(path)


def patchy_image(path, size, seed=1, piece=64 * KIB, share=0.3):
    """Data in a share of its pieces, holes between."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset in range(0, size, piece):
            if chance.random() < share:
                file.seek(offset)
                file.write(chance.randbytes(min(piece, size - offset)))
    return str(path)


def write_at(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def read_at(path, offset, size):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def first_difference(path_a, path_b):
    """Offset of the first byte that differs, None if all are equal; a size
    that differs counts at the shorter end."""
    with open(path_a, "rb") as a, open(path_b, "rb") as b:
        offset = 0
        while True:
            piece_a, piece_b = a.read(MIB), b.read(MIB)
            if piece_a != piece_b:
                shorter = min(len(piece_a), len(piece_b))
                for index in range(shorter):
                    if piece_a[index] != piece_b[index]:
                        return offset + index
                return offset + shorter
            if not piece_a:
                return None
            offset += len(piece_a)


def assert_same(path_a, path_b):
    offset = first_difference(path_a, path_b)
    assert offset is None, f"{path_a} and {path_b} differ at byte {offset}"


def allocated_bytes(path):
    return os.stat(path).st_blocks * 512


def qemu_io(target, *commands, image_format="raw", check=True,
            read_only=None):
    """Runs qemu-io commands on a file or NBD URI; returns its output. With
    `check`, a command that failed (also `read -P` that did not match) fails
    the test. If all commands are reads it opens read-only, and a file also
    when a daemon holds its locks."""
    words = ["qemu-io", "-f", image_format]
    if read_only is None:
        read_only = all(command.startswith(("read", "map", "length"))
                        for command in commands)
    if read_only:
        words.append("-r")
        if "://" not in str(target):
            words.append("-U")
    for command in commands:
        words += ["-c", command]
    result = run(*words, str(target), check=check)
    output = result.stdout + result.stderr
    if check:
        for word in ("failed", "error", "Pattern verification"):
            assert word not in output, output
    return output


def qemu_img(*words, check=True):
    return run("qemu-img", *words, check=check).stdout
