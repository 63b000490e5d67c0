# SPDX-License-Identifier: BSD-3-Clause
"""What a new user runs first works."""
import sys

from support.daemon import ROOT
from support.images import run


def test_the_demo_runs_to_its_end():
    "`./dev demo`: two disks, one group, a fault, a restore, all compared."
    result = run(sys.executable, ROOT / "scripts/demo/demo.py", timeout=600)
    assert "Done in" in result.stdout
    assert "BAD" not in result.stdout


def test_the_benchmark_measures_both_daemons():
    "`./dev bench`: a row has a number for each side, and the ratio."
    result = run(sys.executable, ROOT / "bench/bench.py", "--quick",
                 "--rounds", "1", "--row", "memory-idle", timeout=120)
    row = next(line for line in result.stdout.splitlines()
               if line.startswith("| memory, idle"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert float(cells[2]) > 0 and float(cells[3]) > 0
    assert float(cells[5]) > 0
