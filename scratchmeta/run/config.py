"""The configuration of a run: a `Config` is everything that decides a run's numbers.

config.json records it and the command line's options are its fields. Options are stated where they
belong: by the algorithm, the network and the data set themselves (see scratchmeta.fields), those of
the loop here. scratchmeta.presets fills them in.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

from scratchmeta.fields import Count, Natural, NonNegative, Positive, at_least, check
from scratchmeta.run.outside import source


@dataclass(frozen=True)
class Training:
    """The episodes and the loop over them."""

    n_way: Count = 5
    """Classes in a training episode."""
    k_shot: Count = 1
    """Labelled examples of each class, in training and in test episodes."""
    n_query: Count = 15
    """Examples of each class to predict."""
    tasks: Count = 1
    """Episodes in one step (the meta-batch)."""
    steps: Count = 1000
    """Optimizer steps."""
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    """Adam, plain gradient descent (Reptile), or RMSProp as Graves has it (NTM)."""
    lr: Positive = 1e-3
    """The optimizer's learning rate."""
    weight_decay: NonNegative = 0.0
    """λ of Adam: adds λ times the parameters to the gradient, after clipping."""
    halve_every: Natural = 0
    """Steps after which the learning rate is halved, again and again; 0 never halves it."""
    linear_decay: bool = False
    """Let the learning rate fall linearly, to 0 after the last step."""
    clip_norm: NonNegative = 0.0
    """Largest norm of the whole gradient, beyond which it is scaled down; 0 never clips."""
    clip_value: NonNegative = 0.0
    """Largest absolute value of each number in the gradient, to which it is cut; 0 never cuts."""
    test_way: Natural = 0
    """Classes in a validation or test episode; 0 means as many as in training."""
    test_query: Count = 15
    """Examples of each class to predict in a validation or test episode."""
    validate_every: Count = 100
    """Steps between two validations, each of which also saves a checkpoint."""
    validation_episodes: Annotated[int, at_least(2)] = 100
    """Episodes in one validation, always the same ones."""
    patience: Natural = 0
    """Validations without improvement after which training stops; 0 never stops early."""
    seed: Natural = 0
    """Decides the initial parameters and every episode."""

    def __post_init__(self) -> None:
        check(self)
        if self.halve_every and self.linear_decay:
            raise ValueError("linear_decay: wanted without halve_every, got both")
        if self.weight_decay and self.optimizer != "adam":
            raise ValueError(f"weight_decay: wanted with adam, got {self.optimizer}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_way, k_shot, n_query) of a training episode."""
        return self.n_way, self.k_shot, self.n_query

    @property
    def test_shape(self) -> tuple[int, int, int]:
        """(n_way, k_shot, n_query) of a validation or test episode."""
        return self.test_way or self.n_way, self.k_shot, self.test_query


class Preset(NamedTuple):
    """The sections of a configuration, of which presets are made."""

    method: Any
    dataset: Any
    network: Any
    training: Training

    def trained(self, **changes: Any) -> "Preset":
        """The same with other options of the loop."""
        return self._replace(training=replace(self.training, **changes))


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers."""

    algorithm: str
    """Name of the algorithm; `scratchmeta list` lists them."""
    data: str
    """Name of the data set."""
    preset: str
    """quick, paper or author-code: where the other options come from."""
    dataset: Any
    network: Any
    method: Any
    training: Training

    def as_dict(self) -> dict:
        """The configuration for config.json; `presets.from_dict` reads it back."""
        names = {name: getattr(self, name) for name in ("algorithm", "data", "preset")}
        loaded = {"algorithm": source(self.method.of), "network": source(_of(self.network))}
        return {
            "layout": LAYOUT,
            **names,
            **{name: _recorded(getattr(self, name)) for name in SECTIONS},
            **({"loaded": {k: v for k, v in loaded.items() if v}} if any(loaded.values()) else {}),
        }


LAYOUT = 2  # of config.json; 1 had the options of networks and algorithms mixed
SECTIONS = ("dataset", "network", "method", "training")


def _of(section: Any) -> type:
    return getattr(section, "of", type(section))


def _recorded(section: Any) -> dict:
    return {"type": type(section).__name__, **asdict(section)}
