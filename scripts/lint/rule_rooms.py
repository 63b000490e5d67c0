# SPDX-License-Identifier: BSD-3-Clause
"""A room includes only from rooms below it; *_priv.h stays in its folder;
includes come as own header, system headers, project headers, sorted."""
import re

from source_tree import ROOMS, c_files, text_of

INCLUDE = re.compile(r"^#\s*include\s+([<\"])([^>\"]+)[>\"]", re.MULTILINE)


def check_arrow(name, room, folder, header):
    if header.endswith("_priv.h") and not header.startswith(folder + "/"):
        return f"{name}: includes {header}, which is private to its folder"
    other = header.split("/")[0]
    if other not in ROOMS:
        return f'{name}: includes "{header}", which names no room'
    if room is not None and ROOMS.index(other) > ROOMS.index(room):
        return (f"{name}: room {room} includes {header}, "
                f"but {other} stands above {room}")
    return None


def check_order(name, path, folder, includes):
    """The own header is x.h of x.c, or, where a header is carried out by
    several files, the one of the same folder that comes first."""
    def is_sibling(mark, header):
        return mark == '"' and "/".join(header.split("/")[:-1]) == folder

    exact = [header for mark, header in includes
             if is_sibling(mark, header) and path.suffix == ".c" and
             header.split("/")[-1] == path.stem + ".h"]
    if exact and includes[0][1] != exact[0]:
        return f"{name}: its own header {exact[0]} is not included first"
    leads = bool(includes) and path.suffix == ".c" and \
        is_sibling(*includes[0])
    marks = "".join(mark for mark, _ in includes[1 if leads else 0:])
    if '"<' in marks:
        return f"{name}: a project header stands before a system header"
    return None


def check(root):
    problems = []
    for path in c_files(root, ("src",)):
        name = path.relative_to(root)
        parts = path.relative_to(root / "src").parts
        room, folder = parts[0], "/".join(parts[:-1])
        if room not in ROOMS:
            problems.append(f"{name}: src/{room} is no room")
            continue
        includes = INCLUDE.findall(text_of(path))
        for mark, header in includes:
            if mark == '"':
                problems.append(check_arrow(name, room, folder, header))
        problems.append(check_order(name, path, folder, includes))
    for path in c_files(root, ("tests",)):
        name = path.relative_to(root)
        folder = "/".join(path.relative_to(root / "tests").parts[1:-1])
        for mark, header in INCLUDE.findall(text_of(path)):
            if mark == '"' and header.split("/")[0] in ROOMS:
                problems.append(check_arrow(name, None, folder, header))
    return [problem for problem in problems if problem]
