"""`scratchmeta features`."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from scratchmeta import backend
from scratchmeta.run import elsewhere, experiment
from scratchmeta.run.checkpoint import write_atomically
from scratchmeta.run.options import Backend, Folder, Named, UsageError, parse

Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE ...")]


@dataclass(frozen=True)
class FeaturesOptions(Named):
    """Write what the embedding of a run makes of pictures: arrays `files` (M,), `features` (M, D).

    Batch-norm has the statistics of training where the run has them (--batch-norm running), else
    those of these pictures.
    """

    run: Folder
    """The run's folder."""
    files: Files
    """Pictures, or folders of them."""
    out: Path
    """The file to write, X.npz."""
    ink: Literal["dark", "bright"] | None = None
    """Of drawings: dark on white paper (if not given), or bright on black."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    missing = tyro.MISSING
    default = FeaturesOptions(run=missing, files=missing, out=missing, backend=backend.current())
    options = parse(FeaturesOptions, argv, "features", default)
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"{options.out}: its folder does not exist")
    with backend.use(options.backend):
        run = experiment.saved(options.run, options.checkpoint, named=options.named)
        elsewhere.refuse_without_images(run, "features")
        files = elsewhere.files(options.files)
        features = run.embed(elsewhere.read(run, files, options.ink))
    content = io.BytesIO()
    np.savez(content, files=np.array([str(file) for file in files]), features=features)
    write_atomically(options.out, content.getvalue())
    print(elsewhere.said(run, options.ink))
    print(f"{options.out}: features {features.shape} of {len(files)} pictures")
    return 0
