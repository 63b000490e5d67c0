# SPDX-License-Identifier: BSD-3-Clause
"""A QMP proxy that lets a test act at an exact step of a client's run.

    proxy = QmpProxy(folder, daemon.qmp_path)
    proxy.before("job-finalize", action)   action() runs before it is passed on
    proxy.after("transaction", action)     ... when its reply is there
    proxy.names                            the commands seen, in order

An action that returns DROP keeps the request (or the reply) from going on; one
that returns a dict replaces the request. `nth` picks an occurrence, from 1."""
import json
import socket
import threading

DROP = object()


class QmpProxy:
    def __init__(self, folder, upstream):
        self.path = str(folder / "proxy.sock")
        self.upstream = upstream
        self.names = []
        self.rules = []     # [moment, name, occurrences left, action]
        self.pending = {}   # id -> name
        self.failure = None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def before(self, name, action, nth=1):
        self.rules.append(["before", name, nth, action])

    def after(self, name, action, nth=1):
        self.rules.append(["after", name, nth, action])

    def clear(self):
        self.rules.clear()
        self.names.clear()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self.upstream)
            except OSError:
                client.close()
                continue
            for source, sink, handle in ((client, server, self.request),
                                         (server, client, self.reply)):
                threading.Thread(target=self.pump, daemon=True,
                                 args=(source, sink, handle)).start()

    def pump(self, source, sink, handle):
        decoder, text = json.JSONDecoder(), ""
        try:
            while data := source.recv(1 << 16):
                text += data.decode()
                while text := text.lstrip():
                    try:
                        message, end = decoder.raw_decode(text)
                    except json.JSONDecodeError:
                        break
                    text = text[end:]
                    message = handle(message)
                    if message is not DROP:
                        sink.sendall(json.dumps(message).encode() + b"\r\n")
        except OSError:
            pass  # a side that a test has killed
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def act(self, moment, name, message):
        for rule in self.rules:
            if rule[:2] == [moment, name]:
                rule[2] -= 1
                if rule[2] == 0:
                    result = rule[3]()
                    return message if result is None else result
        return message

    def request(self, message):
        name = message.get("execute")
        self.names.append(name)
        self.pending[message.get("id")] = name
        return self.act("before", name, message)

    def reply(self, message):
        if "event" in message or "id" not in message:
            return message
        name = self.pending.pop(message["id"], None)
        return self.act("after", name, message)
