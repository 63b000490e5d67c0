#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs every lint rule over the tree; one rule is one rule_*.py beside this
file, with a docstring that states it and a check(root) that returns what is
wrong, one line each."""
import argparse
import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def rules():
    for path in sorted(HERE.glob("rule_*.py")):
        yield importlib.import_module(path.stem)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=pathlib.Path)
    options = parser.parse_args()
    passed = failed = 0
    for rule in rules():
        problems = rule.check(ROOT)
        passed, failed = passed + (not problems), failed + bool(problems)
        if problems:
            print(f"{rule.__name__}: {' '.join(rule.__doc__.split())}")
            for problem in problems:
                print(f"  {problem}")
    print(f"lint: {passed} rules hold, {failed} do not")
    if options.counts:
        options.counts.parent.mkdir(parents=True, exist_ok=True)
        options.counts.write_text(f"{passed} {failed} 0\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
