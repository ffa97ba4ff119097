"""Weights that authors of papers published, or of their best-known reproductions, in our classes.

A file here is a system: what the archive holds, what our class is told so that it computes what
theirs does, and their forward, written anew in plain NumPy. A claim is one measurement of theirs.
Two numbers come of it:

    ours        the measure on test episodes that we draw as theirs were, with its 95 % interval
    agreement   the largest difference of what is predicted, ours to their forward, in float64:
                log-probabilities of classes or log-odds of bits, relative to the largest

The archives lie in DATA/authors/NAME, each with the licence and the commit it is from (SOURCE.txt).
They are no part of the project.

What a class of ours does not have is a subclass in the system's file; the file's docstring lists
all of it under "Differs".
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import episodes
from scratchmeta.algorithms.protocol import Predictor
from scratchmeta.data import DataError
from scratchmeta.episodes import Dataset, Episode, EpisodeMaker
from scratchmeta.fields import choose
from scratchmeta.run import evaluation
from scratchmeta.run.evaluation import TEST, Evaluation
from scratchmeta.shown import percent

SYSTEMS = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
TOLERANCE = 1e-10  # float64, after up to 240 steps of a recurrence

Archive = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One measurement of published weights, which `files` in the folder of the system hold.

    `params(*archives)` are the parameters of `algorithm`, and `forward(*archives, x, y, q)` is what
    their code predicts for the queries q of one task with support x, y: log-probabilities of
    classes, log-odds of bits. `dataset` takes the folder of the data.
    """

    whose: str
    what: str
    files: tuple[str, ...]
    theirs: str
    """What they say that they measured, "" where they do not."""
    algorithm: Predictor
    params: Callable[..., Any]
    forward: Callable[..., np.ndarray]
    dataset: Callable[[Path], Dataset | EpisodeMaker]
    shape: tuple[int, int, int] = (1, 1, 1)
    """Ways, shots and queries of a test episode."""
    drawn: Callable[[Path], Dataset | EpisodeMaker] | None = None
    """What agreement is measured on, if not the data set."""

    def archives(self, data: Path, system: str, dtype: Any) -> list[Archive]:
        """The published arrays as `dtype`; raises DataError where a file is not there."""
        found = []
        for name in self.files:
            file = data / "authors" / system / f"{name}.npz"
            if not file.is_file():
                raise DataError(f"{file} not found")
            with np.load(file) as archive:
                found.append({key: archive[key].astype(dtype) for key in archive})
        return found

    def measured(self, data: Path, system: str, n: int) -> Evaluation:
        """The measure on n test episodes."""
        params = self.params(*self.archives(data, system, np.float32))
        return evaluation.evaluate(
            self.algorithm, params, self.dataset(data), *self.shape, episodes=n
        )

    def agreement(self, data: Path, system: str) -> float:
        """The largest difference of what is predicted in one episode."""
        archives = self.archives(data, system, np.float64)
        episode = episodes.sample((self.drawn or self.dataset)(data), *self.shape, index=TEST)
        sx, sy, qx, qy = episode
        sx, qx = sx.astype(np.float64), qx.astype(np.float64)
        algorithm: Any = self.algorithm
        predict = algorithm.logits if qy.dtype.kind == "b" else algorithm.predict
        ours = predict(self.params(*archives), Episode(sx, sy, qx, qy))[0]
        theirs = self.forward(*archives, sx[0], sy[0], qx[0])
        return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


@dataclass(frozen=True)
class Row:
    """What came of a claim, or why nothing did."""

    system: str
    claim: Claim
    ours: Evaluation | None = None
    agreement: float | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    """Why there is no "ours", or no "agreement"."""

    @property
    def passed(self) -> bool:
        """Whether our class computes what theirs does, as far as that was looked at."""
        return self.agreement is None or self.agreement < TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "system": self.system,
            "whose": self.claim.whose,
            "what": self.claim.what,
            "theirs": self.claim.theirs,
            "ours": self.ours and self.ours.as_dict(),
            "agreement": self.agreement,
            "skipped": self.skipped,
        }


def claims(name: str | None = None) -> list[tuple[str, Claim]]:
    """(system, claim) of one system, or of all."""
    names = SYSTEMS if name is None else [choose("system", name, SYSTEMS)]
    modules = {n: import_module(f"{__name__}.{n.replace('-', '_')}") for n in names}
    return [(n, claim) for n, module in modules.items() for claim in module.CLAIMS]


def row(system: str, claim: Claim, data: Path, n: int) -> Row:
    """Measures a claim on n episodes, and its agreement; each as far as there are files for it."""
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, measure in (
        ("agreement", lambda: claim.agreement(data, system)),
        ("ours", lambda: claim.measured(data, system, n)),
    ):
        try:
            found[name] = measure()
        except DataError as reason:
            skipped[name] = str(reason)
    return Row(system, claim, **found, skipped=skipped)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, and below them why some are empty."""
    lines = [("system", "whose weights", "", "theirs", "ours", "agreement")]
    for r in rows:
        agreement = "-" if r.agreement is None else f"{r.agreement:.0e}"
        lines.append(
            (r.system, r.claim.whose, r.claim.what, r.claim.theirs or "-", _shown(r), agreement)
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) for line in lines]
    reasons = dict.fromkeys(f"{r.system}: {why}" for r in rows for why in r.skipped.values())
    return "\n".join([*(line.rstrip() for line in text), *reasons])


def _shown(r: Row) -> str:
    if r.ours is None:
        return "skipped"
    if r.ours.measure == "accuracy":
        return percent(r.ours.value, r.ours.ci95)
    return f"{r.ours.value:.2f} ± {r.ours.ci95:.2f} bits"
