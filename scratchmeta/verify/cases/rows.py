"""A row of the table of cases, and running it."""

import difflib
import textwrap
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchmeta.verify.examples import Example
from scratchmeta.verify.gradcheck import GradientError, NonSmoothPoint, Report, combine

KINDS = ("operation", "kernel", "layer", "loss", "optimiser", "algorithm")


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    kind: str
    examples: Callable[[np.random.Generator], Iterator[Example]]
    analytic: bool = False  # whether the complex step applies
    directions: int = 3

    def inputs(self, seed: int = 0) -> list[Example]:
        """The row's examples for a seed, on the backend in use."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return list(self.examples(rng))

    def check(self, seed: int = 0) -> Report:
        """One report on all examples; raises GradientError or NonSmoothPoint where one fails."""
        settings = {"directions": self.directions, "analytic": self.analytic, "rng": seed}
        reports = []
        for k, example in enumerate(self.inputs(seed)):
            try:
                reports.append(example.check(self.name, **settings))
            except (GradientError, NonSmoothPoint) as error:
                row = f"scratchmeta.verify.cases.CASES[{self.name!r}]"
                where = f"inputs: {row}.inputs({seed})[{k}].inputs"
                raise type(error)(f"{error}\n  {where}") from None
        return combine(self.name, reports)


CASES: dict[str, Case] = {}


def row(kind: str, name: str = "", **settings: Any) -> Callable:
    """Enters a generator of examples into the table, under its own name or another."""

    def enter(examples):
        case = Case(name or examples.__name__.strip("_"), kind, examples, **settings)
        if case.name in CASES:
            raise ValueError(f"row: there are two rows named {case.name!r}")
        CASES[case.name] = case
        return examples

    return enter


# --- running rows ---------------------------------------------------------------------------------


class UnknownCase(ValueError):
    """There is no row, and no kind of rows, of this name."""


def select(names: Iterable[str] = ()) -> list[Case]:
    """The rows of these names, or of these kinds ("layer", ...); all of them without names.

    Raises UnknownCase with the names that come close.
    """
    chosen: dict[str, Case] = {}
    for name in names:
        found = [c for c in CASES.values() if name in (c.name, c.kind)]
        if not found:
            close = difflib.get_close_matches(name, [*CASES, *KINDS])
            hint = f"did you mean {' or '.join(close)}?" if close else f"kinds: {', '.join(KINDS)}"
            raise UnknownCase(f"nothing to check is called {name!r}: {hint}")
        chosen.update((c.name, c) for c in found)
    return list(chosen.values()) if chosen else list(CASES.values())


@dataclass(frozen=True)
class Result:
    """What came of checking one row; `str(result)` is a line of `table`, then the error, if any."""

    name: str
    kind: str
    seconds: float
    report: Report | None = None
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every example passed."""
        return self.report is not None

    def __str__(self) -> str:
        if self.report is None:
            return f"FAIL {self.name}\n{self.error}"
        r = self.report
        witness = "-" if r.complex_step is None else f"{r.complex_step:.1e}"
        numbers = (r.order, r.directions, f"{r.worst:.1e}", f"{r.estimate:.1e}", witness)
        return _line(f"ok   {self.name}", *numbers, f"{self.seconds:.2f}")

    def as_dict(self) -> dict:
        """For JSON."""
        row = {"name": self.name, "kind": self.kind, "passed": self.passed}
        row |= {"seconds": round(self.seconds, 4)}
        if self.report is None:
            return row | {"error": self.error}
        r = self.report
        return row | {
            "backend": r.backend,
            "kernels": r.kernels,
            "order": r.order,
            "directions": r.directions,
            "worst_relative_error": r.worst,
            "error_estimate": r.estimate,
            "complex_step_error": r.complex_step,
        }


def run(
    names: Iterable[str] = (),
    seed: int = 0,
    progress: Callable[[int, int, Result], None] | None = None,
) -> list[Result]:
    """Checks rows on the backend in use; an error of one does not keep the others from being run.

    `progress(done, total, result)` is called after each. Raises UnknownCase for unknown names.
    """
    cases, results = select(names), []
    for case in cases:
        start, report, error = time.perf_counter(), None, ""
        try:
            report = case.check(seed)
        except (GradientError, NonSmoothPoint) as failure:
            error = str(failure)
        seconds = time.perf_counter() - start
        results.append(Result(case.name, case.kind, seconds, report, error))
        if progress is not None:
            progress(len(results), len(cases), results[-1])
    return results


_WIDTHS = (28, 6, 11, 9, 9, 9, 8)  # 80 columns


def _line(name: str, *cells: object) -> str:
    return name.ljust(_WIDTHS[0]) + "".join(map("{:>{}}".format, cells, _WIDTHS[1:]))


def summary(results: list[Result]) -> str:
    """The last line of the table."""
    failed = [r.name for r in results if not r.passed]
    seconds = sum(r.seconds for r in results)
    directions = sum(r.report.directions for r in results if r.report)
    verdict = f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed"
    return f"{len(results)} checked along {directions} directions in {seconds:.1f} s, {verdict}"


def table(results: list[Result]) -> str:
    """One aligned line per row, errors under theirs, and a summary: in 80 columns, but for names
    that are longer than the library's, and for what must not be broken."""
    head = ("     ", "order", "directions", "worst", "estimate", "complex", "seconds")
    return "\n".join(map(_wrapped, [_line(*head), *map(str, results), summary(results)]))


def _wrapped(text: str) -> str:
    """Lines longer than 80 columns are broken at spaces, and go on further to the right."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        wrapped = textwrap.wrap(
            line, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines += wrapped if len(line) > 80 else [line]
    return "\n".join(lines)
