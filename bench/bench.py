#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compares cohortd with qemu-storage-daemon and nbdkit, side by side.

Every row runs its sides in turn, A B C, then C B A, and so on, so that what
drifts on the machine drifts for all; a number is the median of its rounds.
docs/internals/benchmarks.md says what each row does and how to read it.
"""
import argparse
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import rows as rows_raw  # noqa: E402
import rows_qcow2  # noqa: E402
import tracking  # noqa: E402
from rows import Scene  # noqa: E402
from support.images import GIB, MIB  # noqa: E402

ROUNDS = 5


def rows():
    return rows_raw.rows() + rows_qcow2.rows()


def measure(row, sides, scene, rounds):
    """Samples by side."""
    samples = {side: [] for side in sides}
    for index in range(rounds):
        for side in sides if index % 2 == 0 else reversed(sides):
            samples[side].append(row.measure(side, scene))
    return samples


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def median(samples):
    return statistics.median(sample.value for sample in samples)


def cpu_median(samples):
    known = [sample.cpu_us_per_op for sample in samples
             if sample.cpu_us_per_op is not None]
    return f"{statistics.median(known):.1f}" if known else None


def ratio(row, samples, peer):
    """How many times better cohortd is than the peer: above 1 is better."""
    if "cohortd" not in samples or peer not in samples:
        return "–"
    ours, theirs = median(samples["cohortd"]), median(samples[peer])
    value = ours / theirs if row.more_is_better else theirs / ours
    return f"{value:.2f}"


def spread(samples):
    """Half the distance between the best and the worst round, in per cent."""
    values = [sample.value for sample in samples]
    return (max(values) - min(values)) / 2 / statistics.median(values) * 100


def table_line(row, samples):
    cells = [row.title, row.unit]
    for side in ("cohortd", "qsd", "nbdkit"):
        cells.append(number(median(samples[side])) if side in samples
                     else "–")
    cells += [ratio(row, samples, "qsd"), ratio(row, samples, "nbdkit")]
    cpu = [cpu_median(samples[side]) or "–" if side in samples else "–"
           for side in ("cohortd", "qsd", "nbdkit")]
    cells.append(" / ".join(cpu) if set(cpu) != {"–"} else "–")
    cells.append(f"±{max(spread(part) for part in samples.values()):.0f} %")
    return "| " + " | ".join(cells) + " |"


HEADER = """\
| row | unit | cohortd | QSD | nbdkit | × QSD | × nbdkit | CPU µs | spread |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def version(*words):
    """The first line that a program prints."""
    try:
        result = subprocess.run(words, capture_output=True, text=True,
                                check=False)
    except FileNotFoundError:
        return "unknown"
    return (result.stdout.splitlines() or ["unknown"])[0]


def machine(options, runtime):
    folder = options.folder
    rounds = options.rounds or ("2 or 3" if options.quick else ROUNDS)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":")[1].strip() for line in file
                  if line.startswith("model name")]
    file_system = version("findmnt", "-n", "-o", "FSTYPE", "-T",
                          str(folder))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    commit = version("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    qsd = version("qemu-storage-daemon", "--version").split("version ")[-1]
    return (f"{os.cpu_count()} × {models[0] if models else 'unknown CPU'}, "
            f"{memory:.0f} GiB, Linux {platform.release()}, {file_system}; "
            f"QSD {qsd.split(' ')[0]}, {version('nbdkit', '--version')}, "
            f"{version('fio', '--version')}; cohort {commit}; "
            f"{rounds} rounds of {runtime} s, "
            f"{time.strftime('%Y-%m-%d', time.gmtime())}.")


def write_readme(table, text):
    """Between the markers of that table."""
    begin, end = f"<!-- {table}: begin -->", f"<!-- {table}: end -->"
    path = ROOT / "README.md"
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        sys.exit(f"{path} lacks the markers {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}",
                    encoding="utf-8")


def options_from_command_line():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--row", action="append", metavar="NAME", default=[])
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--sides", default="cohortd,qsd,nbdkit",
                        help="which servers, with commas between")
    parser.add_argument("--folder", default="/var/tmp",
                        help="where the disks live (default /var/tmp)")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--tracking", action="store_true",
                        help="what persistent bitmaps cost, instead")
    return parser.parse_args()


def bench_tracking(options, scene):
    """cohortd against itself: another table, of other columns."""
    sync = tracking.facts(scene.folder)
    print(f"{sync}\n\n{tracking.HEADER}", flush=True)
    lines, tenths = [tracking.HEADER], []
    for row in tracking.rows():
        if options.row and not any(name in row.name for name in options.row):
            continue
        rounds = options.rounds or (row.quick_rounds if options.quick
                                    else ROUNDS)
        samples = measure(row, row.sides, scene, rounds)
        lines.append(tracking.line(row, samples, number, median, spread))
        print(lines[-1], flush=True)
        for text in tracking.tenths(row, number):
            tenths.append(f"- {row.title}, {text}")
            print(tenths[-1], flush=True)
    facts = f"{sync} {machine(options, scene.runtime_s)}"
    print(f"\n{facts}")
    if options.readme:
        write_readme("tracking", "\n".join(
            [*lines, "", *tenths, "", facts]))


def main():
    options = options_from_command_line()
    chosen = [row for row in rows() if not options.row or
              any(name in row.name for name in options.row)]
    if options.list or not (chosen or options.tracking):
        print("\n".join(f"{row.name:26} {row.title}"
                        for row in rows() + tracking.rows()))
        return 0 if options.list else 2
    runtime = 1 if options.quick else 3
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cohort-bench-",
                                           dir=options.folder))
    scene = Scene(folder, 256 * MIB if options.quick else GIB, runtime)
    lines = [HEADER]
    try:
        if options.tracking:
            bench_tracking(options, scene)
            return 0
        print(HEADER, flush=True)
        for row in chosen:
            sides = [side for side in row.sides
                     if side in options.sides.split(",")]
            if sides:
                rounds = options.rounds or (
                    row.quick_rounds if options.quick else ROUNDS)
                lines.append(table_line(row, measure(row, sides, scene,
                                                     rounds)))
                print(lines[-1], flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts = machine(options, runtime)
    print(f"\n{facts}")
    if options.readme:
        write_readme("bench", "\n".join(lines) + f"\n\n{facts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
