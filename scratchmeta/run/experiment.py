"""From a configuration to the objects it describes: network, algorithm, datasets, the saved run.

Nothing here knows an algorithm, a network or a data set by name: each says itself what it wants.
"""

import os
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import backend, fields, losses, presets
from scratchmeta.data import DataError, Splits
from scratchmeta.run.checkpoint import Run
from scratchmeta.run.config import Config
from scratchmeta.run.saved import Saved, refuse_ways
from scratchmeta.tree import to_backend


class Surroundings:
    """What a configuration gives to its network and its algorithm, by the names of their fields.

    Of images their `image_size` and `image_channels`, of any example the `n_inputs` of it laid out
    flat, of described classes their `n_attributes`, of sequences the channels `inputs` and
    `outputs`; `ways`, the classes in training, `n_out`, the network's outputs, None for features;
    `loss`; and with a network `network`, or what else it builds, and the sizes of its features,
    `n_features`, or `n_channels` and `map_size`.
    """

    def __init__(self, config: Config) -> None:
        dataset, self._config, self._building = config.dataset, config, False
        self.ways = config.training.n_way
        for name in ("image_size", "image_channels", "n_attributes"):
            if hasattr(dataset, name):
                setattr(self, name, getattr(dataset, name))
        if dataset.labels == "bits":
            self.inputs, self.outputs = dataset.splits().train.channels
            return
        self.n_inputs = int(np.prod(dataset.example_shape))
        numbers = dataset.labels == "numbers"
        self.loss = losses.mse if numbers else losses.cross_entropy
        head = getattr(config.method.of, "head", False)
        self.n_out = (1 if numbers else self.ways) if head else None

    def __getattr__(self, name: str) -> Any:
        if self._building:  # an option would have been set
            data, network = self._config.data, type(self._config.network).__name__
            raise ValueError(f"data: {data} has no {name}, which {network} wants")
        built = {} if name.startswith("_") else self.built
        if name in built:
            return built[name]
        raise AttributeError(f"no configuration has {name!r}")

    @cached_property
    def built(self) -> dict[str, Any]:
        """{"network": the network}, or what else the network's options build."""
        options = self._config.network
        if not hasattr(options, "build"):
            made = fields.build(options, self)
        else:
            self._building = True
            made = options.build(self)
            self._building = False
        return made if isinstance(made, dict) else {"network": made}

    @cached_property
    def features_shape(self) -> tuple[int, ...]:
        """The shape of what the network makes of one example."""
        with backend.use("numpy"), backend.use_kernels(False):
            params = self.network.init(np.random.default_rng(0))
            x = np.zeros((1, 1, *self._config.dataset.example_shape), np.float32)
            return self.network(params, x).shape[2:]

    @property
    def n_features(self) -> int:
        """Numbers in a feature vector."""
        return self.features_shape[-1]

    @property
    def n_channels(self) -> int:
        """Channels of a feature map."""
        return self.features_shape[-1]

    @property
    def map_size(self) -> int:
        """The side of a feature map."""
        return self.features_shape[0]


def network(config: Config) -> Any:
    """The network of a configuration: an embedding, or a classifier where the algorithm has it."""
    return Surroundings(config).network


def algorithm(config: Config, **changes: Any) -> Any:
    """The algorithm of a configuration; `changes` override its options."""
    return fields.build(config.method, Surroundings(config), **changes)


def splits(config: Config, data_dir: str | os.PathLike | None = None) -> Splits:
    """The datasets of a configuration, as its algorithm wants them.

    Data on disk is looked for in the folder of its name in `data_dir`, then in `data_dir`; None is
    SCRATCHMETA_DATA's. Raises ValueError when a folder is needed and none was given, and DataError
    where a class that was read from it is in two of the three.
    """
    return _splits(config, algorithm(config), data_dir)


def _splits(config: Config, built: Any, data_dir: str | os.PathLike | None) -> Splits:
    found = config.dataset.splits(data_dir)
    _refuse_shared(found)
    return built.datasets(found) if hasattr(built, "datasets") else found


def _refuse_shared(found: Splits) -> None:
    """Raises DataError, naming the files, if a class that was read from them is in two splits."""
    for one, other in combinations([part for part in found if hasattr(part, "source")], 2):
        if shared := sorted(set(one.names) & set(other.names)):
            raise DataError(
                f"{other.source}: other classes wanted than in {one.source}, "
                f"got {shared[0]!r} in both"
            )


def of_length(dataset: Any, length: int | None) -> Any:
    """A dataset of sequences with sequences of this length only; None leaves it as it is.

    Raises ValueError for a dataset that has no lengths.
    """
    if length is None:
        return dataset
    if not hasattr(dataset, "of_length"):
        raise ValueError(f"length: wanted data with sequences of several lengths, got {dataset!r}")
    return dataset.of_length(length)


def refuse_other_ways(config: Config, n_way: int) -> None:
    """Raises ValueError if the algorithm tells one number of classes apart, and not `n_way`."""
    refuse_ways(config, algorithm(config), n_way)


def recorded(
    path: str | os.PathLike,
    record: dict,
    named: dict[str, str | None] | None = None,
    resume: bool = False,
    algorithm: Any = None,
) -> Config:
    """The configuration in the config.json of the run in `path`; raises ValueError naming both.

    `named`, `resume` and `algorithm` are for what came from outside the library: see
    `presets.from_dict`.
    """
    try:
        return presets.from_dict(record, path, named, resume, algorithm)
    except ValueError as error:
        raise ValueError(f"{Path(path) / 'config.json'}: {error}") from error


def saved(
    path: str | os.PathLike,
    checkpoint: str = "best",
    data_dir: str | os.PathLike | None = None,
    named: dict[str, str | None] | None = None,
    algorithm: Any = None,
) -> Saved:
    """The run in the folder `path`, with the parameters of its checkpoint "best" or "last"; as
    `sm.load`.

    A run that was stopped before its first validation has no best checkpoint; then it is the last.
    `algorithm` is what was trained, or its class, where no name leads to it. `data_dir` and `named`
    are as in `splits` and `recorded`; no data is read.

    Raises CheckpointError, or a ValueError naming config.json, for what cannot be read.
    """
    run = Run.open(path)
    config = recorded(run.path, run.config, named, algorithm=algorithm)
    built = algorithm
    if algorithm is None or isinstance(algorithm, type):
        built = fields.build(config.method, Surroundings(config))
    init = to_backend(built.init(np.random.default_rng(config.training.seed)))
    state, params = run.calibrated(checkpoint, like=init)
    where = data_dir or run.config.get("data_dir")
    return Saved(config, built, params, state, run.config, lambda: _splits(config, built, where))
