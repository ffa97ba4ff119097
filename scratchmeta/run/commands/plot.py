"""`scratchmeta plot`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchmeta.run import experiment
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.options import Folder, Named, UsageError, parse


@dataclass(frozen=True)
class PlotOptions(Named):
    """Draw a run: a test episode with its predictions, and the learning curve."""

    run: Folder
    """The run's folder; episode.png and learning.png are written into it."""
    episode: int = 0
    """Number of the test episode."""
    length: int | None = None
    """Vectors in its sequence (copy), or items (recall); as in training if not given."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(PlotOptions, argv, "plot")
    plots = drawing("plot")
    run = experiment.saved(options.run, "best", options.data_dir, options.named)
    for path in (
        plots.episode(run, options.run / "episode.png", options.episode, options.length),
        plots.learning(Run.open(options.run), options.run / "learning.png"),
    ):
        print(path)
    return 0


def drawing(command: str) -> Any:
    """The module that draws, which wants matplotlib."""
    try:
        from scratchmeta.run import plots
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"{command}: {str(missing.name).partition('.')[0]} is not installed: "
            "pip install 'scratchmeta[plots]'"
        ) from None
    return plots
