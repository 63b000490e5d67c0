# SPDX-License-Identifier: BSD-3-Clause
"""`cohort` against cohortd: points, what a failed or killed run leaves, and
what the next one makes of it."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from support.daemon import cohort_binary
from support.disks import add_disk, new_disk
from support.images import (KIB, MIB, assert_same, qemu_img, qemu_io,
                            read_at, sparse_image)
from support.qmp_proxy import DROP, QmpProxy

SIZE = 8 * MIB + 3 * 512   # no whole number of clusters
OTHER_SIZE = 5 * MIB

OK, FAILED, USAGE, LOCKED, DAMAGED, UNREACHABLE, NOT_FOUND, THAW, INTERRUPTED \
    = range(9)


class Rig:
    """Two disks behind a daemon, a repository, a proxy between."""

    def __init__(self, folder, cohortd, cohort):
        self.folder = folder
        self.new_daemon = cohortd
        self.run = cohort
        self.repo = folder / "repo"
        self.images = {"disk-a": folder / "a.raw", "disk-b": folder / "b.raw"}
        sparse_image(self.images["disk-a"], SIZE)
        sparse_image(self.images["disk-b"], OTHER_SIZE)
        self.kept = {}      # point -> {disk: copy of the disk then}
        self.copies = 0
        self.state_options = ()
        self.start_daemon()
        self.write("disk-a", "write -P 1 0 300k", "write -P 2 4M 1M")
        self.write("disk-b", "write -P 3 100k 700k")

    def start_daemon(self):
        self.daemon = self.new_daemon(*self.state_options, nbd=True)
        for name, path in self.images.items():
            add_disk(self.daemon, name, path)
        proxies = self.folder / f"p{len(os.listdir(self.folder))}"
        proxies.mkdir()
        self.proxy = QmpProxy(proxies, self.daemon.qmp_path)

    def write(self, disk, *commands):
        qemu_io(self.daemon.nbd_uri(disk), *commands)

    def snapshot(self):
        """What the disks hold now (nobody writes)."""
        copies = {}
        for name, path in self.images.items():
            self.copies += 1
            copies[name] = self.folder / f"copy{self.copies}.raw"
            shutil.copy(path, copies[name])
        return copies

    def words(self, *options):
        return ("backup", self.repo, "--qmp", self.proxy.path, *options)

    def backup(self, *options, code=OK):
        """Runs it; remembers what a new point must hold."""
        copies = self.snapshot()
        before = set(self.points())
        result = self.run(*self.words("--json", *options))
        assert result.returncode == code, result.stdout + result.stderr
        for point in set(self.points()) - before:
            self.kept.setdefault(point, copies)
        return result

    def start(self, *options):
        return subprocess.Popen(
            [cohort_binary(), *map(str, self.words(*options))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def points(self):
        if not (self.repo / "repository.json").exists():
            return []
        names = [name for name in os.listdir(self.repo) if name[0] == "2"]
        return sorted(names, key=lambda name: name[-4:])

    def manifest(self, point):
        return json.loads((self.repo / point / "manifest.json").read_text())

    def kinds(self, point=None):
        manifest = self.manifest(point or self.points()[-1])
        return {disk["node"]: disk["kind"] for disk in manifest["disks"]}

    def partials(self):
        """The labels of the points that were begun."""
        labels = []
        for name in os.listdir(self.repo):
            if name.startswith(".partial-"):
                for file in ("manifest.json", "started.json"):
                    path = self.repo / name / file
                    if path.exists():
                        labels.append(json.loads(path.read_text())["label"])
                        break
        return labels

    def keep_if_published(self, labels, copies):
        """A point that a later run published holds what the disks held when
        the run before it made it."""
        for point in self.points():
            if self.manifest(point)["label"] in labels:
                self.kept[point] = copies

    def check_everything(self):
        """Each point restores to the disks as they were; verify, qemu-img
        check and qemu-img convert agree."""
        result = self.run("verify", self.repo)
        assert result.returncode == OK, result.stdout + result.stderr
        for point in self.points():
            to = self.folder / "restored"
            shutil.rmtree(to, ignore_errors=True)
            self.run("restore", self.repo, point, "--to", to, check=True)
            for disk in self.manifest(point)["disks"]:
                want = self.kept[point][disk["node"]]
                assert_same(to / f"{disk['node']}.raw", want)
                image = self.repo / point / disk["image"]
                if image.suffix == ".qcow2":
                    qemu_img("check", "-q", image)
                plain = self.folder / "plain.raw"
                qemu_img("convert", "-O", "raw", image, plain)
                assert_same(plain, want)

    def check_nothing_left(self):
        """No job, node, stale bitmap, partial point."""
        qmp = self.daemon.connect()
        assert qmp.command("query-jobs") == []
        for node in qmp.command("query-named-block-nodes"):
            assert not node["node-name"].startswith("cohort-")
            ours = [bitmap["name"] for bitmap in node.get("dirty-bitmaps", [])]
            newest = {disk["bitmap"] for point in self.points()
                      for disk in self.manifest(point)["disks"]
                      if disk["node"] == node["node-name"]}
            assert set(ours) <= newest and len(ours) <= 1
        qmp.close()
        if self.repo.exists():
            assert not [name for name in os.listdir(self.repo)
                        if name.startswith(".partial")]


@pytest.fixture
def rig(folder, cohortd, cohort):
    return Rig(folder, cohortd, cohort)


@pytest.fixture
def memory(folder):
    "A state directory that a daemon must refuse."
    path = pathlib.Path("/dev/shm") / folder.name
    yield path
    shutil.rmtree(path, ignore_errors=True)


def change(rig, seed):
    """Some writes, other ones for each seed; also zeroes and discards."""
    rig.write("disk-a", f"write -P {seed} {seed * 200}k 70k",
              f"write -z {4 * 1024 + seed * 64}k 64k")
    rig.write("disk-b", f"write -P {seed + 100} {seed * 130 + 7}k 1k",
              f"discard {100 + seed * 64}k 64k")


def test_first_backup_is_full_and_the_next_incremental(rig):
    "The first point holds all of each disk, the second what changed since."
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    change(rig, 5)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()


def test_a_long_chain_restores_without_cohort(rig):
    """qemu-img convert alone gives each of 50 points back; all of them are
    qcow2 images that name the one before by a relative path."""
    rig.backup()
    for number in range(1, 50):
        rig.write("disk-a", f"write -P {number} {number * 97 % 8000}k 70k")
        rig.write("disk-b", f"write -P {number + 100} {number * 31}k 1k",
                  f"write -z {number * 64 % 4000}k 3k")
        rig.backup()
    points = rig.points()
    assert len(points) == 50
    moved = rig.folder / "moved"
    rig.repo.rename(moved)
    for number, point in enumerate(points):
        for disk, want in rig.kept[point].items():
            image = moved / point / f"{disk}.qcow2"
            plain = rig.folder / "plain.raw"
            qemu_img("convert", "-f", "qcow2", "-O", "raw", image, plain)
            assert_same(plain, want)
            backing = json.loads(qemu_img("info", "--output=json",
                                          image)).get("backing-filename")
            assert backing == (f"../{points[number - 1]}/{disk}.qcow2"
                               if number else None)
    qemu_img("check", "-q", image)


def make_old(rig, point):
    """As cohort 0.1 made it: full images are raw files."""
    manifest = rig.manifest(point)
    for disk in manifest["disks"]:
        image = rig.repo / point / disk["image"]
        qemu_img("convert", "-O", "raw", image, image.with_suffix(".raw"))
        image.unlink()
        disk["image"] = f"{disk['node']}.raw"
    (rig.repo / point / "manifest.json").write_text(json.dumps(manifest))


def test_an_old_point_with_raw_images_is_built_upon(rig):
    "It restores and verifies, and the next backup is an increment on it."
    rig.backup()
    make_old(rig, rig.points()[0])
    change(rig, 3)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    image = rig.repo / rig.points()[1] / "disk-a.qcow2"
    info = json.loads(qemu_img("info", "--output=json", image))
    assert info["backing-filename-format"] == "raw"
    rig.check_everything()


def test_a_full_image_that_names_a_backing_file_is_damaged(rig):
    "Nothing outside the point can get into it."
    rig.backup()
    point = rig.points()[0]
    other = sparse_image(rig.folder / "other.raw", SIZE)
    qemu_img("rebase", "-u", "-b", other, "-F", "raw",
             rig.repo / point / "disk-a.qcow2")
    result = rig.run("verify", rig.repo)
    assert result.returncode == DAMAGED
    assert "backing file" in result.stdout


def test_an_increment_holds_only_what_changed(rig):
    "One changed byte costs one cluster; an unchanged disk nothing."
    rig.backup()
    rig.write("disk-a", "write -P 9 1M 512")
    rig.backup()
    held = {disk["node"]: disk["changed-bytes"]
            for disk in rig.manifest(rig.points()[-1])["disks"]}
    assert held == {"disk-a": 64 * KIB, "disk-b": 0}
    rig.check_everything()


def test_a_chain_of_six_restores_at_every_point(rig):
    "Every point of a chain is the disks as they were, also for qemu-img."
    for seed in range(6):
        if seed == 3:   # the cluster whose place the header takes, and the end
            rig.write("disk-a", "write -P 77 0 512",
                      f"write -P 78 {SIZE - 512} 512")
        change(rig, seed)
        rig.backup()
    assert len(rig.points()) == 6
    rig.check_everything()


def test_full_on_request(rig):
    "--full makes a full point, and the one after builds on it."
    rig.backup()
    rig.backup("--full")
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    change(rig, 1)
    rig.backup()
    assert rig.manifest(rig.points()[-1])["disks"][0]["previous"] == \
        rig.points()[-2]
    rig.check_everything()


def test_a_restarted_daemon_goes_on_with_increments(rig):
    "Its bitmaps outlive it, and so does what they are relative to."
    rig.backup()
    rig.daemon.quit()
    rig.start_daemon()
    change(rig, 1)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()


def test_bitmaps_in_memory_mean_a_full_backup_after_a_restart(rig, memory):
    """A daemon that cannot keep them: `cohort` says so at once, and the next
    run of the daemon begins with full points."""
    rig.daemon.quit()
    rig.state_options = ("--state-dir", memory)
    rig.start_daemon()
    result = rig.backup()
    assert "in memory only" in result.stderr
    change(rig, 1)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.daemon.quit()
    rig.start_daemon()
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    rig.check_everything()
    rig.check_nothing_left()


def test_a_grown_disk_alone_goes_full(rig):
    "The other disk stays incremental; the reason is in the manifest."
    rig.backup()
    rig.daemon.qmp.command("block-export-del", id="export-disk-b", mode="hard")
    rig.daemon.qmp.wait_event("BLOCK_EXPORT_DELETED")
    rig.daemon.qmp.command("blockdev-del", node_name="disk-b")
    os.truncate(rig.images["disk-b"], OTHER_SIZE + MIB)
    add_disk(rig.daemon, "disk-b", rig.images["disk-b"])
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "full"}
    reasons = {disk["node"]: disk["reason"]
               for disk in rig.manifest(rig.points()[-1])["disks"]}
    assert "size changed" in reasons["disk-b"]
    rig.check_everything()


def test_a_new_disk_goes_full_beside_the_others(rig):
    "A disk that no point holds yet is full, the rest is not."
    rig.backup()
    rig.images["disk-c"] = new_disk(rig.daemon, "disk-c", MIB, seed=4)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental",
                           "disk-c": "full"}
    rig.check_everything()


def test_a_disk_left_out_goes_on_where_it_was(rig):
    "An increment builds on the newest point that holds its disk."
    rig.backup()
    change(rig, 1)
    rig.backup("--disk", "disk-a")
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()


def test_a_copy_of_the_repository_is_not_mistaken_for_it(rig):
    "Points made through a copy do not make the original's next one wrong."
    rig.backup()
    copy = rig.folder / "copied"
    shutil.copytree(rig.repo, copy)
    change(rig, 1)
    rig.backup()
    original, rig.repo = rig.repo, copy
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    rig.repo = original
    change(rig, 3)
    rig.backup()
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    rig.check_everything()


def test_a_failed_target_leaves_nothing_and_loses_nothing(rig):
    "One disk's target fails: no point, and the next run has it all."
    rig.backup()
    change(rig, 3)

    def broken():
        return {"execute": "blockdev-add", "id": last_id(rig), "arguments": {
            "driver": "blkdebug",
            "node-name": target_of(rig, 1), "image": {
                "driver": "file", "filename": image_of(rig, "disk-b"),
                "discard": "unmap"},
            "inject-error": [{"event": "none", "iotype": "write",
                              "errno": 5}]}}
    rig.proxy.before("blockdev-add", broken, nth=2)
    result = rig.backup(code=FAILED)
    assert "disk-b" in result.stderr and "error" in result.stderr
    assert len(rig.points()) == 1
    rig.check_nothing_left()
    rig.proxy.clear()
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()


def last_id(rig):
    return max(key for key in rig.proxy.pending if key is not None)


def target_of(rig, index):
    repository = json.loads((rig.repo / "repository.json").read_text())
    return f"cohort-{repository['id'][:8]}-t{index}"


def image_of(rig, disk):
    partial = [name for name in os.listdir(rig.repo)
               if name.startswith(".partial-")][0]
    return str(rig.repo / partial / f"{disk}.qcow2")


def test_a_second_run_says_who_holds_the_lock(rig):
    "It ends at once with code 3 and names the process."
    rig.backup()
    seen = []

    def second():
        result = rig.run(*rig.words())
        seen.append((result.returncode, result.stderr))
    process = None
    rig.proxy.before("job-finalize", second)
    process = rig.start()
    process.communicate(timeout=60)
    assert process.returncode == OK
    code, words = seen[0]
    assert code == LOCKED
    assert str(process.pid) in words and "cohort backup" in words


KILLS = [("blockdev-add", 1), ("blockdev-add", 2), ("transaction", 1),
         ("query-jobs", 4), ("x-cohort-query-backup-extents", 1),
         ("x-cohort-query-backup-extents", 2), ("job-finalize", 1),
         ("query-jobs", 6), ("job-dismiss", 1), ("job-dismiss", 2),
         ("blockdev-del", 1), ("blockdev-del", 2),
         ("x-cohort-query-transactions", 1),
         ("x-cohort-query-transactions", 3),
         ("x-cohort-query-transactions", 5), ("x-cohort-acknowledge", 1)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("command,nth", KILLS,
                         ids=[f"{name}-{nth}" for name, nth in KILLS])
def test_killed_at_any_step_the_next_run_is_right(rig, command, nth, moment):
    "SIGKILL at a command: all points that exist then or later are right."
    rig.backup()
    change(rig, 3)
    killed = []

    def kill():
        process.kill()
        process.wait()
        killed.append(True)
        return None
    getattr(rig.proxy, moment)(command, kill, nth=nth)
    copies = rig.snapshot()
    process = rig.start()
    process.communicate(timeout=60)
    assert killed, f"a run has no {command} number {nth}"
    for point in rig.points():
        rig.kept.setdefault(point, copies)
    labels = rig.partials()
    rig.proxy.clear()
    change(rig, 4)
    rig.backup()
    rig.keep_if_published(labels, copies)
    change(rig, 5)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()


@pytest.mark.parametrize("command,nth", [("block-dirty-bitmap-add", 2),
                                         ("transaction", 1),
                                         ("job-finalize", 1),
                                         ("job-dismiss", 1)])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_during_the_first_backup(rig, command, nth, moment):
    "No increment ever builds on a full backup that was not published."
    def kill():
        process.kill()
        process.wait()
    getattr(rig.proxy, moment)(command, kill, nth=nth)
    copies = rig.snapshot()
    process = rig.start()
    process.communicate(timeout=60)
    for point in rig.points():
        rig.kept[point] = copies
    labels = rig.partials()
    rig.proxy.clear()
    for seed in (1, 2):
        change(rig, seed)
        rig.backup()
    rig.keep_if_published(labels, copies)
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.check_everything()
    rig.check_nothing_left()


def test_a_daemon_that_dies_is_reported_and_recovered_from(rig):
    "Exit code 5; with a new daemon the next backup is an increment again."
    rig.backup()
    change(rig, 1)
    rig.proxy.before("job-finalize", lambda: rig.daemon.kill() and None)
    result = rig.backup(code=UNREACHABLE)
    assert "lost the daemon" in result.stderr
    rig.start_daemon()
    change(rig, 2)
    rig.backup()
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    assert len(rig.points()) == 2
    rig.check_everything()
    rig.check_nothing_left()


def wait_concluded(rig):
    while {job["status"] for job in rig.daemon.qmp.command("query-jobs")} != \
            {"concluded"}:
        time.sleep(0.01)


def test_a_committed_point_is_published_by_the_next_run(rig):
    "Killed when the group had committed: the point appears, and is built on."
    rig.backup()
    change(rig, 1)
    copies = rig.snapshot()

    def kill():
        process.kill()
        process.wait()
    rig.proxy.after("job-finalize", kill)
    process = rig.start()
    process.communicate(timeout=60)
    wait_concluded(rig)
    labels = rig.partials()
    assert len(labels) == 1 and len(rig.points()) == 1
    rig.proxy.clear()
    change(rig, 2)
    result = rig.backup()
    assert "published" in result.stderr
    assert len(rig.points()) == 3
    assert rig.kinds() == {"disk-a": "incremental", "disk-b": "incremental"}
    rig.keep_if_published(labels, copies)
    rig.check_everything()
    rig.check_nothing_left()


def test_dismissed_jobs_of_bitmaps_in_memory_are_never_built_upon(rig, memory):
    "Records dismissed behind our back: the bitmaps are not trusted again."
    rig.daemon.quit()
    rig.state_options = ("--state-dir", memory)
    rig.start_daemon()
    rig.backup()
    change(rig, 1)

    def steal():
        process.kill()
        process.wait()
        return None
    rig.proxy.after("job-finalize", steal)
    process = rig.start()
    process.communicate(timeout=60)
    wait_concluded(rig)
    for job in rig.daemon.qmp.command("query-jobs"):
        rig.daemon.qmp.command("job-dismiss", id=job["id"])
    rig.proxy.clear()
    change(rig, 2)
    result = rig.backup()
    assert "not known" in result.stderr
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    rig.check_everything()
    rig.check_nothing_left()


def test_what_a_stranger_finalized_before_it_was_prepared_costs_a_full(rig,
                                                                      memory):
    """Killed when the group had just begun, which someone else then finalized:
    that it was begun is written down, so its bitmaps are not trusted again."""
    rig.daemon.quit()
    rig.state_options = ("--state-dir", memory)
    rig.start_daemon()
    rig.backup()
    change(rig, 1)

    def steal():
        process.kill()
        process.wait()
    rig.proxy.after("transaction", steal)
    process = rig.start()
    process.communicate(timeout=60)
    rig.proxy.clear()
    jobs = [job["id"] for job in rig.daemon.qmp.command("query-jobs")]
    for job in jobs:
        rig.daemon.qmp.wait_event("BLOCK_JOB_PENDING", id=job)
    rig.daemon.qmp.command("job-finalize", id=jobs[0])
    wait_concluded(rig)
    change(rig, 2)
    result = rig.backup()
    assert "not known" in result.stderr
    assert rig.kinds() == {"disk-a": "full", "disk-b": "full"}
    rig.check_everything()
    rig.check_nothing_left()


def test_a_read_only_repository_is_refused_and_loses_nothing(rig):
    "The error names the place; once it can be written to, all goes on."
    rig.backup()
    subprocess.run(["mount", "--bind", rig.repo, rig.repo], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", rig.repo],
                       check=True)
        result = rig.run(*rig.words())
        assert result.returncode == FAILED
        assert str(rig.repo) in result.stderr
        assert "Read-only file system" in result.stderr
    finally:
        subprocess.run(["umount", rig.repo], check=True)
    rig.write("disk-a", "write -P 9 1M 64k")
    rig.backup()
    assert set(rig.kinds().values()) == {"incremental"}
    rig.check_everything()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_cleans_up(rig, number):
    "Exit code 8, no job, no node, no partial point; the next run is right."
    rig.backup()
    change(rig, 1)
    rig.proxy.after("transaction", lambda: process.send_signal(number))
    process = rig.start()
    _, words = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, words
    assert len(rig.points()) == 1
    rig.check_nothing_left()
    rig.proxy.clear()
    rig.backup()
    rig.check_everything()


def test_a_backup_outlives_the_reader_of_its_progress(rig):
    "Standard error closed: the point is made all the same."
    process = rig.start()
    process.stderr.close()
    process.stdout.read()
    assert process.wait(timeout=60) == OK
    assert len(rig.points()) == 1
    rig.check_nothing_left()


def test_freeze_and_thaw_enclose_the_transaction(rig):
    "freeze, transaction, thaw, in that order."
    log = rig.folder / "log"
    rig.proxy.before("transaction",
                     lambda: print("cut", file=open(log, "a")))
    rig.backup("--freeze-cmd", f"echo freeze >> {log}",
               "--thaw-cmd", f"echo thaw >> {log}")
    assert log.read_text().split() == ["freeze", "cut", "thaw"]


def test_a_failed_freeze_thaws_and_fails(rig):
    "No point, no transaction, but a thaw."
    log = rig.folder / "log"
    result = rig.backup("--freeze-cmd", "exit 9", "--thaw-cmd",
                        f"echo thaw >> {log}", code=FAILED)
    assert "status 9" in result.stderr
    assert log.read_text() == "thaw\n"
    assert "transaction" not in rig.proxy.names
    assert rig.points() == []


def test_a_freeze_that_hangs_is_killed_and_thawed(rig):
    "After --freeze-timeout, with all its children."
    log = rig.folder / "log"
    result = rig.backup("--freeze-cmd", "sleep 1000 & sleep 1000",
                        "--thaw-cmd", f"echo thaw >> {log}",
                        "--freeze-timeout", "1", code=FAILED)
    assert "longer than" in result.stderr
    assert log.read_text() == "thaw\n"


def test_an_unanswered_transaction_thaws_in_time(rig):
    "The guest does not stay frozen for a daemon that hangs."
    log = rig.folder / "log"
    rig.proxy.before("transaction", lambda: DROP)
    result = rig.backup("--thaw-cmd", f"echo thaw >> {log}",
                        "--freeze-timeout", "1", code=FAILED)
    assert "did not answer" in result.stderr
    assert log.read_text() == "thaw\n"
    rig.check_nothing_left()


def test_a_killed_cohort_still_thaws(rig):
    "Also SIGKILL between freeze and thaw leaves no frozen guest."
    log = rig.folder / "log"

    def kill():
        process.kill()
        process.wait()
    rig.proxy.before("transaction", kill)
    process = rig.start("--thaw-cmd", f"echo thaw >> {log}")
    process.communicate(timeout=60)   # ends when the guard has closed stderr
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.read_text() == "thaw\n"


def test_a_failed_thaw_is_told_by_the_exit_code(rig):
    "The point is good, the guest may not be: code 7."
    result = rig.backup("--thaw-cmd", "exit 3", code=THAW)
    assert "frozen" in result.stderr
    rig.check_everything()


def test_a_hash_that_does_not_match_is_found(rig):
    "verify says which disk, point and offset; restore refuses."
    rig.write("disk-a", "write -P 7 6M 1M")
    rig.backup()
    change(rig, 1)
    rig.backup()
    first, second = rig.points()
    with open(rig.repo / first / "disk-a.qcow2", "r+b") as image:
        image.seek(6 * MIB + 700 * KIB)
        image.write(b"rotten")
    result = rig.run("verify", rig.repo)
    assert result.returncode == DAMAGED
    assert f"point {first} disk disk-a offset {6 * MIB}" in result.stdout
    assert f"disk 'disk-a' of point {second} builds on" in result.stdout
    result = rig.run("verify", rig.repo, second)
    assert result.returncode == DAMAGED
    result = rig.run("restore", rig.repo, "--to", rig.folder / "out")
    assert result.returncode == DAMAGED
    assert "disk-a" in result.stderr and str(6 * MIB) in result.stderr
    assert not (rig.folder / "out" / "disk-a.raw").exists()
    assert os.listdir(rig.folder / "out") == []


DAMAGES = {
    "image gone": lambda point: (point / "disk-a.qcow2").unlink(),
    "hashes gone": lambda point: (point / "disk-a.hashes").unlink(),
    "hashes changed": lambda point: patch(point / "disk-a.hashes", 40, b"x"),
    "header changed": lambda point: patch(point / "disk-a.qcow2", 0, b"x"),
    "image cut": lambda point: os.truncate(point / "disk-a.qcow2", 70000),
    "other backing file": lambda point: patch(
        point / "disk-a.qcow2", name_offset(point / "disk-a.qcow2"),
        b"../../../../etc/passwd"),
}


def name_offset(path):
    """Where the name of the backing file is."""
    return int.from_bytes(read_at(path, 8, 8), "big")


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_file_is_found(rig, damage):
    "verify ends with 4 and names the point; restore gives no file."
    rig.backup()
    change(rig, 1)
    rig.backup()
    point = rig.points()[-1]
    DAMAGES[damage](rig.repo / point)
    result = rig.run("verify", rig.repo)
    assert result.returncode == DAMAGED
    assert f"point {point} disk disk-a" in result.stdout
    result = rig.run("restore", rig.repo, "--to", rig.folder / "out")
    assert result.returncode == DAMAGED
    assert not (rig.folder / "out" / "disk-a.raw").exists()
    change(rig, 2)
    rig.backup()   # full, since its ground is gone
    assert rig.kinds() == {"disk-a": "full", "disk-b": "incremental"}


EVIL = {
    "node": ("node", "../../evil"),
    "absolute": ("node", "/etc/passwd"),
    "image": ("image", "../../../etc/passwd"),
    "hashes": ("hashes", "../x.hashes"),
    "previous": ("previous", "../../x"),
    "size": ("size", -1),
    "huge": ("size", 1 << 62),
    "kind": ("kind", "differential"),
    "root": ("hash-root", "zz"),
}


@pytest.mark.parametrize("what", EVIL)
def test_a_manifest_cannot_point_outside(rig, what):
    "Each such manifest is damage that list, verify and restore tell."
    rig.backup()
    point = rig.points()[-1]
    manifest = rig.manifest(point)
    key, value = EVIL[what]
    manifest["disks"][0][key] = value
    (rig.repo / point / "manifest.json").write_text(json.dumps(manifest))
    assert rig.run("list", rig.repo).returncode == DAMAGED
    result = rig.run("verify", rig.repo)
    assert result.returncode == DAMAGED
    assert "manifest.json is damaged" in result.stdout
    assert rig.run("restore", rig.repo, "--to",
                   rig.folder / "out").returncode == NOT_FOUND


def test_status_tells_what_the_next_backup_would_do(rig):
    "Full before the first, incremental after, and how much there is to copy."
    rig.backup("--disk", "disk-a")
    rig.write("disk-a", "write -P 5 0 1k")
    result = rig.run("status", rig.repo, "--qmp", rig.proxy.path, "--json",
                     check=True)
    status = json.loads(result.stdout)
    assert status["points"] == 1 and status["locked-by"] is None
    following = {disk["node"]: (disk["kind"], disk["to-copy"])
                 for disk in status["next"]}
    assert following == {"disk-a": ("incremental", 64 * KIB),
                         "disk-b": ("full", OTHER_SIZE)}


def test_status_shows_the_holder_and_what_was_left(rig):
    "While a run is under way, and after it was killed."
    rig.backup()
    seen = []

    def look():
        seen.append(rig.run("status", rig.repo, check=True).stdout)
        process.kill()
        process.wait()
        seen.append(rig.run("status", rig.repo, check=True).stdout)
    rig.proxy.before("job-finalize", look)
    process = rig.start()
    process.communicate(timeout=60)
    while len(seen) < 2:
        time.sleep(0.01)
    assert str(process.pid) in seen[0]
    assert "lock        free" in seen[1] and ".partial-" in seen[1]


def test_listing_is_the_same_for_people_and_programs(rig):
    "list --json has the points that list shows."
    rig.backup()
    rig.backup()
    listing = json.loads(rig.run("list", rig.repo, "--json",
                                 check=True).stdout)
    assert [point["point"] for point in listing["points"]] == rig.points()
    text = rig.run("list", rig.repo, check=True).stdout
    for point in rig.points():
        assert point in text
