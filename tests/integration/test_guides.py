# SPDX-License-Identifier: BSD-3-Clause
"""Every example of the guides, of docs/start.md and of the README works.

A page's fenced blocks run in order, in one shell and one QMP session, in an
empty folder where `cohortd` and `cohort` are in PATH. By the word after the
fence:

  sh          commands for the shell, each of which must succeed;
              `exit=N`: they end with that code instead, and variables set in
              the block do not outlive it; `root`: left out without the right
              to mount; `checkout`: begins in the source tree
  output      what the last sh block printed, both streams; `...` stands for
              any text within a line, and alone on a line for any lines
  qmp         one command for the daemon on ./qmp.sock
  qmp-reply   its reply; without this block it must not be an error
  qmp-event   events that come, in this order, by now or soon; others may come
              between them, and no event is used twice
  text        for the eye only, as is a block without a word

In replies and events "..." stands for any value, within a string for any text,
as a member of a list for any members, and as a key for any further members of
an object; the timestamp may be left out. `/tmp/tour` in an sh block is the empty
folder.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from support.daemon import ROOT, cohort_binary, cohortd_binary
from support.qmp import Qmp, QmpTimeout
from support.waiting import readable

# The page of tracing tools that need privileges; test_trace.py has its claims.
NOT_RUN = ("tracing.md",)
GUIDES = sorted(path for path in (ROOT / "docs/guides").glob("*.md")
                if path.name not in NOT_RUN)
PAGES = [ROOT / "README.md", ROOT / "docs/start.md", *GUIDES]
KINDS = ("sh", "output", "qmp", "qmp-reply", "qmp-event", "text", "")
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK_TIMEOUT_S = 300
EVENT_TIMEOUT_S = 30
ANY = "..."


class Wrong(Exception):
    """An example that does not do what its page says."""


class Block:
    def __init__(self, line, info, text):
        self.line = line  # of its first line, in the page
        kind, *self.words = info.split() or [""]
        self.kind = kind
        self.text = text
        if kind not in KINDS:
            raise Wrong(f"a block of unknown kind \"{kind}\"")

    def option(self, name):
        for word in self.words:
            if word.partition("=")[0] == name:
                return word.partition("=")[2] or True
        return None

    def values(self):
        """The JSON values in the block."""
        found, place, decoder = [], 0, json.JSONDecoder()
        text = self.text.strip()
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            found.append(value)
            place += len(text[place:]) - len(text[place:].lstrip())
        return found


def blocks_of(text):
    return [Block(text.count("\n", 0, match.start(2)) + 1, match.group(1),
                  match.group(2)) for match in FENCE.finditer(text)]


def matches(expected, value):
    if expected == ANY:
        return True
    if isinstance(expected, dict):
        return (isinstance(value, dict) and
                all(key == ANY or key in value for key in expected) and
                all(ANY in expected if key not in expected
                    else matches(expected[key], value[key]) for key in value))
    if isinstance(expected, list):
        return isinstance(value, list) and lists_match(expected, value)
    if isinstance(expected, str) and ANY in expected:
        return isinstance(value, str) and like(expected, value)
    return type(expected) is type(value) and expected == value


def lists_match(expected, values):
    if not expected:
        return not values
    if expected[0] == ANY:
        return any(lists_match(expected[1:], values[place:])
                   for place in range(len(values) + 1))
    return bool(values) and matches(expected[0], values[0]) and \
        lists_match(expected[1:], values[1:])


def any_text(expected):
    return ".*".join(map(re.escape, expected.split(ANY)))


def like(expected, text):
    return re.fullmatch(any_text(expected), text) is not None


def output_matches(expected, printed):
    lines = [r"(?:.*\n)*?" if line == ANY else any_text(line) + r"\n"
             for line in expected.splitlines()]
    return re.fullmatch("".join(lines), printed) is not None


class Shell:
    """One shell for all blocks of a page."""

    def __init__(self, folder):
        self.folder = folder          # of the examples
        self.notes = folder / ".page"  # of this class
        self.notes.mkdir()
        for name, binary in (("cohortd", cohortd_binary()),
                             ("cohort", cohort_binary())):
            (self.notes / name).symlink_to(pathlib.Path(binary).resolve())
        log = f"log_path={self.notes}/sanitizer"
        self.process = subprocess.Popen(
            ["bash", "--norc", "-E"], cwd=folder, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True, env={
                **os.environ, "LC_ALL": "C.UTF-8",
                "STATE_DIRECTORY": str(self.notes / "state"),
                "PATH": f"{self.notes}:{os.environ['PATH']}",
                "ASAN_OPTIONS": log, "UBSAN_OPTIONS": log})
        self.say(f"trap 'echo $LINENO >{self.notes}/line' ERR")
        self.cwd = folder

    def say(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def run(self, block):
        """Runs a block; returns what it printed."""
        script = self.notes / "block.sh"
        printed = self.notes / "printed"
        # Blank lines before it make its lines those of the page.
        script.write_text("\n" * (block.line - 1) +
                          block.text.replace("/tmp/tour", str(self.folder)))
        wanted = int(block.option("exit") or 0)
        if block.option("checkout"):
            self.say(f"cd {ROOT}")
        run = f". {script} </dev/null >{printed} 2>&1"
        if wanted:
            self.say(f"(set -e; {run}); echo $? $PWD")
        else:
            self.say(f"set -e; {run}; set +e; echo 0 $PWD")
        ready = readable([self.process.stdout.fileno()], BLOCK_TIMEOUT_S)
        answer = self.process.stdout.readline() if ready else ""
        text = printed.read_text(errors="replace")
        code, _, cwd = answer.strip().partition(" ")
        if code != str(wanted):
            why = f"ended with {code}, not {wanted}" if code else \
                "failed" if ready else "did not end"
            line = self.notes / "line"
            if not wanted and line.exists():
                block.line = int(line.read_text())
            raise Wrong(f"the command {why}; it printed:\n{text}")
        self.cwd = pathlib.Path(cwd)
        return text

    def close(self):
        """Ends what the page left running. Complains of a daemon that is gone
        without having removed its pidfile, and of what a sanitizer found."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        lost = [path for path in self.folder.rglob("pid")
                if not end_daemon(int(path.read_text()))]
        for line in reversed(pathlib.Path("/proc/mounts").read_text()
                             .splitlines()):
            if line.split()[1].startswith(str(self.folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]],
                               check=False)
        assert not lost, f"the daemon of {lost[0]} has crashed"
        for path in self.notes.glob("sanitizer*"):
            raise AssertionError(path.read_text(errors="replace"))


def end_daemon(pid):
    """Returns false if it was not there any more, or nobody has noticed."""
    try:
        handle = os.pidfd_open(pid)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        if re.search(r"^State:\s*Z", status, re.MULTILINE):
            os.close(handle)
            return False
    except (ProcessLookupError, FileNotFoundError):
        return False
    with os.fdopen(handle):
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        ended = readable([handle], EVENT_TIMEOUT_S)
        if not ended:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert ended, "the daemon did not end on SIGTERM"
    return True


class Session:
    """The page's QMP session; begun anew when the page starts its daemon
    again."""

    def __init__(self):
        self.qmp = None

    def send(self, path, command):
        if self.qmp is not None:
            try:
                return self.qmp.request(command)
            except (EOFError, ConnectionError):
                self.qmp.close()
        self.qmp = Qmp(str(path))
        return self.qmp.request(command)

    def expect_events(self, expected):
        """Takes them out of what came."""
        place = 0
        for wanted in expected:
            deadline = time.monotonic() + EVENT_TIMEOUT_S
            while True:
                while place < len(self.qmp.events) and not matches(
                        {"timestamp": ANY, **wanted}, self.qmp.events[place]):
                    place += 1
                if place < len(self.qmp.events):
                    break
                self.receive(deadline, wanted)
            del self.qmp.events[place]

    def receive(self, deadline, wanted):
        try:
            left = deadline - time.monotonic()
            self.qmp.events.append(self.qmp.receive(max(left, 0.001)))
        except (QmpTimeout, EOFError):
            came = "\n".join(map(json.dumps, self.qmp.events))
            raise Wrong(f"no event\n{json.dumps(wanted)}\namong those left:\n"
                        f"{came}") from None

    def close(self):
        if self.qmp is not None:
            self.qmp.close()


def may_mount():
    """Loop devices, and CAP_SYS_ADMIN, which root in a container may lack."""
    rights = re.search(r"^CapEff:\s*(\w+)$",
                       pathlib.Path("/proc/self/status").read_text(),
                       re.MULTILINE)
    return bool(int(rights.group(1), 16) >> 21 & 1) and \
        os.access("/dev/loop-control", os.R_OK | os.W_OK)


class Page:
    def __init__(self, folder):
        self.shell = Shell(folder)
        self.session = Session()
        self.printed = ""  # None: by a block that was left out
        self.reply = None

    def run_block(self, block, following):
        if block.kind == "sh":
            left_out = block.option("root") and not may_mount()
            self.printed = None if left_out else self.shell.run(block)
        elif block.kind == "output":
            if self.printed is not None and \
                    not output_matches(block.text, self.printed):
                raise Wrong(f"it printed:\n{self.printed}")
        elif block.kind == "qmp":
            command, = block.values()
            self.reply = self.session.send(self.shell.cwd / "qmp.sock",
                                           command)
            if "error" in self.reply and following != "qmp-reply":
                raise Wrong(f"the reply is {json.dumps(self.reply)}")
        elif block.kind == "qmp-reply":
            if not matches(*block.values(), self.reply):
                raise Wrong(f"the reply is {json.dumps(self.reply)}")
        elif block.kind == "qmp-event":
            self.session.expect_events(block.values())

    def close(self):
        self.session.close()
        self.shell.close()


def run_page(path, folder):
    blocks = blocks_of(path.read_text())
    page = Page(folder)
    problem = None
    try:
        for block, following in zip(blocks, [*blocks[1:], Block(0, "", "")]):
            try:
                page.run_block(block, following.kind)
            except (Wrong, ValueError) as wrong:
                logs = "".join(log.read_text(errors="replace")
                               for log in folder.glob("*.log"))
                problem = f"{path.name}, line {block.line}: {wrong}\n{logs}"
                break
    finally:
        if problem:
            print(problem)  # close() may find worse, and hide it
        page.close()
    if problem:
        pytest.fail(problem, pytrace=False)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_example_of_the_page_works(path, folder):
    "The page, typed in from top to bottom."
    run_page(path, folder)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide_shows_nothing_that_is_not_run(path):
    "Commands stand in blocks that are run; there are some on each page."
    text = path.read_text()
    assert any(block.kind == "sh" for block in blocks_of(text))
    assert not re.search(r"^ {4}\S", FENCE.sub("", text), re.MULTILINE)


@pytest.mark.parametrize("wrong, line", [
    ("```sh\ntrue\nfalse\ntrue\n```\n", 3),
    ("```sh exit=3\nfalse\n```\n", 2),
    ("```sh\necho one\n```\ntext\n```output\ntwo\n```\n", 6),
    ("```sh\n" + "true\n" * 2 + "no-such-program\n```\n", 4),
])
def test_a_wrong_example_is_found_with_its_line(wrong, line, folder):
    "Page and line stand in the failure."
    path = folder / "page.md"
    path.write_text(wrong)
    with pytest.raises(pytest.fail.Exception, match=f"page.md, line {line}:"):
        run_page(path, folder)


@pytest.mark.parametrize("expected, value, same", [
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    ({"a": 1, ANY: ANY}, {"a": 1, "b": 2}, True),
    ({"a": 1, ANY: ANY}, {"b": 2}, False),
    ({"a": ANY}, {"a": [3]}, True),
    ({"a": 0}, {"a": False}, False),
    ([1, ANY], [1, 2, 3], True),
    ([ANY, 2, ANY], [1, 2, 3], True),
    ([ANY, 2], [1, 2, 3], False),
    ([1, ANY], [], False),
    ([{"a": 1}], [{"a": 2}], False),
])
def test_replies_are_compared_strictly(expected, value, same):
    "Only what is marked as any value may differ."
    assert matches(expected, value) == same
