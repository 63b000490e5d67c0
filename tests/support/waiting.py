# SPDX-License-Identifier: BSD-3-Clause
"""Waiting for something to happen, never for time to pass."""
import ctypes
import os
import select
import time

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_CLOSE_WRITE = 0x2, 0x80, 0x100, 0x8
LIBC = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Tells of changes in a folder, by inotify."""

    def __init__(self, folder):
        self.descriptor = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_CLOSE_WRITE
        watch = LIBC.inotify_add_watch(self.descriptor,
                                       os.fsencode(folder), mask)
        if self.descriptor < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)

    def drain(self):
        try:
            while os.read(self.descriptor, 1 << 16):
                pass
        except BlockingIOError:
            pass


def readable(descriptors, timeout):
    """Those of them that can be read, once one can or the time (seconds) is
    over. Unlike select() it takes descriptors of any number."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout * 1000)]


def wait_for_file(path, process, timeout):
    """Returns when `path` exists and has content; raises when the process
    ended before, or the time is over."""
    deadline = time.monotonic() + timeout
    ended = os.pidfd_open(process.pid)
    try:
        with FolderWatch(os.path.dirname(path)) as watch:
            while not (os.path.exists(path) and os.path.getsize(path) > 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{path} did not appear")
                if ended in readable([watch.descriptor, ended], left):
                    raise ChildProcessError("it ended before it was ready")
                watch.drain()
    finally:
        os.close(ended)


def wait_for_words(path, words, timeout, start=0):
    """Returns when the file holds them, behind its first `start` bytes."""
    deadline = time.monotonic() + timeout
    with FolderWatch(path.parent) as watch:
        while words.encode() not in path.read_bytes()[start:]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{path} does not say '{words}'")
            readable([watch.descriptor], left)
            watch.drain()


def wait_until(condition, timeout, what):
    """For what offers no event (another process's state): asks often."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)
