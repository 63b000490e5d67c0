# SPDX-License-Identifier: BSD-3-Clause
"""Every event of src/base/trace_events.def happens: some file of src/ calls
its trace_NAME(). (One that is called but not listed does not compile.)"""
import re

from source_tree import c_files, code_of, text_of

ENTRY = re.compile(r"^TRACE_EVENT\((\w+),", re.MULTILINE)
CALL = re.compile(r"\btrace_(\w+)\s*\(")


def check(root):
    table = root / "src/base/trace_events.def"
    if not table.exists():
        return []
    called = {name for path in c_files(root, ("src",))
              for name in CALL.findall(code_of(path))}
    return [f"src/base/trace_events.def: {name} never happens"
            for name in ENTRY.findall(text_of(table)) if name not in called]
