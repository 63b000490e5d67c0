# SPDX-License-Identifier: BSD-3-Clause
"""QMP on the wire: framing, sessions, requests and replies, events. Each row
of the protocol's tables is a test."""
import json
import socket

import pytest

from support.qmp import Qmp

GENERIC, NOT_FOUND = "GenericError", "CommandNotFound"
BOUND = 512 << 20  # of memory; generous, for builds with sanitizers


@pytest.fixture
def daemon(cohortd):
    return cohortd()


@pytest.fixture
def qmp(daemon):
    return daemon.qmp


@pytest.fixture
def fresh(daemon):
    "A client that has only been greeted."
    with daemon.connect(negotiate=False) as client:
        yield client


def say(client, text):
    client.send_raw(text if isinstance(text, bytes) else text.encode())
    return client.reply()


def still_works(client):
    return client.command("query-version")["package"].startswith("cohort ")


# Greeting and negotiation.

def test_the_greeting_comes_at_once(fresh):
    "Version and capabilities, none of which is out-of-band execution."
    assert fresh.greeting == {"QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 0},
                    "package": fresh.greeting["QMP"]["version"]["package"]},
        "capabilities": []}}


def test_query_version_is_what_the_greeting_says(qmp):
    assert qmp.command("query-version") == qmp.greeting["QMP"]["version"]


def test_only_negotiation_runs_in_negotiation_mode(fresh):
    reply = fresh.request({"execute": "query-version", "id": 1})
    assert reply["error"]["class"] == NOT_FOUND
    assert reply["id"] == 1
    assert fresh.request({"execute": "qmp_capabilities"}) == {"return": {}}
    assert still_works(fresh)


def test_no_event_comes_before_negotiation(daemon, fresh):
    "They are lost, not queued."
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="a",
                       size=1 << 20)
    daemon.qmp.command("blockdev-add", driver="null-co", node_name="b",
                       size=1 << 20)
    daemon.qmp.command("blockdev-backup", job_id="j", device="a", target="b",
                       sync="full")
    daemon.qmp.wait_job_gone("j")
    fresh.command("qmp_capabilities")
    assert fresh.events_now() == []
    assert fresh.event_log == []


def test_capabilities_that_were_not_offered_are_refused(fresh):
    "The session stays in negotiation mode."
    for enable in (["oob"], ["nonsense"], "oob", [1]):
        reply = fresh.request({"execute": "qmp_capabilities", "id": 1,
                               "arguments": {"enable": enable}})
        assert reply["error"]["class"] == GENERIC
        assert reply["id"] == 1
    assert fresh.error("query-version").error_class == NOT_FOUND
    fresh.command("qmp_capabilities", enable=[])
    assert still_works(fresh)


def test_negotiating_twice_is_refused(qmp):
    assert qmp.error("qmp_capabilities").error_class == NOT_FOUND
    assert still_works(qmp)


def test_each_client_negotiates_for_itself(daemon, fresh):
    assert still_works(daemon.qmp)
    assert fresh.error("query-version").error_class == NOT_FOUND


def test_the_next_client_begins_in_negotiation_mode(daemon):
    with daemon.connect():
        pass
    with daemon.connect(negotiate=False) as client:
        assert client.error("query-version").error_class == NOT_FOUND


# Requests and replies.

@pytest.mark.parametrize("text", [
    "{'execute': }", "]", "{'execute' 'query-version'}", "nonsense ",
    "{'a': 1, 'a': 2}", '{"a": "\\x"}', "}", "{'execute': 01}",
    '{"a": "\xff"}'.encode("latin-1"),
])
def test_what_is_no_json_gives_an_error_without_id(qmp, text):
    reply = say(qmp, text)
    assert reply["error"]["class"] == GENERIC
    assert "id" not in reply
    qmp.send_raw(b"\n")
    assert still_works_after_noise(qmp)


def still_works_after_noise(qmp):
    "Skips further errors that one piece of noise may have given."
    qmp.send({"execute": "query-version", "id": "mark"})
    while True:
        reply = qmp.reply()
        if reply.get("id") == "mark":
            return "return" in reply
        assert reply["error"]["class"] == GENERIC and "id" not in reply


@pytest.mark.parametrize("text", ["[1, 2]", '"x"', "4 ", "true ", "null "])
def test_a_value_that_is_no_object_is_refused(qmp, text):
    reply = say(qmp, text)
    assert reply["error"]["class"] == GENERIC
    assert "id" not in reply
    assert still_works(qmp)


@pytest.mark.parametrize("request_", [
    {},
    {"arguments": {}},
    {"execute": 3},
    {"execute": None},
    {"execute": ["query-version"]},
    {"execute": "query-version", "exec-oob": "query-version"},
    {"exec-oob": "query-version"},
    {"execute": "query-version", "arguments": []},
    {"execute": "query-version", "arguments": None},
    {"execute": "query-version", "surprise": 1},
    {"execute": "query-version", "arguments": {"surprise": 1}},
    {"execute": "job-cancel"},
    {"execute": "job-cancel", "arguments": {"id": 7}},
    {"execute": "blockdev-add", "arguments": {"driver": "nonsense",
                                              "node-name": "a"}},
    {"execute": "blockdev-add", "arguments": {"driver": "null-co",
                                              "node-name": "a",
                                              "size": "1M"}},
    {"execute": "blockdev-add", "arguments": {"driver": "null-co",
                                              "node-name": "a",
                                              "size": 1 << 70}},
    {"execute": "blockdev-add", "arguments": {"driver": "null-co",
                                              "node-name": "a",
                                              "no-such": True}},
])
def test_a_wrong_request_is_refused_with_its_id(qmp, request_):
    "And nothing has happened."
    reply = qmp.request({**request_, "id": {"my": ["id", 1.5]}})
    assert reply["error"]["class"] == GENERIC
    assert reply["error"]["desc"]
    assert reply["id"] == {"my": ["id", 1.5]}
    assert qmp.command("query-named-block-nodes") == []


@pytest.mark.parametrize("name", ["no-such", "", "QUERY-VERSION",
                                  "query_version"])
def test_an_unknown_command_is_not_found(qmp, name):
    reply = qmp.request({"execute": name, "id": None})
    assert reply["error"]["class"] == NOT_FOUND
    assert reply["id"] is None


@pytest.mark.parametrize("identity", [
    0, -1, 2**63 - 1, -2**63, 2**64 - 1, 1.5, True, None, "", "\u00e9\U0001f600",
    [], {}, [[{"a": [None]}]],
])
def test_any_id_comes_back_exactly(qmp, identity):
    reply = qmp.request({"execute": "query-name", "id": identity})
    assert reply == {"return": {}, "id": identity}
    assert type(reply["id"]) is type(identity)


def test_without_id_there_is_none_in_the_reply(qmp):
    assert qmp.request({"execute": "query-name"}) == {"return": {}}


def test_a_command_without_result_returns_an_empty_object(qmp):
    assert qmp.command("blockdev-add", driver="null-co", node_name="a") == {}


# Framing.

def test_replies_are_lines_of_ascii_ended_by_cr_lf(qmp):
    qmp.send_raw('{"execute": "query-name", "id": "\u00e9"}'.encode())
    assert qmp.receive_line() == b'{"return": {}, "id": "\\u00e9"}\r\n'


def test_values_need_no_separator(qmp):
    one = b'{"execute":"query-name"}'
    qmp.send_raw(one * 3)
    assert [qmp.reply() for _ in range(3)] == [{"return": {}}] * 3


def test_a_value_may_be_split_anywhere(qmp):
    for byte in b' {"execute" : "query-name" ,\n\t"id": "x\\u0041"}':
        qmp.send_raw(bytes([byte]))
    assert qmp.reply() == {"return": {}, "id": "xA"}


def test_single_quotes_are_understood(qmp):
    assert say(qmp, r"{'execute': 'query-name', 'id': 'it\'s \"'}") == {
        "return": {}, "id": "it's \""}


@pytest.mark.parametrize("half", [
    b'{"execute": "quit"', b'{"execute": "qui', b"[[[[", b'{"a": tru',
])
@pytest.mark.parametrize("reset", [b"\x01", b"\x1f", b"\xff", b"\x00"])
def test_a_control_character_drops_what_was_half_sent(qmp, half, reset):
    reply = say(qmp, half + reset)
    assert reply["error"]["class"] == GENERIC
    assert "id" not in reply
    qmp.send_raw(b"\n")
    assert still_works_after_noise(qmp)


def test_1024_levels_of_nesting_are_taken(qmp):
    deep = b"[" * 1023 + b"]" * 1023
    qmp.send_raw(b'{"execute": "query-name", "id": ' + deep + b"}")
    assert qmp.receive_line() == b'{"return": {}, "id": ' + deep + b"}\r\n"


def test_deeper_nesting_is_refused_and_the_session_lives(qmp):
    reply = say(qmp, b"[" * 1025)
    assert reply["error"]["class"] == GENERIC
    qmp.send_raw(b"\xff\n")
    assert still_works_after_noise(qmp)


def test_a_million_brackets_cost_nothing(daemon, qmp):
    before = daemon.status("VmRSS")
    with daemon.connect() as other:
        other.send_raw(b"[" * (1 << 20))
        assert other.reply()["error"]["class"] == GENERIC
    assert still_works(qmp)
    assert daemon.status("VmRSS") - before < BOUND


def test_a_value_beyond_64_mib_is_refused(daemon):
    with daemon.connect() as client:
        client.send_raw(b'{"execute": "query-name", "id": "')
        piece = b"x" * (1 << 20)
        for _ in range(65):
            client.send_raw(piece)
        reply = client.reply()
        assert reply["error"]["class"] == GENERIC
        assert "id" not in reply
    assert still_works(daemon.qmp)
    assert daemon.status("VmRSS") < BOUND


def test_a_megabyte_of_id_comes_back(qmp):
    text = "x" * (1 << 20)
    assert qmp.request({"execute": "query-name", "id": text})["id"] == text


def test_huge_numbers_do_no_harm(qmp):
    for number in (b"1" * 1000, b"-" + b"9" * 400, b"1e999", b"0." + b"1" * 999):
        reply = say(qmp, b'{"execute": "block_resize", "arguments": '
                    b'{"node-name": "a", "size": ' + number + b"}}")
        assert reply["error"]["class"] == GENERIC
    assert still_works(qmp)


# Sessions.

def test_commands_are_answered_in_order(qmp):
    count = 500
    qmp.send_raw(b"".join(
        json.dumps({"execute": "query-name" if i % 3 else "no-such",
                    "id": i}).encode() for i in range(count)))
    assert [qmp.reply()["id"] for _ in range(count)] == list(range(count))


def test_several_clients_are_served_at_once(daemon):
    clients = [daemon.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.send({"execute": "query-name", "id": number})
    for number, client in reversed(list(enumerate(clients))):
        assert client.reply()["id"] == number
        client.close()


def test_clients_beyond_the_limit_are_told(daemon):
    "And there is room again when one has gone."
    first = daemon.qmp
    clients = [daemon.connect() for _ in range(63)]
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(30)
        late.connect(daemon.qmp_path)
        data = b""
        while piece := late.recv(4096):
            data += piece
    assert json.loads(data)["error"]["class"] == GENERIC
    assert still_works(clients[62])
    for client in clients:
        client.shutdown_write()
        assert client.at_end()
        client.close()
    assert still_works(first)
    with daemon.connect() as again:
        assert still_works(again)


def test_a_half_sent_request_goes_with_its_client(daemon):
    with daemon.connect() as client:
        client.send_raw(b'{"execute": "quit"')
    with daemon.connect(negotiate=False) as client:
        client.send_raw(b"}")
        assert client.reply()["error"]["class"] == GENERIC
    assert still_works(daemon.qmp)


def test_a_client_that_shuts_down_its_side_gets_its_answers(daemon):
    "As `printf ... | socat` does."
    with daemon.connect(negotiate=False) as client:
        client.send_raw(b"{'execute': 'qmp_capabilities', 'id': 1}"
                        b"{'execute': 'query-name', 'id': 2}"
                        b"{'execute': 'query-name', 'id': 3}{'execute'")
        client.shutdown_write()
        assert [client.receive()["id"] for _ in range(3)] == [1, 2, 3]
        assert client.at_end()


def test_a_client_that_does_not_read_does_not_hold_up_others(daemon):
    with daemon.connect() as deaf:
        deaf.send_raw(b"{'execute': 'query-qmp-schema'}" * 50)
        for _ in range(20):
            assert still_works(daemon.qmp)


def test_a_client_that_never_reads_is_dropped(daemon):
    "What waits for it is bounded."
    with daemon.connect() as deaf:
        deaf.socket.settimeout(60)
        request = b"{'execute': 'query-name', 'id': '" + b"x" * 60000 + b"'}"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(20000):
                deaf.send_raw(request)
    assert still_works(daemon.qmp)
    assert daemon.status("VmRSS") < BOUND


def test_a_second_monitor_serves_too(cohortd, folder):
    path = folder / "second.sock"
    daemon = cohortd("--chardev", f"socket,id=c2,path={path},server=on,"
                     "wait=off", "--monitor", "c2")
    with Qmp(str(path)) as second:
        second.command("blockdev-add", driver="null-co", node_name="a")
        assert daemon.qmp.node("a")["drv"] == "null-co"


def test_a_pretty_monitor_spreads_objects_over_lines(cohortd, folder):
    path = folder / "pretty.sock"
    cohortd("--chardev", f"socket,id=c2,path={path},server=on,wait=off",
            "--monitor", "chardev=c2,pretty=on")
    with Qmp(str(path)) as client:
        client.send({"execute": "query-commands"})
        assert client.receive_line() == b"{\n"
        text = b"{\n"
        while not text.endswith(b"\n}\r\n"):
            text += client.receive_line()
        assert {"name": "quit"} in json.loads(text)["return"]


def test_qmp_over_tcp(cohortd):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cohortd("--chardev", f"socket,id=tcp,host=127.0.0.1,port={port},"
            "server=on,wait=off", "--monitor", "tcp")
    with Qmp(("127.0.0.1", port)) as client:
        assert still_works(client)


# Events.

def start_backup(qmp, **more):
    for name in ("a", "b"):
        qmp.command("blockdev-add", driver="null-co", node_name=name,
                    size=1 << 20)
    qmp.command("blockdev-backup", job_id="j", device="a", target="b",
                sync="full", **more)


def test_events_carry_a_name_data_and_a_time(qmp):
    start_backup(qmp)
    event = qmp.wait_job("j")
    assert set(event) == {"event", "data", "timestamp"}
    assert set(event["timestamp"]) == {"seconds", "microseconds"}
    assert event["timestamp"]["seconds"] > 1_600_000_000
    assert 0 <= event["timestamp"]["microseconds"] < 1_000_000


def test_every_client_in_command_mode_gets_every_event(daemon):
    with daemon.connect() as other:
        start_backup(daemon.qmp)
        daemon.qmp.wait_job_gone("j")
        other.wait_job_gone("j")
        assert other.event_log == daemon.qmp.event_log


def test_no_event_stands_inside_a_reply(daemon):
    "Replies and events are whole lines."
    with daemon.connect() as busy:
        busy.send_raw(b"{'execute': 'query-qmp-schema'}" * 20)
        start_backup(daemon.qmp)
        daemon.qmp.wait_job_gone("j")
        for _ in range(20):
            assert "return" in busy.reply()
