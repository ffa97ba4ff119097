"""What the benchmarks share: options, timing, agreement, hardware and versions, the table."""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np


def arguments(
    description: str,
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    argv: list[str] | None = None,
) -> argparse.Namespace:
    """The command line that all benchmarks share, with what `more` adds to it."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--rounds", type=int, default=20, help="turns that each contestant gets")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the processor time of all threads instead of wall time: for a machine that "
        "others use too, with OMP_NUM_THREADS=1",
    )
    more(parser)
    return parser.parse_args(argv)


def seconds(
    contestants: dict[str, Callable],
    options: argparse.Namespace,
    turn: float,
    shortest: float = 2e-4,
    synchronize: Callable = lambda: None,
) -> dict:
    """The median time of one call of every contestant, all measured in the same run.

    In each round every contestant in turn is called for about `turn` seconds, so that it runs
    warm, as in training, and what else the machine does falls on all of them alike. Each call, or
    each batch of calls where they are shorter than `shortest`, is one measurement. A device that
    works on after a call has returned is waited for by `synchronize`, before and after a batch.
    """
    clock = time.process_time if options.processor_time else time.perf_counter

    def batch_seconds(call, times, clock):
        synchronize()
        start = clock()
        for _ in range(times):
            call()
        synchronize()
        return clock() - start

    batch, batches = {}, {}
    for name, call in contestants.items():
        batch_seconds(call, 1, time.perf_counter)  # compiles and allocates
        once = batch_seconds(call, 1, time.perf_counter)
        batch[name] = max(1, round(shortest / once))
        batches[name] = max(1, round(turn / (once * batch[name])))

    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, call in contestants.items():
            for _ in range(batches[name]):
                times[name].append(batch_seconds(call, batch[name], clock) / batch[name])
    return {name: float(np.median(t)) for name, t in times.items()}


def relative_error(got: Iterable, wanted: Iterable) -> float:
    """max |got − wanted| / max |wanted|, over all arrays together."""
    got, wanted = ([np.asarray(a, np.float64) for a in arrays] for arrays in (got, wanted))
    largest = max(np.abs(w).max() for w in wanted)
    return float(max(np.abs(g - w).max() for g, w in zip(got, wanted, strict=True)) / largest)


def assert_agreement(name: str, got: Iterable, wanted: Iterable, tolerance: float) -> None:
    """Raises AssertionError, naming the contestant, unless it computes what we compute."""
    error = relative_error(got, wanted)
    if not error <= tolerance:
        raise AssertionError(f"{name}: wanted agreement to {tolerance:.0e}, got {error:.1e}")


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def header(options: argparse.Namespace, *packages: str) -> dict:
    """Hardware, versions, threads and the clock: what a time means nothing without."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("numpy", *packages)},
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "clock": "processor time" if options.processor_time else "wall time",
    }


def show(head: dict, columns: list[str], rows: list[list], as_json: bool) -> None:
    """The header and a table of rows under columns, aligned; or both as one line of JSON."""
    if as_json:
        rows_by_name = [dict(zip(columns, row, strict=True)) for row in rows]
        print(json.dumps({"header": head, "rows": rows_by_name}))
        return
    print(", ".join(f"{key} {value}" for key, value in head.items()))
    cells = [columns] + [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in r] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *rest = (c.rjust(w) for c, w in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))
