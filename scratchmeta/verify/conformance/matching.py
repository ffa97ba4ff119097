"""Matching Networks of oscarknagg/few-shot, by the cosine or by distance ("l2").

The archives hold the library's parameters by their path, as in `prototypical`. The LSTM that embeds
a query has the state h + r in theirs, where ours reads [f', r] and keeps h: w_x = [W_ih; W_hh] and
w_h = W_hh say the same.

Differs
    Attention in "l2" is by minus the squared distance, where the paper's is by the cosine: a
    subclass. f starts at h_0 = f'(x), which is an option. Images as in `prototypical`. Their README
    has one number for the cosine and does not say of which of two files. Theirs are means of 500
    queries in 100 episodes.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scratchmeta import nn, ops
from scratchmeta.algorithms.matching import FullContext, Matching
from scratchmeta.algorithms.protocol import Tree, n_way
from scratchmeta.episodes import Episode
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.conformance import Archive, Claim
from scratchmeta.verify.conformance.prototypical import embedded, params, turned

STEPS = 3


@dataclass(frozen=True)
class ByDistance(Matching):
    """a(x, x_i) = softmax_i(−‖f(x) − g(x_i)‖²)."""

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log Σ_i a(x, x_i) 1[y_i = k] for every query: (T, N·Q, N)."""
        g, f = self.embed(params, episodes, batch_norm)
        a = ops.log_softmax(-ops.pairwise_distance(f, g, "sqeuclidean"))  # (T, N·Q, N·K)
        by_class = ops.reshape(a, (*a.shape[:-1], n_way(episodes), -1))
        return ops.logsumexp(by_class, axis=-1)


def _log_sums(log_a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log Σ_i a_i 1[y_i = k] from log a (N·Q, N·K)."""
    each = log_a.reshape(len(log_a), y.max() + 1, -1)
    most = each.max(-1, keepdims=True)
    return most[..., 0] + np.log(np.exp(each - most).sum(-1))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_cosine(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Theirs without full context."""
    f, g = embedded(a, q), embedded(a, x)
    return _log_sums(plain.log_softmax(_unit(f) @ _unit(g).T), y)


def by_distance(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The same by minus the squared distance."""
    f, g = embedded(a, q), embedded(a, x)
    return _log_sums(plain.log_softmax(-((f[:, None] - g) ** 2).sum(-1)), y)


def _read(a: Archive, way: str, xs: np.ndarray) -> np.ndarray:
    h = c = np.zeros(64)
    states = []
    for x in xs:
        gates = x @ a[f"g/{way}/w_x"] + h @ a[f"g/{way}/w_h"] + a[f"g/{way}/b"]
        h, c = plain.lstm(gates, c)
        states.append(h)
    return np.stack(states)


def in_context(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Theirs with full context: the LSTM's state is h + r."""
    g, f = embedded(a, x), embedded(a, q)
    g = _read(a, "forward", g) + _read(a, "backward", g[::-1])[::-1] + g
    w_ih, w_hh = a["f/w_x"][:64], a["f/w_h"]
    ĥ = c = np.zeros_like(f)
    for _ in range(STEPS):
        h = ĥ + f
        r = plain.softmax(h @ g.T) @ g
        ĥ, c = plain.lstm(f @ w_ih + (h + r) @ w_hh + a["f/b"], c)
    return _log_sums(plain.log_softmax(_unit(ĥ + f) @ _unit(g).T), y)


_NET = nn.Conv4(64, 1, 28)
_FILE = "omniglot_n=1_k=5_q=15_nv={shots}_kv={ways}_qv=1_dist={distance}_fce={context}"
_claim = partial(Claim, whose="oscarknagg/few-shot", params=params, dataset=turned)


def _file(ways: int, shots: int, distance: str, context: bool) -> tuple[str]:
    return (_FILE.format(ways=ways, shots=shots, distance=distance, context=context),)


CLAIMS = [
    *(
        _claim(
            what=f"l2, {ways}-way {shots}-shot",
            files=_file(ways, shots, "l2", False),
            theirs=theirs,
            algorithm=ByDistance(_NET, batch_norm="running"),
            forward=by_distance,
            shape=(ways, shots, 1),
        )
        for ways, shots, theirs in ((5, 1, "98.3"), (20, 5, "98.2"))
    ),
    _claim(
        what="cosine, 5-way 1-shot",
        files=_file(5, 1, "cosine", False),
        theirs="92.0 (one of two)",
        algorithm=Matching(_NET, batch_norm="running"),
        forward=by_cosine,
        shape=(5, 1, 1),
    ),
    _claim(
        what="cosine, FCE, 5-way 1-shot",
        files=_file(5, 1, "cosine", True),
        theirs="92.0 (one of two)",
        algorithm=FullContext(
            _NET,
            n_features=64,
            processing_steps=STEPS,
            first_state="features",
            batch_norm="running",
        ),
        forward=in_context,
        shape=(5, 1, 1),
    ),
]
