# SPDX-License-Identifier: BSD-3-Clause
"""Two readers of the same bytes: the checker, which was written from the format
pages alone, and cohortd when it recovers. They must agree on each bitmap, bit by
bit, and on the outcome of each transaction."""
import os
import shutil

import checker



def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


def keep_copies(paths, state, folder):
    """Copies of what a dead daemon has left; `paths`: disk -> tracking file."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for disk, path in paths.items():
        if path is not None and os.path.exists(path):
            shutil.copy(path, f"{folder}/{disk}.cbt")
    if os.path.isdir(state):
        shutil.copytree(state, f"{folder}/state")


class Prediction:
    """What the checker says, of copies."""

    def __init__(self, folder, sizes):
        state = f"{folder}/state"
        self.log = checker.Log(state if os.path.isdir(state) else None,
                               boot_id())
        self.disks = {
            disk: checker.check(f"{folder}/{disk}.cbt", size, self.log,
                                boot_id())
            for disk, size in sizes.items()
            if os.path.exists(f"{folder}/{disk}.cbt")}

    def bits(self, disk, name):
        for entry in self.disks[disk]["bitmaps"]:
            if entry["name"] == name:
                return int.from_bytes(entry["bits"], "little")
        raise KeyError(name)

    def disagreement(self, disk, qmp, found):
        """A sentence, or None. `found`: name -> BlockDirtyInfo."""
        state = self.disks.get(disk, {"bitmaps": []})
        expected = {entry["name"]: entry for entry in state["bitmaps"]}
        if set(expected) != set(found):
            reasons = {info.get("x-cohort-reason")
                       for info in found.values()}
            return f"{disk}: bitmaps {sorted(found)}, the checker has " \
                f"{sorted(expected)}; reasons: {reasons}"
        for name, entry in expected.items():
            wrong = self.differs(disk, qmp, entry, found[name])
            if wrong is not None:
                return f"bitmap {name} of {disk}: {wrong} " \
                    f"(outcome {entry.get('outcome')})"
        return None

    @staticmethod
    def differs(disk, qmp, entry, info):
        if entry.get("inconsistent") or info.get("inconsistent"):
            if entry.get("inconsistent") and info.get("inconsistent"):
                return None
            return f"inconsistent: the checker says {entry.get('reason')}, " \
                f"cohortd {info.get('x-cohort-reason')}"
        if entry["recording"] != info["recording"]:
            return f"recording: the checker says {entry['recording']}"
        base = [[point["txid"], point["disk"]]
                for point in info["x-cohort-base"]]
        if base != entry["base"]:
            return f"base: the checker says {entry['base']}, cohortd {base}"
        sha = qmp.command("x-debug-block-dirty-bitmap-sha256", node=disk,
                          name=entry["name"])["sha256"]
        if sha != entry["sha256"]:
            return f"{info['count']} bytes are dirty, the checker has " \
                f"{entry['count']}, or other ones"
        return None

    def outcomes(self):
        """txid -> outcome, of all transactions of dead runs."""
        return {txid.hex(): outcome for _, outcomes in self.log.runs.values()
                for txid, outcome in outcomes.items()}

    def disagreement_on_outcomes(self, qmp):
        told = self.outcomes()
        for found in qmp.command("x-cohort-query-transactions"):
            expected = told.get(found["txid"])
            if expected != found["outcome"]:
                return f"transaction {found['txid']}: {found['outcome']}, the " \
                    f"checker says {expected}"
        return None
