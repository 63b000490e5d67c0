# SPDX-License-Identifier: BSD-3-Clause
"""Records a QMP session with jobs, so that two daemons can be compared.

    session = Session(daemon)
    session.do("job-pause", id="job-a")     one step: a command, its outcome,
    session.until("job-a:paused")           and what happened until the next
    session.look()                          also what the queries say now
    session.record()                        all of it, normalised

The normaliser leaves out what no client may depend on, and nothing else:

  timestamps       dropped.
  paths            of a daemon's own folder: "FOLDER".
  error texts      "some text"; the class of an error reply stays.
  reply or event   which came first within one step is free; so the events of a
                   step are told beside its outcome.
  order of peers   events are kept per job; a job's own order stays.
  internal pauses  `paused` followed at once by `running` in one step is
                   dropped: nobody asked for it (QEMU's drains).
  offsets          of a job that has not copied everything, or that did not end
                   well: a matter of chance; "part" (never more than `len`).
  busy             of a job at work: whether it waits for I/O just now; dropped
                   while `running`.

Each step must end in a state that lasts (until() its last event): what comes
later would count for the next step by chance.
"""
import json

from support.qmp import QmpError, members

WHOLE_LIFE = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")


def job_of(event):
    data = event["data"]
    return data.get("id") or data["device"]


def word_of(event):
    """job-a:paused, job-a:COMPLETED: what until() waits for."""
    status = event["data"].get("status")
    return f"{job_of(event)}:{status or event['event'][len('BLOCK_JOB_'):]}"


def without_progress(data, done, total):
    data = dict(data)
    assert 0 <= data[done] <= data[total], data
    if data[done] != data[total]:
        data[done] = "part"
    if "error" in data:
        assert data["error"]
        data["error"] = "some text"
    return data


def normal_event(event):
    name, data = event["event"], event["data"]
    if name in WHOLE_LIFE:
        data = without_progress(data, "offset", "len")
        if name == "BLOCK_JOB_CANCELLED" or "error" in data:
            data["offset"] = "part"
    return name, data


def drop_internal_pauses(events):
    kept = []
    for name, data in events:
        if data.get("status") == "running" and kept and \
                kept[-1][1].get("status") == "paused":
            kept.pop()
        else:
            kept.append((name, data))
    return kept


def normal_job(info):
    return without_progress(info, "current-progress", "total-progress")


def normal_block_job(info):
    info = without_progress(info, "offset", "len")
    if info["status"] == "running":
        del info["busy"]
    return info


def by_job(infos, key):
    found = {info[key]: info for info in infos}
    assert len(found) == len(infos)
    return found


class Session:
    def __init__(self, daemon):
        self.daemon = daemon
        self.qmp = daemon.qmp
        self.steps = []

    def do(self, name, arguments=None, /, **keywords):
        """Runs a command; returns "success" or the class of its error."""
        outcome = "success"
        try:
            self.qmp.command(name, arguments, **keywords)
        except QmpError as error:
            outcome = error.error_class
        given = members(arguments, keywords)
        self.steps.append({"command": name, "arguments": given,
                           "outcome": outcome, "events": [], "looks": []})
        self.take_events()
        return outcome

    def transaction(self, *actions, grouped=True):
        mode = "grouped" if grouped else "individual"
        return self.do("transaction", {
            "actions": [{"type": kind, "data": data}
                        for kind, data in actions],
            "properties": {"completion-mode": mode}})

    def take_events(self):
        self.steps[-1]["events"] += [
            event for event in self.qmp.events
            if event["event"].startswith(("JOB_", "BLOCK_JOB_"))]
        self.qmp.events = []

    def until(self, *words):
        """Waits until this step has told all these words, those of one job in
        this order."""
        self.take_events()
        seen = {}  # job: how many events of this step are behind
        for word in words:
            job = word.partition(":")[0]
            index = seen.get(job, 0)
            while True:
                events = self.steps[-1]["events"]
                if index == len(events):
                    event = self.qmp.wait_for(lambda event: True, word)
                    self.qmp.events.insert(0, event)
                    self.take_events()
                elif word_of(events[index]) == word:
                    break
                else:
                    index += 1
            seen[job] = index + 1
        return self

    def look(self, *bitmaps):
        """What query-jobs, query-block-jobs and the dirty bitmaps (each a
        (node, name) pair) show now."""
        jobs = self.qmp.command("query-jobs")
        block_jobs = self.qmp.command("query-block-jobs")
        self.take_events()
        self.steps[-1]["looks"].append({
            "order": [info["id"] for info in jobs],
            "jobs": by_job(map_list(normal_job, jobs), "id"),
            "block jobs": by_job(map_list(normal_block_job, block_jobs),
                                 "device"),
            "bitmaps": {"/".join(pair): self.qmp.bitmap(*pair)
                        for pair in bitmaps}})
        return self

    def record(self):
        """All steps, normalised, as lines of JSON."""
        steps = [{**step, "events": self.events_by_job(step["events"])}
                 for step in self.steps]
        text = json.dumps(steps, indent=1, sort_keys=True)
        return text.replace(str(self.daemon.folder), "FOLDER").splitlines()

    @staticmethod
    def events_by_job(events):
        told = {}
        for event in events:
            told.setdefault(job_of(event), []).append(normal_event(event))
        kept = {job: drop_internal_pauses(words)
                for job, words in told.items()}
        return {job: words for job, words in kept.items() if words}

    def all_events(self):
        return [event for step in self.steps for event in step["events"]]


def map_list(function, items):
    return [function(item) for item in items]
