# SPDX-License-Identifier: BSD-3-Clause
"""A guest that never rests: changes all disks, over and over, from a thread,
until it is frozen. `cohort backup --freeze-cmd` asks for that through a
socket, as it would ask the agent in a real guest."""
import socket
import threading
import time

from disks import run


class Writer:
    def __init__(self, disks, folder):
        self.disks, self.folder = disks, folder
        self.turn = threading.Lock()  # held while a change is made
        self.ending = False
        self.resting = False
        self.failure = None
        self.copying_s = 0.0
        self.snapshot = None  # where the freeze puts its reference copies
        self.address = str(folder / "agent.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.address)
        self.listener.listen()
        self.frozen = False
        for work in (self.write, self.listen):
            threading.Thread(target=work, daemon=True).start()

    def changes(self):
        return sum(disk.changes for disk in self.disks)

    def write(self):
        rest = threading.Event()
        try:
            while not self.ending:
                for disk in self.disks:
                    with self.turn:
                        if self.ending:
                            return
                        if not self.resting:
                            disk.change()
                rest.wait(0.002)  # leaves the lock to who asks for it
        except (OSError, RuntimeError) as error:
            self.failure = error

    def listen(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                word = connection.recv(64).decode().strip()
                try:
                    answer = self.freeze() if word == "freeze" \
                        else self.thaw()
                except (OSError, RuntimeError) as error:
                    answer = f"error: {error}"
                connection.sendall(answer.encode())

    def freeze(self):
        """Returns with the disks still, and copied aside so that the restored
        disks can be held against them."""
        if self.failure:
            return f"error: the writer failed: {self.failure}"
        self.turn.acquire()
        self.frozen = True
        self.copying_s = 0.0
        for disk in self.disks:
            disk.freeze()
        began = time.monotonic()
        for disk in self.disks if self.snapshot else []:
            run("nbdcopy", disk.uri, self.snapshot / f"{disk.name}.raw")
        self.copying_s = time.monotonic() - began
        return "ok"

    def thaw(self):
        if self.frozen:
            for disk in self.disks:
                disk.thaw()
            self.frozen = False
            self.turn.release()
        return "ok"

    def rest(self):
        """Stands still, with everything written; a freeze still works."""
        self.resting = True
        with self.turn:
            for disk in self.disks:
                disk.freeze()
                disk.thaw()

    def go_on(self):
        self.resting = False

    def stop(self):
        self.thaw()
        self.ending = True
        with self.turn:
            pass  # the last change is made


def ask(address, word):
    """What --freeze-cmd and --thaw-cmd run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(address)
        client.sendall(word.encode())
        answer = client.recv(4096).decode()
    if answer != "ok":
        raise SystemExit(f"{word}: {answer}")
