# SPDX-License-Identifier: BSD-3-Clause
"""Every command of the session, block, job, export and object families: what
it gives and how it is refused."""
import pytest

from support.disks import add_bitmap, new_disk, new_target
from support.images import MIB, random_image, sparse_image
from support.qmp import Qmp

GENERIC, NOT_ACTIVE = "GenericError", "DeviceNotActive"


@pytest.fixture
def daemon(cohortd):
    return cohortd(nbd=True)


@pytest.fixture
def qmp(daemon):
    return daemon.qmp


def null(qmp, name="a", size=MIB, **more):
    qmp.command("blockdev-add", driver="null-co", node_name=name, size=size,
                **more)


def generic(qmp, name, /, **arguments):
    error = qmp.error(name, **arguments)
    assert error.error_class == GENERIC
    return error.desc


# Session.

def test_query_commands_lists_what_there_is(qmp):
    names = [info["name"] for info in qmp.command("query-commands")]
    assert len(names) == len(set(names))
    assert {"qmp_capabilities", "quit", "query-version", "query-qmp-schema",
            "blockdev-add", "blockdev-del", "query-named-block-nodes",
            "query-block", "block-dirty-bitmap-add", "blockdev-backup",
            "drive-backup", "transaction", "query-jobs", "query-block-jobs",
            "job-cancel", "job-finalize", "job-dismiss", "block-job-cancel",
            "nbd-server-start", "nbd-server-stop", "block-export-add",
            "block-export-del", "query-block-exports"} <= set(names)
    for name in names:
        if name not in ("quit", "qmp_capabilities"):
            reply = qmp.request({"execute": name, "arguments": {"?": 0}})
            assert reply["error"]["class"] == GENERIC, name


def test_the_schema_is_closed(qmp):
    "Each type that an entry names is an entry, and names are unique."
    schema = qmp.command("query-qmp-schema")
    entries = {entry["name"]: entry for entry in schema}
    assert len(entries) == len(schema)

    def types(entry):
        for key in ("arg-type", "ret-type", "element-type"):
            if key in entry:
                yield entry[key]
        for member in entry.get("members", []):
            if "type" in member:
                yield member["type"]
        for variant in entry.get("variants", []):
            yield variant["type"]
    for entry in schema:
        for name in types(entry):
            assert entries[name]["meta-type"] not in ("command", "event")


def test_the_schema_has_every_command_and_event(qmp):
    schema = qmp.command("query-qmp-schema")
    kinds = {entry["name"]: entry["meta-type"] for entry in schema}
    for info in qmp.command("query-commands"):
        assert kinds[info["name"]] == "command"
    for name in ("JOB_STATUS_CHANGE", "BLOCK_JOB_COMPLETED",
                 "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR",
                 "BLOCK_JOB_PENDING", "BLOCK_EXPORT_DELETED"):
        assert kinds[name] == "event"
    assert set(kinds.values()) == {"builtin", "enum", "array", "object",
                                   "alternate", "command", "event"}


def test_the_schema_is_well_formed(qmp):
    for entry in qmp.command("query-qmp-schema"):
        kind = entry["meta-type"]
        if kind == "enum":
            assert entry["values"] == [member["name"]
                                       for member in entry["members"]]
        if kind == "object":
            names = [member["name"] for member in entry["members"]]
            assert len(names) == len(set(names))
            for member in entry["members"]:
                assert member.get("default") is None
            if "tag" in entry:
                assert entry["tag"] in names
                assert entry["variants"]


def test_the_schema_tells_what_is_deprecated_or_unstable(qmp):
    schema = {entry["name"]: entry
              for entry in qmp.command("query-qmp-schema")}
    for name in ("drive-backup", "nbd-server-add", "nbd-server-remove",
                 "block-job-pause", "block-job-resume", "block-job-complete",
                 "block-job-finalize", "block-job-dismiss"):
        assert "deprecated" in schema[name]["features"], name
    assert "unstable" in \
        schema["x-debug-block-dirty-bitmap-sha256"]["features"]
    assert "features" not in schema["block-job-cancel"]


def test_queries_that_machines_answer_are_answered(qmp):
    assert qmp.command("query-status") == {
        "running": True, "singlestep": False, "status": "running"}
    assert qmp.command("query-name") == {}


def test_query_chardev_shows_the_monitor(daemon, qmp):
    assert qmp.command("query-chardev") == [
        {"label": "qmp", "filename": f"unix:{daemon.qmp_path},server=on",
         "frontend-open": True}]


# Block nodes.

def test_blockdev_add_and_del(qmp):
    null(qmp)
    assert qmp.node("a")["drv"] == "null-co"
    qmp.command("blockdev-del", node_name="a")
    assert qmp.command("query-named-block-nodes") == []


def test_a_node_info_is_whole(daemon, qmp):
    path = sparse_image(daemon.folder / "disk", 3 * MIB)
    qmp.command("blockdev-add", driver="file", node_name="d", filename=path)
    info = qmp.node("d")
    assert info["image"].pop("actual-size") >= 0
    assert info == {
        "node-name": "d", "drv": "file", "file": path, "ro": False,
        "backing_file_depth": 0, "encrypted": False, "detect_zeroes": "off",
        "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0,
        "iops_wr": 0, "write_threshold": 0, "children": [], "active": True,
        "cache": {"writeback": True, "direct": False, "no-flush": False},
        "image": info["image"]}
    assert info["image"]["filename"] == path
    assert info["image"]["format"] == "file"
    assert info["image"]["virtual-size"] == 3 * MIB


@pytest.mark.parametrize("name", ["", "1a", "_a", "-a", "a b", "a" * 32, "#a",
                                  "a/b", "\u00e9"])
def test_an_ill_formed_node_name_is_refused(qmp, name):
    generic(qmp, "blockdev-add", driver="null-co", node_name=name)
    assert qmp.command("query-named-block-nodes") == []


def test_a_node_name_is_needed(qmp):
    assert "node-name" in generic(qmp, "blockdev-add", driver="null-co")


def test_a_taken_node_name_is_refused(qmp):
    null(qmp)
    assert "'a'" in generic(qmp, "blockdev-add", driver="null-co",
                            node_name="a")
    assert len(qmp.command("query-named-block-nodes")) == 1


def test_what_cannot_be_opened_is_named(daemon, qmp):
    path = str(daemon.folder / "none")
    said = generic(qmp, "blockdev-add", driver="file", node_name="a",
                   filename=path)
    assert path in said and "No such file" in said


def test_an_option_of_another_driver_is_refused(qmp):
    assert "filename" in generic(qmp, "blockdev-add", driver="null-co",
                                 node_name="a", filename="x")


def test_an_unknown_node_cannot_be_deleted(qmp):
    assert "'a'" in generic(qmp, "blockdev-del", node_name="a")


def test_a_node_in_use_cannot_be_deleted(qmp):
    null(qmp)
    qmp.command("blockdev-add", driver="raw", node_name="top", file="a")
    assert "'top'" in generic(qmp, "blockdev-del", node_name="a")
    qmp.command("block-export-add", type="nbd", id="e", node_name="top")
    assert "'e'" in generic(qmp, "blockdev-del", node_name="top")
    qmp.command("block-export-del", id="e")
    qmp.wait_event("BLOCK_EXPORT_DELETED", id="e")
    qmp.command("blockdev-del", node_name="top")
    qmp.command("blockdev-del", node_name="a")


def test_a_nested_node_goes_with_its_parent(daemon, qmp):
    new_disk(daemon, "d", MIB, export=False)
    assert len(qmp.command("query-named-block-nodes")) == 2
    qmp.command("blockdev-del", node_name="d")
    assert qmp.command("query-named-block-nodes") == []


def test_a_nested_node_cannot_be_deleted_by_name(daemon, qmp):
    new_disk(daemon, "d", MIB, export=False)
    names = [info["node-name"]
             for info in qmp.command("query-named-block-nodes")]
    names.remove("d")
    assert names[0].startswith("#")
    generic(qmp, "blockdev-del", node_name=names[0])


def test_nodes_are_listed_newest_first(qmp):
    for name in ("a", "b", "c"):
        null(qmp, name)
    for flat in (False, True):
        assert [info["node-name"] for info in
                qmp.command("query-named-block-nodes", flat=flat)] == \
            ["c", "b", "a"]


def test_query_block_shows_the_top_nodes(daemon, qmp):
    "One per disk; what a disk lies on is no disk of its own."
    new_disk(daemon, "d", MIB, export=False)
    add_bitmap(daemon, "d", "m")
    null(qmp)
    disks = qmp.command("query-block")
    assert [disk["inserted"]["node-name"] for disk in disks] == ["a", "d"]
    for disk in disks:
        assert disk["device"] == "" and disk["type"] == "unknown"
        assert disk["removable"] is False and disk["locked"] is False
    assert disks[1]["inserted"] == qmp.node("d")
    assert disks[1]["inserted"]["dirty-bitmaps"][0]["name"] == "m"


def test_a_deleted_node_takes_its_bitmaps_along(daemon, qmp):
    new_disk(daemon, "d", MIB, export=False)
    add_bitmap(daemon, "d", "m")
    qmp.command("blockdev-del", node_name="d")
    new_disk(daemon, "d", MIB, export=False)
    assert "dirty-bitmaps" not in qmp.node("d")


def test_two_hundred_nodes(qmp):
    for number in range(200):
        null(qmp, f"n{number}")
    assert len(qmp.command("query-named-block-nodes")) == 200
    for number in range(200):
        qmp.command("blockdev-del", node_name=f"n{number}")


def test_resize_grows_and_shrinks(daemon, qmp):
    new_disk(daemon, "d", MIB, export=False)
    for size in (3 * MIB, 2 * MIB):
        assert qmp.command("block_resize", node_name="d", size=size) == {}
        assert qmp.node("d")["image"]["virtual-size"] == size


def test_resize_refuses_nonsense(daemon, qmp):
    new_disk(daemon, "d", MIB, export=False)
    assert "-1" in generic(qmp, "block_resize", node_name="d", size=-1)
    assert "'x'" in generic(qmp, "block_resize", node_name="x", size=1)
    generic(qmp, "block_resize", size=MIB)
    generic(qmp, "block_resize", node_name="d", device="d", size=MIB)
    generic(qmp, "block_resize", node_name="d", size=2**63 - 1)
    assert qmp.node("d")["image"]["virtual-size"] == MIB


def test_an_exported_node_keeps_its_size(daemon, qmp):
    new_disk(daemon, "d", MIB)
    assert "export-d" in generic(qmp, "block_resize", node_name="d",
                                 size=2 * MIB)
    assert qmp.node("d")["image"]["virtual-size"] == MIB


# Jobs.

@pytest.fixture
def job(daemon, qmp):
    "A job \"j\" that takes for ever."
    path = random_image(daemon.folder / "source.raw", 8 * MIB)
    qmp.command("blockdev-add", driver="file", node_name="source",
                filename=path)
    new_target(daemon, "target", 8 * MIB)
    qmp.command("blockdev-backup", job_id="j", device="source",
                target="target", sync="full", speed=1)
    return "j"


def test_a_running_job_is_shown(qmp, job):
    shown, = qmp.command("query-jobs")
    assert shown.pop("total-progress") == 8 * MIB
    assert shown.pop("current-progress") < 8 * MIB
    assert shown == {"id": "j", "type": "backup", "status": "running"}
    shown, = qmp.command("query-block-jobs")
    assert shown.pop("offset") < shown.pop("len") == 8 * MIB
    shown.pop("busy")
    assert shown == {"type": "backup", "device": "j", "paused": False,
                     "speed": 1, "io-status": "ok", "ready": False,
                     "status": "running", "auto-finalize": True,
                     "auto-dismiss": True}


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "complete",
                                  "finalize", "dismiss"])
def test_job_verbs_on_an_unknown_job_are_generic_errors(qmp, verb):
    assert "'x'" in generic(qmp, f"job-{verb}", id="x")


@pytest.mark.parametrize("verb, arguments", [
    ("cancel", {"device": "x"}), ("pause", {"device": "x"}),
    ("resume", {"device": "x"}), ("complete", {"device": "x"}),
    ("set-speed", {"device": "x", "speed": 1}), ("finalize", {"id": "x"}),
    ("dismiss", {"id": "x"}),
])
def test_block_job_verbs_on_an_unknown_job_say_not_active(qmp, verb,
                                                          arguments):
    error = qmp.error(f"block-job-{verb}", arguments)
    assert error.error_class == NOT_ACTIVE
    assert "'x'" in error.desc


def test_a_verb_that_the_state_forbids_is_a_generic_error(qmp, job):
    for command, key in (("job-complete", "id"), ("job-finalize", "id"),
                         ("job-dismiss", "id"), ("job-resume", "id"),
                         ("block-job-complete", "device"),
                         ("block-job-resume", "device"),
                         ("block-job-finalize", "id"),
                         ("block-job-dismiss", "id")):
        error = qmp.error(command, {key: job})
        assert error.error_class == GENERIC, command
    qmp.command("job-cancel", id=job)
    qmp.wait_job_gone(job)


@pytest.mark.parametrize("command, key", [("job-cancel", "id"),
                                          ("block-job-cancel", "device")])
def test_cancel_ends_a_job(qmp, job, command, key):
    qmp.command(command, {key: job})
    assert qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_CANCELLED"
    assert qmp.command("query-jobs") == []


@pytest.mark.parametrize("family, key", [("job", "id"),
                                         ("block-job", "device")])
def test_pause_and_resume(qmp, job, family, key):
    qmp.command(f"{family}-pause", {key: job})
    qmp.wait_event("JOB_STATUS_CHANGE", id=job, status="paused")
    assert qmp.command("query-block-jobs")[0]["paused"] is True
    assert qmp.error(f"{family}-pause", {key: job}).error_class == GENERIC
    qmp.command(f"{family}-resume", {key: job})
    qmp.wait_event("JOB_STATUS_CHANGE", id=job, status="running")


def test_a_paused_job_is_cancelled_by_force_only(qmp, job):
    qmp.command("job-pause", id=job)
    qmp.wait_event("JOB_STATUS_CHANGE", id=job, status="paused")
    assert qmp.error("block-job-cancel", device=job).error_class == GENERIC
    qmp.command("block-job-cancel", device=job, force=True)
    assert qmp.wait_job_gone(job)["event"] == "BLOCK_JOB_CANCELLED"


def test_set_speed_lets_a_job_run(qmp, job):
    assert "-1" in generic(qmp, "block-job-set-speed", device=job, speed=-1)
    qmp.command("block-job-set-speed", device=job, speed=0)
    end = qmp.wait_job_gone(job)
    assert end["event"] == "BLOCK_JOB_COMPLETED" and "error" not in end["data"]


def test_finalize_and_dismiss_by_hand(daemon, qmp):
    new_disk(daemon, "source", MIB, export=False)
    new_target(daemon, "target", MIB)
    qmp.command("blockdev-backup", job_id="j", device="source",
                target="target", sync="full", auto_finalize=False,
                auto_dismiss=False)
    qmp.wait_event("BLOCK_JOB_PENDING", id="j")
    generic(qmp, "job-dismiss", id="j")
    qmp.command("job-finalize", id="j")
    qmp.wait_event("JOB_STATUS_CHANGE", id="j", status="concluded")
    shown, = qmp.command("query-jobs")
    assert shown["status"] == "concluded" and "error" not in shown
    generic(qmp, "job-cancel", id="j")
    qmp.command("job-dismiss", id="j")
    assert qmp.command("query-jobs") == []


def test_a_command_of_another_client_is_not_held_up_by_a_job(daemon, job):
    with daemon.connect() as other:
        assert other.command("query-jobs")[0]["id"] == job


# Exports.

def test_an_export_comes_and_goes(qmp):
    null(qmp)
    qmp.command("block-export-add", type="nbd", id="e", node_name="a")
    assert qmp.command("query-block-exports") == [
        {"id": "e", "type": "nbd", "node-name": "a", "shutting-down": False}]
    qmp.command("block-export-del", id="e")
    qmp.wait_event("BLOCK_EXPORT_DELETED", id="e")
    assert qmp.command("query-block-exports") == []


@pytest.mark.parametrize("arguments", [
    {"id": "e2", "node_name": "none"},
    {"id": "e", "node_name": "a", "name": "other"},
    {"id": "e2", "node_name": "a", "name": "a"},
    {"id": "7", "node_name": "a", "name": "other"},
    {"id": "e2", "node_name": "ro", "writable": True},
    {"id": "e2", "node_name": "a", "name": "x" * 4097},
    {"id": "e2", "node_name": "a", "name": "x", "bitmaps": ["none"]},
])
def test_a_bad_export_is_refused(qmp, arguments):
    null(qmp)
    null(qmp, "ro", read_only=True)
    qmp.command("block-export-add", type="nbd", id="e", node_name="a")
    generic(qmp, "block-export-add", type="nbd", **arguments)
    assert len(qmp.command("query-block-exports")) == 1


def test_an_export_in_use_goes_by_force_only(daemon, qmp, nbd_client):
    null(qmp)
    qmp.command("block-export-add", type="nbd", id="e", node_name="a")
    nbd_client(daemon.nbd_uri("a"))
    generic(qmp, "block-export-del", id="e")
    generic(qmp, "block-export-del", id="e", mode="safe")
    qmp.command("block-export-del", id="e", mode="hard")
    qmp.wait_event("BLOCK_EXPORT_DELETED", id="e")
    generic(qmp, "block-export-del", id="e")


def test_the_nbd_server_starts_and_stops(cohortd, nbd_client):
    daemon = cohortd()
    qmp = daemon.qmp
    null(qmp)
    generic(qmp, "nbd-server-stop")
    generic(qmp, "block-export-add", type="nbd", id="e", node_name="a")
    address = {"type": "unix", "data": {"path": daemon.nbd_path}}
    qmp.command("nbd-server-start", addr=address)
    generic(qmp, "nbd-server-start", addr=address)
    qmp.command("block-export-add", type="nbd", id="e", node_name="a")
    nbd_client(daemon.nbd_uri("a"))
    qmp.command("nbd-server-stop")
    assert [event["event"] for event in qmp.events] == ["BLOCK_EXPORT_DELETED"]
    assert qmp.command("query-block-exports") == []
    qmp.command("nbd-server-start", addr=address)


def test_an_nbd_address_in_use_is_refused(cohortd):
    first, second = cohortd(nbd=True), cohortd()
    said = generic(second.qmp, "nbd-server-start",
                   addr={"type": "unix", "data": {"path": first.nbd_path}})
    assert first.nbd_path in said


def test_the_older_export_commands(daemon, qmp, nbd_client):
    null(qmp)
    null(qmp, "ro", read_only=True)
    qmp.command("nbd-server-add", device="a", writable=True)
    qmp.command("nbd-server-add", device="ro", name="second", writable=True)
    assert {(e["id"], e["node-name"]) for e in
            qmp.command("query-block-exports")} == \
        {("a", "a"), ("second", "ro")}
    assert nbd_client(daemon.nbd_uri("second")).is_read_only()
    assert not nbd_client(daemon.nbd_uri("a")).is_read_only()
    generic(qmp, "nbd-server-add", device="none")
    generic(qmp, "nbd-server-remove", name="a")
    qmp.command("nbd-server-remove", name="a", mode="hard")
    qmp.wait_event("BLOCK_EXPORT_DELETED", id="a")
    generic(qmp, "nbd-server-remove", name="a")


# Objects.

def test_iothreads_come_and_go(qmp):
    qmp.command("object-add", qom_type="iothread", id="extra")
    ids = [thread["id"] for thread in qmp.command("query-iothreads")]
    assert "extra" in ids
    assert "'extra'" in generic(qmp, "object-add", qom_type="iothread",
                                id="extra")
    qmp.command("object-del", id="extra")
    assert "'extra'" in generic(qmp, "object-del", id="extra")


def test_a_bad_object_is_refused(qmp):
    generic(qmp, "object-add", qom_type="nonsense", id="a")
    generic(qmp, "object-add", qom_type="iothread")
    generic(qmp, "object-add", qom_type="iothread", id="a b")
    generic(qmp, "object-add", qom_type="iothread", id="a", typo=1)


def test_a_thread_in_use_cannot_be_removed(cohortd):
    daemon = cohortd("--object", "iothread,id=t")
    null(daemon.qmp)
    assert "'a'" in generic(daemon.qmp, "object-del", id="t")
    daemon.qmp.command("blockdev-del", node_name="a")
    daemon.qmp.command("object-del", id="t")
    null(daemon.qmp)
    assert daemon.qmp.node("a")["drv"] == "null-co"


def test_too_many_threads_are_refused(qmp):
    have = len(qmp.command("query-iothreads"))
    for number in range(64 - have):
        qmp.command("object-add", qom_type="iothread", id=f"t{number}")
    assert "64" in generic(qmp, "object-add", qom_type="iothread", id="more")


# Odds and ends of bad input.

def test_a_huge_disk_is_no_trouble(qmp):
    null(qmp, size=1 << 60)
    assert qmp.node("a")["image"]["virtual-size"] == 1 << 60
    generic(qmp, "block-dirty-bitmap-add", node="a", name="m",
            granularity=512)


def test_deep_node_trees_are_bounded(daemon, qmp):
    "Options nested without end are refused; the daemon lives."
    levels = 300
    tree = '{"driver": "raw", "file": ' * levels + \
        '{"driver": "null-co"}' + "}" * levels
    qmp.send_raw(f'{{"execute": "blockdev-add", "arguments": {{"node-name": '
                 f'"deep", "driver": "raw", "file": {tree}}}}}'.encode())
    assert qmp.reply()["error"]["class"] == GENERIC
    assert qmp.command("query-named-block-nodes") == []


def test_every_wrong_type_of_every_argument_is_refused(qmp):
    "Whatever stands where an argument should, nothing breaks."
    schema = {entry["name"]: entry
              for entry in qmp.command("query-qmp-schema")}
    values = [None, True, 0, -1, 2**64 - 1, 1.5, "", "x", [], {}, [[]],
              {"type": "x"}]
    for info in qmp.command("query-commands"):
        name = info["name"]
        if name in ("quit", "qmp_capabilities"):
            continue
        members = schema[schema[name]["arg-type"]]["members"]
        for value in values:
            arguments = {member["name"]: value for member in members}
            qmp.request({"execute": name, "arguments": arguments})
    assert qmp.command("query-jobs") == []
    assert isinstance(qmp, Qmp)
