"""Networks as a configuration names them: their options, and what is built of them and the data.

`build(given)` makes the network; what surrounds it is in `given`: the images' `image_size` and
`image_channels`, the `n_inputs` of an example laid out flat, and `n_out`, the outputs that are
wanted, None for features. A class without `build` is the network itself, with init(rng) and
network(params, x), and has fields `Given` by these names. Here are those that many algorithms take;
one that is an algorithm's own stands in the file of its presets, and its name is found there.
"""

from dataclasses import dataclass
from typing import Any, Literal

from scratchmeta import nn
from scratchmeta.fields import Count, Positive, Sizes, check
from scratchmeta.run import structure

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
    batch_norm_eps: Positive = 1e-5
    """ε of batch-norm, added to the variance; TensorFlow's default is 1e-3."""

    def build(self, given: Any) -> nn.Sequential:
        """The network, with a linear layer if there is a number of outputs."""
        size, channels = given.image_size, given.image_channels
        return nn.Conv4(
            self.channels, channels, size, self.pooling, given.n_out, self.batch_norm_eps
        )


@dataclass(frozen=True)
class MLP(Options):
    """Fully connected layers with ReLU between."""

    hidden: Sizes = (40, 40)
    """Units of each hidden layer."""
    normalize: bool = False
    """Batch-norm before each ReLU (MAML's network without convolutions)."""
    batch_norm_eps: Positive = 1e-5
    """ε of batch-norm, added to the variance; TensorFlow's default is 1e-3."""

    def build(self, given: Any) -> nn.Sequential:
        """The network; without a number of outputs its last hidden layer gives the features."""
        outputs = [] if given.n_out is None else [given.n_out]
        sizes = [given.n_inputs, *self.hidden, *outputs]
        return nn.MLP(sizes, batch_norm=self.normalize, eps=self.batch_norm_eps)


@dataclass(frozen=True)
class Layers(Options):
    """Networks that a script made, by their structure."""

    structure: str = "{}"
    """The networks by the names that the algorithm has for them (scratchmeta.run.structure)."""

    def build(self, given: Any) -> dict[str, Any]:
        """The networks."""
        return structure.read(self.structure)


@dataclass(frozen=True)
class NoNetwork(Options):
    """The algorithm brings its own."""

    def build(self, given: Any) -> dict[str, Any]:
        """Nothing."""
        return {}
