# SPDX-License-Identifier: BSD-3-Clause
"""The same requests to cohortd and to qemu-storage-daemon: where both know the
command, both succeed or both fail with the same class, and echo the id alike."""
import pytest

from support.images import MIB, sparse_image

ADD = {"driver": "null-co", "node-name": "a", "size": MIB}


def command(name, identity=1, /, **arguments):
    message = {"execute": name, "id": identity}
    if arguments:
        message["arguments"] = {key.replace("_", "-"): value
                                for key, value in arguments.items()}
    return message


def outcome(reply):
    return (reply.get("error", {}).get("class", "success"),
            reply.get("id", "no id"))


@pytest.fixture
def both(cohortd, qsd):
    return cohortd(), qsd()


REQUESTS = [
    command("query-version"),
    command("no-such-command"),
    command("qmp_capabilities"),
    {"execute": "query-version", "id": None, "more": 1},
    {"execute": 1, "id": 2},
    {"id": 3},
    {"execute": "query-version", "arguments": [], "id": 4},
    {"execute": "query-version", "arguments": {"x": 1}, "id": 4},
    {"exec-oob": "query-version", "id": 5},
    command("blockdev-add"),
    command("blockdev-add", driver="null-co"),
    command("blockdev-add", driver="nonsense", node_name="b"),
    command("blockdev-add", driver="null-co", node_name="0b"),
    command("blockdev-add", driver="null-co", node_name="a"),
    command("blockdev-add", driver="null-co", node_name="b", size="1"),
    command("blockdev-add", driver="null-co", node_name="b", typo=1),
    command("blockdev-add", driver="file", node_name="b", filename="/no/such"),
    command("blockdev-del", node_name="none"),
    command("query-named-block-nodes", flat=1),
    command("block_resize", node_name="none", size=1),
    command("block_resize", node_name="a", size=-1),
    command("block-dirty-bitmap-add", node="none", name="m"),
    command("block-dirty-bitmap-add", node="a", name=""),
    command("block-dirty-bitmap-add", node="a", name="m", granularity=64000),
    command("block-dirty-bitmap-add", node="a", name="m", granularity=256),
    command("block-dirty-bitmap-add", node="a", name="x" * 1024),
    command("block-dirty-bitmap-add", node="a", name="m"),
    command("block-dirty-bitmap-add", node="a", name="m"),
    command("block-dirty-bitmap-disable", node="a", name="m"),
    command("block-dirty-bitmap-enable", node="a", name="m"),
    command("block-dirty-bitmap-clear", node="a", name="none"),
    command("block-dirty-bitmap-clear", node="a", name="m"),
    command("block-dirty-bitmap-merge", node="a", target="none", bitmaps=[]),
    command("block-dirty-bitmap-merge", node="a", target="m",
            bitmaps=["none"]),
    command("block-dirty-bitmap-merge", node="a", target="m",
            bitmaps=[{"node": "a", "name": "m"}]),
    command("block-dirty-bitmap-remove", node="a", name="m"),
    command("block-dirty-bitmap-remove", node="a", name="m"),
    command("job-cancel", id="none"),
    command("job-pause", id="none"),
    command("job-resume", id="none"),
    command("job-complete", id="none"),
    command("job-finalize", id="none"),
    command("job-dismiss", id="none"),
    command("block-job-cancel", device="none"),
    command("block-job-pause", device="none"),
    command("block-job-resume", device="none"),
    command("block-job-complete", device="none"),
    command("block-job-set-speed", device="none", speed=1),
    command("block-job-finalize", id="none"),
    command("block-job-dismiss", id="none"),
    command("blockdev-backup", job_id="j", device="none", target="a",
            sync="full"),
    command("blockdev-backup", job_id="j", device="a", target="none",
            sync="full"),
    command("blockdev-backup", job_id="j", device="a", target="a",
            sync="full"),
    command("blockdev-backup", device="a", target="a", sync="full"),
    command("blockdev-backup", job_id="j", device="a", target="a",
            sync="nonsense"),
    command("transaction", actions=[]),
    command("transaction", actions=[{"type": "abort", "data": {}}]),
    command("transaction", actions=[{"type": "nonsense", "data": {}}]),
    command("transaction", actions={}),
    command("nbd-server-stop"),
    command("block-export-add", type="nbd", id="e", node_name="a"),
    command("block-export-del", id="none"),
    command("nbd-server-add", device="a"),
    command("nbd-server-remove", name="none"),
    command("object-add", qom_type="nonsense", id="o"),
    command("object-add", qom_type="iothread"),
    command("object-add", qom_type="iothread", id="o"),
    command("object-add", qom_type="iothread", id="o"),
    command("object-del", id="o"),
    command("object-del", id="o"),
]


def test_outcomes_are_the_same(both):
    ours, theirs = both
    for daemon in both:
        daemon.qmp.command("blockdev-add", ADD)
    for request in REQUESTS:
        assert outcome(ours.qmp.request(request)) == \
            outcome(theirs.qmp.request(request)), request


RAW = [
    b"]", b"{'a': }", b"{'a' 1}", b"[1]", b"'x'", b"12 ", b"null ",
    b"{'a':1,'a':2}", b'{"execute": "\x01"}', b"\xff", b"nonsense ",
    b"{'execute': 'query-version'}", b"{}",
]


@pytest.mark.parametrize("text", RAW)
def test_the_first_answer_to_odd_bytes_is_the_same(both, text):
    ours, theirs = both
    for daemon in both:
        daemon.qmp.send_raw(text)
    assert outcome(ours.qmp.reply()) == outcome(theirs.qmp.reply())


def test_negotiation_mode_is_the_same(both):
    for request in (command("query-version"), command("no-such"), {"id": 1},
                    command("qmp_capabilities", enable=["nonsense"]),
                    command("query-version"), command("qmp_capabilities"),
                    command("qmp_capabilities"), command("query-version")):
        outcomes = []
        for daemon in both:
            if not hasattr(daemon, "raw_client"):
                daemon.raw_client = daemon.connect(negotiate=False)
            outcomes.append(outcome(daemon.raw_client.request(request)))
        assert outcomes[0] == outcomes[1], request


def test_node_info_has_the_same_members(both):
    ours, theirs = both
    infos = []
    for daemon in both:
        path = sparse_image(daemon.folder / "disk", MIB)
        daemon.qmp.command("blockdev-add", driver="raw", node_name="d",
                           file={"driver": "file", "filename": path})
        daemon.qmp.command("block-dirty-bitmap-add", node="d", name="m")
        infos.append(daemon.qmp.node("d"))
    mine, other = infos
    assert set(mine) == set(other) | {"children", "active"}  # of 10.x
    for key in ("drv", "ro", "detect_zeroes", "cache", "encrypted",
                "dirty-bitmaps", "backing_file_depth", "iops", "bps"):
        assert mine[key] == other[key], key
    assert {"filename", "format", "virtual-size", "actual-size"} <= \
        set(mine["image"])
    assert mine["image"]["virtual-size"] == other["image"]["virtual-size"]


def test_our_command_line_is_theirs(both):
    "The options of a usual invocation are taken by both."
    ours, theirs = both
    assert ours.words[1:3] == ["--pidfile", ours.pidfile]
    assert [w.replace("/q/", "/d/") for w in theirs.words[1:]] == ours.words[1:]
