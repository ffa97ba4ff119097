"""Networks whose layers take fast weights beside slow ones: what Meta Networks are made of
(Munkhdalai & Yu 2017, "layer augmentation"; the post's figure 8).

    h = ReLU(W h') + ReLU(W⁺ h')         SlowFast.hidden
    p = softmax(W h + W⁺ h)              SlowFast.logits

W are slow weights, which training learns; W⁺, of the same shape, are made anew for a task or an
example. Each path has an activation of its own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scratchmeta import nn, ops

Tree = Any


class SlowFast:
    """A network whose last `n_fast` layers, at least two, can take fast weights beside slow ones.

    `layers` are (name, layer, after): a Linear or Conv2d, and what its activations go through next,
    such as pooling. The last two are linear: they give the embedding, and the logits.
    """

    def __init__(
        self,
        layers: Sequence[tuple[str, Any, Callable]],
        n_fast: int,
        activation: Callable = ops.relu,
    ) -> None:
        if not 2 <= n_fast <= len(layers):
            raise ValueError(f"SlowFast: wanted n_fast from 2 to {len(layers)}, got {n_fast}")
        self.layers, self.n_fast, self.activation = list(layers), n_fast, activation

    def init(self, rng: np.random.Generator) -> Tree:
        """New slow weights {name: those of the layer}."""
        return {name: layer.init(rng) for name, layer, _ in self.layers}

    def augmented(self, weights: Tree, logits: bool) -> Tree:
        """The weights of the layers that take fast ones, with or without that of the logits."""
        names = [name for name, *_ in self.layers[-self.n_fast :]]
        return {name: weights[name] for name in (names if logits else names[:-1])}

    def _activations(self, layers, paths, x):
        for name, layer, after in layers:
            x = after(_total(self.activation(layer(weights[name], x)) for weights in paths))
        return x

    def _linear(self, i, paths, x):
        name, layer, _ = self.layers[i]
        return _total(layer(weights[name], x) for weights in paths)

    def lower(self, slow: Tree, x: Any) -> Any:
        """What the layers without fast weights make of images (..., N, H, W, C)."""
        return self._activations(self.layers[: -self.n_fast], [slow], x)

    def hidden(self, paths: Sequence[Tree], x: Any) -> Any:
        """What the layers from there to the logits make of x: (..., N, D); paths are [slow, fast].

        h = after(ReLU(W h') + ReLU(W⁺ h')); with the path [slow] alone, the first term.
        """
        return self._activations(self.layers[-self.n_fast : -1], paths, x)

    def embed(self, paths: Sequence[Tree], x: Any) -> Any:
        """As `hidden`, but of the last layer W h' + W⁺ h': (..., N, D)."""
        return self._linear(-2, paths, self._activations(self.layers[-self.n_fast : -2], paths, x))

    def logits(self, paths: Sequence[Tree], x: Any) -> Any:
        """W h + W⁺ h of h = `hidden`: (..., N, classes)."""
        return self._linear(-1, paths, self.hidden(paths, x))


def _total(terms):
    return functools.reduce(ops.add, terms)


def network(
    n_out: int,
    channels: int = 64,
    features: int = 64,
    image_size: int = 28,
    depth: int = 5,
    pooling: str = "max",
    n_fast: int = 7,
    activation: Callable = ops.relu,
    image_channels: int = 1,
) -> SlowFast:
    """`depth` convolutions of 3 x 3, each of which halves the image, features, and logits.

    With `pooling` "max" by 2 x 2 max-pooling that keeps what is left over at the border
    (28 -> 14 -> 7 -> 4 -> 2 -> 1), with "stride" by convolutions of stride 2. There are depth + 2
    layers. Raises ValueError for another number of layers with fast weights.
    """
    after, stride = (_pool, 1) if pooling == "max" else (_same, 2)
    layers: list[tuple[str, Any, Callable]] = []
    for i in range(depth):
        conv = nn.Conv2d(channels if i else image_channels, channels, stride=stride, bias=False)
        layers.append((f"conv{i + 1}", conv, after))
        image_size = -(-image_size // 2)
    layers[-1] = (*layers[-1][:2], _flat_pool if pooling == "max" else nn.flatten_images)
    dense = nn.Linear(image_size**2 * channels, features, gain=math.sqrt(2.0), bias=False)
    logits = nn.Linear(features, n_out, bias=False)
    layers += [("dense", dense, _same), ("logits", logits, _same)]
    return SlowFast(layers, n_fast, activation)


def _same(h):
    return h


def _pool(h):
    """2 x 2 max-pooling of numbers ≥ 0 (..., H, W, C) -> (..., ⌈H/2⌉, ⌈W/2⌉, C)."""
    border = [(0, n % 2) for n in h.shape[-3:-1]]
    return ops.max_pool2d(ops.pad(h, [(0, 0)] * (h.ndim - 3) + [*border, (0, 0)]), 2)


def _flat_pool(h):
    return nn.flatten_images(_pool(h))
