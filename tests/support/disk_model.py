# SPDX-License-Identifier: BSD-3-Clause
"""What a disk must hold: a byte array, and what it may hold after a crash.

    model.change(offset, data)     a request is done
    model.batch_done()             ... all of one batch; a version
    model.flushed()                older versions are gone for good
    model.after_crash(found)       what the disk shows now is possible

Each sector may come back as any version since the last flush, each for itself.
A batch touches a sector at most once, so a version per batch is all there are.
"""
SECTOR = 512


def first_difference(a, b):
    """Of two byte strings of one length that differ."""
    low, high = 0, min(len(a), len(b))
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] != b[low:middle]:
            high = middle
        else:
            low = middle
    return low


class DiskModel:
    def __init__(self, content):
        self.content = bytearray(content)
        self.versions = [bytes(content)]

    @property
    def size(self):
        return len(self.content)

    def change(self, offset, data):
        self.content[offset:offset + len(data)] = data

    def batch_done(self):
        self.versions.append(bytes(self.content))

    def flushed(self):
        self.versions = [bytes(self.content)]

    def replace(self, content):
        """Somebody else has written the disk."""
        self.content = bytearray(content)
        self.flushed()

    def resize(self, size):
        """The new size is durable, and that a new part is zero."""
        def resized(content):
            return bytes(content[:size]) + bytes(max(0, size - len(content)))
        self.content = bytearray(resized(self.content))
        self.versions = [resized(version) for version in self.versions]

    def check(self, offset, found):
        expected = self.content[offset:offset + len(found)]
        if found != expected:
            at = first_difference(found, expected)
            raise AssertionError(
                f"the disk differs at {offset + at}: "
                f"{bytes(found[at:at + 16]).hex()} is there, "
                f"{bytes(expected[at:at + 16]).hex()} was written")

    def after_crash(self, found):
        assert len(found) == self.size, (len(found), self.size)
        if found != self.content:
            for offset in range(0, self.size, SECTOR):
                piece = found[offset:offset + SECTOR]
                if piece == self.content[offset:offset + SECTOR]:
                    continue
                if not any(piece == version[offset:offset + SECTOR]
                           for version in self.versions):
                    raise AssertionError(
                        f"after the crash sector {offset} holds none of "
                        f"{len(self.versions)} versions: "
                        f"{bytes(piece[:16]).hex()}")
        self.replace(found)

    def after_trim(self, offset, old, found):
        """A trim leaves each sector as it was, or zero."""
        self.after_either(offset, old, bytes(len(old)), found)

    def after_either(self, offset, old, new, found):
        """Each sector is as it was, or new; for a request that failed, too."""
        if found not in (old, new):
            start = 0
            while start < len(old):
                end = min(len(old), (offset + start) // SECTOR * SECTOR +
                          SECTOR - offset)
                assert found[start:end] in (old[start:end], new[start:end]), \
                    f"neither old nor new at {offset + start}"
                start = end
        self.change(offset, found)
