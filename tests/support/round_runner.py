# SPDX-License-Identifier: BSD-3-Clause
"""Runs many random rounds, in two processes with a daemon each."""
import multiprocessing
import time
import traceback

PROCESSES = 2
FAILURES_MAX = 5


def _work(number, host_of, round_of, seeds, folder, results):
    """Puts (seed, what was wrong or None) for each."""
    try:
        place = folder / f"p{number}"
        place.mkdir()
        host = host_of(place)
        failures = 0
        for seed in seeds:
            try:
                round_of(host, seed).run()
                results.put((seed, None))
            except Exception as problem:
                results.put((seed, str(problem)))
                failures += 1
                if failures == FAILURES_MAX:
                    break
                host.replace()
        host.finish()
    except Exception:
        results.put((None, traceback.format_exc()))
    results.put(None)


def run_rounds(host_of, round_of, seeds, folder):
    """`host_of(folder)` starts a daemon, `round_of(host, seed).run()` raises if
    something is wrong. All failures are told, with their seeds."""
    print(f"seeds {seeds[0]} to {seeds[-1]}, {len(seeds)} rounds", flush=True)
    began = time.monotonic()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    shares = [seeds[number::PROCESSES] for number in range(PROCESSES)]
    workers = [context.Process(target=_work, args=(
        number, host_of, round_of, share, folder, results))
        for number, share in enumerate(shares) if share]
    for worker in workers:
        worker.start()
    done, problems, running = 0, [], len(workers)
    while running > 0:
        result = results.get()
        if result is None:
            running -= 1
        elif result[1] is None:
            done += 1
            if done % 100 == 0:
                print(f"{done} rounds, {time.monotonic() - began:.0f} s",
                      flush=True)
        else:
            problems.append(result[1])
            print(result[1], flush=True)
    for worker in workers:
        worker.join()
    print(f"{done} rounds passed, {len(problems)} failed, "
          f"{time.monotonic() - began:.0f} s", flush=True)
    assert not problems, "\n\n".join(problems)
    assert done == len(seeds), (done, len(seeds))
