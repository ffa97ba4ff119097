"""MAML of cbfinn/maml: mini-ImageNet, 5-way 1-shot, the authors' own.

Differs
    Batch-norm's ε is 10⁻³, and it has an offset alone, which the inner loop does not adapt (ours:
    10⁻⁵, scale and offset, both adapted; with that the accuracy is the same). The convolutions'
    bias is left out: batch-norm subtracts it, and its gradient is 0. Their loss divides the sum
    over N·K examples by K: the rate of a mean is N times theirs. Ten inner steps, queries
    normalised by their own statistics.
"""

from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import core, nn, ops
from scratchmeta.algorithms import MAML
from scratchmeta.algorithms.protocol import Tree
from scratchmeta.data import MiniImageNet
from scratchmeta.data.images import ImageDataset
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.conformance import Archive, Claim

WAYS, CHANNELS, SIDE, RATE, STEPS, ε = 5, 32, 84, 0.01, 10, 1e-3
LAYERS = range(1, 5)


class Block:
    """3 x 3 convolution, batch-norm with an offset that has no gradient, ReLU, 2 x 2 max-pool."""

    def __call__(self, params: Tree, x: Any) -> Any:
        offset = core.stop_gradient(params["offset"])
        y = ops.conv2d(x, params["weight"])
        return ops.norm_relu_pool(y, np.ones_like(core.raw(offset)), offset, 2, ε)


def params(a: Archive) -> dict[str, Any]:
    """θ."""
    blocks = {f"block{i}": {"weight": a[f"conv{i}"], "offset": a[f"beta{i}"]} for i in LAYERS}
    return blocks | {"head": {"weight": a["w5"], "bias": a["b5"]}}


def _logits(w: Archive, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Theirs, and what gives the gradients from that of the logits."""
    steps = []
    for i in LAYERS:
        x, of_conv = plain.conv(x, w[f"conv{i}"])
        x, of_norm = plain.norm(x + w[f"bias{i}"], np.ones(CHANNELS), w[f"beta{i}"], ε)
        x, of_relu = plain.relu(x)
        x, of_pool = plain.pool(x)
        steps.append((i, of_conv, of_norm, of_relu, of_pool))
    maps, flat = x.shape, x.reshape(len(x), -1)

    def back(g: np.ndarray) -> Archive:
        grads = {"w5": flat.T @ g, "b5": g.sum(0)}
        g = (g @ w["w5"].T).reshape(maps)
        for i, of_conv, of_norm, of_relu, of_pool in reversed(steps):
            g = of_norm(of_relu(of_pool(g)))[0]
            grads[f"bias{i}"] = g.sum((0, 1, 2))
            g, grads[f"conv{i}"] = of_conv(g)
        return grads

    return flat @ w["w5"] + w["b5"], back


def forward(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """log p of the queries after ten steps: (N·Q, 5)."""
    w = dict(a)
    for _ in range(STEPS):
        logits, back = _logits(w, x)
        for name, g in back(plain.softmax(logits) - np.eye(WAYS)[y]).items():  # K = 1
            w[name] = w[name] - RATE * g
    return plain.log_softmax(_logits(w, q)[0])


def dataset(data: Path) -> MiniImageNet:
    """Ravi's test classes."""
    return MiniImageNet(data / "mini-imagenet", "test")


def noise(data: Path) -> ImageDataset:
    """Pictures of nothing: what two forwards agree on need not be a picture."""
    images = np.random.default_rng(0).integers(0, 256, (WAYS, 2, SIDE, SIDE, 3))
    return ImageDataset(images.astype(np.uint8), [f"noise/{i}" for i in range(WAYS)])


_NETWORK = nn.Sequential(
    [
        *((f"block{i}", Block()) for i in LAYERS),
        ("flatten", nn.Function(nn.flatten_images)),
        ("head", nn.Linear(25 * CHANNELS, WAYS)),
    ]
)

CLAIMS = [
    Claim(
        whose="cbfinn/maml",
        what="mini-ImageNet, 5-way 1-shot",
        files=("weights",),
        theirs="48.70 ± 1.84",
        algorithm=MAML(_NETWORK, inner_lr=WAYS * RATE, inner_steps=5, eval_inner_steps=STEPS),
        params=params,
        forward=forward,
        dataset=dataset,
        shape=(WAYS, 1, 1),
        drawn=noise,
    )
]
