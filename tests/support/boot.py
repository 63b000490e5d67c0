# SPDX-License-Identifier: BSD-3-Clause
"""A process that sees another boot id, as if the machine had been restarted
since. In a mount namespace of its own; needs root."""
import uuid

# Only /proc is made private: in a chroot "/" need not be a mount.
ENTER = ('mount --make-rprivate /proc && '
         'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"')


def another_boot(folder):
    "Words before the program."
    path = folder / f"boot-{uuid.uuid4()}"
    path.write_text(f"{uuid.uuid4()}\n")
    return ("unshare", "--mount", "--propagation", "unchanged",
            "sh", "-c", ENTER, str(path))
