#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Counts test results.

count_results.py meson LOG   cmocka cases in a meson testlog.json
count_results.py junit XML   cases in a pytest junit file
count_results.py sum FILE... the sum of what the two above printed

The first two print "PASSED FAILED SKIPPED"; `sum` prints the sentence that
ends a run and exits with 1 unless everything passed and nothing was skipped.
"""
import argparse
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

CMOCKA_COUNT = re.compile(r"^\[ +(PASSED|FAILED|SKIPPED) +\] (\d+) test\(s\)",
                          re.MULTILINE)


def count_meson_test(entry):
    """One executable: the cases that cmocka counted, or itself."""
    counts = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    output = entry.get("stdout", "") + "\n" + entry.get("stderr", "")
    for word, number in CMOCKA_COUNT.findall(output):
        counts[word] += int(number)
    if entry["result"] == "SKIP":
        counts["SKIPPED"] += 1
    elif entry["result"] != "OK":
        # A crash or a sanitizer's report is a failure that cmocka cannot see.
        counts["FAILED"] = max(counts["FAILED"], 1)
    elif not any(counts.values()):
        counts["PASSED"] = 1
    return counts["PASSED"], counts["FAILED"], counts["SKIPPED"]


def count_meson(path):
    if not path.exists():
        return 0, 1, 0
    lines = path.read_text(encoding="utf-8").splitlines()
    return add(count_meson_test(json.loads(line)) for line in lines if line)


def count_junit(path):
    if not path.exists():
        return 0, 1, 0
    root = xml.etree.ElementTree.parse(path).getroot()
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in root.iter("testsuite"):
        for key in totals:
            totals[key] += int(suite.get(key, 0))
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    return max(passed, 0), failed, totals["skipped"]


def add(counts):
    total = (0, 0, 0)
    for count in counts:
        total = tuple(a + b for a, b in zip(total, count))
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["meson", "junit", "sum"])
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--failed-rings", default="")
    options = parser.parse_intermixed_args()
    if options.kind == "meson":
        print(*count_meson(options.files[0]))
        return 0
    if options.kind == "junit":
        print(*count_junit(options.files[0]))
        return 0
    passed, failed, skipped = add(
        tuple(int(word) for word in path.read_text().split())
        for path in options.files if path.exists())
    if options.failed_rings.strip() and failed == 0:
        failed = len(options.failed_rings.split())
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or skipped else 0


if __name__ == "__main__":
    sys.exit(main())
