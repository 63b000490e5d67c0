# SPDX-License-Identifier: BSD-3-Clause
"""Counting neither invents nor loses a result."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import count_results  # noqa: E402


def test_cmocka_cases_are_counted_one_by_one():
    entry = {"result": "OK", "stdout": "",
             "stderr": "[  PASSED  ] 7 test(s).\n[  SKIPPED ] 1 test(s)."}
    assert count_results.count_meson_test(entry) == (7, 0, 1)


def test_a_crash_counts_as_a_failure():
    entry = {"result": "FAIL", "stdout": "[  PASSED  ] 3 test(s).\n",
             "stderr": "ERROR: AddressSanitizer"}
    assert count_results.count_meson_test(entry) == (3, 1, 0)


def test_a_missing_log_counts_as_a_failure(tmp_path):
    assert count_results.count_junit(tmp_path / "none.xml") == (0, 1, 0)


def test_junit_errors_are_failures(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<testsuites><testsuite tests="5" failures="1" '
                    'errors="1" skipped="1"/></testsuites>')
    assert count_results.count_junit(path) == (2, 2, 1)
