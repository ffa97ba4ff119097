"""Networks as a configuration names them: their options, and what is built of them and the data.

`build(given)` makes the network; what surrounds it is in `given`: the images' `image_size` and
`image_channels`, the `n_inputs` of an example laid out flat, and `n_out`, the outputs that are
wanted, None for features. A class without `build` is the network itself, with init(rng) and
network(params, x), and has fields `Given` by these names. An algorithm that wants a network of its
own has its class beside it, or here.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from scratchmeta import nn
from scratchmeta.algorithms import relation, slow_fast
from scratchmeta.algorithms.siamese import koch_network
from scratchmeta.fields import Count, Sizes, at_least, check

Pooling = Literal["max", "stride"]


class Options:
    """Options that are checked as they are made."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Conv4(Options):
    """Four blocks of 3 x 3 convolution, batch-norm, ReLU and halving."""

    channels: Count = 64
    """Filters of each convolution."""
    pooling: Pooling = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2 (MAML's Omniglot network)."""

    def build(self, given: Any) -> nn.Sequential:
        """The network, with a linear layer if there is a number of outputs."""
        size, channels = given.image_size, given.image_channels
        return nn.Conv4(self.channels, channels, size, self.pooling, given.n_out)


@dataclass(frozen=True)
class MLP(Options):
    """Fully connected layers with ReLU between."""

    hidden: Sizes = (40, 40)
    """Units of each hidden layer."""
    normalize: bool = False
    """Batch-norm before each ReLU (MAML's network without convolutions)."""

    def build(self, given: Any) -> nn.Sequential:
        """The network; without a number of outputs its last hidden layer gives the features."""
        outputs = [] if given.n_out is None else [given.n_out]
        return nn.MLP([given.n_inputs, *self.hidden, *outputs], batch_norm=self.normalize)


@dataclass(frozen=True)
class Maps(Options):
    """Relation Networks' embedding: four blocks of which two halve, maps and not features."""

    channels: Count = 64
    """Filters of each convolution."""

    def build(self, given: Any) -> nn.Sequential:
        """The network."""
        return relation.embedding(self.channels, given.image_channels)


@dataclass(frozen=True)
class Koch(Options):
    """The Siamese paper's network: four convolutions and a layer of 4096 sigmoids, 105 x 105."""

    def build(self, given: Any) -> nn.Sequential:
        """The network."""
        return koch_network()


@dataclass(frozen=True)
class SlowFast(Options):
    """Convolutions with ReLU and halving, a layer of features, logits: no batch-norm, no biases."""

    channels: Count = 64
    """Filters of each convolution."""
    depth: Count = 5
    """Convolutions."""
    pooling: Pooling = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2."""
    features: Count = 64
    """Units of the layer before the logits."""
    n_fast: Annotated[int, at_least(2)] = 7
    """Layers, of the depth + 2 the last ones, that have fast weights beside the slow ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_fast > self.depth + 2:
            raise ValueError(f"n_fast: wanted at most {self.depth + 2}, got {self.n_fast}")

    def build(self, given: Any) -> slow_fast.SlowFast:
        """The network."""
        size, channels = given.image_size, given.image_channels
        options = asdict(self)
        return slow_fast.network(given.n_out, image_size=size, image_channels=channels, **options)


@dataclass(frozen=True)
class _WithAttributes(Options):
    features: Count = 64
    """Numbers in a prototype, and in the features of a query."""
    attribute_hidden: Sizes = ()
    """Units of each hidden layer between attributes and prototype."""

    def attribute_network(self, given: Any) -> nn.Sequential:
        """From the attributes of a class to its prototype."""
        return nn.MLP([given.n_attributes, *self.attribute_hidden, self.features])


@dataclass(frozen=True)
class Conv4WithAttributes(_WithAttributes):
    """Zero-shot learning's two networks: Conv4 and a linear layer, and an MLP for attributes."""

    channels: Count = 64
    """Filters of each convolution."""
    pooling: Pooling = "max"
    """Halve by 2 x 2 max-pooling, or by convolutions of stride 2."""

    def build(self, given: Any) -> dict[str, Any]:
        """Both networks, by the names that the algorithm has for them."""
        size, channels = given.image_size, given.image_channels
        network = nn.Conv4(self.channels, channels, size, self.pooling, self.features)
        return {"network": network, "attribute_network": self.attribute_network(given)}


@dataclass(frozen=True)
class MLPWithAttributes(_WithAttributes):
    """Zero-shot learning's two networks for features that another network made."""

    hidden: Sizes = ()
    """Units of each hidden layer."""

    def build(self, given: Any) -> dict[str, Any]:
        """Both networks, by the names that the algorithm has for them."""
        network = nn.MLP([given.n_inputs, *self.hidden, self.features])
        return {"network": network, "attribute_network": self.attribute_network(given)}


@dataclass(frozen=True)
class NoNetwork(Options):
    """The algorithm brings its own."""

    def build(self, given: Any) -> dict[str, Any]:
        """Nothing."""
        return {}
