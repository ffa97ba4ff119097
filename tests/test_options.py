"""Every option arrives where it is meant to, and nowhere else: tables, option by option.

A table that lacks a field of some options fails, and so does one that has a field too many.
"""

import functools
import importlib
import inspect
import itertools
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from brought import brought
from fakecupy import install
from PIL import Image

from scratchmeta import backend, data, episodes, nn, presets, tree
from scratchmeta.algorithms import relation, slow_fast
from scratchmeta.analysis import compare, taylor
from scratchmeta.data import glyphs, one_shot_runs
from scratchmeta.presets import REGISTRY
from scratchmeta.run import (
    datasets,
    elsewhere,
    evaluation,
    experiment,
    export,
    outside,
    plots,
    sweeps,
    training,
)
from scratchmeta.run import networks as networks_of_one
from scratchmeta.run.cli import main
from scratchmeta.run.commands import COMMANDS
from scratchmeta.run.commands import train as train_command
from scratchmeta.run.config import Training
from scratchmeta.run.evaluation import (
    CALIBRATION,
    CALIBRATION_TASKS,
    VALIDATION,
    AllWrong,
    Evaluation,
    NearestNeighbour,
    evaluate,
    verification,
)
from scratchmeta.run.sweeps import tables
from scratchmeta.run.training import train
from scratchmeta.verify import cases, conformance
from scratchmeta.verify.episodes import bits, described, images

SECTIONS = ("method", "network", "dataset", "training")


def options_of(section):
    """{option: its value} of a section of a configuration."""
    return vars(section)


def configured(name, data=None, **changes):
    """The configuration of the first preset, with {section: {option: value}} changed."""
    config = presets.lookup(name, data)
    parts = {part: replace(getattr(config, part), **new) for part, new in changes.items()}
    return replace(config, **parts)


def everything(section):
    """{(type or algorithm, option)} of a section, over all presets of all algorithms."""
    found = set()
    for name in REGISTRY:
        for key in REGISTRY[name].presets:
            part = getattr(presets.lookup(name, *key), section)
            whose = name if section == "method" else type(part).__name__
            found |= {(whose, option) for option in options_of(part)}
    return found


def complete(table, section):
    """Whether a table {(type or algorithm, option): ...} has every option of a section."""
    assert set(table) == everything(section)


# --- an algorithm's own -------------------------------------------------------------------------

# What an algorithm does, each with what came before it as it was: parameters, then what is made of
# them. A number that is in the parameters' shapes changes all of it.
DOES = ("init", "loss", "gradient", "predict")
FIT = {"loss", "gradient", "predict"}
TRAIN = {"loss", "gradient"}
ALL = set(DOES)
CONV4 = {"network": {"channels": 2}}

# What makes a preset small, or an option matter; here, or in the algorithm's own test file.
SMALL = {
    "baseline-nn": {**CONV4, "method": {"classes": 3}},
    "baseline-finetune": {**CONV4, "method": {"classes": 3, "finetune_steps": 2}},
    "siamese": CONV4,
    "matching": CONV4,
    "matching-fce": CONV4,
    "relation": {**CONV4, "dataset": {"image_size": 48}},
    "prototypical": CONV4,
    "prototypical-zero-shot": {"network": {"channels": 2, "features": 4, "attribute_hidden": (3,)}},
    "ntm": {"method": {"units": 4, "rows": 5, "width": 3}, "dataset": {"bits": 2}},
    "mann": {"method": {"controller": 4, "rows": 6, "width": 3, "heads": 2}},
    "lstm": {"method": {"controller": 4}},
    "metanet": {"network": {"channels": 2, "features": 3, "depth": 2}, "method": {"hidden": 3}},
    "meta-lstm": {**CONV4, "method": {"hidden": 3}},
    "maml": {**CONV4, "method": {"inner_steps": 2}},
    "fomaml": {**CONV4, "method": {"inner_steps": 2}},
    "reptile": {**CONV4, "method": {"inner_steps": 2, "eval_inner_steps": 3}},
    **brought("SMALL"),
}

RUNNING = {"predict"}  # in training the statistics are the episode's all the same
BATCH_NORM = ("support", FIT)

# (algorithm, option): another value, what of DOES it changes, and where it is to be found: the
# attribute of its name, another one, or a function of the algorithm.
METHOD = {
    ("baseline-nn", "classes"): (4, {"init", "loss", "gradient"}),
    ("baseline-nn", "batch_norm"): ("support", {"predict"}),
    ("baseline-finetune", "classes"): (4, {"init", "loss", "gradient"}),
    ("baseline-finetune", "finetune_steps"): (1, {"predict"}),
    ("baseline-finetune", "finetune_lr"): (0.5, {"predict"}),
    ("baseline-finetune", "only_head"): (True, {"predict"}),
    ("baseline-finetune", "batch_norm"): ("support", {"predict"}),
    ("siamese", "pairs"): ("drawn", set(), None),  # what it trains on: see below
    ("siamese", "distance"): ("cosine", ALL),
    ("siamese", "shots"): ("most-similar", {"predict"}),
    ("siamese", "batch_norm"): BATCH_NORM,
    ("matching", "temperature"): (0.5, FIT),
    ("matching", "batch_norm"): BATCH_NORM,
    ("matching-fce", "temperature"): (0.5, FIT),
    ("matching-fce", "batch_norm"): BATCH_NORM,
    ("matching-fce", "processing_steps"): (2, FIT),
    ("matching-fce", "first_state"): ("features", FIT),
    ("relation", "hidden"): (3, ALL, lambda a: a.last.layers[-1][1].n_in),
    ("relation", "padding"): ("valid", ALL, "first.padding"),
    ("prototypical", "distance"): ("cityblock", FIT),
    ("prototypical", "batch_norm"): BATCH_NORM,
    ("prototypical-zero-shot", "batch_norm"): ("running", RUNNING),
    ("ntm", "controller"): ("lstm", ALL),
    ("ntm", "units"): (3, ALL),
    ("ntm", "heads"): (2, ALL),
    ("ntm", "rows"): (4, ALL),
    ("ntm", "width"): (2, ALL),
    ("ntm", "memory"): ("learned", ALL),
    ("ntm", "summed"): (True, TRAIN),
    ("mann", "controller"): (3, ALL),
    ("mann", "labels"): ("strings", ALL),
    ("mann", "rows"): (5, FIT),
    ("mann", "width"): (2, ALL),
    ("mann", "heads"): (1, ALL),
    ("mann", "gamma"): (0.5, FIT),
    ("mann", "temperature"): (0.5, FIT),
    ("lstm", "controller"): (3, ALL),
    ("lstm", "labels"): ("strings", ALL),
    ("metanet", "hidden"): (2, ALL, "d.n_hidden"),
    ("metanet", "first_order"): (True, {"gradient"}),
    ("meta-lstm", "inner_steps"): (1, TRAIN),
    ("meta-lstm", "eval_inner_steps"): (1, {"predict"}),
    ("meta-lstm", "hidden"): (2, ALL, "lstm.n_hidden"),
    ("meta-lstm", "p"): (3.0, FIT),
    ("meta-lstm", "forget_bias"): ((1.0, 2.0), ALL),
    ("meta-lstm", "input_bias"): ((-3.0, -2.0), ALL),
    ("meta-lstm", "first_order"): (False, {"gradient"}),
    ("meta-lstm", "batch_norm"): ("support", TRAIN),
    ("meta-lstm", "test_batch_norm"): ("support", {"predict"}),
    **{
        (name, option): row
        for name in ("maml", "fomaml")
        for option, row in {
            "inner_lr": (0.2, FIT),
            "inner_steps": (1, TRAIN),
            "eval_inner_steps": (2, {"predict"}),
            "first_order": (name == "maml", {"gradient"}),
            "inner_batches": ("fresh", FIT),
            "batch_norm": ("support", FIT),
        }.items()
    },
    ("reptile", "inner_lr"): (0.02, {"loss", "gradient", "predict"}),
    ("reptile", "inner_steps"): (1, TRAIN),
    ("reptile", "inner_batch"): (4, TRAIN),
    ("reptile", "eval_inner_steps"): (2, {"predict"}),
    ("reptile", "eval_batch"): (3, {"predict"}),
    ("reptile", "one_by_one"): (True, {"predict"}),
    ("reptile", "inner_optimizer"): ("sgd", ALL),
    **{(name, o): row for name, rows in brought("OPTIONS").items() for o, row in rows.items()},
}  # fmt: skip


def test_every_option_of_an_algorithm_has_a_row():
    complete(METHOD, "method")


def small(name, **method):
    """The algorithm of a small configuration, with options of its own changed."""
    changes = {part: dict(new) for part, new in SMALL[name].items()}
    changes["method"] = {**changes.get("method", {}), **method}
    if name != "ntm":
        changes["training"] = {"n_way": 3}
        changes["dataset"] = {"image_size": 16, **changes.get("dataset", {})}
    return configured(name, **changes)


def drawn(config):
    """Episodes for a small configuration."""
    rng = np.random.default_rng(0)
    if config.algorithm == "ntm":
        machine = experiment.algorithm(config)
        made = bits(rng, inputs=machine.inputs, outputs=machine.outputs)
    else:
        shots = 1 if config.algorithm == "prototypical-zero-shot" else 2
        side = config.dataset.image_size
        made = images(rng, side=side, ways=3, shots=shots, queries=2)
        if config.algorithm == "prototypical-zero-shot":
            width = experiment.algorithm(config).attribute_network.layers[1][1].n_in
            made = described(made, rng, width)
    return type(made)(*(x.astype(np.float32) if x.dtype == float else x for x in made))


def does(config):
    """{what: its bytes} of what the algorithm of a configuration does."""
    algorithm, batch = experiment.algorithm(config), drawn(config)
    params = algorithm.init(np.random.default_rng(0))
    loss, gradient = algorithm.meta_gradient(params, batch)
    predicted = algorithm.predict(algorithm.calibrate(params, batch), batch)
    made = {"init": params, "loss": loss, "gradient": gradient, "predict": predicted}
    return {
        what: [(np.shape(x), np.asarray(x).tobytes()) for x in tree.flatten(made[what])[0]]
        for what in DOES
    }


@functools.cache
def as_it_is(name):
    """What a small configuration does without a change."""
    return does(small(name))


def found_in(algorithm, where):
    """The value of an option in an algorithm."""
    if callable(where):
        return where(algorithm)
    for name in where.split("."):
        algorithm = getattr(algorithm, name)
    return algorithm


@pytest.mark.parametrize(("name", "option"), METHOD)
def test_an_option_of_an_algorithm_arrives(name, option):
    value, changed, *where = METHOD[name, option]
    config = small(name, **{option: value})
    assert options_of(small(name).method)[option] != value
    if where != [None]:
        assert found_in(experiment.algorithm(config), *where or [option]) == value
    now = does(config)
    assert {what for what in DOES if now[what] != as_it_is(name)[what]} == changed


# --- networks -----------------------------------------------------------------------------------


def conv4(**options):
    """The network of Prototypical Networks on glyphs of 16 x 16."""
    return nn.Conv4(**{"channels": 64, "in_channels": 1, "image_size": 16, **options})


def classifier(**options):
    """MAML's without convolutions, on Omniglot of 16 x 16."""
    sizes = [256, *options.pop("hidden", (256, 128, 64, 64)), 5]
    return nn.MLP(sizes, **{"batch_norm": True, **options})


def layered(**options):
    """That of Meta Networks on glyphs of 16 x 16."""
    quick = {"channels": 32, "depth": 5, "pooling": "stride", "features": 64, "n_fast": 2}
    return slow_fast.network(5, image_size=16, **{**quick, **options})


PROTOTYPICAL, NO_CONV = ("prototypical", "glyphs", "quick"), ("maml", "omniglot", "paper-no-conv")
METANET, RELATION = ("metanet", "glyphs", "quick"), ("relation", "glyphs", "quick")
ZERO_SHOT = ("prototypical-zero-shot", "glyphs", "quick")
BIRDS = ("prototypical-zero-shot", "cub", "paper")


def described_by(pooling="max", hidden=128, n_out=64, **options):
    """Zero-shot learning's two networks, on glyphs of 16 x 16."""
    n = len(data.Glyphs.attribute_names)
    return conv4(pooling=pooling, n_out=n_out, **options), nn.MLP([n, hidden, n_out])


def birds(features=1024, hidden=(), attribute=()):
    """Zero-shot learning's two networks, on birds."""
    sizes = [data.cub.FEATURES, *hidden, features], [data.cub.ATTRIBUTES, *attribute, features]
    return tuple(map(nn.MLP, sizes))


# (type, option): a preset that has it, another value, and the network that is to come of it.
NETWORK = {
    ("Conv4", "channels"): (PROTOTYPICAL, 3, lambda: conv4(channels=3)),
    ("Conv4", "pooling"): (PROTOTYPICAL, "stride", lambda: conv4(pooling="stride")),
    ("Conv4", "batch_norm_eps"): (PROTOTYPICAL, 0.1, lambda: conv4(eps=0.1)),
    ("MLP", "batch_norm_eps"): (NO_CONV, 0.1, lambda: classifier(eps=0.1)),
    ("MLP", "hidden"): (NO_CONV, (7, 6), lambda: classifier(hidden=(7, 6))),
    ("MLP", "normalize"): (NO_CONV, False, lambda: classifier(batch_norm=False)),
    ("Maps", "channels"): (RELATION, 3, lambda: relation.embedding(3)),
    ("Conv4WithAttributes", "channels"): (ZERO_SHOT, 3, lambda: described_by(channels=3)),
    ("Conv4WithAttributes", "pooling"): (ZERO_SHOT, "stride", lambda: described_by("stride")),
    ("Conv4WithAttributes", "features"): (ZERO_SHOT, 5, lambda: described_by(n_out=5)),
    ("Conv4WithAttributes", "attribute_hidden"): (ZERO_SHOT, (7,), lambda: described_by(hidden=7)),
    ("MLPWithAttributes", "features"): (BIRDS, 5, lambda: birds(features=5)),
    ("MLPWithAttributes", "attribute_hidden"): (BIRDS, (7,), lambda: birds(attribute=(7,))),
    ("MLPWithAttributes", "hidden"): (BIRDS, (7,), lambda: birds(hidden=(7,))),
    ("SlowFast", "channels"): (METANET, 3, lambda: layered(channels=3)),
    ("SlowFast", "depth"): (METANET, 2, lambda: layered(depth=2)),
    ("SlowFast", "pooling"): (METANET, "max", lambda: layered(pooling="max")),
    ("SlowFast", "features"): (METANET, 7, lambda: layered(features=7)),
    ("SlowFast", "n_fast"): (METANET, 3, lambda: layered(n_fast=3)),
}


def test_every_option_of_a_network_has_a_row():
    complete(NETWORK, "network")


def gives(network):
    """What identifies a network: its parameters, and what it makes of an image and of them."""
    if isinstance(network, tuple):
        return list(map(gives, network))
    params = network.init(np.random.default_rng(0))
    sizes = [layer.n_in for name, layer, *_ in network.layers if name == "linear1"]
    shape = (3, *sizes) if sizes and sizes != [256] else (3, 16, 16, 1)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    if isinstance(network, slow_fast.SlowFast):
        slow = network.lower(params, x)
        outputs = [slow, network.logits([params], slow)]
    else:
        outputs = [network(params, x)]
    return tree.paths(params), [y.tobytes() for y in [*tree.flatten(params)[0], *outputs]]


def networks(built):
    """One network, or both where there are two."""
    found = tuple(built.values())
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize(("kind", "option"), NETWORK)
def test_an_option_of_a_network_arrives(kind, option):
    preset, value, wanted = NETWORK[kind, option]
    config = presets.lookup(*preset)
    if hasattr(config.dataset, "image_size"):
        config = replace(config, dataset=replace(config.dataset, image_size=16))
    changed = replace(config, network=replace(config.network, **{option: value}))
    found, before = (networks(experiment.Surroundings(c).built) for c in (changed, config))
    assert gives(found) == gives(wanted())
    assert gives(found) != gives(before)


def test_sinusoids_have_the_options_of_their_network_too():
    config = configured("maml", "sinusoids", network={"hidden": (5,), "normalize": True})
    wanted = nn.MLP([1, 5, 1], batch_norm=True)
    x = np.random.default_rng(0).normal(size=(4, 1)).astype(np.float32)
    params = wanted.init(np.random.default_rng(0))
    np.testing.assert_array_equal(experiment.network(config)(params, x), wanted(params, x))


# --- data ---------------------------------------------------------------------------------------


@pytest.fixture
def few_glyphs(tmp_path, monkeypatch):
    """An alphabet in each split, of glyphs that are soon drawn."""
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    alphabets = {"train": range(1), "val": range(30, 31), "test": range(35, 36)}
    monkeypatch.setattr(glyphs, "SPLITS", alphabets)


CHARACTERS = {
    "images_background": ["Armenian/character01", "Greek/character01", "Greek/character02"],
    "images_evaluation": ["Angelic/character01", "Gurmukhi/character42"],
}
VINYALS = {
    "train": "Greek/character02", "val": "Armenian/character01", "test": "Gurmukhi/character42",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, few_glyphs):
    """A folder with a little of every data set."""
    root, rng = tmp_path / "omniglot", np.random.default_rng(0)
    (root / "splits" / "vinyals").mkdir(parents=True)
    for part, characters in CHARACTERS.items():
        for character in characters:
            place = root / part / character
            place.mkdir(parents=True)
            for drawer in range(1, 21):
                ink = np.kron(rng.random((15, 15)) < 0.7, np.ones((7, 7), bool))
                Image.fromarray(ink).save(place / f"{len(character):04}_{drawer:02}.png")
    for name, character in VINYALS.items():
        lines = [f"{character}/rot{turn:03}\n" for turn in (0, 90, 180, 270)]
        (root / "splits" / "vinyals" / f"{name}.txt").write_text("".join(lines))
    root = tmp_path / "mini-imagenet"
    (root / "images").mkdir(parents=True)
    for name in ("train", "val", "test"):
        files = [f"{name}{i}.png" for i in range(10)]
        for file in files:
            noise = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(noise).save(root / "images" / file)
        lines = ["filename,label", *(f"{file},n{name}" for file in files)]
        (root / f"{name}.csv").write_text("\n".join(lines))
    return tmp_path


THREE = ("train", "val", "test")
LAKE = ("background-train", "background-val", "evaluation")
QUICK, PAPER = ("omniglot", "quick"), ("mini-imagenet", "paper")


def drawings(split=LAKE, size=28, all_of_them=(), **training):
    """Omniglot's three parts; those of training alone are augmented."""
    rest = dict(all_of_them)
    return lambda folder: [
        data.Omniglot(folder / "omniglot", name, size, **rest, **(training if i == 0 else {}))
        for i, name in enumerate(split)
    ]


TURNED, NOT_TURNED = {"rotations": "classes"}, {"rotations": "none"}

# (type, option): an algorithm on data, other options first, another value, and the three parts
# that are to come of it.
DATASET = {
    ("Glyphs", "image_size"): ("prototypical", "glyphs", {}, 16, lambda folder: [
        data.Glyphs(split, image_size=16) for split in THREE
    ]),
    ("Omniglot", "image_size"): ("prototypical", "omniglot", NOT_TURNED, 20, drawings(size=20)),
    ("Omniglot", "resampling"): (
        "prototypical", "omniglot", NOT_TURNED, "nearest",
        drawings(all_of_them={"resampling": "nearest"}),
    ),
    ("Omniglot", "upright_tests"): (
        "prototypical", "omniglot", {**TURNED, "split": "vinyals"}, True, drawings(THREE, **TURNED)
    ),
    ("Omniglot", "split"): (
        "prototypical", "omniglot", TURNED, "vinyals", drawings(THREE, all_of_them=TURNED)
    ),
    ("Omniglot", "rotations"): (
        "prototypical", "omniglot", NOT_TURNED, "episode", drawings(rotations="episode")
    ),
    ("Omniglot", "jitter"): ("prototypical", "omniglot", NOT_TURNED, True, drawings(jitter=True)),
    ("Omniglot", "affine"): ("prototypical", "omniglot", NOT_TURNED, True, drawings(affine=True)),
    ("MiniImageNet", "image_size"): ("prototypical", "mini-imagenet", {}, 16, lambda folder: [
        data.MiniImageNet(folder / "mini-imagenet", split, 16) for split in THREE
    ]),
    ("Copy", "bits"): ("ntm", "copy", {}, 3, lambda folder: 3 * [data.Copy(3, (1, 10))]),
    ("Copy", "lengths"): ("ntm", "copy", {}, (2, 4), lambda folder: 3 * [data.Copy(8, (2, 4))]),
    ("Recall", "bits"): ("ntm", "recall", {}, 3, lambda folder: 3 * [data.Recall(3, 3, (2, 6))]),
    ("Recall", "vectors"): ("ntm", "recall", {}, 2, lambda folder: 3 * [data.Recall(6, 2, (2, 6))]),
    ("Recall", "lengths"): (
        "ntm", "recall", {}, (3, 4), lambda folder: 3 * [data.Recall(6, 3, (3, 4))]
    ),
}  # fmt: skip


def test_every_option_of_data_has_a_row():
    complete(DATASET, "dataset")


def seen(dataset):
    """What identifies a dataset: what it says of itself, and some of its episodes."""
    ways, shots = (1, 1) if hasattr(dataset, "episode") else (1, 5)
    batches = [episodes.sample(dataset, ways, shots, shots, tasks=4, index=i) for i in range(3)]
    return repr(dataset), [[x.tobytes() for x in batch] for batch in batches]


@pytest.mark.parametrize(("kind", "option"), DATASET)
def test_an_option_of_data_arrives(kind, option, folder):
    name, source, others, value, wanted = DATASET[kind, option]
    preset = "paper" if source == "mini-imagenet" else "quick"
    config = presets.lookup(name, source, preset)
    config = replace(config, dataset=replace(config.dataset, **others))
    changed = replace(config, dataset=replace(config.dataset, **{option: value}))
    found = list(map(seen, experiment.splits(changed, folder)))
    assert found == list(map(seen, wanted(folder)))
    assert found != list(map(seen, experiment.splits(config, folder)))


# What an algorithm trains on is made of the data, by options of its own.
TRAINED_ON = {
    ("prototypical", ()): lambda train: train,
    ("siamese", ()): lambda train: train,
    ("siamese", (("pairs", "drawn"),)): data.Pairs,
    ("mann", (("labels", "one-hot"),)): lambda train: data.Shuffled(train, "one-hot"),
    ("mann", (("labels", "strings"),)): lambda train: data.Shuffled(train, "strings"),
    ("lstm", (("labels", "strings"),)): lambda train: data.Shuffled(train, "strings"),
    ("baseline-nn", ()): data.Numbered,
    ("baseline-finetune", ()): data.Numbered,
}


@pytest.mark.parametrize(("name", "options"), TRAINED_ON)
def test_what_an_algorithm_trains_on(name, options, few_glyphs):
    parts = [data.Glyphs(split, image_size=16) for split in THREE]
    method = dict(options)
    if name.startswith("baseline"):
        method["classes"] = parts[0].n_classes
    config = configured(name, "glyphs", dataset={"image_size": 16}, method=method)
    found = experiment.splits(config)
    wanted = TRAINED_ON[name, options](parts[0]), *parts[1:]
    assert list(map(seen, found)) == list(map(seen, wanted))


def test_attributes_are_standardised_by_those_of_training(few_glyphs):
    """Also those of the validation and the test: nothing is asked of their classes."""
    parts = [data.Glyphs(split, image_size=16) for split in THREE]
    config = configured("prototypical-zero-shot", "glyphs", dataset={"image_size": 16})
    mean, spread = parts[0].attributes.mean(axis=0), parts[0].attributes.std(axis=0)
    for found, part in zip(experiment.splits(config), parts, strict=True):
        wanted = (part.attributes - mean) / np.where(spread > 0, spread, 1)
        np.testing.assert_allclose(found.attributes, wanted, rtol=1e-5, atol=1e-6)
        assert found.dataset.names == part.names


# --- training -----------------------------------------------------------------------------------


class Walker:
    """Always the same gradient; notes what it was given."""

    gradient = (3.0, -0.5, 0.01)

    def __init__(self):
        self.where, self.batches, self.tests, self.calibrated = [], [], [], []

    def init(self, rng):
        self.drawn = rng.random(3)
        return {"w": np.array([1.0, -2.0, 0.5])}

    def meta_gradient(self, params, batch):
        self.where.append(params["w"].tolist())
        self.batches.append(batch)
        return 1.0, {"w": np.array(self.gradient)}

    def calibrate(self, params, batch):
        self.calibrated.append((len(self.where), batch))
        return params

    def predict(self, params, batch):
        self.tests.append((len(self.where), batch))
        return np.ones((*batch.query_y.shape, 9))


def bars(seed):
    """Nine classes of small images."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 2, 2, 1)).astype(np.uint8)
    return data.ImageDataset(pixels, [f"a/{i}" for i in range(9)])


WALK = Training(
    n_way=2, k_shot=1, n_query=1, tasks=1, steps=4, lr=0.1, test_query=1, validate_every=2,
    validation_episodes=2, optimizer="sgd",
)  # fmt: skip


def walked(settings):
    """A Walker that has been trained, and the state it ended in."""
    walker = Walker()
    state = train(walker, bars(0), settings, validation=bars(1))
    walker.where.append(state.params["w"].tolist())
    return walker


def path(settings):
    """Where a Walker is to be before each step and after the last, in scalars."""
    θ, start = list(walked(replace(WALK, steps=1)).where[0]), []
    norm = math.sqrt(sum(g * g for g in Walker.gradient))
    m, v = [0.0] * 3, [0.0] * 3
    mean, velocity = [0.0] * 3, [0.0] * 3
    for t in range(settings.steps):
        start.append(list(θ))
        lr = settings.lr
        if settings.halve_every:
            lr *= 0.5 ** (t // settings.halve_every)
        if settings.linear_decay:
            lr *= 1 - t / settings.steps
        for i, g in enumerate(Walker.gradient):
            if settings.clip_norm:
                g *= min(1.0, settings.clip_norm / norm)
            if settings.clip_value:
                g = max(-settings.clip_value, min(settings.clip_value, g))
            g += settings.weight_decay * θ[i]
            if settings.optimizer == "sgd":
                θ[i] -= lr * g
            elif settings.optimizer == "adam":
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                mhat, vhat = m[i] / (1 - 0.9 ** (t + 1)), v[i] / (1 - 0.999 ** (t + 1))
                θ[i] -= lr * mhat / (math.sqrt(vhat) + 1e-8)
            else:
                v[i], mean[i] = 0.95 * v[i] + 0.05 * g * g, 0.95 * mean[i] + 0.05 * g
                velocity[i] = 0.9 * velocity[i] + g / math.sqrt(v[i] - mean[i] ** 2 + 1e-4)
                θ[i] -= lr * velocity[i]
    return [*start, θ]


def walks(settings):
    """It goes where it is to go, and elsewhere than without the option."""
    found = walked(settings).where
    np.testing.assert_allclose(found, path(settings), rtol=1e-9)
    plain = replace(WALK, optimizer=settings.optimizer)
    assert settings == plain or not np.allclose(found, path(plain))


def trains_on(settings):
    """Every step has the episodes of its number, of the training classes."""
    walker = walked(settings)
    shape = settings.n_way, settings.k_shot, settings.n_query, settings.tasks
    assert len(walker.batches) == settings.steps
    for index, batch in enumerate(walker.batches):
        wanted = episodes.sample(bars(0), *shape, seed=settings.seed, index=index)
        assert all(map(np.array_equal, batch, wanted))


def begins_with(settings):
    """The seed decides the first parameters and all episodes."""
    np.testing.assert_array_equal(
        walked(settings).drawn, np.random.default_rng(settings.seed).random(3)
    )
    trains_on(settings)
    validates_on(settings)


def validates_on(settings):
    """Each validation has the same episodes, of the validation's classes, with their own indices;
    what is calibrated is calibrated on training episodes that no step has."""
    walker = walked(settings)
    shape = settings.test_way or settings.n_way, settings.k_shot, settings.test_query
    wanted = [
        episodes.sample(bars(1), *shape, seed=settings.seed, index=VALIDATION + i)
        for i in range(settings.validation_episodes)
    ]
    steps = range(settings.validate_every, settings.steps + 1, settings.validate_every)
    found = {step: [b for at, b in walker.tests if at == step] for step in steps}
    assert {at for at, _ in walker.tests} == set(steps)
    for batches in found.values():
        for field in ("support_x", "support_y", "query_x", "query_y"):
            joined = np.concatenate([getattr(batch, field) for batch in batches])
            np.testing.assert_array_equal(
                joined, np.concatenate([getattr(batch, field) for batch in wanted])
            )
    assert [at for at, _ in walker.calibrated] == list(steps)
    shape = settings.n_way, settings.k_shot, settings.n_query, CALIBRATION_TASKS
    wanted = episodes.sample(bars(0), *shape, seed=settings.seed, index=CALIBRATION)
    for _, batch in walker.calibrated:
        assert all(map(np.array_equal, batch, wanted))


def waits(settings):
    """A Walker's predictions do not change, so the first validation is the best."""
    assert len(walked(settings).batches) == settings.validate_every * (1 + settings.patience)


OPTIMIZERS = ("sgd", "adam", "rmsprop")

# option: (what says where it arrives, other values). Each is tried, beside WALK.
TRAINING = {
    "n_way": (trains_on, [{"n_way": 3}]),
    "k_shot": (trains_on, [{"k_shot": 3}]),
    "n_query": (trains_on, [{"n_query": 4}]),
    "tasks": (trains_on, [{"tasks": 3}]),
    "steps": (trains_on, [{"steps": 7}]),
    "optimizer": (walks, [{"optimizer": name} for name in OPTIMIZERS]),
    "lr": (walks, [{"optimizer": name, "lr": 0.03} for name in OPTIMIZERS]),
    "weight_decay": (walks, [{"optimizer": "adam", "weight_decay": 3.0}]),
    "halve_every": (
        walks, [{"optimizer": name, "halve_every": n} for name in OPTIMIZERS for n in (1, 2)]
    ),
    "linear_decay": (walks, [{"optimizer": name, "linear_decay": True} for name in OPTIMIZERS]),
    "clip_norm": (walks, [{"optimizer": name, "clip_norm": 0.5} for name in ("sgd", "rmsprop")]),
    "clip_value": (walks, [{"optimizer": name, "clip_value": 0.4} for name in ("sgd", "rmsprop")]),
    "test_way": (validates_on, [{"test_way": 4}]),
    "test_query": (validates_on, [{"test_query": 3}]),
    "validate_every": (validates_on, [{"validate_every": 3}, {"validate_every": 1}]),
    "validation_episodes": (validates_on, [{"validation_episodes": 5}]),
    "patience": (waits, [{"patience": 1, "steps": 20}, {"patience": 3, "steps": 20}]),
    "seed": (begins_with, [{"seed": 7}, {"seed": 0}]),
}  # fmt: skip


def test_every_option_of_training_has_a_row():
    complete({("Training", option): row for option, row in TRAINING.items()}, "training")


@pytest.mark.parametrize("option", TRAINING)
def test_an_option_of_training_arrives(option):
    holds, changes = TRAINING[option]
    for change in changes:
        holds(replace(WALK, **change))


# --- commands -----------------------------------------------------------------------------------

ARRIVES = set()  # (command, option) of which a test here says where it is to arrive


def arrives(command, *names):
    """Marks a test that says where these options of a command arrive."""
    ARRIVES.update((command, name) for name in names)
    return lambda test: test


def test_every_option_of_a_command_has_a_test():
    """Those of a configuration, which train has too, are in the tables above."""
    wanted = set()
    for command in COMMANDS:
        defined = vars(importlib.import_module(f"scratchmeta.run.commands.{command}"))
        (kind,) = (v for name, v in defined.items() if name == f"{command.title()}Options")
        own = {field.name for field in fields(kind)}
        wanted |= {
            (command, name) for name in own - (set(SECTIONS) if command == "train" else set())
        }
    assert wanted == ARRIVES


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)


@pytest.fixture
def heard(monkeypatch):
    """`heard(module, name, result)` puts a listener in a function's place and returns what it was
    called with: {parameter: value}, also "backend" and "kernels" as they were then."""

    def listen(module, name, result=None):
        signature, calls = inspect.signature(getattr(module, name)), []

        def listener(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {"backend": backend.current(), "kernels": backend.kernels_enabled()}
            calls.append(given | bound.arguments)
            return result

        monkeypatch.setattr(module, name, listener)
        return calls

    return listen


def said(capsys, *argv):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


WAVES = [
    "train", "maml", "--data", "sinusoids", "--tasks", "2", "--k-shot", "3", "--n-query", "3",
    "--hidden", "4", "--validation-episodes", "3", "--steps", "3", "--validate-every", "2",
]  # fmt: skip


@pytest.fixture
def waves(tmp_path):
    """A run whose best checkpoint is after step 2, and the last after step 3."""
    assert main([*WAVES, "--out", "run"]) == 0
    return tmp_path / "run"


def on_waves(run, checkpoint="best", k_shot=3, n_query=10, **changes):
    """What the evaluation of a run on sinusoids is to give."""
    saved = experiment.saved(run, checkpoint)
    assert saved.step == {"best": 2, "last": 3}[checkpoint]
    shape = 1, k_shot, n_query
    return evaluate(saved.algorithm, saved.params, data.Sinusoids(), *shape, **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"episodes": 7}, {"k_shot": 2}, {"n_query": 4}, {"seed": 5}, {"checkpoint": "last"}],
    ids=str,
)
@arrives("evaluate", "run", "episodes", "k_shot", "n_query", "seed", "checkpoint", "json")
def test_evaluate(changes, waves, capsys):
    wanted = on_waves(waves, **{"episodes": 5, **changes})
    argv = [x for name, value in changes.items() for x in (f"--{name.replace('_', '-')}", value)]
    rest = [] if "episodes" in changes else ["--episodes", "5"]
    found = said(capsys, "evaluate", waves, *argv, *rest)
    assert {name: found[name] for name in wanted.as_dict()} == wanted.as_dict()
    assert changes == {} or found["mse"] != on_waves(waves, episodes=5).value
    assert found["mse_by_step"][-1] == found["mse"]


SMALL_GLYPHS = [
    "--image-size", "16", "--channels", "2", "--n-way", "3", "--n-query", "2", "--steps", "1",
    "--validate-every", "1", "--validation-episodes", "2", "--test-way", "4", "--test-query", "3",
]  # fmt: skip


@arrives("evaluate", "n_way", "within_alphabet", "one_shot_runs")
def test_evaluate_on_images(few_glyphs, heard, capsys):
    assert main(["train", "siamese", *SMALL_GLYPHS, "--out", "run"]) == 0
    saved, test = experiment.saved("run"), data.Glyphs("test", image_size=16)
    for argv, n_way, dataset in (
        ([], 4, test),
        (["--n-way", 5], 5, test),
        (["--within-alphabet"], 4, data.WithinAlphabet(test)),
    ):
        wanted = evaluate(saved.algorithm, saved.params, dataset, n_way, 1, 3, episodes=6)
        found = said(capsys, "evaluate", "run", "--episodes", "6", *argv)
        assert found["accuracy"] == wanted.value
        assert found["n_way"] == n_way
        pixels = evaluate(NearestNeighbour(), None, dataset, n_way, 1, 3, episodes=6)
        assert found["nearest_neighbour"] == pixels.value
        assert found["verification"] == verification(saved.algorithm, saved.params, test, 60)
    x = np.zeros((1, 20, 16, 16, 1), np.uint8)
    read = heard(one_shot_runs, "read", one_shot_runs.OneShotRuns(x, x, np.zeros((1, 20), int)))
    found = said(capsys, "evaluate", "run", "--one-shot-runs", "runs.zip")
    assert [str(call["path"]) for call in read] == ["runs.zip"]
    assert found["trials"] == 20


def test_one_shot_runs_are_resampled_as_in_training(folder, heard):
    few = ["--data", "omniglot", "--data-dir", str(folder), *SMALL_GLYPHS[:4]]
    few += ["--rotations", "none", "--n-way", "2", "--test-way", "1", *SMALL_GLYPHS[6:-4]]
    x = np.zeros((1, 20, 16, 16, 1), np.uint8)
    read = heard(one_shot_runs, "read", one_shot_runs.OneShotRuns(x, x, np.zeros((1, 20), int)))
    for kind in ("antialiased", "nearest"):
        assert main(["train", "siamese", *few, "--resampling", kind, "--out", kind]) == 0
        assert main(["evaluate", kind, "--one-shot-runs", "runs.zip"]) == 0
        assert (read[-1]["image_size"], read[-1]["resampling"]) == (16, kind)


@arrives("evaluate", "length")
@arrives("plot", "length", "episode", "run")
def test_sequences_of_one_length(heard, capsys):
    small = ["--units", "3", "--rows", "4", "--width", "2", "--bits", "2", "--tasks", "2"]
    loop = ["--steps", "1", "--validate-every", "1", "--validation-episodes", "2"]
    assert main(["train", "ntm", *small, *loop, "--out", "run"]) == 0
    saved = experiment.saved("run")
    for argv, dataset in (([], saved.splits.test), (["--length", "3"], data.Copy(2, (3, 3)))):
        wanted = evaluate(saved.algorithm, saved.params, dataset, 1, 1, 1, episodes=5, seed=2)
        found = said(capsys, "evaluate", "run", "--episodes", "5", "--seed", "2", *argv)
        assert found["bit_errors"] == wanted.value
        assert found["lengths"] == list(dataset.lengths)
        bits = evaluate(AllWrong(), None, dataset, 1, 1, 1, episodes=5, seed=2)
        assert found["bits"] == bits.value
    draws, learns = heard(plots, "episode"), heard(plots, "learning")
    assert main(["plot", "run", "--episode", "7", "--length", "3"]) == 0
    (drawn_,), (learned,) = draws, learns
    assert (drawn_["number"], drawn_["length"]) == (7, 3)
    assert (drawn_["run"].step, str(drawn_["path"])) == (1, "run/episode.png")
    assert (str(learned["run"].path), str(learned["path"])) == ("run", "run/learning.png")


@arrives("evaluate", "data", "ink", "convert")
def test_evaluate_on_other_data(few_glyphs, heard, capsys):
    assert main(["train", "siamese", *SMALL_GLYPHS, "--out", "run"]) == 0
    saved, test = experiment.saved("run"), data.Glyphs("val", image_size=16)
    wanted = evaluate(saved.algorithm, saved.params, test, 4, 1, 3, episodes=6)
    asks = heard(elsewhere, "dataset", test)
    asked = ["evaluate", "run", "--episodes", "6", "--data", "folder"]
    for rest in ([], ["--data-dir", "there", "--ink", "bright", "--convert"]):
        assert said(capsys, *asked, *rest)["accuracy"] == wanted.value
    plain, all_of_them = asks
    assert (plain["name"], plain["data_dir"], plain["ink"], plain["convert"]) == (
        "folder", None, "dark", False,
    )  # fmt: skip
    found = [all_of_them[key] for key in ("ink", "convert")]
    assert [str(all_of_them["data_dir"]), *found] == ["there", "bright", True]


@arrives("predict", "run", "support", "query", "ink", "picture", "checkpoint", "json")
@arrives("features", "run", "files", "ink", "checkpoint", "out")
def test_predict_and_features(few_glyphs, heard, capsys):
    assert main(["train", "siamese", *SMALL_GLYPHS, "--out", "run"]) == 0
    for name in ("a/1.png", "b/1.png", "one.png", "two.png"):
        Path("pictures", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 120 if "1" in name else 110).save(Path("pictures", name))
    for name in ("one.png", "two.png"):
        Path("pictures", name).rename(name)
    draws, loads = heard(plots, "predictions"), heard(experiment, "saved", experiment.saved("run"))
    asked = ["predict", "run", "--support", "pictures", "--query", "one.png", "two.png"]
    rest = ["--checkpoint", "last", "--ink", "bright", "--picture", "out.png"]
    found = [said(capsys, *asked, *more)["predictions"] for more in ([], rest)]
    assert [one["file"] for one in found[0]] == ["one.png", "two.png"]
    assert [load["checkpoint"] for load in loads] == ["best", "last"]
    (drawn_,) = draws
    assert (str(drawn_["path"]), drawn_["names"]) == ("out.png", ["a", "b"])
    assert drawn_["support"].min() == 120  # bright as they are
    asked = ["features", "run", "one.png", "two.png", "--out"]
    assert main([*asked, "x.npz"]) == 0
    assert main([*asked, "y.npz", "--ink", "bright", "--checkpoint", "last"]) == 0
    assert [load["checkpoint"] for load in loads[2:]] == ["best", "last"]
    x, y = (np.load(f"{name}.npz") for name in "xy")
    assert x["files"].tolist() == ["one.png", "two.png"]
    assert not np.array_equal(x["features"], y["features"])


@arrives("predict", "backend")
@arrives("features", "backend")
def test_the_backend_of_predict_and_features(few_glyphs, heard):
    assert main(["train", "siamese", *SMALL_GLYPHS, "--out", "run"]) == 0
    saved = experiment.saved("run")
    stub = SimpleNamespace(
        config=saved.config,
        algorithm=saved.algorithm,
        example_shape=saved.example_shape,
        predict=lambda support, labels, query: np.zeros((len(query), 2)),
        embed=lambda x: x,
    )
    for name in ("p/a/1.png", "p/b/1.png"):
        Path(name).parent.mkdir(parents=True)
        Image.new("L", (20, 20), 120).save(name)
    loads = heard(experiment, "saved", stub)
    with install():
        for name in ("numpy", "cupy"):
            rest = ["--backend", name]
            assert main(["predict", "run", "--support", "p", "--query", "p", *rest]) == 0
            assert main(["features", "run", "p", "--out", "x.npz", *rest]) == 0
    assert [load["backend"] for load in loads] == ["numpy", "numpy", "cupy", "cupy"]


@arrives("export", "run", "out", "part", "n_way", "k_shot", "checkpoint", "data_dir")
def test_export(few_glyphs, heard):
    assert main(["train", "siamese", *SMALL_GLYPHS, "--out", "run"]) == 0
    loads = heard(experiment, "saved", saved := experiment.saved("run"))
    graph = SimpleNamespace(input=(), output=())
    written = SimpleNamespace(graph=graph, SerializeToString=lambda: b"the graph")
    embeds, classifies = (heard(export, name, written) for name in ("embedding", "classifier"))
    assert main(["export", "run", "a.onnx", "--checkpoint", "last", "--data-dir", "there"]) == 0
    (loaded,) = loads
    assert [str(loaded[k]) for k in ("path", "checkpoint", "data_dir")] == ["run", "last", "there"]
    assert Path("a.onnx").read_bytes() == b"the graph"
    assert main(["export", "run", "a.onnx", "--part", "classifier"]) == 0
    rest = ["--part", "classifier", "--n-way", "7", "--k-shot", "2"]
    assert main(["export", "run", "a.onnx", *rest]) == 0
    assert [(call["n_way"], call["k_shot"]) for call in classifies] == [(4, None), (7, 2)]
    for call in (*embeds, *classifies):
        assert call["algorithm"] is saved.algorithm
        assert call["params"] is saved.params
        assert call["input_shape"] == (16, 16, 1)
    assert len(embeds) == 1


OMNIGLOT = ["compare", "--data", "omniglot"]


@arrives("train", "data_dir")
@arrives("evaluate", "data_dir")
@arrives("plot", "data_dir")
@arrives("compare", "data_dir")
def test_where_the_data_lies(folder, heard, capsys, tmp_path):
    """Where training had it, unless said otherwise."""
    few = ["--data", "omniglot", *SMALL_GLYPHS[:4], "--n-way", "1", "--test-way", "1"]
    few += ["--steps", "1", "--validate-every", "1", "--validation-episodes", "2"]
    assert main(["train", "maml", *few, "--data-dir", str(folder), "--out", "run"]) == 0
    asked = ["evaluate", "run", "--episodes", "2"]
    assert main(asked) == 0
    (tmp_path / "moved").mkdir()
    (folder / "omniglot").rename(tmp_path / "moved" / "omniglot")
    commands = (asked, ["plot", "run"], ["compare", "--run", "run"], OMNIGLOT)
    for argv in commands:
        assert main(argv) == 2
    draws, compares = heard(plots, "episode"), heard(compare, "compare", [])
    batch = drawn(small("maml"))  # 5 ways are more than so few characters have
    for argv in commands:
        if argv == OMNIGLOT:
            heard(episodes, "sample", batch)
        assert main([*argv, "--data-dir", "moved"]) == 0
    assert draws[0]["run"].splits.test.names == data.Omniglot("moved/omniglot", "evaluation").names
    assert len(compares) == 2


@arrives("train", "algorithm", "data", "preset", "out", "resume", "overwrite")
def test_train(heard, waves):
    calls = heard(training, "train", SimpleNamespace(step=1))
    assert main(["train", "fomaml", "--data", "sinusoids", "--preset", "paper"]) == 0
    config = presets.lookup("fomaml", "sinusoids", "paper")
    call = calls.pop()
    for section, values in config.as_dict().items():
        assert call["config"][section] == values
    assert call["settings"] == config.training
    assert isinstance(call["algorithm"], REGISTRY["fomaml"].algorithm)
    assert call["algorithm"].first_order
    assert (call["resume"], call["overwrite"]) == (False, False)
    assert str(call["run"]) == "runs/fomaml-sinusoids-1"
    assert main([*WAVES, "--out", "here", "--overwrite"]) == 0
    call = calls.pop()
    assert (str(call["run"]), call["resume"], call["overwrite"]) == ("here", False, True)
    assert main(["train", "--resume", "run", "--steps", "5"]) == 0
    call = calls.pop()
    assert (str(call["run"]), call["resume"], call["overwrite"]) == ("run", True, False)
    assert call["settings"] == replace(experiment.saved("run").config.training, steps=5)


@arrives("evaluate", "algorithm", "network")
@arrives("plot", "algorithm", "network")
@arrives("compare", "algorithm", "network")
@arrives("export", "algorithm", "network")
@arrives("predict", "algorithm", "network")
@arrives("features", "algorithm", "network")
@arrives("train", "network_class")
def test_what_comes_from_outside(heard, waves):
    calls = heard(experiment, "recorded", experiment.saved("run").config)
    named = ["--algorithm", "mine.py:Mine", "--network", "net.py:Net"]
    ends = {"evaluate run": 0, "plot run": 0, "compare --run run": 0, "export run x.onnx": 2}
    ends |= {"predict run --support s --query q": 2, "features run f --out x.npz": 2}
    for command, status in ends.items():  # what is no image is not exported, but read
        assert main([*command.split(), *named]) == status
        assert calls.pop()["named"] == {"algorithm": "mine.py:Mine", "network": "net.py:Net"}
    calls = heard(outside, "load", networks_of_one.MLP)
    assert main([*WAVES, "--network", "net.py:Net", "--out", "new"]) == 0
    assert calls[0]["name"] == "net.py:Net"


def test_train_trains_validates_and_tests_on_three_different_splits(few_glyphs, heard):
    calls = heard(training, "train", SimpleNamespace(step=1))
    assert main(["train", "prototypical", "--image-size", "16"]) == 0
    parts = [data.Glyphs(split, image_size=16) for split in THREE]
    assert calls[0]["dataset"].names == parts[0].names
    assert calls[0]["validation"].names == parts[1].names
    shared = [set(a.names) & set(b.names) for a, b in itertools.combinations(parts, 2)]
    assert not any(shared)


def as_arguments(values, defaults):
    """Options as a command line has them."""
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            if value != defaults[name]:
                yield flag if value else f"--no-{flag[2:]}"
        else:
            yield flag
            yield from map(str, value) if isinstance(value, tuple) else [str(value)]


def given(name):
    """A preset, and {section: other values of all its options that can be given together}."""
    key = next(iter(REGISTRY[name].presets))
    config = presets.lookup(name, *key)
    tables = {"method": METHOD, "network": NETWORK, "dataset": DATASET}
    values = {}
    for (section, table), place in zip(tables.items(), (0, 1, 3), strict=True):
        part = getattr(config, section)
        whose = name if section == "method" else type(part).__name__
        values[section] = {option: table[whose, option][place] for option in options_of(part)}
    several = {option: changes[-1][option] for option, (_, changes) in TRAINING.items()}
    values["training"] = several | {"optimizer": "adam", "halve_every": 0}
    return config, values


@pytest.mark.parametrize("name", REGISTRY)
def test_every_option_can_be_given_to_train(name):
    config, values = given(name)
    argv = [name, "--data", config.data, "--preset", config.preset]
    for section, own in values.items():
        argv += as_arguments(own, options_of(getattr(config, section)))
    found, _ = train_command.read(argv)
    for section, own in values.items():
        assert getattr(found, section) == replace(getattr(config, section), **own)


@arrives("check", "names", "seed", "no_kernels", "json")
def test_check(heard, capsys):
    calls = heard(cases, "run", [])
    for argv in ([], ["relu", "mse", "--seed", "5"], ["layer", "--no-kernels"]):
        assert said(capsys, "check", *argv) == {"passed": True, "results": []}
    assert [tuple(call["names"]) for call in calls] == [(), ("relu", "mse"), ("layer",)]
    assert [call["seed"] for call in calls] == [0, 5, 0]
    assert [call["kernels"] for call in calls] == [True, True, False]
    assert backend.kernels_enabled()


@arrives("conformance", "names", "data_dir", "episodes", "json")
def test_conformance(heard, capsys, tmp_path, monkeypatch):
    claims = conformance.claims()
    for name in datasets.NAMES:  # as any other command may have done in the process
        datasets.find(name)
    calls = heard(conformance, "row", conformance.Row(*claims[0]))
    assert len(said(capsys, "conformance", "--data-dir", tmp_path)["rows"]) == len(claims)
    assert [(call["system"], call["claim"]) for call in calls] == claims
    assert {(call["data"], call["n"]) for call in calls} == {(tmp_path, 600)}
    calls.clear()
    monkeypatch.setenv("SCRATCHMETA_DATA", str(tmp_path))
    said(capsys, "conformance", "maml", "ntm", "--episodes", 7)
    assert {(call["system"], call["n"]) for call in calls} == {("maml", 7), ("ntm", 7)}


@arrives("taylor", "k", "problem", "seed", "plot", "json")
def test_taylor(heard, monkeypatch, capsys):
    calls, drawings_ = heard(taylor, "problem"), heard(plots, "expansions")
    monkeypatch.setattr(taylor, "MEASURED", {})
    assert said(capsys, "taylor") == []
    assert [(call["k"], call["seed"], call["kind"]) for call in calls] == [
        (k, 0, "linear") for k in (2, 3, 4)
    ]
    assert said(capsys, "taylor", "--k", 5, 3, "--seed", 9, "--problem", "sinusoid") == []
    assert [(call["k"], call["seed"], call["kind"]) for call in calls[3:]] == [
        (k, 9, "sinusoid") for k in (5, 3)
    ]
    assert drawings_ == []
    said(capsys, "taylor", "--plot", "file.png")
    assert [str(call["path"]) for call in drawings_] == ["file.png"]


@arrives("compare", "data", "inner_lr", "inner_steps", "k_shot", "n_query", "tasks", "seed", "json")
def test_compare(heard, capsys):
    """Without a run: new parameters and episodes, both of the seed."""
    calls = heard(compare, "compare", [])
    config = presets.lookup("maml", "sinusoids")
    plain = {"k_shot": 10, "n_query": 10, "tasks": 8, "seed": 0}
    rows = [{}, {"inner_lr": 0.5}, {"inner_steps": 3}, *({name: 4} for name in plain)]
    for row in rows:
        argv = [x for name, value in row.items() for x in (f"--{name.replace('_', '-')}", value)]
        assert said(capsys, "compare", "--data", "sinusoids", *argv) == []
        call, asked = calls.pop(), {**plain, **row}
        assert call["inner_lr"] == row.get("inner_lr", config.method.inner_lr)
        assert call["inner_steps"] == row.get("inner_steps", config.method.inner_steps)
        shape = 1, asked["k_shot"], asked["n_query"], asked["tasks"]
        wanted = episodes.sample(data.Sinusoids(), *shape, seed=asked["seed"])
        assert all(map(np.array_equal, call["episodes"], wanted))
        params = experiment.network(config).init(np.random.default_rng(asked["seed"]))
        assert tree.ravel(call["params"])[0].tolist() == tree.ravel(params)[0].tolist()


@arrives("compare", "run")
def test_compare_a_run(heard, waves, capsys):
    calls = heard(compare, "compare", [])
    assert said(capsys, "compare", "--run", waves) == []
    saved = experiment.saved(waves)
    wanted = episodes.sample(data.Sinusoids(), 1, 3, 3, 8)
    assert all(map(np.array_equal, calls[0]["episodes"], wanted))
    found = tree.ravel(calls[0]["params"])[0]
    assert found.tolist() == tree.ravel(saved.params)[0].tolist()


@arrives("bench", "rounds", "json")
def test_bench(heard, monkeypatch, capsys):
    monkeypatch.setattr(presets, "OWN", ["ntm"])
    one = {("copy", "quick"): REGISTRY["ntm"].presets["copy", "quick"]}
    monkeypatch.setattr("scratchmeta.presets.ntm.PRESETS", one)
    seconds = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    calls = heard(training, "step", (0.0, None))
    found = said(capsys, "bench", "--rounds", "4")
    assert [row["name"] for row in found["steps"]] == ["ntm"]
    assert [call["kernels"] for call in calls] == 5 * [True] + 5 * [False]
    calls.clear()
    said(capsys, "bench")
    assert len(calls) == 2 * 6


@arrives("list", "json")
def test_list(capsys):
    assert [row["name"] for row in said(capsys, "list")] == list(REGISTRY)


@arrives(
    "sweep", "algorithms", "data", "out", "preset", "seeds", "vary", "jobs", "episodes", "n_way",
    "k_shot", "n_query", "test_seed", "data_dir", "json",
)  # fmt: skip
def test_sweep(heard, capsys):
    calls, drawings_ = (
        heard(sweeps, "sweep", tables.Sweep({}, [], [], {}, [])),
        heard(plots, "sweep"),
    )
    asked = ["sweep", "maml", "fomaml", "--data", "sinusoids", "--out", "root"]
    assert said(capsys, *asked)["rows"] == []
    usual = {
        "algorithms": ("maml", "fomaml"), "data": "sinusoids", "seeds": (0, 1, 2),
        "out": Path("root"), "preset": "quick", "vary": {}, "jobs": 1, "episodes": 600,
        "test_seed": 0, "n_way": None, "k_shot": None, "n_query": None, "data_dir": None,
        "progress": True,
    }  # fmt: skip
    call = calls.pop()
    assert {name: call[name] for name in usual} == usual
    assert [str(drawn_["path"]) for drawn_ in drawings_] == ["root/sweep.png"]
    others = {
        "preset": "paper", "jobs": 3, "episodes": 4, "n_way": 5, "k_shot": 6, "n_query": 7,
        "test_seed": 8, "data_dir": Path("there"),
    }  # fmt: skip
    argv = [x for name, value in others.items() for x in (f"--{name.replace('_', '-')}", value)]
    vary = ["--vary", "inner-lr", "0.1", "2", "--vary", "hidden", "3 4"]
    said(capsys, *asked, "--seeds", 5, 3, *vary, *argv)
    changed = {"seeds": (5, 3), "vary": {"inner_lr": [0.1, 2.0], "hidden": [(3, 4)]}}
    call = calls.pop()
    assert {name: call[name] for name in usual} == usual | others | changed


@arrives("train", "backend")
@arrives("sweep", "backend")
@arrives("evaluate", "backend")
@arrives("check", "backend")
@arrives("bench", "backend")
@arrives("compare", "backend")
def test_the_backend(waves, heard, monkeypatch, capsys):
    result, nothing = Evaluation("mse", 1.0, 0.1, 2, 1, 1), tables.Sweep({}, [], [], {}, [])
    heard(plots, "sweep")
    places = {
        (*WAVES, "--out", "new"): (training, "train", SimpleNamespace(step=1)),
        ("evaluate", "run"): (evaluation, "evaluate", result),
        ("sweep", "maml", "--data", "sinusoids", "--out", "s", "--json"): (
            sweeps,
            "sweep",
            nothing,
        ),
        ("check", "mse"): (cases, "run", []),
        ("compare", "--data", "sinusoids"): (compare, "compare", []),
        ("bench",): (training, "step", (0.0, None)),
    }
    monkeypatch.setattr(presets, "OWN", ["maml"])
    one = {("sinusoids", "quick"): REGISTRY["maml"].presets["sinusoids", "quick"]}
    monkeypatch.setattr("scratchmeta.presets.maml.PRESETS", one)
    with install():
        for argv, place in places.items():
            calls = heard(*place)
            for name in ("numpy", "cupy"):
                assert main([*argv, "--backend", name]) == 0
                assert {call["backend"] for call in calls} == {name}
                assert backend.current() == "numpy"
                calls.clear()
