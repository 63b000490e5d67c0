# SPDX-License-Identifier: BSD-3-Clause
"""A QMP proxy that can break one backup target.

It passes everything on between `cohort` and cohortd. While armed, it changes
one kind of request: where a node is added for the target of the chosen disk,
it puts a blkdebug node that answers every write with EIO above the file. So
the fault is the daemon's own, in the middle of a real run of `cohort`."""
import json
import os
import socket
import threading


class FaultProxy:
    def __init__(self, folder, upstream):
        self.path = str(folder / "proxy.sock")
        self.upstream = upstream
        self.armed_for = None  # part of the target's file name
        self.broken = 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self.upstream)
            threading.Thread(target=self.requests, args=(client, server),
                             daemon=True).start()
            threading.Thread(target=replies, args=(server, client),
                             daemon=True).start()

    def requests(self, client, server):
        """Client to server, one JSON value at a time."""
        decoder, text = json.JSONDecoder(), ""
        while data := client.recv(1 << 16):
            text += data.decode()
            while text := text.lstrip():
                try:
                    request, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break  # half a value; more will come
                text = text[end:]
                server.sendall(json.dumps(self.touch(request)).encode())
        server.shutdown(socket.SHUT_WR)

    def touch(self, request):
        arguments = request.get("arguments", {})
        if self.armed_for and request.get("execute") == "blockdev-add" and \
                self.armed_for in os.path.basename(filename(arguments)):
            self.broken += 1
            name = arguments.pop("node-name")
            request["arguments"] = {
                "driver": "blkdebug", "node-name": name, "image": arguments,
                "inject-error": [{"event": "none", "iotype": "write",
                                  "errno": 5}]}
        return request


def filename(options):
    """The file at the bottom of a tree of block device options."""
    while isinstance(options.get("file"), dict):
        options = options["file"]
    return options.get("filename", "")


def replies(server, client):
    while data := server.recv(1 << 16):
        try:
            client.sendall(data)
        except OSError:
            return
    client.close()
