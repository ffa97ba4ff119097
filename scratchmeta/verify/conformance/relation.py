"""Relation Networks of floodsung/LearningToCompare_FSL, the authors' own code.

The archives are state dicts of torch. The convolutions' bias is left out: the batch-norm, which
always uses the batch's statistics (they never switch to evaluation), subtracts it again.

Differs
    In nothing but the images: nearest neighbour, paper 1, normalised by (x − 0.92206) / 0.08426,
    one turn for a whole episode. Measured on Vinyals' test characters: theirs are drawn at random
    in each training, and not known, so the training has seen some of these.
"""

from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta.algorithms import Relation
from scratchmeta.algorithms.relation import embedding
from scratchmeta.data import Omniglot
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.author_images import Seen
from scratchmeta.verify.conformance import Archive, Claim

EPS = 1e-5


def _conv(w: np.ndarray) -> np.ndarray:
    """torch's (out, in, kh, kw) as (kh, kw, in, out)."""
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0))


def _block(a: Archive, i: int) -> dict[str, Any]:
    norm = {"scale": a[f"layer{i}.1.weight"], "offset": a[f"layer{i}.1.bias"]}
    return {"conv": {"weight": _conv(a[f"layer{i}.0.weight"])}, "norm": norm}


def params(f: Archive, g: Archive) -> dict[str, Any]:
    """Of the embedding f and the relation module g."""
    return {
        "network": {f"block{i}": _block(f, i) for i in range(1, 5)},
        "first": _block(g, 1),
        "second": _block(g, 2),
        "head": {
            f"linear{i}": {"weight": g[f"fc{i}.weight"].T.copy(), "bias": g[f"fc{i}.bias"]}
            for i in (1, 2)
        },
    }


def _layer(a: Archive, i: int, x: np.ndarray, padded: bool, pooled: bool) -> np.ndarray:
    x = plain.conv(x, _conv(a[f"layer{i}.0.weight"]), padded=padded)[0] + a[f"layer{i}.0.bias"]
    x = plain.norm(x, a[f"layer{i}.1.weight"], a[f"layer{i}.1.bias"], EPS)[0]
    x = np.maximum(x, 0)
    return plain.pool(x)[0] if pooled else x


def _embedded(f: Archive, x: np.ndarray) -> np.ndarray:
    for i in range(1, 5):
        x = _layer(f, i, x, padded=i > 2, pooled=i < 3)
    return x


def forward(f: Archive, g: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """log (r / Σ r) of the scores r of each query's pairs [class, query]."""
    maps = _embedded(f, x)
    classes = maps.reshape(y.max() + 1, -1, *maps.shape[1:]).sum(1)
    queries = _embedded(f, q)
    ways, n = len(classes), len(queries)
    pairs = np.concatenate([np.tile(classes, (n, 1, 1, 1)), queries.repeat(ways, 0)], -1)
    for i in (1, 2):
        pairs = _layer(g, i, pairs, padded=True, pooled=True)
    hidden = pairs.transpose(0, 3, 1, 2).reshape(len(pairs), -1)  # torch's order
    hidden = np.maximum(hidden @ g["fc1.weight"].T + g["fc1.bias"], 0)
    r = plain.sigmoid(hidden @ g["fc2.weight"].T + g["fc2.bias"]).reshape(n, ways)
    return np.log(r / r.sum(-1, keepdims=True))


def normalised(ink: np.ndarray) -> np.ndarray:
    """Paper 1, ink 0, by their mean and deviation: float32."""
    x = 1 - ink / np.float32(255)
    return (x - np.float32(0.92206)) / np.float32(0.08426)


def dataset(data: Path) -> Omniglot:
    """Vinyals' test characters."""
    looks = {"rotations": "episode", "resampling": "nearest"}
    return Seen(normalised, data / "omniglot", "test", **looks)


CLAIMS = [
    Claim(
        whose="floodsung",
        what=f"{ways}-way {shots}-shot",
        files=(f"feature_encoder_{ways}way_{shots}shot", f"relation_network_{ways}way_{shots}shot"),
        theirs=theirs,
        algorithm=Relation(embedding(64, 1), 64, 5, 8),
        params=params,
        forward=forward,
        dataset=dataset,
        shape=(ways, shots, 1),
    )
    for ways, shots, theirs in ((5, 1, "99.6"), (5, 5, "99.8"), (20, 1, "97.6"), (20, 5, "99.1"))
]
