# SPDX-License-Identifier: BSD-3-Clause
"""What to search in a model: it says so itself, in its first comment.

    sound: A=1 B=2        no error may be found with these bounds
    full: A=3             the same, deeper: by hand, minutes and gigabytes
    mistakes: A=1         the bounds with which a planted mistake is found
    BREAK_THIS: B=2       and what this one needs beyond that

`python3 tests/models/searches.py full` searches those that take long.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
NAMES = ["tracking_write", "tracking_verbs", "tracking_file",
         "tracking_resize", "group_commit", "log_seal"]


def text_of(model):
    return (MODELS / f"{model}.pml").read_text(encoding="utf-8")


def bounds(model, kind):
    "Each set of bounds of that kind, as a dictionary."
    head = text_of(model).split("*/")[1]
    return [dict(word.split("=") for word in line.split())
            for line in re.findall(rf"^ \*     {kind}: (.+)$", head, re.M)]


def mistakes(model):
    "The mistakes planted in it, each with its bounds."
    found = sorted(set(re.findall(r"def(?:ined\()? ?(BREAK_\w+)",
                                  text_of(model))))
    common = bounds(model, "mistakes")[0]
    return {name: {**common, **(bounds(model, name) or [{}])[0], name: "1"}
            for name in found}


def _run(folder, timeout, *words):
    result = subprocess.run(words, cwd=folder, text=True, capture_output=True,
                            stdin=subprocess.DEVNULL, timeout=timeout,
                            check=False)
    if result.returncode != 0:
        raise AssertionError(f"{words}: {result.stdout}{result.stderr}")
    return result.stdout


def search(model, macros, level="-O0", timeout=3600):
    """The report of Spin's search; of all states, or up to the first error.

    Below a million states the compiler would take longer than it saves.
    """
    folder = tempfile.mkdtemp(prefix="cohort-spin-")
    try:
        _run(folder, 60, "spin", *(f"-D{k}={v}" for k, v in macros.items()),
             "-a", str(MODELS / f"{model}.pml"))
        _run(folder, 300, "gcc", "-w", level, "-DSAFETY", "-DNOREDUCE",
             "-DNOFAIR", "-DNOBOUNDCHECK", "-o", "pan", "pan.c")
        return _run(folder, timeout, "./pan", "-m100000", "-w21")
    finally:
        shutil.rmtree(folder)


def errors(report):
    "How many errors it found, having searched all it had to."
    assert "max search depth too small" not in report, report
    count = int(re.search(r"errors: (\d+)", report)[1])
    assert count > 0 or "Search not completed" not in report, report
    return count


def summary(report):
    "States and seconds."
    states = re.search(r"(\S+) states, stored", report)[1]
    seconds = re.search(r"elapsed time (\S+)", report)[1]
    return f"{errors(report)} errors, {states} states, {seconds} s"


def main(kind):
    "Searches all of this kind and prints what was found."
    for model in NAMES:
        if kind == "mistakes":
            chosen = mistakes(model)
        else:
            chosen = {str(i): b for i, b in enumerate(bounds(model, kind))}
        for name, macros in chosen.items():
            report = search(model, macros,
                            "-O2" if kind == "full" else "-O0")
            words = " ".join(f"{k}={v}" for k, v in macros.items())
            print(f"{model} {name} [{words}]: {summary(report)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
