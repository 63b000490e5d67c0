# SPDX-License-Identifier: BSD-3-Clause
"""Calls that no file may make, and calls that belong to the edge of the
engine: what waits, tells the time or rolls dice goes through the loop, so
that a simulator can run the engine."""
import re

from source_tree import c_files, code_of, line_of

NEVER = {
    "strcpy": "g_strlcpy or g_strdup",
    "strcat": "GString",
    "sprintf": "g_snprintf or g_strdup_printf",
    "vsprintf": "g_vsnprintf",
    "gets": "a bounded read",
    "strtok": "g_strsplit",
    "atoi": "g_ascii_string_to_signed",
    "atol": "g_ascii_string_to_signed",
    "atoll": "g_ascii_string_to_signed",
    "system": "g_spawn_*",
    "popen": "g_spawn_*",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
    "alloca": "the heap or a fixed array",
    "rand": "loop_random",
    "srand": "loop_random",
    "random": "loop_random",
    "sleep": "co_sleep_until",
    "usleep": "co_sleep_until",
}

# What waits or tells the time.
EDGE = ["read", "write", "pread", "pwrite", "preadv", "preadv2", "pwritev",
        "pwritev2", "fsync", "fdatasync", "recv", "recvmsg", "send",
        "sendmsg", "sendfile", "clock_gettime", "gettimeofday", "time",
        "getrandom", "nanosleep", "poll", "select", "epoll_wait",
        "g_get_monotonic_time", "g_get_real_time", "g_random_int"]

# Where it may stand: files by pattern, the calls, and why.
SOCKET_CALLS = {"recv", "recvmsg", "send", "sendmsg", "sendfile"}
ALLOWED = [
    (r"src/loop/", set(EDGE), "the loop itself"),
    (r"src/base/trace\.c", {"clock_gettime"}, "the time stamp of a log line"),
    (r"src/repo/|src/cli/", set(EDGE), "a program without a loop"),
    (r"src/daemon/", {"read", "write", "pwrite", "fsync"},
     "start-up and shut-down, before and after the loop"),
    (r"src/drivers/file[a-z_]*\.c", set(EDGE),
     "in co_offload(), or inline where it cannot wait"),
    (r"src/qmp/backup_target_file\.c", {"pread", "fsync"},
     "in co_offload(): creating a file has no io_uring operation"),
    (r"src/journal/storage_real\.c", {"fsync"},
     "in co_offload(): a directory has no io_uring operation"),
    (r"src/nbd/", SOCKET_CALLS,
     "with MSG_DONTWAIT: one call for a batch of requests or replies"),
]

NEVER_CALL = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(NEVER))
EDGE_CALL = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(EDGE))


def check(root):
    problems = []
    for path in c_files(root, ("src",)):
        name = str(path.relative_to(root))
        code = code_of(path)
        for match in NEVER_CALL.finditer(code):
            call = match.group(1)
            if call == "random" and name.startswith("src/loop/"):
                continue  # the backend's own table has a member of that name
            problems.append(f"{name}:{line_of(code, match.start())}: "
                            f"{call}() is banned; use {NEVER[call]}")
        allowed = set()
        for pattern, calls, _ in ALLOWED:
            if re.match(pattern, name):
                allowed |= calls
        for match in EDGE_CALL.finditer(code):
            if match.group(1) in allowed:
                continue
            problems.append(f"{name}:{line_of(code, match.start())}: "
                            f"{match.group(1)}() goes past the loop; "
                            "use loop/loop.h and loop/io.h")
    return problems
