"""The typed configuration of a run: a `Config` is everything that decides a run's numbers.

config.json records it and the command line's options are its fields. Each algorithm has its own
section of options, a dataclass here; scratchmeta.run.presets fills them in.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints


def _at_least(section: Any, lowest: float, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not lowest <= value < float("inf"):
            raise ValueError(f"{name}: wanted at least {lowest}, got {value}")


def check_types(section: type, values: dict) -> None:
    """Raises ValueError if a value has not the type of the section's field of its name."""
    hints = get_type_hints(section)
    for name in values.keys() & {field.name for field in fields(section)}:
        if not _is(values[name], hints[name]):
            wanted = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name])
            wanted = wanted.removeprefix("typing.")
            raise ValueError(f"{name}: wanted {wanted}, got {values[name]!r}")


def _is(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        inner = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(inner) and all(map(_is, value, inner))
    if inner:
        return any(_is(value, one) for one in inner)
    return type(value) is hint or (hint is float and type(value) is int)


def _positive(section: Any, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: wanted a positive number, got {value}")


def _lengths(section: Any, lowest: int) -> None:
    low, high = section.lengths
    if not lowest <= low <= high:
        raise ValueError(f"lengths: wanted {lowest} or more, then no less, got {low} {high}")


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
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    """Adam, plain gradient descent (Reptile), or RMSProp as Graves has it (NTM)."""
    lr: float = 1e-3
    """The optimizer's learning rate."""
    weight_decay: float = 0.0
    """λ of Adam: adds λ times the parameters to the gradient, after clipping."""
    halve_every: int = 0
    """Steps after which the learning rate is halved, again and again; 0 never halves it."""
    linear_decay: bool = False
    """Let the learning rate fall linearly, to 0 after the last step."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient, beyond which it is scaled down; 0 never clips."""
    clip_value: float = 0.0
    """Largest absolute value of each number in the gradient, to which it is cut; 0 never cuts."""
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
        _at_least(self, 1, "validate_every")
        _at_least(self, 2, "validation_episodes")  # one has no interval
        _at_least(
            self,
            0,
            "halve_every",
            "clip_norm",
            "clip_value",
            "weight_decay",
            "test_way",
            "patience",
            "seed",
        )
        _positive(self, "lr")
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
    normalize: bool = False
    """Batch-norm before each ReLU (MAML's network without convolutions)."""

    def __post_init__(self) -> None:
        if not all(units >= 1 for units in self.hidden):
            raise ValueError(f"hidden: wanted at least 1 unit in every layer, got {self.hidden}")


@dataclass(frozen=True)
class Koch:
    """The Siamese paper's network: four convolutions and a layer of 4096 sigmoids, 105 x 105."""


@dataclass(frozen=True)
class SlowFast:
    """Convolutions with ReLU and halving, a layer of features, logits: no batch-norm, no biases."""

    channels: int = 64
    """Filters of each convolution."""
    depth: int = 5
    """Convolutions."""
    pooling: Literal["max", "stride"] = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2."""
    features: int = 64
    """Units of the layer before the logits."""
    n_fast: int = 7
    """Layers, of the depth + 2 the last ones, that have fast weights beside the slow ones."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "channels", "depth", "features")
        _at_least(self, 2, "n_fast")
        if self.n_fast > self.depth + 2:
            raise ValueError(f"n_fast: wanted at most {self.depth + 2}, got {self.n_fast}")


@dataclass(frozen=True)
class BaselineNN:
    """A classifier of all training classes; the nearest neighbour by its features."""

    classes: int = 615
    """Training classes: the dataset's, turned ones included."""
    batch_norm: Literal["transductive", "support", "running"] = "running"
    """Batch-norm by the statistics of the episode, of its support, or of training batches."""

    def __post_init__(self) -> None:
        _at_least(self, 2, "classes")


@dataclass(frozen=True)
class BaselineFinetune:
    """A classifier of all training classes; fine-tuned on the support with a new last layer."""

    classes: int = 615
    """Training classes: the dataset's, turned ones included."""
    finetune_steps: int = 20
    """Steps on the support."""
    finetune_lr: float = 0.01
    """Their learning rate."""
    only_head: bool = False
    """Train the new layer only, and leave the features as they are."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""

    def __post_init__(self) -> None:
        _at_least(self, 2, "classes")
        _at_least(self, 0, "finetune_steps")
        _positive(self, "finetune_lr")


@dataclass(frozen=True)
class Siamese:
    """Siamese networks."""

    pairs: Literal["episode", "drawn"] = "episode"
    """Train on all pairs of an episode, or on drawn ones, a pair in each task with 1 way (Koch)."""
    batch_norm: Literal["transductive", "support", "running"] = "transductive"
    """Batch-norm by the statistics of the episode, of its support, or of training episodes."""


@dataclass(frozen=True)
class Matching:
    """Matching Networks."""

    temperature: float = 1.0
    """Divides the cosines; the paper has none, which is 1."""
    batch_norm: Literal["transductive", "support", "running"] = "transductive"
    """Batch-norm by the statistics of the episode, of its support, or of training episodes."""

    def __post_init__(self) -> None:
        _positive(self, "temperature")


@dataclass(frozen=True)
class FullContext(Matching):
    """Matching Networks with full context embeddings."""

    processing_steps: int = 3
    """Steps of the attention LSTM that embeds a query."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, 1, "processing_steps")


@dataclass(frozen=True)
class Relation:
    """Relation Networks."""

    hidden: int = 8
    """Units between the two linear layers of the relation module."""
    padding: Literal["same", "valid"] = "same"
    """Whether the relation module's convolutions pad (Omniglot) or not (mini-ImageNet)."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "hidden")


@dataclass(frozen=True)
class Prototypical:
    """Prototypical Networks."""

    distance: Literal["sqeuclidean", "cosine", "cityblock"] = "sqeuclidean"
    """Distance of a query's features to the prototypes."""
    batch_norm: Literal["transductive", "support", "running"] = "transductive"
    """Batch-norm by the statistics of the episode, of its support, or of training episodes."""


@dataclass(frozen=True)
class ZeroShot:
    """Prototypical Networks whose classes are described by attributes."""

    features: int = 64
    """Numbers in a prototype, and in the features of a query."""
    attribute_hidden: tuple[int, ...] = ()
    """Units of each hidden layer between attributes and prototype."""
    batch_norm: Literal["transductive", "running"] = "transductive"
    """Batch-norm by the statistics of the queries, or of training episodes."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "features")
        if not all(units >= 1 for units in self.attribute_hidden):
            raise ValueError(
                f"attribute_hidden: wanted at least 1 unit a layer, got {self.attribute_hidden}"
            )


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
    inner_batches: Literal["same", "fresh"] = "same"
    """The whole support in each inner step, or other shots of it in each."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Batch-norm of the queries by their own statistics, or by those of the support."""

    def __post_init__(self) -> None:
        _positive(self, "inner_lr")
        _at_least(self, 1, "inner_steps")
        _at_least(self, 0, "eval_inner_steps")


@dataclass(frozen=True)
class Reptile:
    """Reptile."""

    inner_lr: float = 1e-3
    """Learning rate of Adam (β₁ = 0) within a task."""
    inner_steps: int = 5
    """Inner steps in training."""
    inner_batch: int = 10
    """Examples in an inner step, in training."""
    eval_inner_steps: int = 50
    """Inner steps in validation and test."""
    eval_batch: int = 5
    """Examples in an inner step, in validation and test."""
    one_by_one: bool = False
    """Normalise every query with the support alone, not with the other queries."""
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    """Adam as in the paper, or plain gradient descent."""

    def __post_init__(self) -> None:
        _positive(self, "inner_lr")
        _at_least(self, 1, "inner_steps", "inner_batch", "eval_batch")
        _at_least(self, 0, "eval_inner_steps")


@dataclass(frozen=True)
class MetaLSTM:
    """The LSTM meta-learner."""

    inner_steps: int = 12
    """Updates of the learner in training."""
    eval_inner_steps: int = 12
    """Updates of the learner in validation and test."""
    hidden: int = 20
    """Units of the first LSTM."""
    p: float = 10.0
    """Gradients and losses below e^−p are small to the preprocessing."""
    forget_bias: tuple[float, float] = (4.0, 5.0)
    """Range that the forget gate's bias is drawn from."""
    input_bias: tuple[float, float] = (-5.0, -4.0)
    """Range that the input gate's bias is drawn from: its sigmoid is the first learning rate."""
    first_order: bool = True
    """Take the learner's gradients and losses for constants, as the paper does."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """In training, batch-norm of the queries by their own statistics, or by the support's."""
    test_batch_norm: Literal["transductive", "support"] = "support"
    """The same in validation and test."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "inner_steps", "hidden")
        _at_least(self, 0, "eval_inner_steps")
        _positive(self, "p")
        for name in ("forget_bias", "input_bias"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name}: wanted the lower end first, got {low} {high}")


@dataclass(frozen=True)
class LSTMBaseline:
    """An LSTM that reads images, each with the label of the one before."""

    controller: int = 200
    """Units of the LSTM."""
    labels: Literal["one-hot", "strings"] = "one-hot"
    """One of n_way labels, or five letters drawn anew for each class of an episode."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "controller")


@dataclass(frozen=True)
class MANN(LSTMBaseline):
    """Memory-augmented neural network: the LSTM with an external memory."""

    rows: int = 128
    """Rows of the memory."""
    width: int = 40
    """Numbers in a row."""
    heads: int = 4
    """Read heads."""
    gamma: float = 0.99
    """What is left of a row's usage after a step."""
    temperature: float = 1.0
    """Divides the cosines of keys and rows; the paper has none, which is 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(self, 1, "rows", "width", "heads")
        _positive(self, "gamma", "temperature")


@dataclass(frozen=True)
class MetaNet:
    """Meta Networks."""

    hidden: int = 20
    """Units of the networks that make fast weights."""
    first_order: bool = False
    """Take the gradients that become fast weights for constants."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "hidden")


@dataclass(frozen=True)
class NTM:
    """Neural Turing Machine."""

    controller: Literal["lstm", "feed-forward"] = "lstm"
    """A controller with a state of its own, or without."""
    units: int = 100
    """Units of the controller."""
    heads: int = 1
    """Read heads, and as many write heads."""
    rows: int = 128
    """Rows of the memory."""
    width: int = 20
    """Numbers in a row."""
    memory: Literal["constant", "learned"] = "constant"
    """A new memory holds 10⁻⁶ everywhere, or learned numbers."""
    summed: bool = False
    """The loss is a sum over the bits of a sequence, not their mean."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "units", "heads", "rows", "width")


@dataclass(frozen=True)
class NoNetwork:
    """The algorithm brings its own."""


@dataclass(frozen=True)
class Glyphs:
    """Procedural alphabets, embedded in the library."""

    image_channels: ClassVar[int] = 1
    image_size: int = 28
    """Side of the images in pixels."""

    def __post_init__(self) -> None:
        _at_least(self, 16, "image_size")


@dataclass(frozen=True)
class Omniglot:
    """Lake's handwritten characters."""

    image_channels: ClassVar[int] = 1
    image_size: int = 28
    """Side of the images in pixels."""
    split: Literal["lake", "vinyals"] = "lake"
    """Lake's background and evaluation alphabets, or the characters of Vinyals et al."""
    rotations: Literal["none", "classes", "class-episode", "episode"] = "none"
    """Quarter turns: none, as classes, drawn for each class of an episode, or once for all."""
    jitter: bool = False
    """Turn and shift every training image a little (MANN)."""
    affine: bool = False
    """Turn, shear, scale and shift every training image a little (Koch)."""

    def __post_init__(self) -> None:
        _at_least(self, 16, "image_size")


@dataclass(frozen=True)
class MiniImageNet:
    """Colour photographs in the split of Ravi & Larochelle."""

    image_channels: ClassVar[int] = 3
    image_size: int = 84
    """Side of the images in pixels."""

    def __post_init__(self) -> None:
        _at_least(self, 16, "image_size")


@dataclass(frozen=True)
class CUB:
    """Birds: 312 attributes of each class, 1024 features of each image."""


@dataclass(frozen=True)
class Sinusoids:
    """MAML's regression tasks: y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]."""


@dataclass(frozen=True)
class Copy:
    """Sequences of random bits to be copied."""

    bits: int = 8
    """Bits of a vector."""
    lengths: tuple[int, int] = (1, 20)
    """Vectors in the shortest and in the longest sequence."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "bits")
        _lengths(self, 1)


@dataclass(frozen=True)
class Recall:
    """Associative recall: which item came after this one?"""

    bits: int = 6
    """Bits of a vector."""
    vectors: int = 3
    """Vectors of an item."""
    lengths: tuple[int, int] = (2, 6)
    """The fewest and the most items."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "bits", "vectors")
        _lengths(self, 2)


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers."""

    algorithm: str
    """Name of the algorithm; `scratchmeta list` lists them."""
    data: str
    """glyphs, omniglot, mini-imagenet, cub, sinusoids, copy or recall."""
    preset: str
    """quick, paper or author-code: where the other options come from."""
    dataset: Glyphs | Omniglot | MiniImageNet | CUB | Sinusoids | Copy | Recall
    network: Conv4 | MLP | Koch | SlowFast | NoNetwork
    method: (
        BaselineNN
        | BaselineFinetune
        | Siamese
        | Matching
        | FullContext
        | Relation
        | Prototypical
        | ZeroShot
        | MAML
        | Reptile
        | MetaLSTM
        | LSTMBaseline
        | MANN
        | MetaNet
        | NTM
    )
    training: Training

    def as_dict(self) -> dict:
        """The configuration for config.json; `presets.from_dict` reads it back."""
        sections = {
            field.name: {"type": type(getattr(self, field.name)).__name__}
            | asdict(getattr(self, field.name))
            for field in fields(self)
            if field.name in SECTIONS
        }
        names = {name: getattr(self, name) for name in ("algorithm", "data", "preset")}
        return {**names, **sections}


# {section: {name of a type it may have: the type}}
SECTIONS = {
    name: {kind.__name__: kind for kind in get_args(hint) or (hint,)}
    for name, hint in get_type_hints(Config).items()
    if hint is not str
}
