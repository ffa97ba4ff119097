"""`scratchmeta export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from scratchmeta.run import experiment
from scratchmeta.run.checkpoint import write_atomically
from scratchmeta.run.options import Folder, Named, UsageError, at_least, parse


@dataclass(frozen=True)
class ExportOptions(Named):
    """Write a trained network as an ONNX graph, for machines that have no scratchmeta.

    What an episode changes by gradients, or keeps in a memory, cannot be exported.
    """

    run: Folder
    """The run's folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.onnx")]
    """The file to write."""
    part: Literal["embedding", "classifier"] = "embedding"
    """From images to features, or from support, labels and queries to probabilities."""
    n_way: int | None = None
    """Classes of the classifier; as in the run's validation if not given."""
    k_shot: int | None = None
    """Labelled examples of each class; any number, and not the same of each, if not given."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(ExportOptions, argv, "export")
    for name in ("n_way", "k_shot"):
        if (value := getattr(options, name)) is not None:
            at_least(1, name, value)
            if options.part == "embedding":
                raise UsageError(f"{name}: goes with --part classifier")
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"{options.out}: its folder does not exist")
    write = exporting()
    run = experiment.saved(options.run, options.checkpoint, options.data_dir, options.named)
    if run.config.dataset.labels != "classes":
        raise UsageError(
            f"{options.run}: export wants a run that classifies, not {run.config.data}"
        )
    shape = run.config.dataset.example_shape
    if options.part == "embedding":
        model = write.embedding(run.algorithm, run.params, shape)
    else:
        n_way = options.n_way or run.config.training.test_shape[0]
        model = write.classifier(run.algorithm, run.params, shape, n_way, options.k_shot)
    write_atomically(options.out, model.SerializeToString())
    for value in (*model.graph.input, *model.graph.output):
        dimensions = (d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        print(f"{value.name} ({', '.join(dimensions)})")
    print(options.out)
    return 0


def exporting() -> Any:
    """The module that writes graphs, which wants onnx."""
    try:
        from scratchmeta.run import export
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"export: {missing.name} is not installed: pip install 'scratchmeta[onnx]'"
        ) from None
    return export
