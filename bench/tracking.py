# SPDX-License-Identifier: BSD-3-Clause
"""The table of what tracking costs: a line for each row of rows_tracking.py, a
ratio to no bitmap in the same run for each way to keep one."""
import statistics

import rows_tracking
from rows_tracking import SIDES, fdatasync_us

HEADER = """\
| row | unit | no bitmap | transient | process | power | no checkpoints \
| transient loses | process loses | power loses | CPU µs | spread |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def ratio(row, samples, side, median):
    """What is lost or (below 0) won against the row's first side, per cent."""
    first = row.sides[0]
    if side not in samples or side == first:
        return "–"
    base, value = median(samples[first]), median(samples[side])
    lost = base / value if row.more_is_better else value / base
    return f"{(lost - 1) * 100:+.1f} %"


def cpu(row, samples, median):
    "The daemon's time for an operation, of the row's sides in their order."
    found = [[sample.cpu_us_per_op for sample in samples[side]]
             for side in row.sides]
    return " / ".join(f"{statistics.median(part):.1f}" for part in found) \
        if found[0][0] is not None else "–"


def line(row, samples, number, median, spread):
    cells = [row.title, row.unit]
    cells += [number(median(samples[side])) if side in samples else "–"
              for side in SIDES]
    cells += [ratio(row, samples, side, median)
              for side in ("transient", "process", "power")]
    cells.append(cpu(row, samples, median))
    cells.append(f"±{max(spread(part) for part in samples.values()):.0f} %")
    return "| " + " | ".join(cells) + " |"


def tenths(row, number):
    "A line for each side of a row that tells of the tenths of its run."
    for side, rounds in getattr(row.measure, "tenths", {}).items():
        parts = [statistics.median(values) for values in zip(*rounds)]
        yield f"{side}, by tenths: {' '.join(map(number, parts))}"


def facts(folder):
    return (f"A write of 512 bytes with its fdatasync takes "
            f"{fdatasync_us(folder):.0f} µs here.")


def rows():
    return rows_tracking.rows()
