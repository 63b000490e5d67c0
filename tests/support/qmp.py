# SPDX-License-Identifier: BSD-3-Clause
"""A QMP client for tests: commands, events, and raw bytes.

    qmp = Qmp("/path/to/socket")               connects and negotiates
    qmp.command("query-version")               the return value, or QmpError
    qmp.command("blockdev-add", driver="null-co", node_name="a", size=1 << 20)
    qmp.error("blockdev-del", node_name="b")   the QmpError it must give
    qmp.wait_event("JOB_STATUS_CHANGE", id="j", status="concluded")
    qmp.wait_job("j")                          how a block job ended

Keyword arguments are QMP members with `-` written as `_`; a dict as second
argument is taken as it is. For tests of the protocol itself there are
Qmp(path, negotiate=False), send_raw() and receive().
"""
import json
import socket
import time

TIMEOUT_S = 30


class QmpError(Exception):
    """An error reply: .error_class, .desc, and the whole .reply."""

    def __init__(self, reply):
        self.reply = reply
        self.error_class = reply["error"]["class"]
        self.desc = reply["error"]["desc"]
        super().__init__(f"{self.error_class}: {self.desc}")


class QmpTimeout(Exception):
    """Nothing came, or not what was waited for."""


def members(arguments, keywords):
    found = dict(arguments or {})
    found.update((key.rstrip("_").replace("_", "-"), value)
                 for key, value in keywords.items())
    return found


class Qmp:
    def __init__(self, address, negotiate=True, timeout=TIMEOUT_S):
        """`address`: a path, or a (host, port) pair."""
        family = socket.AF_INET if isinstance(address, tuple) \
            else socket.AF_UNIX
        self.timeout = timeout
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.received = b""
        self.events = []    # not yet asked for
        self.event_log = []  # all that ever came, in order
        self.greeting = self.receive()
        if negotiate:
            self.command("qmp_capabilities")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Bytes and messages.

    def send_raw(self, data):
        self.socket.sendall(data)

    def send(self, message):
        self.send_raw(json.dumps(message).encode() + b"\n")

    def shutdown_write(self):
        """Half-closes: the server reads the end of the stream."""
        self.socket.shutdown(socket.SHUT_WR)

    def receive_line(self, timeout=None):
        """The next line as it came, with its end; b"" at end of stream."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while b"\n" not in self.received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise QmpTimeout(f"no line; so far {self.received!r}")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 20)
            except socket.timeout:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                line, self.received = self.received, b""
                return line
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return line + b"\n"

    def receive(self, timeout=None):
        """The next message, event or not. EOFError at end of stream."""
        text = b""
        while True:
            line = self.receive_line(timeout)
            if not line:
                raise EOFError(f"the server hung up after {text!r}")
            text += line
            try:
                message = json.loads(text)
            except json.JSONDecodeError:
                continue  # a pretty monitor spreads a message over lines
            if "event" in message:
                self.event_log.append(message)
            return message

    def at_end(self, timeout=None):
        """Waits for the server to hang up; False if it says more first."""
        try:
            return self.receive_line(timeout) == b""
        except QmpTimeout:
            return False

    # Commands.

    def reply(self, timeout=None):
        """The next message that is no event; events are kept."""
        while True:
            message = self.receive(timeout)
            if "event" not in message:
                return message
            self.events.append(message)

    def request(self, message, timeout=None):
        """Sends a whole request and returns the whole reply."""
        self.send(message)
        return self.reply(timeout)

    def command(self, name, arguments=None, /, **keywords):
        message = {"execute": name}
        given = members(arguments, keywords)
        if given:
            message["arguments"] = given
        reply = self.request(message)
        if "error" in reply:
            raise QmpError(reply)
        return reply["return"]

    def error(self, name, arguments=None, /, **keywords):
        """Runs a command that must fail and returns its QmpError."""
        try:
            value = self.command(name, arguments, **keywords)
        except QmpError as error:
            return error
        raise AssertionError(f"{name} succeeded: {value!r}")

    def transaction(self, *actions, grouped=False):
        """Actions are (type, data) pairs, data a dict of members."""
        arguments = {"actions": [{"type": kind, "data": members(data, {})}
                                 for kind, data in actions]}
        if grouped:
            arguments["properties"] = {"completion-mode": "grouped"}
        return self.command("transaction", arguments)

    # Events.

    def wait_event(self, name, /, timeout=None, **match):
        """The first event of that name whose data has these members; events
        before it stay to be asked for."""
        wanted = members(None, match)

        def fits(event):
            data = event.get("data", {})
            return event["event"] == name and all(
                data.get(key) == value for key, value in wanted.items())
        return self.wait_for(fits, f"{name} {wanted}", timeout)

    def wait_for(self, fits, what, timeout=None):
        deadline = time.monotonic() + (timeout or self.timeout)
        for index, event in enumerate(self.events):
            if fits(event):
                return self.events.pop(index)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise QmpTimeout(f"no event {what}; came: {self.events}")
            try:
                message = self.receive(left)
            except QmpTimeout:
                continue
            if "event" not in message:
                raise AssertionError(f"a reply nobody asked for: {message}")
            if fits(message):
                return message
            self.events.append(message)

    def wait_job(self, job, timeout=None):
        """How a block job ended: its BLOCK_JOB_COMPLETED or _CANCELLED."""
        return self.wait_for(
            lambda event: event["event"] in ("BLOCK_JOB_COMPLETED",
                                             "BLOCK_JOB_CANCELLED")
            and event["data"]["device"] == job, f"end of {job}", timeout)

    def wait_job_gone(self, job, timeout=None):
        """The same, and the job has left query-jobs (it must dismiss itself):
        its id, nodes and bitmaps are free again."""
        end = self.wait_job(job, timeout)
        self.wait_event("JOB_STATUS_CHANGE", timeout=timeout, id=job,
                        status="null")
        return end

    def events_now(self):
        """Events that came before the reply to a command sent now."""
        self.command("query-version")
        events, self.events = self.events, []
        return events

    # What tests look at often.

    def node(self, name):
        """BlockDeviceInfo of a node; KeyError if there is none."""
        for info in self.command("query-named-block-nodes"):
            if info["node-name"] == name:
                return info
        raise KeyError(name)

    def bitmap(self, node, name):
        """BlockDirtyInfo of a bitmap; KeyError if there is none."""
        for info in self.node(node).get("dirty-bitmaps", []):
            if info.get("name") == name:
                return info
        raise KeyError(f"{node}/{name}")
