"""`scratchmeta compare`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scratchmeta import backend, episodes, losses, presets
from scratchmeta.run import experiment
from scratchmeta.run.options import Backend, Named, UsageError, at_least, parse
from scratchmeta.tree import to_backend


@dataclass(frozen=True)
class CompareOptions(Named):
    """Compare the meta-gradients of MAML, FOMAML and Reptile: same parameters, same episodes.

    Cosine and ratio of norms are those to MAML's. What is not given is as in the run, or as in
    MAML's quick preset.
    """

    data: Literal["glyphs", "omniglot", "sinusoids"] | None = None
    """Where the episodes come from; glyphs if not given, nor a run."""
    run: Path | None = None
    """Parameters, network and data of this run of maml, fomaml or reptile; else new ones."""
    inner_lr: float | None = None
    """α of all three."""
    inner_steps: int | None = None
    """Inner steps of MAML and FOMAML; Reptile takes one more."""
    k_shot: int | None = None
    """Labelled examples of each class."""
    n_query: int | None = None
    """Query examples of each class."""
    tasks: int = 8
    """Tasks that the gradients are averaged over."""
    seed: int = 0
    """Decides the parameters and the episodes."""
    data_dir: Path | None = None
    """Folder of the data (or SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print a JSON list of objects."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(CompareOptions, argv, "compare", CompareOptions(backend=backend.current()))
    at_least(0, "seed", options.seed)
    from scratchmeta.analysis import compare

    with backend.use(options.backend):
        if options.run:
            saved = experiment.saved(options.run, "best", options.data_dir, options.named)
            config, params, dataset = saved.config, saved.params, saved.splits.train
            if not hasattr(config.method, "inner_lr"):
                raise UsageError(f"{options.run}: is a run of {config.algorithm!r}, which has no α")
            if options.data not in (None, config.data):
                raise UsageError(f"{options.run}: is a run on {config.data}, not {options.data}")
            if config.algorithm == "reptile":  # Adam's moments are beside its network
                params = params["network"]
        else:
            config = presets.lookup("maml", options.data)
            dataset = experiment.splits(config, options.data_dir).train
            params = experiment.network(config).init(np.random.default_rng(options.seed))
        n_way, k_shot, n_query = config.training.shape
        k_shot = k_shot if options.k_shot is None else options.k_shot
        n_query = n_query if options.n_query is None else options.n_query
        shape = n_way, k_shot, n_query, options.tasks
        batch = to_backend(episodes.sample(dataset, *shape, seed=options.seed))
        loss: dict[str, Any] = {"loss": losses.mse} if config.dataset.labels == "numbers" else {}
        alpha, steps = config.method.inner_lr, config.method.inner_steps
        if config.algorithm == "reptile":  # whose steps include the last batch
            steps = max(1, steps - 1)
        alpha = alpha if options.inner_lr is None else options.inner_lr
        steps = steps if options.inner_steps is None else options.inner_steps
        rows = compare.compare(
            experiment.network(config), to_backend(params), batch, alpha, steps, **loss
        )
    if options.json:
        print(json.dumps([row._asdict() for row in rows]))
        return 0
    print(
        f"{config.data}, {n_way}-way {k_shot}-shot, {n_query} queries, α = {alpha:g}, "
        f"{steps} inner step{'s' if steps > 1 else ''} (Reptile: {steps + 1})"
    )
    print(f"{'':<10}{'loss':>8}{'norm':>10}{'of maml':>10}{'cosine':>9}{'ms':>9}")
    for row in rows:
        print(
            f"{row.name:<10}{row.loss:8.3f}{row.norm:10.4f}{row.norm_ratio:10.3f}"
            f"{row.cosine:9.4f}{1000 * row.seconds:9.1f}"
        )
    return 0
