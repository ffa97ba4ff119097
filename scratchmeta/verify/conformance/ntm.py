"""Neural Turing Machines of loudinthecloud/pytorch-ntm: copy, four seeds.

The archives are state dicts of torch, as of their commit 74477a6 (later code has other heads).

Differs
    h_0 and c_0 are learned, w_0 is 0; k, β, a, e and γ − 1 are rectified, e unbounded; s is a
    softmax of rectified numbers; the read head reads before the write head writes; Σ + 10⁻¹⁶ stands
    below the line in sharpening, which matters where all w^γ are that small. Their inputs have one
    delimiter, after the sequence. Their log counts 0.000 wrong bits on the last 1000 sequences of
    training, of 1 to 20 vectors; of longer ones they show pictures.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scratchmeta import ops
from scratchmeta.algorithms import ntm
from scratchmeta.algorithms.protocol import Tree
from scratchmeta.episodes import Episode
from scratchmeta.verify import plain_networks as plain
from scratchmeta.verify.conformance import Archive, Claim

BITS, FLOOR = 8, 1e-16


class Copy:
    """Vectors of 8 bits, then a delimiter in a channel of its own, then the answer is asked for."""

    n_classes, n_drawings = 1, 2

    def __init__(self, length: int) -> None:
        self.length = length

    def episode(self, rng: np.random.Generator, tasks: int) -> Episode:
        """T sequences: support_x (T, L + 1, 9), query_x (T, L, 9), query_y (T, L, 8) bool."""
        shown = rng.random((tasks, self.length, BITS)) < 0.5
        x = np.zeros((tasks, self.length + 1, BITS + 1), np.float32)
        x[:, :-1, :BITS], x[:, -1, BITS] = shown, 1
        silence = np.zeros((tasks, self.length + 1, BITS), bool)
        return Episode(x, silence, np.zeros((tasks, self.length, BITS + 1), np.float32), shown)


class Theirs(ntm.NTM):
    """NTM with what they do otherwise; the equations are the library's."""

    def start(self, params: Tree, tasks: int) -> ntm.State:
        """h_0, c_0, r_0 and M_0 as learned, w_0 = 0."""
        s = params["start"]
        h, c, r, rows = (
            ops.broadcast_to(s[k], (tasks, *s[k].shape)) for k in ("h", "c", "r", "rows")
        )
        return ntm.State(h, c, r, rows, np.zeros((tasks, 2, self.rows), s["h"].dtype))

    def heads_of(self, params: Tree, h: Any) -> ntm.Heads:
        """Rectified, but for g."""
        made = ops.project(h, params["weight"], params["bias"])
        parts = ops.split(made, [heads * numbers for heads, numbers in self.sizes])
        k, β, g, s, γ, e, a = (
            ops.reshape(p, (-1, *size)) for p, size in zip(parts, self.sizes, strict=True)
        )
        s, γ = ops.softmax(ops.relu(s)), 1.0 + ops.relu(γ)
        return ntm.Heads(ops.relu(k), ops.relu(β), ops.sigmoid(g), s, γ, ops.relu(e), ops.relu(a))

    def step(self, params: Tree, z: Any, state: ntm.State) -> ntm.State:
        """Address M_{t−1}, read it, then write."""
        p = params["controller"]
        z = z + ops.matmul(state.r, p["w_r"]) + ops.matmul(state.h, p["w_h"])
        h, c = ops.lstm_gates(z, state.c)
        k, β, g, s, γ, e, a = self.heads_of(params["heads"], h)
        w_c = ntm.content_weights(k, state.rows, β)
        powers = ntm.shift(ntm.interpolate(w_c, g, state.weights), s) ** γ
        w = powers / (ops.sum(powers, axis=-1, keepdims=True) + FLOOR)
        r = ops.reshape(ntm.read(state.rows, w[:, :1]), state.r.shape)
        return ntm.State(h, c, r, ntm.write(state.rows, w[:, 1:], e, a), w)


# where their rows of a head lie: k, β, g, s (−1 and 1 the other way round), γ
_ADDRESS = (slice(0, 20), slice(20, 21), slice(21, 22), slice(24, 21, -1), slice(25, 26))
_ERASE, _ADD = slice(26, 46), slice(46, 66)


def params(a: Archive) -> dict[str, Any]:
    """Their state dict as NTM's parameters."""

    def joined(kind: str) -> np.ndarray:
        r, w = a[f"ntm.heads.0.fc_read.{kind}"], a[f"ntm.heads.1.fc_write.{kind}"]
        return np.concatenate([*(x[at] for at in _ADDRESS for x in (r, w)), w[_ERASE], w[_ADD]])

    lstm = {k: a[f"ntm.controller.lstm.{k}_l0"] for k in ("weight_ih", "weight_hh")}
    bias = a["ntm.controller.lstm.bias_ih_l0"] + a["ntm.controller.lstm.bias_hh_l0"]
    w = lstm["weight_ih"].T.copy()  # of 9 inputs, then of the 20 numbers read
    return {
        "controller": {
            "w_x": w[: BITS + 1],
            "w_r": w[BITS + 1 :],
            "w_h": lstm["weight_hh"].T.copy(),
            "b": bias,
        },
        "heads": {"weight": joined("weight").T.copy(), "bias": joined("bias")},
        "out": {"weight": a["ntm.fc.weight"].T.copy(), "bias": a["ntm.fc.bias"]},
        "start": {
            "h": a["ntm.controller.lstm_h_bias"][0, 0],
            "c": a["ntm.controller.lstm_c_bias"][0, 0],
            "r": a["ntm.read0_bias"][0],
            "rows": a["memory.mem_bias"],
        },
    }


def _addressed(o: np.ndarray, rows: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The weights of a head that is told o: (N,)."""
    k, β, g, s, γ = np.split(o[:26], (20, 21, 22, 25))
    k, β, γ = np.maximum(k, 0) + FLOOR, np.maximum(β, 0), 1 + np.maximum(γ, 0)
    g, s = plain.sigmoid(g), plain.softmax(np.maximum(s, 0))
    held = rows + FLOOR
    cosine = held @ k / np.maximum(np.linalg.norm(held, axis=1) * np.linalg.norm(k), 1e-8)
    w = g * plain.softmax(β * cosine) + (1 - g) * before
    w = (s[0] * np.roll(w, 1) + s[1] * w + s[2] * np.roll(w, -1)) ** γ
    return w / (w.sum() + FLOOR)


def forward(a: Archive, x: np.ndarray, y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Theirs for one sequence, the log-odds of the answer's bits: (L, 8)."""
    p = {k.removeprefix("ntm.").removeprefix("controller."): v for k, v in a.items()}
    bias = p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]
    h, c, r = p["lstm_h_bias"][0, 0], p["lstm_c_bias"][0, 0], p["read0_bias"][0]
    rows, w_read, w_write = p["memory.mem_bias"], np.zeros(128), np.zeros(128)
    answers = []
    for seen in np.concatenate([x, q]):
        inputs = np.concatenate([seen, r])
        gates = p["lstm.weight_ih_l0"] @ inputs + p["lstm.weight_hh_l0"] @ h + bias
        h, c = plain.lstm(gates, c)
        o = p["heads.0.fc_read.weight"] @ h + p["heads.0.fc_read.bias"]
        w_read = _addressed(o, rows, w_read)
        r = w_read @ rows
        o = p["heads.1.fc_write.weight"] @ h + p["heads.1.fc_write.bias"]
        w_write = _addressed(o, rows, w_write)
        e, new = np.maximum(o[_ERASE], 0), np.maximum(o[_ADD], 0)
        rows = rows * (1 - np.outer(w_write, e)) + np.outer(w_write, new)
        answers.append(p["fc.weight"] @ np.concatenate([h, r]) + p["fc.bias"])
    return np.stack(answers[len(x) :])


def _copy(data: Path, length: int) -> Copy:
    return Copy(length)


CLAIMS = [
    Claim(
        whose="loudinthecloud",
        what=f"copy {length}, seed {seed}",
        files=(f"seed{seed}",),
        theirs="0" if length == 20 else "",
        algorithm=Theirs(BITS + 1, BITS, "lstm", 100, 1, 128, 20, "learned"),
        params=params,
        forward=forward,
        dataset=partial(_copy, length=length),
    )
    for seed in (1, 7, 11, 1000)
    for length in (20, 40, 80, 120)
]
