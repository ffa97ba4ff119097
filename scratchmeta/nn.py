"""Layers: `layer.init(rng)` makes parameters, `layer(params, x)` is a pure function of them.

A layer object holds only its configuration. Parameters are nested dicts of arrays, float32 when
new. Data may have leading axes, and so may parameters: x (T, N, D) goes through a weight (D, F)
that all T tasks share, or through (T, D, F), one per task. This is how an inner loop adapts all
tasks at once.

Letters: T tasks, N examples, D features in, F features out, H W height and width, C channels.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from scratchmeta import backend, ops, tree
from scratchmeta.ops.reference import channels

Tree = Any
Policy = Literal["transductive", "support", "running"]


class Network(Protocol):
    """What an algorithm asks of a network, and a network of its layers.

    One with batch-norm also has `with_statistics(params, x)`, see `BatchNorm`.
    """

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters."""

    def __call__(self, params: Tree, x: Any) -> Any:
        """Its outputs for inputs x (..., N, ...), with leading axes that params may have too."""


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> backend.Array:
    """Numbers from N(0, std²) as float32 on the backend in use, the same for the same rng
    anywhere."""
    return backend.asarray((std * rng.standard_normal(shape)).astype(np.float32))


def _constant(shape: tuple[int, ...], value: float) -> backend.Array:
    return backend.asarray(np.full(shape, value, np.float32))


@dataclass(frozen=True)
class Linear:
    """y = x W + b: features (..., N, n_in) -> (..., N, n_out).

    W is (..., n_in, n_out), b (..., n_out). W starts as N(0, gain² / n_in) (gain √2 before a ReLU:
    He et al. 2015), b as 0.
    """

    n_in: int
    n_out: int
    gain: float = 1.0
    bias: bool = True

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {weight, bias}."""
        weight = normal(rng, (self.n_in, self.n_out), self.gain / math.sqrt(self.n_in))
        return (
            {"weight": weight, "bias": _constant((self.n_out,), 0.0)}
            if self.bias
            else {"weight": weight}
        )

    def __call__(self, params: dict, x: Any) -> Any:
        return ops.project(x, params["weight"], params["bias"] if self.bias else None)


@dataclass(frozen=True)
class Conv2d:
    """y = x ∗ w (+ b): images (..., N, H, W, n_in) -> (..., N, H', W', n_out); see `ops.conv2d`.

    w is (..., size, size, n_in, n_out) and starts as N(0, 2 / (size² n_in)) (He et al. 2015).
    """

    n_in: int
    n_out: int
    size: int = 3
    stride: int = 1
    padding: str | int = "same"
    bias: bool = True

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {weight, bias}."""
        std = math.sqrt(2.0 / (self.size**2 * self.n_in))
        weight = normal(rng, (self.size, self.size, self.n_in, self.n_out), std)
        return (
            {"weight": weight, "bias": _constant((self.n_out,), 0.0)}
            if self.bias
            else {"weight": weight}
        )

    def __call__(self, params: dict, x: Any) -> Any:
        y = ops.conv2d(x, params["weight"], self.stride, self.padding)
        return y + channels(params["bias"], 3) if self.bias else y


@dataclass(frozen=True)
class BatchNorm:
    """y = scale (x − μ) / √(σ² + ε) + offset, per channel (Ioffe & Szegedy 2015).

    Where μ and σ² come from is visible in the parameters. Without "mean" and "var" among them, they
    are those of x itself: of the N examples (and H, W) of each leading index, so never across
    tasks. With them, they are used as they stand; `with_statistics(params, x)` puts in those of x.

    `images` says whether x is (..., N, H, W, C) or (..., N, C).
    """

    n_channels: int
    images: bool = True
    eps: float = 1e-5

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {scale, offset}."""
        return {
            "scale": _constant((self.n_channels,), 1.0),
            "offset": _constant((self.n_channels,), 0.0),
        }

    @property
    def _axes(self) -> tuple[int, ...]:
        return (-4, -3, -2) if self.images else (-2,)

    def with_statistics(self, params: dict, x: Any) -> dict:
        """The parameters with mean and var (..., C) of x; differentiable in x."""
        mean, var = ops.mean(x, self._axes), ops.var(x, self._axes)
        return {**params, "mean": mean, "var": var}

    def __call__(self, params: dict, x: Any) -> Any:
        p = params if "mean" in params else self.with_statistics(params, x)
        mean, var, scale, offset = (
            channels(p[k], len(self._axes)) for k in ("mean", "var", "scale", "offset")
        )
        return (x - mean) * (scale / ops.sqrt(var + self.eps)) + offset


@dataclass(frozen=True)
class ConvBlock:
    """The few-shot papers' block: 3 x 3 convolution, batch-norm, ReLU, then 2 x 2 max-pooling.

    With `pooling="stride"` the convolution has stride 2 instead (MAML); "none" keeps the size.
    `padding` is that of `ops.conv2d`, `eps` batch-norm's. The convolution has no bias: batch-norm
    would subtract it again.
    """

    n_in: int
    n_out: int
    pooling: Literal["max", "stride", "none"] = "max"
    padding: str | int = "same"
    eps: float = 1e-5

    @property
    def _conv(self) -> Conv2d:
        stride = 1 + (self.pooling == "stride")
        return Conv2d(self.n_in, self.n_out, 3, stride, self.padding, bias=False)

    @property
    def _norm(self) -> BatchNorm:
        return BatchNorm(self.n_out, eps=self.eps)

    @property
    def _pool(self) -> int:
        return 2 if self.pooling == "max" else 1

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {conv, norm}."""
        return {"conv": self._conv.init(rng), "norm": self._norm.init(rng)}

    def with_statistics(self, params: dict, x: Any) -> dict:
        """The parameters with the batch-norm statistics of images x."""
        y = self._conv(params["conv"], x)
        return {**params, "norm": self._norm.with_statistics(params["norm"], y)}

    def __call__(self, params: dict, x: Any) -> Any:
        y, norm = self._conv(params["conv"], x), params["norm"]
        if "mean" not in norm:
            return ops.norm_relu_pool(y, norm["scale"], norm["offset"], self._pool, self._norm.eps)
        y = ops.relu(self._norm(norm, y))
        return ops.max_pool2d(y, self._pool) if self._pool > 1 else y


@dataclass(frozen=True)
class Function:
    """A layer without parameters: any function of x."""

    f: Callable

    def init(self, rng: np.random.Generator) -> dict:
        """No parameters: {}."""
        return {}

    def __call__(self, params: dict, x: Any) -> Any:
        return self.f(x)


@dataclass(frozen=True)
class Sequential:
    """Layers one after another; the parameters of the i-th are params[its name].

    `layers` is a list of (name, layer).
    """

    layers: Sequence[tuple[str, Any]]

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {name: those of the layer}, layers without any left out."""
        params = {name: layer.init(rng) for name, layer in self.layers}
        return {name: p for name, p in params.items() if p}

    def with_statistics(self, params: dict, x: Any) -> dict:
        """The parameters with every batch-norm's statistics as they are when x passes through."""
        filled = dict(params)
        for name, layer in self.layers:
            if hasattr(layer, "with_statistics"):
                filled[name] = layer.with_statistics(params[name], x)
            # The next layer's statistics are those it sees once this layer uses its own.
            x = layer(filled.get(name, {}), x)
        return filled

    def __call__(self, params: dict, x: Any) -> Any:
        for name, layer in self.layers:
            x = layer(params.get(name, {}), x)
        return x


def flatten_images(x: Any) -> Any:
    """(..., N, H, W, C) -> (..., N, H W C)."""
    return ops.reshape(x, (*x.shape[:-3], math.prod(x.shape[-3:])))


def mean_of_maps(x: Any) -> Any:
    """(..., N, H, W, C) -> (..., N, C)."""
    return ops.mean(x, axis=(-3, -2))


@dataclass(frozen=True)
class Flat:
    """A layer without parameters: images are flattened, vectors of n numbers stay as they are."""

    n: int

    def init(self, rng: np.random.Generator) -> dict:
        """No parameters: {}."""
        return {}

    def __call__(self, params: dict, x: Any) -> Any:
        return x if x.shape[-1] == self.n else flatten_images(x)


def Conv4(
    channels: int = 64,
    in_channels: int = 1,
    image_size: int = 28,
    pooling: Literal["max", "stride"] = "max",
    n_out: int | None = None,
    eps: float = 1e-5,
) -> Sequential:
    """The four-block network of the few-shot papers: images (..., N, H, W, C) -> features (..., N,
    F).

    `pooling="max"`: conv, batch-norm, ReLU, 2 x 2 max-pool, four times, then flattened: 28 x 28 ->
    64, 84 x 84 -> 1600 (Vinyals 2016, Snell 2017). `pooling="stride"`: stride 2 instead of
    pooling, then the mean over the last map (Finn 2017, Omniglot). With `n_out` a linear layer
    gives that many logits. `eps` is batch-norm's ε. Raises ValueError when the image is too
    small to be halved four times.
    """
    side = image_size
    for _ in range(4):
        side = side // 2 if pooling == "max" else -(-side // 2)
    if side < 1:
        raise ValueError(
            f"Conv4: wanted image_size of at least 16 with max-pooling, got {image_size}"
        )
    widths = [in_channels, channels, channels, channels, channels]
    layers: list[tuple[str, Any]] = [
        (f"block{i + 1}", ConvBlock(widths[i], widths[i + 1], pooling, eps=eps)) for i in range(4)
    ]
    if pooling == "max":
        layers.append(("flatten", Function(flatten_images)))
    else:
        layers.append(("mean", Function(mean_of_maps)))
        side = 1
    if n_out is not None:
        layers.append(("head", Linear(side * side * channels, n_out)))
    return Sequential(layers)


def MLP(
    sizes: Sequence[int],
    activation: Callable = ops.relu,
    batch_norm: bool = False,
    eps: float = 1e-5,
) -> Sequential:
    """Linear layers of these sizes with an activation between them: (..., N, sizes[0]) ->
    sizes[-1].

    Images (..., N, H, W, C) are flattened first. With `batch_norm`, normalised before each
    activation, with `eps` for ε.
    """
    layers: list[tuple[str, Any]] = [("flatten", Flat(sizes[0]))]
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append((f"linear{i + 1}", Linear(n_in, n_out, gain=1.0 if last else math.sqrt(2.0))))
        if not last:
            if batch_norm:
                layers.append((f"norm{i + 1}", BatchNorm(n_out, images=False, eps=eps)))
            layers.append((f"activation{i + 1}", Function(activation)))
    return Sequential(layers)


# --- recurrence ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LSTM:
    """A long short-term memory over sequences (..., S, n_in) -> hidden states (..., S, n_hidden).

    Gates i, f, g, o; see `ops.lstm_cell`. Weights start as N(0, 1 / n), the forget gate's bias as
    `forget_bias`. The products of all inputs with w_x are one product, made before the loop.
    """

    n_in: int
    n_hidden: int
    forget_bias: float = 1.0

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {w_x, w_h, b}."""
        n = self.n_hidden
        b = np.zeros(4 * n, np.float32)
        b[n : 2 * n] = self.forget_bias
        return {
            "w_x": normal(rng, (self.n_in, 4 * n), 1.0 / math.sqrt(self.n_in)),
            "w_h": normal(rng, (n, 4 * n), 1.0 / math.sqrt(n)),
            "b": backend.asarray(b),
        }

    def start(self, lead: tuple[int, ...], like: Any) -> tuple[Any, Any]:
        """The state h, c = 0 for data of this leading shape, with dtype and device of `like`."""
        zeros = backend.xp(ops.raw(like)).zeros((*lead, self.n_hidden), dtype=like.dtype)
        return zeros, zeros

    def step(self, params: dict, x: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        """One step: x (..., n_in) and the state h, c (..., n_hidden) -> the new state."""
        return ops.lstm_cell(x, *state, params["w_x"], params["w_h"], params["b"])

    def __call__(
        self, params: dict, x: Any, state: tuple[Any, Any] | None = None
    ) -> tuple[Any, tuple[Any, Any]]:
        """All hidden states (..., S, n_hidden), and the state after the last step."""
        h, c = state or self.start(x.shape[:-2], x)
        z = ops.project(x, params["w_x"], params["b"])
        hs = []
        for t in range(x.shape[-2]):
            h, c = ops.lstm_gates(z[..., t, :] + ops.project(h, params["w_h"]), c)
            hs.append(h)
        return ops.stack(hs, axis=-2), (h, c)


@dataclass(frozen=True)
class BiLSTM:
    """Two LSTMs, one reading each way: (..., S, n_in) -> forward and backward states (..., S, H)
    each."""

    n_in: int
    n_hidden: int

    @property
    def _cell(self) -> LSTM:
        return LSTM(self.n_in, self.n_hidden)

    def init(self, rng: np.random.Generator) -> dict:
        """New parameters {forward, backward}."""
        return {"forward": self._cell.init(rng), "backward": self._cell.init(rng)}

    def __call__(self, params: dict, x: Any) -> tuple[Any, Any]:
        forward, _ = self._cell(params["forward"], x)
        backward, _ = self._cell(params["backward"], ops.flip(x, -2))
        return forward, ops.flip(backward, -2)


# --- batch-norm policies --------------------------------------------------------------------------


def without_statistics(params: Tree) -> Tree:
    """The parameters without stored batch-norm statistics, so that batch-norm uses the batch's
    own."""
    if not isinstance(params, dict):
        return params
    kept = {k: without_statistics(v) for k, v in params.items()}
    return {k: v for k, v in kept.items() if not ("scale" in params and k in ("mean", "var"))}


def has_statistics(params: Tree) -> bool:
    """Whether some batch-norm in these parameters has stored statistics."""
    return len(tree.paths(without_statistics(params))) < len(tree.paths(params))


def require_statistics(params: Tree) -> None:
    """Raises ValueError, saying what to do, if no batch-norm in params has stored statistics."""
    if not has_statistics(params):
        raise ValueError(
            "batch_norm='running': the parameters hold no statistics yet; "
            "params = algorithm.calibrate(params, training_episodes) puts them in"
        )


def average_statistics(*parts: Tree) -> Tree:
    """Parameters whose batch-norm statistics (T, C) are averaged over all tasks of all parts.

    The parts are the same parameters with the statistics of different tasks.
    """
    first = parts[0]
    if not isinstance(first, dict):
        return first
    averaged = {k: average_statistics(*(part[k] for part in parts)) for k in first}
    if "scale" in first and "mean" in first:
        for key in ("mean", "var"):
            tasks = [part[key].reshape(-1, part[key].shape[-1]) for part in parts]
            averaged[key] = ops.concat(tasks).mean(axis=0)
    return averaged


def embed(network: Any, params: Tree, support: Any, query: Any, batch_norm: Policy) -> tuple:
    """Support and query images through a network, under a batch-norm policy.

    "transductive"  both together, normalised by their common statistics: queries help one another
    "support"       both normalised by the statistics of the support alone
    "running"       both normalised by the statistics stored in params (see `calibrate`)
    """
    if batch_norm == "transductive":
        both = network(without_statistics(params), ops.concat([support, query], axis=1))
        n = support.shape[1]
        return both[:, :n], both[:, n:]
    if batch_norm == "support":
        params = network.with_statistics(without_statistics(params), support)
    else:
        require_statistics(params)
    return network(params, support), network(params, query)
