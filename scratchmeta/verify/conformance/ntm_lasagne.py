"""Neural Turing Machines of snipsco/ntm-lasagne: copy and associative recall.

The archives name what their pickles hold in order. They write and read at the beginning of a step
what the step before has decided: that is the library's order, a step later, with M_0 and r_0 as
they are after a write by h_0.

Differs
    The controller, k, β, a and γ − 1 are rectified; g and e are hard sigmoids; 10⁻⁶ is added in the
    cosine and in sharpening; nothing lies beyond the first and the last row when weights shift,
    where the paper's rows are a circle; the output sees h alone. They published figures, no
    numbers. The items of recall are ours, of 3 vectors of 8 bits as theirs.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import ops
from scratchmeta.algorithms import ntm
from scratchmeta.algorithms.protocol import Tree
from scratchmeta.data.algorithmic import Recall
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.conformance import Archive, Claim
from scratchmeta.verify.conformance.ntm import BITS, Copy

ε = 1e-6
ADDRESSING = ("k", "beta", "g", "s", "gamma")


def hard_sigmoid(x: Any) -> Any:
    """0.2 x + 0.5, between 0 and 1."""
    return ops.minimum(ops.maximum(0.2 * x + 0.5, 0.0), 1.0)


def shift(w: Any, s: Any) -> Any:
    """w̃(i) = Σ_j w(j) s(i − j) where rows are in a line: nothing comes from beyond its ends."""
    zero = 0.0 * w[..., :1]
    wide = ops.concat([zero, w, zero], axis=-1)
    return s[..., :1] * wide[..., 2:] + s[..., 1:2] * w + s[..., 2:] * wide[..., :-2]


class Theirs(ntm.NTM):
    """NTM with what they do otherwise."""

    def start(self, params: Tree, tasks: int) -> ntm.State:
        """r_0, M_0 and w_0 as learned."""
        s = params["start"]
        r, rows, w = (ops.broadcast_to(s[k], (tasks, *s[k].shape)) for k in ("r", "rows", "w"))
        zeros = np.zeros((tasks, self.units), s["r"].dtype)
        return ntm.State(zeros, zeros, r, rows, w)

    def heads_of(self, params: Tree, h: Any) -> ntm.Heads:
        """Rectified, and hard sigmoids."""
        made = ops.project(h, params["weight"], params["bias"])
        parts = ops.split(made, [heads * numbers for heads, numbers in self.sizes])
        k, β, g, s, γ, e, a = (
            ops.reshape(p, (-1, *size)) for p, size in zip(parts, self.sizes, strict=True)
        )
        g, e = hard_sigmoid(g), hard_sigmoid(e)
        return ntm.Heads(
            ops.relu(k), ops.relu(β), g, ops.softmax(s), 1.0 + ops.relu(γ), e, ops.relu(a)
        )

    def step(self, params: Tree, z: Any, state: ntm.State) -> ntm.State:
        """One step of the rectified controller."""
        h = ops.relu(z + ops.matmul(state.r, params["controller"]["w_r"]))
        k, β, g, s, γ, e, a = self.heads_of(params["heads"], h)
        lengths = ops.sum(k * k, -1, keepdims=True) * ops.sum(state.rows**2, -1)[:, None]
        cosine = ops.matmul(k, ops.matrix_transpose(state.rows)) / ops.sqrt(lengths + ε)
        w_g = ntm.interpolate(ops.softmax(β * cosine), g, state.weights)
        w = ntm.sharpen(shift(w_g, s) + ε, γ)
        rows = ntm.write(state.rows, w[:, 1:], e, a)
        return ntm.State(h, state.c, ops.reshape(ntm.read(rows, w[:, :1]), state.r.shape), rows, w)


def params(d: Archive) -> dict[str, Any]:
    """Their arrays as NTM's parameters."""
    h, w_read, w_write = d["h0"], d["read_w0"][0], d["write_w0"][0]
    weight = [d[f"{head}_{n}"] for n in ADDRESSING for head in ("read", "write")]
    bias = [d[f"{head}_b{n}"] for n in ADDRESSING for head in ("read", "write")]
    e = np.clip(0.2 * (h @ d["write_e"] + d["write_be"]) + 0.5, 0, 1)
    a = np.maximum(h @ d["write_a"] + d["write_ba"], 0)
    rows = d["rows"] * (1 - w_write[:, None] * e) + w_write[:, None] * a
    out = d["out"][:, :BITS]  # what they predict of the delimiters is not looked at
    return {
        "controller": {"w_x": d["w_x"], "w_r": d["w_r"], "b": d["b_x"] + d["b_r"]},
        "heads": {
            "weight": np.concatenate([*weight, d["write_e"], d["write_a"]], axis=1),
            "bias": np.concatenate([*bias, d["write_be"], d["write_ba"]]),
        },
        "out": {
            "weight": np.concatenate([out, np.zeros((rows.shape[1], BITS), out.dtype)]),
            "bias": d["bout"][:BITS],
        },
        "start": {"rows": rows, "r": w_read @ rows, "w": np.stack([w_read, w_write])},
    }


def forward(d: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Theirs for one sequence, in their order: log-odds of bits (Q, 8)."""

    def hard(v: np.ndarray) -> np.ndarray:
        return np.clip(0.2 * v + 0.5, 0, 1)

    def told(n: str) -> np.ndarray:
        head, kind = n.split("_")
        return h @ d[n] + d[f"{head}_b{kind}"]

    rows, h = d["rows"], d["h0"][0]
    w = {head: d[f"{head}_w0"][0] for head in ("write", "read")}
    answers = []
    for seen in np.concatenate([x, q]):
        e, a = hard(told("write_e")), np.maximum(told("write_a"), 0)
        rows = rows * (1 - np.outer(w["write"], e)) + np.outer(w["write"], a)
        r = w["read"] @ rows
        h = np.maximum(seen @ d["w_x"] + d["b_x"] + r @ d["w_r"] + d["b_r"], 0)
        for head, before in w.items():
            k, β, g, s, γ = (told(f"{head}_{n}") for n in ADDRESSING)
            k, β, g, s, γ = (
                np.maximum(k, 0),
                np.maximum(β, 0),
                hard(g),
                plain.softmax(s),
                1 + np.maximum(γ, 0),
            )
            cosine = rows @ k / np.sqrt((k @ k) * (rows * rows).sum(1) + ε)
            wide = np.pad(g * plain.softmax(β * cosine) + (1 - g) * before, 1)
            moved = (s[0] * wide[2:] + s[1] * wide[1:-1] + s[2] * wide[:-2] + ε) ** γ
            w[head] = moved / moved.sum()
        answers.append(h @ d["out"] + d["bout"])
    return np.stack(answers[len(x) :])[:, :BITS]


def _copy(data: Path, length: int) -> Copy:
    return Copy(length)


def _recall(data: Path, items: int) -> Recall:
    return Recall(BITS, 3, (items, items))


_machine = partial(Theirs, controller="feed-forward", units=100, memory="learned")
_claim = partial(Claim, whose="snipsco", theirs="", params=params, forward=forward)

CLAIMS = [
    *(
        _claim(
            what=f"copy {length}",
            files=("copy",),
            algorithm=_machine(BITS + 1, BITS),
            dataset=partial(_copy, length=length),
        )
        for length in (20, 120)
    ),
    *(
        _claim(
            what=f"recall {items}",
            files=("associative-recall",),
            algorithm=_machine(BITS + 2, BITS),
            dataset=partial(_recall, items=items),
        )
        for items in (2, 6, 10, 20)
    ),
]
