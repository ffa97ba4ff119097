"""From a configuration to the objects it describes: network, algorithm, datasets, the saved run."""

import os
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import data, losses, nn
from scratchmeta.algorithms import REGISTRY, relation, slow_fast
from scratchmeta.algorithms.siamese import KOCH_FEATURES, koch_network
from scratchmeta.run import presets
from scratchmeta.run.checkpoint import Run, State
from scratchmeta.run.config import (
    CUB,
    MAML,
    MLP,
    NTM,
    BaselineFinetune,
    BaselineNN,
    Config,
    FullContext,
    Koch,
    LSTMBaseline,
    MetaLSTM,
    MetaNet,
    NoNetwork,
    Relation,
    Reptile,
    Siamese,
    SlowFast,
    ZeroShot,
)
from scratchmeta.run.evaluation import calibrated
from scratchmeta.tree import to_backend


class Splits(NamedTuple):
    """Datasets with different classes to train, validate and test on."""

    train: Any
    validation: Any
    test: Any


def splits(config: Config, data_dir: str | os.PathLike | None = None) -> Splits:
    """The datasets of a configuration.

    Omniglot is looked for in `data_dir`/omniglot, then in `data_dir`, mini-ImageNet and the birds
    likewise; None is SCRATCHMETA_DATA's. In Lake's split only training characters are turned, in
    Vinyals' all. Algorithms that read sequences train on `Shuffled` ones, Siamese networks on
    `Pairs` if theirs are drawn, classifiers of all classes on `Numbered` ones; zero-shot learning
    has `Described` classes.
    Raises ValueError when a folder is needed and none was given, and DataError where a class that
    was read from it is in two of the three.
    """
    found = _splits(config, data_dir)
    _refuse_shared(found)
    if isinstance(config.method, LSTMBaseline):
        found = found._replace(train=data.Shuffled(found.train, config.method.labels))
    if isinstance(config.method, BaselineNN | BaselineFinetune):
        found = found._replace(train=_numbered(found.train, config.method.classes))
    if isinstance(config.method, Siamese):
        pairs = data.Pairs(found.train)  # refuses turns that would part two of a kind
        found = found._replace(train=pairs) if config.method.pairs == "drawn" else found
    if isinstance(config.method, ZeroShot):  # birds' attributes are on one scale as they are
        reference = None if isinstance(config.dataset, CUB) else found.train
        found = Splits(*(data.Described(part, reference) for part in found))
    return found


def _refuse_shared(found: Splits) -> None:
    """Raises DataError, naming the files, if a class that was read from them is in two splits."""
    for one, other in combinations([part for part in found if hasattr(part, "source")], 2):
        if shared := sorted(set(one.names) & set(other.names)):
            raise data.DataError(
                f"{other.source}: other classes wanted than in {one.source}, "
                f"got {shared[0]!r} in both"
            )


def _numbered(dataset: Any, classes: int) -> data.Numbered:
    """The dataset for a classifier of all its classes, if there are as many as configured."""
    if dataset.n_classes != classes:
        raise ValueError(f"classes: wanted the {dataset.n_classes} of {dataset}, got {classes}")
    return data.Numbered(dataset)


def _splits(config: Config, data_dir: str | os.PathLike | None) -> Splits:
    options = config.dataset
    if config.data == "sinusoids":
        return Splits(*(data.Sinusoids() for _ in Splits._fields))
    if config.data == "copy":
        return Splits(*(data.Copy(options.bits, options.lengths) for _ in Splits._fields))
    if config.data == "recall":
        made = data.Recall(options.bits, options.vectors, options.lengths)
        return Splits(*(made for _ in Splits._fields))
    if config.data == "glyphs":
        return Splits(
            *(
                data.Glyphs(split, image_size=options.image_size)
                for split in ("train", "val", "test")
            )
        )
    if config.data == "mini-imagenet":
        root = _root("mini-imagenet", data_dir, "train.csv, val.csv, test.csv and images/")
        return Splits(
            *(
                data.MiniImageNet(root, split, options.image_size)
                for split in ("train", "val", "test")
            )
        )
    if config.data == "cub":
        root = _root("cub", data_dir, "classes.txt, attributes/, features/ and lists of classes")
        return Splits(
            data.CUB(root, "train", crops="random"), data.CUB(root, "val"), data.CUB(root, "test")
        )
    root = _root("omniglot", data_dir, "images_background.zip and images_evaluation.zip")
    if options.split == "lake":  # augmented in training; tested on the characters as they are
        names, turns = ("background-train", "background-val", "evaluation"), "none"
    else:  # Vinyals et al. test on turned characters too
        names, turns = ("train", "val", "test"), options.rotations
    return Splits(
        data.Omniglot(
            root,
            names[0],
            options.image_size,
            options.rotations,
            options.jitter,
            options.affine,
        ),
        *(data.Omniglot(root, name, options.image_size, turns) for name in names[1:]),
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


def _root(name: str, data_dir: str | os.PathLike | None, content: str) -> Path:
    """The folder `name` in the folder of the data if there is one, else this folder itself."""
    given = data_dir or os.environ.get("SCRATCHMETA_DATA")
    if not given:
        raise ValueError(
            f"{name}: where is it? --data-dir DIR, or the environment variable SCRATCHMETA_DATA, "
            f"names the folder that holds {content}"
        )
    if not Path(given).is_dir():
        raise data.DataError(f"{name}: the folder {given} of the data does not exist")
    below = Path(given) / name
    return below if below.is_dir() else Path(given)


def network(config: Config) -> Any:
    """The network of a configuration: an embedding for metric methods, a classifier for MAML."""
    options = config.network
    if isinstance(options, MLP):
        if config.data == "sinusoids":
            return nn.MLP([1, *options.hidden, 1], batch_norm=options.normalize)
        if isinstance(config.method, ZeroShot):
            return nn.MLP([data.cub.FEATURES, *options.hidden, config.method.features])
        pixels = config.dataset.image_size**2 * config.dataset.image_channels
        sizes = [pixels, *options.hidden, config.training.n_way]
        return nn.MLP(sizes, batch_norm=options.normalize)
    if isinstance(options, Koch):
        return koch_network()
    if isinstance(options, SlowFast):
        sizes = asdict(options) | {"image_size": config.dataset.image_size}
        return slow_fast.network(config.training.n_way, **sizes)
    if isinstance(config.method, Relation):
        return relation.embedding(options.channels, config.dataset.image_channels)
    return nn.Conv4(
        channels=options.channels,
        in_channels=config.dataset.image_channels,
        image_size=config.dataset.image_size,
        pooling=options.pooling,
        n_out=_outputs(config),
    )


def _outputs(config: Config) -> int | None:
    """The outputs of a network that ends in a linear layer, else None."""
    if isinstance(config.method, ZeroShot):
        return config.method.features
    return config.training.n_way if _has_head(config) else None


def _attribute_network(config: Config) -> Any:
    """From the attributes of a class to its prototype."""
    n = data.cub.ATTRIBUTES if isinstance(config.dataset, CUB) else len(data.Glyphs.attribute_names)
    return nn.MLP([n, *config.method.attribute_hidden, config.method.features])


def algorithm(config: Config, **changes: Any) -> Any:
    """The algorithm of a configuration; `changes` override its method's options."""
    if isinstance(config.method, ZeroShot):
        parts = network(config), _attribute_network(config)
        return REGISTRY[config.algorithm].algorithm(*parts, config.method.batch_norm)
    options = asdict(replace(config.method, **changes)) | _sizes(config)
    options.pop("pairs", None)  # how training data is drawn, see splits
    if config.data == "sinusoids":
        options["loss"] = losses.mse
    made = REGISTRY[config.algorithm].algorithm
    if isinstance(config.network, NoNetwork):
        return made(**options)
    return made(network(config), **options)


def _sizes(config: Config) -> dict[str, int]:
    """What an algorithm has to know of its network's features, or of its data."""
    if isinstance(config.method, NTM):
        inputs, outputs = splits(config).train.channels
        return {"inputs": inputs, "outputs": outputs}
    if isinstance(config.method, LSTMBaseline):
        return {"image_size": config.dataset.image_size, "ways": config.training.n_way}
    if isinstance(config.method, BaselineFinetune | BaselineNN | FullContext | Siamese):
        if isinstance(config.network, Koch):
            return {"n_features": KOCH_FEATURES}
        pooled = config.network.pooling == "max"  # else the mean over the last map
        side = config.dataset.image_size // 16 if pooled else 1
        return {"n_features": side**2 * config.network.channels}
    if isinstance(config.method, Relation):
        map_size = ((config.dataset.image_size - 2) // 2 - 2) // 2
        return {"n_channels": config.network.channels, "map_size": map_size}
    return {}


def _has_head(config: Config) -> bool:
    """Whether the network itself has one output for each class, and so fixes their number."""
    if isinstance(config.method, LSTMBaseline):
        return config.method.labels == "one-hot"
    adapted = MAML | MetaLSTM | MetaNet | Reptile
    return isinstance(config.method, adapted) and config.data != "sinusoids"


def refuse_other_ways(config: Config, n_way: int) -> None:
    """Raises ValueError if the network's outputs fix the number of classes, and not to `n_way`."""
    if _has_head(config) and n_way != config.training.n_way:
        raise ValueError(
            f"n_way: the network of this {config.algorithm} run has one output for each of "
            f"{config.training.n_way} classes, got {n_way}; train one with --n-way {n_way}"
        )


class Saved(NamedTuple):
    """A run as it was saved, ready to be evaluated: `params` are calibrated."""

    config: Config
    algorithm: Any
    splits: Splits
    params: Any
    step: int


def recorded(path: str | os.PathLike, record: dict) -> Config:
    """The configuration in the config.json of the run in `path`; raises ValueError naming both."""
    try:
        return presets.from_dict(record)
    except ValueError as error:
        raise ValueError(f"{Path(path) / 'config.json'}: {error}") from error


def saved(
    path: str | os.PathLike, checkpoint: str = "best", data_dir: str | os.PathLike | None = None
) -> Saved:
    """The run in the folder `path`, with the parameters of its checkpoint "best" or "last".

    A run that was stopped before its first validation has no best checkpoint; then it is the last.
    """
    run = Run.open(path)
    config = recorded(run.path, run.config)
    built, datasets = algorithm(config), splits(config, data_dir or run.config.get("data_dir"))
    params = to_backend(built.init(np.random.default_rng(config.training.seed)))
    if not run.checkpoint(checkpoint).exists():
        checkpoint = "last"
    state = run.load(checkpoint, like=State(0, params, None, None, 0))
    params = calibrated(built, state.params, datasets.train, config.training)
    return Saved(config, built, datasets, params, state.step)
