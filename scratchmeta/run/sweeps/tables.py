"""What a sweep measured, as tables: Markdown to read, CSV and JSON to go on with."""

import csv
import io
import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scratchmeta.run.checkpoint import write_atomically
from scratchmeta.run.sweeps.intervals import over_episodes, over_seeds
from scratchmeta.shown import percent


class Tested(NamedTuple):
    """What was measured of one run: its test.json."""

    n_way: int
    k_shot: int
    n_query: int
    episodes: int
    seed: int  # of the test episodes
    measure: str  # "accuracy", between 0 and 1, "mse" or "bit_errors"
    fingerprint: str  # of the test episodes
    step: int  # of the checkpoint
    seconds: float | None  # of training, validations among it; None where it was interrupted
    values: list[float]  # the measure in each test episode


@dataclass(frozen=True)
class Row:
    """An algorithm with its options, over its seeds: a mean and half of its two 95 % intervals.

    See scratchmeta.run.sweeps.intervals. Those over seeds are None where there are fewer than two.
    """

    name: str
    measure: str | None
    mean: float | None
    over_seeds: float | None
    over_episodes: float | None
    by_seed: dict[int, float]
    seconds: float | None  # the mean wall time of a run's training, of those not interrupted
    n_way: int | None
    k_shot: int | None


@dataclass(frozen=True)
class Difference:
    """A row less another, paired by the seeds that both have and by episode."""

    name: str
    less: str
    mean: float
    over_seeds: float | None
    over_episodes: float
    seeds: list[int]


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep. str() and ROOT/table.md are the table, `as_dict()` ROOT/sweep.json."""

    about: dict[str, Any]
    rows: list[Row]
    differences: list[Difference]
    failed: dict[str, dict[str, str]]  # {run: {"error": ..., "traceback": ...}}
    runs: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        about: dict[str, Any],
        found: Mapping[tuple[str, int], Tested],
        names: Sequence[str],
        failed: dict[str, dict[str, str]],
    ) -> "Sweep":
        """From {(name, seed): what was measured}, a row for each of `names` in their order.

        Differences are of rows that were tested on the same episodes; of others there are none.
        """
        by_name = {name: {s: run for (n, s), run in found.items() if n == name} for name in names}
        rows = [_row(name, runs) for name, runs in by_name.items()]
        pairs = itertools.combinations(names, 2)
        differences = [_difference(b, a, by_name[b], by_name[a]) for a, b in pairs]
        runs = [
            {
                "name": name, "seed": seed, "mean": float(np.mean(run.values)),
                "ci95": over_episodes(np.array([run.values])), "step": run.step,
                "seconds": run.seconds,
            }
            for (name, seed), run in found.items()
        ]  # fmt: skip
        return cls(about, rows, [d for d in differences if d is not None], failed, runs)

    def as_dict(self) -> dict[str, Any]:
        """Everything but what was measured in each episode, which each run's test.json has."""
        return asdict(self)

    def write(self, root: str | os.PathLike) -> None:
        """Writes table.md, table.csv, runs.csv, differences.csv and sweep.json into a folder."""
        root = Path(root)
        root.mkdir(parents=True, exist_ok=True)
        write_atomically(root / "table.md", str(self).encode())
        rows = [{k: v for k, v in asdict(row).items() if k != "by_seed"} for row in self.rows]
        for name, lines in (
            ("table", rows),
            ("runs", self.runs),
            ("differences", list(map(asdict, self.differences))),
        ):
            write_atomically(root / f"{name}.csv", _csv(lines).encode())
        write_atomically(root / "sweep.json", json.dumps(self.as_dict(), indent=2).encode() + b"\n")

    def __str__(self) -> str:
        """Markdown, in columns that can be read as they are."""
        seeds = self.about["seeds"]
        first = self.rows[0]
        measure = next((row.measure for row in self.rows if row.measure), "accuracy")
        shapes = dict.fromkeys(_shape(row) for row in self.rows if row.measure)
        several = len(shapes) > 1
        header = ["", *(["test"] if several else []), *_titles(measure), "seeds", "a run"]
        lines = [
            [
                _label(row.name), *([_shape(row)] if several else []),
                *_numbers(measure, row.mean, row.over_seeds, row.over_episodes),
                _of(row.by_seed, seeds),
                _duration(row.seconds),
            ]
            for row in self.rows
        ]  # fmt: skip
        shape = "" if several or not shapes else f"{next(iter(shapes))}, "
        parts = [
            f"{self.about['data']}, {self.about['preset']}: {shape}"
            f"{self.about['episodes']} test episodes, "
            f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}",
            _markdown(header, lines),
        ]
        differences = [
            [
                _label(d.name),
                *_numbers(measure, d.mean, d.over_seeds, d.over_episodes, sign="+"),
                _of(d.seeds, seeds),
            ]
            for d in self.differences
            if d.less == first.name
        ]
        if differences:
            title = f"less {_label(first.name)}"
            parts.append(_markdown([title, *_titles(measure, "points"), "seeds"], differences))
        parts.append(
            "± are halves of 95 % intervals: over seeds by Student's t, on these episodes; over\n"
            "episodes, for these trained runs."
            + (" Differences are of the same seeds and episodes." if differences else "")
        )
        for run, what in self.failed.items():
            parts.append(f"{run} failed: {' '.join(what['error'].split())}")
        return "\n\n".join(parts) + "\n"

    _repr_markdown_ = __str__


def _row(name: str, runs: Mapping[int, Tested]) -> Row:
    if not runs:
        return Row(name, None, None, None, None, {}, None, None, None)
    x = np.array([run.values for run in runs.values()])  # (S, E)
    one = next(iter(runs.values()))
    timed = [run.seconds for run in runs.values() if run.seconds is not None]
    return Row(
        name=name,
        measure=one.measure,
        mean=float(x.mean()),
        over_seeds=over_seeds(x),
        over_episodes=over_episodes(x),
        by_seed={seed: float(np.mean(run.values)) for seed, run in runs.items()},
        seconds=float(np.mean(timed)) if timed else None,
        n_way=one.n_way,
        k_shot=one.k_shot,
    )


def _difference(
    name: str, less: str, of: Mapping[int, Tested], other: Mapping[int, Tested]
) -> Difference | None:
    seeds = [seed for seed in of if seed in other]
    if not seeds:
        return None
    if len({run.fingerprint for runs in (of, other) for run in runs.values()}) > 1:
        return None
    x = np.array([np.subtract(of[seed].values, other[seed].values) for seed in seeds])  # (S, E)
    return Difference(name, less, float(x.mean()), over_seeds(x), over_episodes(x), seeds)


# --- how it is written --------------------------------------------------------------------------


def _label(name: str) -> str:
    return name.replace(",", " ")


def _shape(row: Row) -> str:
    """Regression has one class, and sequences too."""
    if not row.measure:
        return ""
    return (
        f"{row.n_way}-way {row.k_shot}-shot" if row.measure == "accuracy" else f"{row.k_shot}-shot"
    )


def _titles(measure: str, unit: str = "") -> list[str]:
    mean = unit if unit and measure == "accuracy" else measure.replace("_", " ")
    return [mean, "over seeds", "over episodes"]


def _numbers(measure: str, mean: float | None, *halves: float | None, sign: str = "") -> list[str]:
    """A mean and its intervals; accuracies in percent, their differences in points."""
    scale, places = (100, 2) if measure == "accuracy" else (1, 4)
    if mean is None:
        shown = ""
    elif measure == "accuracy" and not sign:
        shown = percent(mean)
    else:
        shown = f"{scale * mean:{sign}.{places}f}"
    return [shown, *("" if h is None else f"± {scale * h:.{places}f}" for h in halves)]


def _of(some: Collection[int], seeds: Collection[int]) -> str:
    return str(len(seeds)) if len(some) == len(seeds) else f"{len(some)} of {len(seeds)}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.0f} min"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    columns = list(zip(header, *lines, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        shown = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(shown)} |"

    rule = [f"{'-' * widths[0]}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, lines)])


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        for each in lines:
            shown = {
                k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in each.items()
            }
            writer.writerow(shown)
    return text.getvalue()
