"""Reptile of openai/supervised-reptile: the 3-way weights behind the demo of the authors' page.

Five steps of Adam from the published φ, on three drawings of three classes, tell a fourth.

Differs
    The second moments are published too and stay as they are, so that Adam is a rate of its own
    for every parameter. Their loss is a sum over the batch, ours a mean: gradients are N times
    ours. ε is 10⁻⁵ in Adam; in batch-norm it is 10⁻³, an option. The last maps are flattened, where
    the presets' network for strides takes their mean. Images are by nearest neighbour, paper 1. The
    test characters are the 423 that the authors' split with seed 0 leaves, which is assumed to be
    that of the demo; they published no accuracy of this model.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import nn, ops, tree
from scratchmeta.algorithms import Reptile
from scratchmeta.algorithms.protocol import Tree
from scratchmeta.data import Omniglot
from scratchmeta.data.images import ImageDataset
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.conformance import Archive, Claim

WAYS, CHANNELS, STEPS, RATE, ε = 3, 24, 5, 1e-3, 1e-5
NORM_ε, TRAINING = 1e-3, 1200
LAYERS = range(1, 5)


@dataclass(frozen=True)
class Demo(Reptile):
    """φ̃ ← φ̃ − α N g / (√v + ε) with the published v."""

    def inner_step(self, fast: Tree, gradient: Tree) -> Tree:
        """One step of every task."""

        def moved(p, g, v):
            return p - self.inner_lr * WAYS * g / (ops.sqrt(v) + ε)

        return {**fast, "network": tree.map(moved, fast["network"], gradient, fast["square"])}


def params(a: Archive) -> dict[str, Any]:
    """φ and v."""

    def of(prefix: str) -> Tree:
        blocks = {
            f"block{i}": {
                "conv": {"weight": a[f"{prefix}kernel{i}"]},
                "norm": {"scale": a[f"{prefix}gamma{i}"], "offset": a[f"{prefix}beta{i}"]},
            }
            for i in LAYERS
        }
        return blocks | {"head": {"weight": a[f"{prefix}dense"], "bias": a[f"{prefix}bias"]}}

    return {"network": of(""), "square": of("v_")}


def _logits(w: Archive, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Theirs, and what gives every gradient from that of the logits."""
    steps = []
    for i in LAYERS:
        x, of_conv = plain.conv(x, w[f"kernel{i}"], stride=2)
        x, of_norm = plain.norm(x, w[f"gamma{i}"], w[f"beta{i}"], NORM_ε)
        x, of_relu = plain.relu(x)
        steps.append((i, of_conv, of_norm, of_relu))
    maps, flat = x.shape, x.reshape(len(x), -1)

    def back(g: np.ndarray) -> Archive:
        grads = {"dense": flat.T @ g, "bias": g.sum(0)}
        g = (g @ w["dense"].T).reshape(maps)
        for i, of_conv, of_norm, of_relu in reversed(steps):
            g, grads[f"gamma{i}"], grads[f"beta{i}"] = of_norm(of_relu(g))
            g, grads[f"kernel{i}"] = of_conv(g)
        return grads

    return flat @ w["dense"] + w["bias"], back


def forward(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """log p of every query, which joins the support's batch alone: (N·Q, 3)."""
    w = {k: v for k, v in a.items() if not k.startswith("v_")}
    for _ in range(STEPS):
        logits, back = _logits(w, x)
        g = back(plain.softmax(logits) - np.eye(WAYS)[y])
        w = {k: v - RATE * g[k] / (np.sqrt(a[f"v_{k}"]) + ε) for k, v in w.items()}
    last = [_logits(w, np.concatenate([x, one[None]]))[0][-1] for one in q]
    return plain.log_softmax(np.stack(last))


@cache
def dataset(data: Path) -> ImageDataset:
    """The 423 characters of 1623, in order, that random's shuffle of seed 0 puts last."""
    parts = [
        Omniglot(data / "omniglot", split, resampling="nearest")
        for split in ("background", "evaluation")
    ]
    images = {name: x for part in parts for name, x in zip(part.names, part.images, strict=True)}
    names = sorted(images, key=lambda name: name.split("/"))
    random.Random(0).shuffle(names)
    test = names[TRAINING:]
    return ImageDataset(255 - np.stack([images[name] for name in test]), test)


_NETWORK = nn.Sequential(
    [
        *(
            (f"block{i}", nn.ConvBlock(1 if i == 1 else CHANNELS, CHANNELS, "stride", eps=NORM_ε))
            for i in LAYERS
        ),
        ("flatten", nn.Function(nn.flatten_images)),
        ("head", nn.Linear(4 * CHANNELS, WAYS)),
    ]
)

CLAIMS = [
    Claim(
        whose="openai",
        what="demo, 3-way 1-shot",
        files=("weights",),
        theirs="",
        algorithm=Demo(
            _NETWORK, inner_lr=RATE, eval_inner_steps=STEPS, eval_batch=WAYS, one_by_one=True
        ),
        params=params,
        forward=forward,
        dataset=dataset,
        shape=(WAYS, 1, 1),
    )
]
