"""`scratchmeta predict`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from scratchmeta import backend
from scratchmeta.run import elsewhere, experiment
from scratchmeta.run.commands.plot import drawing
from scratchmeta.run.options import Backend, Folder, Named, UsageError, parse
from scratchmeta.shown import percent


@dataclass(frozen=True)
class PredictOptions(Named):
    """Name new pictures, after a few of each class; nothing but the run is needed."""

    run: Folder
    """The run's folder."""
    support: Path
    """A folder with a sub-folder of pictures for each class."""
    query: tuple[Path, ...]
    """The pictures to name, or folders of them."""
    ink: Literal["dark", "bright"] | None = None
    """Of drawings: dark on white paper (if not given), or bright on black."""
    picture: Path | None = None
    """Draw the pictures with their classes into this file."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: predictions, each with file, class, probability, probabilities."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    missing = tyro.MISSING
    default = PredictOptions(run=missing, support=missing, query=missing, backend=backend.current())
    options = parse(PredictOptions, argv, "predict", default)
    plots = drawing("predict") if options.picture else None
    with backend.use(options.backend):
        run = experiment.saved(options.run, options.checkpoint, named=options.named)
        elsewhere.refuse_without_images(run, "predict")
        if hasattr(run.algorithm, "attribute_network"):
            raise UsageError(
                f"{options.run}: {run.config.algorithm} wants classes described by attributes, "
                "not shown by pictures"
            )
        names, shown, labels = elsewhere.support(options.support)
        asked = elsewhere.files(options.query)
        support, query = (elsewhere.read(run, paths, options.ink) for paths in (shown, asked))
        p = np.exp(run.predict(support, labels, query))  # (Q, N)
    if not np.isfinite(p).all():
        raise ValueError(f"{options.run}: its predictions are not finite; had training diverged?")
    if plots:
        plots.predictions(options.picture, names, support, labels, query, p)
    best = p.argmax(axis=-1)
    if options.json:
        found = [
            {
                "file": str(file),
                "class": names[k],
                "probability": float(row[k]),
                "probabilities": {name: float(x) for name, x in zip(names, row, strict=True)},
            }
            for file, k, row in zip(asked, best, p, strict=True)
        ]
        print(json.dumps({"predictions": found}))
        return 0
    print(f"{run.config.algorithm}, {len(names)} classes of {len(shown)} pictures")
    print(elsewhere.said(run, options.ink))
    if getattr(run.algorithm, "batch_norm", None) == "transductive":
        print("batch-norm is transductive: which pictures are asked of together plays a part")
    width = max(len(str(file)) for file in asked)
    for file, k, row in zip(asked, best, p, strict=True):
        print(f"{file!s:<{width}}  {percent(row[k]):>8}  {names[k]}")
    if options.picture:
        print(options.picture)
    return 0
