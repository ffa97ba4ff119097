"""Prototypical Networks of oscarknagg/few-shot and schatty/prototypical-networks-tf.

The archives hold the library's parameters by their path: the convolutions' bias is folded into the
batch-norm's mean, and Keras's epsilon into its variance. `batch_norm="running"` expresses both.

Differs
    In nothing but the images: oscarknagg's are Lake's evaluation characters, each turn a class,
    smoothed and paper 1; schatty's are Vinyals' test characters by nearest neighbour, ink 1. Their
    episodes are drawn at random and not published. schatty's batch-norm never saw training=True:
    its mean is 0, its variance 1.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import nn
from scratchmeta.algorithms import Prototypical
from scratchmeta.data import Omniglot
from scratchmeta.data.omniglot import SIDE
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.author_images import Seen, smoothed
from scratchmeta.verify.conformance import Archive, Claim


def params(archive: Archive) -> dict[str, Any]:
    """Arrays by path, "block1/conv/weight", as a tree; blocks are the network's."""
    tree: dict[str, Any] = {"network": {}}
    for path, array in archive.items():
        *parts, last = path.split("/")
        node = tree["network"] if parts[0].startswith("block") else tree
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = array
    return tree


def embedded(a: Archive, x: np.ndarray) -> np.ndarray:
    """Four times convolution, stored batch-norm, ReLU and pooling, in plain NumPy: (N, 64)."""
    for i in range(1, 5):
        mean, var, scale, offset = (
            a[f"block{i}/norm/{k}"] for k in ("mean", "var", "scale", "offset")
        )
        x = plain.conv(x, a[f"block{i}/conv/weight"])[0]
        x = plain.pool(np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + offset, 0))[0]
    return x.reshape(len(x), -1)


def forward(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """log-softmax of minus the squared distances to the classes' means."""
    prototypes = embedded(a, x).reshape(y.max() + 1, -1, 64).mean(1)
    distances = ((embedded(a, q)[:, None] - prototypes) ** 2).sum(-1)
    return plain.log_softmax(-distances)


def turned(data: Path) -> Omniglot:
    """oscarknagg's: Lake's evaluation characters."""
    return Seen(smoothed, data / "omniglot", "evaluation", image_size=SIDE, rotations="classes")


def binary(data: Path) -> Omniglot:
    """schatty's: Vinyals' test characters."""
    return Omniglot(data / "omniglot", "test", rotations="classes", resampling="nearest")


_claim = partial(
    Claim,
    algorithm=Prototypical(nn.Conv4(64, 1, 28), batch_norm="running"),
    params=params,
    forward=forward,
)
_KNAGG = partial(_claim, whose="oscarknagg/few-shot", dataset=turned)
_SCHATTY = partial(
    _claim,
    whose="schatty",
    files=("schatty_omniglot1234_trainval",),
    dataset=binary,
)

CLAIMS = [
    *(
        _KNAGG(
            what=f"{ways}-way {shots}-shot",
            files=(f"omniglot_nt={trained}_kt=60_qt=5_nv={shots}_kv={ways}_qv=1",),
            theirs=theirs,
            shape=(ways, shots, 1),
        )
        for trained, ways, shots, theirs in (
            (1, 5, 1, "98.2"), (1, 5, 5, "99.4"), (1, 20, 1, "95.8"), (5, 20, 5, "98.6"),
        )
    ),
    *(
        _SCHATTY(what=f"{ways}-way {shots}-shot", theirs=theirs, shape=(ways, shots, queries))
        for ways, shots, queries, theirs in (
            (5, 1, 1, "97.4"), (5, 5, 5, "99.4"), (20, 1, 1, "92.2"), (20, 5, 5, "98.4"),
        )
    ),
]  # fmt: skip
