"""The typed configuration of a run, and the presets that fill it in.

A `Config` is everything that decides a run's numbers; config.json records it and the command
line's options are its fields. Presets are complete configurations, one for each (algorithm, data,
preset): `quick` learns in minutes on two cores, `paper` is what the paper reports, `author-code`
what its authors' code does where the two differ. Sources: the papers named in each algorithm's
module.
"""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

# --- the parts of a configuration ---------------------------------------------------------------


def _at_least(section: Any, lowest: float, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not value >= lowest:
            raise ValueError(f"{name}: wanted at least {lowest}, got {value}")


def _positive(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: wanted a positive number, got {value}")


@dataclass(frozen=True)
class Training:
    """The episodes and the loop over them."""

    n_way: int = 5
    """Classes in a training episode."""
    k_shot: int = 1
    """Labelled examples of each class, in training and in test episodes."""
    n_query: int = 15
    """Examples of each class to predict."""
    tasks: int = 1
    """Episodes in one step (the meta-batch)."""
    steps: int = 1000
    """Optimizer steps."""
    lr: float = 1e-3
    """Adam's learning rate."""
    halve_every: int = 0
    """Steps after which the learning rate is halved, again and again; 0 never halves it."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient, beyond which it is scaled down; 0 never clips."""
    test_way: int = 0
    """Classes in a validation or test episode; 0 means as many as in training."""
    test_query: int = 15
    """Examples of each class to predict in a validation or test episode."""
    validate_every: int = 100
    """Steps between two validations, each of which also saves a checkpoint."""
    validation_episodes: int = 100
    """Episodes in one validation, always the same ones."""
    patience: int = 0
    """Validations without improvement after which training stops; 0 never stops early."""
    seed: int = 0
    """Decides the initial parameters and every episode."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "n_way", "k_shot", "n_query", "tasks", "steps", "test_query")
        _at_least(self, 1, "validate_every", "validation_episodes")
        _at_least(self, 0, "halve_every", "clip_norm", "test_way", "patience", "seed")
        _positive(self, "lr")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_way, k_shot, n_query) of a training episode."""
        return self.n_way, self.k_shot, self.n_query

    @property
    def test_shape(self) -> tuple[int, int, int]:
        """(n_way, k_shot, n_query) of a validation or test episode."""
        return self.test_way or self.n_way, self.k_shot, self.test_query


@dataclass(frozen=True)
class Conv4:
    """Four blocks of 3 x 3 convolution, batch-norm, ReLU and halving."""

    channels: int = 64
    """Filters of each convolution."""
    pooling: Literal["max", "stride"] = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2 (MAML's Omniglot network)."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "channels")


@dataclass(frozen=True)
class MLP:
    """Fully connected layers with ReLU between."""

    hidden: tuple[int, ...] = (40, 40)
    """Units of each hidden layer."""

    def __post_init__(self) -> None:
        if not all(units >= 1 for units in self.hidden):
            raise ValueError(f"hidden: wanted at least 1 unit in every layer, got {self.hidden}")


@dataclass(frozen=True)
class Prototypical:
    """Prototypical Networks."""

    distance: Literal["sqeuclidean", "cosine", "cityblock"] = "sqeuclidean"
    """Distance of a query's features to the prototypes."""
    batch_norm: Literal["transductive", "support", "running"] = "transductive"
    """Batch-norm by the statistics of the episode, of its support, or of training episodes."""


@dataclass(frozen=True)
class MAML:
    """MAML; with first_order, FOMAML."""

    inner_lr: float = 0.4
    """α, the inner loop's learning rate."""
    inner_steps: int = 1
    """Inner gradient steps in training."""
    eval_inner_steps: int = 3
    """Inner gradient steps in validation and test."""
    first_order: bool = False
    """Take the inner gradients for constants."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""

    def __post_init__(self) -> None:
        _positive(self, "inner_lr")
        _at_least(self, 1, "inner_steps")
        _at_least(self, 0, "eval_inner_steps")


@dataclass(frozen=True)
class Glyphs:
    """Procedural alphabets, embedded in the library."""

    image_size: int = 28
    """Side of the images in pixels."""

    def __post_init__(self) -> None:
        _at_least(self, 16, "image_size")


@dataclass(frozen=True)
class Omniglot:
    """Lake's handwritten characters."""

    image_size: int = 28
    """Side of the images in pixels."""
    split: Literal["lake", "vinyals"] = "lake"
    """Lake's background and evaluation alphabets, or the characters of Vinyals et al."""
    rotations: Literal["none", "classes", "class-episode", "episode"] = "none"
    """Quarter turns: none, as classes, drawn for each class of an episode, or once for all."""

    def __post_init__(self) -> None:
        _at_least(self, 16, "image_size")


@dataclass(frozen=True)
class Sinusoids:
    """MAML's regression tasks: y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers."""

    algorithm: str
    """Name of the algorithm; `scratchmeta list` lists them."""
    data: str
    """glyphs, omniglot or sinusoids."""
    preset: str
    """quick, paper or author-code: where the other options come from."""
    dataset: Glyphs | Omniglot | Sinusoids
    network: Conv4 | MLP
    method: Prototypical | MAML
    training: Training

    def as_dict(self) -> dict:
        """The configuration for config.json; `from_dict` reads it back."""
        sections = {
            field.name: {"type": type(getattr(self, field.name)).__name__}
            | asdict(getattr(self, field.name))
            for field in fields(self)
            if field.name in _SECTIONS
        }
        names = {name: getattr(self, name) for name in ("algorithm", "data", "preset")}
        return {**names, **sections}


_SECTIONS = {
    "dataset": {"Glyphs": Glyphs, "Omniglot": Omniglot, "Sinusoids": Sinusoids},
    "network": {"Conv4": Conv4, "MLP": MLP},
    "method": {"Prototypical": Prototypical, "MAML": MAML},
    "training": {"Training": Training},
}


def from_dict(recorded: dict) -> Config:
    """The configuration `Config.as_dict` recorded; raises ValueError naming what cannot be read."""
    choose("algorithm", recorded["algorithm"], PRESETS)
    sections: dict[str, Any] = {}
    for name, types in _SECTIONS.items():
        try:
            values = dict(recorded[name])
            made = types[values.pop("type")]
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            sections[name] = made(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"configuration: cannot read {name!r} ({error})") from error
    for name in ("data", "preset"):
        if name not in recorded:
            raise ValueError(f"configuration: cannot read {name!r}")
    return Config(recorded["algorithm"], recorded["data"], recorded["preset"], **sections)


# --- the presets --------------------------------------------------------------------------------


def _of(method, dataset, network, training):
    return {"method": method, "dataset": dataset, "network": network, "training": training}


_SINUSOID_PAPER = Training(
    n_way=1, k_shot=10, n_query=10, tasks=25, steps=70_000, test_query=10,
    validate_every=5000, validation_episodes=600,
)  # fmt: skip

_MAML = {
    ("glyphs", "quick"): _of(
        MAML(inner_lr=0.4, inner_steps=1, eval_inner_steps=3),
        Glyphs(),
        Conv4(channels=32, pooling="stride"),
        Training(n_query=5, tasks=8, steps=400, validate_every=50, validation_episodes=50),
    ),
    ("omniglot", "quick"): _of(
        MAML(inner_lr=2.0, inner_steps=1, eval_inner_steps=3),  # the authors' effective rate
        Omniglot(rotations="class-episode"),
        Conv4(pooling="stride"),
        Training(n_query=5, tasks=8, lr=2e-3, steps=4000, halve_every=1500, validate_every=400),
    ),
    ("omniglot", "paper"): _of(
        MAML(inner_lr=0.4, inner_steps=1, eval_inner_steps=3),
        Omniglot(split="vinyals", rotations="class-episode"),
        Conv4(pooling="stride"),
        Training(n_query=1, tasks=32, steps=60_000, validate_every=500, validation_episodes=600),
    ),
    ("sinusoids", "quick"): _of(
        MAML(inner_lr=0.01, inner_steps=1, eval_inner_steps=10),
        Sinusoids(),
        MLP((40, 40)),
        replace(_SINUSOID_PAPER, steps=10_000, validate_every=500, validation_episodes=200),
    ),
    ("sinusoids", "paper"): _of(
        MAML(inner_lr=0.01, inner_steps=1, eval_inner_steps=10),
        Sinusoids(),
        MLP((40, 40)),
        _SINUSOID_PAPER,
    ),
}
# The authors' code sums the loss of a 5-way task over its classes, so its rate of 0.4 acts like 5
# · 0.4 on the mean loss; for the sinusoid its default is 0.001 where the paper says 0.01.
_MAML["omniglot", "author-code"] = _MAML["omniglot", "paper"] | {
    "method": MAML(inner_lr=2.0, inner_steps=1, eval_inner_steps=3)
}
_MAML["sinusoids", "author-code"] = _MAML["sinusoids", "paper"] | {
    "method": MAML(inner_lr=0.001, inner_steps=1, eval_inner_steps=10)
}

_PROTOTYPICAL = {
    ("glyphs", "quick"): _of(
        Prototypical(),
        Glyphs(),
        Conv4(),
        Training(
            n_way=20, n_query=5, test_way=5, steps=300, validate_every=50, validation_episodes=50
        ),
    ),
    ("omniglot", "quick"): _of(
        Prototypical(batch_norm="running"),
        Omniglot(rotations="classes"),
        Conv4(),
        Training(n_way=20, n_query=5, test_way=5, steps=5000, halve_every=2000, validate_every=500),
    ),
    ("omniglot", "paper"): _of(
        Prototypical(batch_norm="running"),
        Omniglot(split="vinyals", rotations="classes"),
        Conv4(),
        Training(
            n_way=60,
            n_query=5,
            test_way=5,
            steps=100_000,
            halve_every=2000,
            patience=200,
            validate_every=100,
        ),
    ),
}

PRESETS: dict[str, dict[tuple[str, str], dict]] = {
    "prototypical": _PROTOTYPICAL,
    "maml": _MAML,
    "fomaml": {
        key: preset | {"method": replace(preset["method"], first_order=True)}
        for key, preset in _MAML.items()
    },
}


def choose(what: str, name: str, among: Iterable[str]) -> str:
    """`name` if it is one of `among`; else raises ValueError with the names that come close."""
    among = list(among)
    if name in among:
        return name
    close = difflib.get_close_matches(name, among)
    hint = f"did you mean {' or '.join(close)}?" if close else f"wanted one of {', '.join(among)}"
    raise ValueError(f"unknown {what} {name!r}: {hint}")


def lookup(algorithm: str, data: str | None = None, preset: str = "quick") -> Config:
    """The configuration of a preset; `data` None is the first that has a preset of this name.

    Raises ValueError for unknown names and for combinations without a preset.
    """
    table = PRESETS[choose("algorithm", algorithm, PRESETS)]
    if data is None:
        choose(f"preset of {algorithm}", preset, dict.fromkeys(p for _, p in table))
        data = next(d for d, p in table if p == preset)
    choose(f"data for {algorithm}", data, dict.fromkeys(d for d, _ in table))
    choose(f"preset of {algorithm} on {data}", preset, [p for d, p in table if d == data])
    return Config(algorithm, data, preset, **table[data, preset])
