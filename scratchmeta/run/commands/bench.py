"""`scratchmeta bench`."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scratchmeta import backend, episodes, presets
from scratchmeta.kernels import memory
from scratchmeta.run import datasets, experiment, training
from scratchmeta.run.config import Config
from scratchmeta.run.hardware import hardware
from scratchmeta.run.options import Backend, at_least, parse
from scratchmeta.tree import to_backend


@dataclass(frozen=True)
class BenchOptions:
    """Time one training step of every algorithm, as its quick presets have it.

    A step is the gradient over one batch of episodes and the optimizer's update; the median of
    some. The folder benchmarks/ of the repository holds the comparisons with other libraries.
    """

    rounds: int = 5
    """Steps timed, at least, after one that is not."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: hardware, and steps, one for each algorithm and data."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(BenchOptions, argv, "bench", BenchOptions(backend=backend.current()))
    at_least(1, "rounds", options.rounds)
    memory.keep_freed()
    rows = []
    for name, entry in presets.REGISTRY.items():
        for data in presets.by_data(entry.presets):
            if datasets.find(data).on_disk:
                continue  # if anywhere; and Omniglot's quick presets are like glyphs'
            config = presets.lookup(name, data)
            with backend.use(options.backend):
                on = _step_seconds(config, options.rounds)
                with backend.use_kernels(False):
                    off = _step_seconds(config, options.rounds)
            rows.append({"name": name, "data": data, "seconds": on, "without_kernels": off})
    if options.json:
        print(json.dumps({"hardware": hardware(), "backend": options.backend, "steps": rows}))
        return 0
    machine = hardware()
    print(f"{options.backend} on {machine['processor']}, {machine['cores']} cores")
    print(f"{'one step of':<28}{'kernels on':>14}{'off':>14}")
    for row in rows:
        times = "".join(f"{1000 * row[key]:11.1f} ms" for key in ("seconds", "without_kernels"))
        print(f"{row['name'] + ' on ' + row['data']:<28}{times}")
    return 0


def _step_seconds(config: Config, rounds: int) -> float:
    """The median time of `rounds` training steps."""
    settings, algorithm = config.training, experiment.algorithm(config)
    dataset = experiment.splits(config).train
    batch = to_backend(episodes.sample(dataset, *settings.shape, settings.tasks))
    optimizer, state = training.start(algorithm, settings)
    times: list[float] = []
    while len(times) <= rounds or sum(times) < 0.2:
        began = time.perf_counter()
        _, state = training.step(algorithm, optimizer, state, batch, settings)
        backend.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))
