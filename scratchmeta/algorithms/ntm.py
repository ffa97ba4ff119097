"""Neural Turing Machines (Graves, Wayne & Danihelka 2014, arXiv 1410.5401).

A network, the controller, reads and writes a memory through heads. A head is where its weights
over the rows of the memory are; it goes there by what a row holds or by where it stood before.

    eq. 2      r_t = Σ_i w_t(i) M_t(i)                                    read
    eq. 3, 4   M_t(i) = M_{t−1}(i) [1 − w_t(i) e_t] + w_t(i) a_t          write
    eq. 5, 6   w^c_t(i) = softmax_i(β_t K[k_t, M_{t−1}(i)]),  K = cos     content_weights
    eq. 7      w^g_t = g_t w^c_t + (1 − g_t) w_{t−1}                      interpolate
    eq. 8      w̃_t(i) = Σ_j w^g_t(j) s_t(i − j)                           shift
    eq. 9      w_t(i) = w̃_t(i)^γ_t / Σ_j w̃_t(j)^γ_t                       sharpen
    sec. 3.3   k, β, g, s, γ, e, a from the controller                    NTM.heads_of
    sec. 4     −log p, a mean over the bits of the answer                         NTM.task_losses

An episode shows a sequence in its support and asks for the answer in its query; see `data.Copy`.
All heads address M_{t−1}; the write heads write, all at once; the read heads read M_t. The output
sees the controller and r_t, the controller's next step r_t too. "n heads" are n that read and n
that write.

Parameters, for I inputs, O outputs, H units, n heads and N rows of M numbers:

    controller  H (I + n M + 1), an LSTM 4 H (I + n M + H + 1)
    heads       n (2 (M + 6) + 2 M) (H + 1):   k, β, g, 3 shifts, γ of two heads, e, a of one
    output      O (H + n M + 1)
    start       2 n N for w_0,  n M for r_0,  N M for M_0 where it is learned

For copy (10 inputs, 9 outputs), with M_0 learned, that is 16,317 with the feed-forward controller
and 65,617 with the LSTM. The paper's tables say 17,162 and 67,561, which no way of counting gives:
they contradict one another (docs/differences.md).

Differs from the paper
    The numbers of parameters. What it leaves open: β is a softplus, γ 1 + softplus, g and
    e are sigmoids, s a softmax, k and a tanh. Weights, w_0 and r_0 start at random; w_0 has to,
    since in a memory of equal rows nothing else tells them apart. `memory="constant"` starts with
    10⁻⁶ everywhere, with which it learns faster (Collier & Beel 2018). The loss is the mean over a
    sequence's bits, so that it can be compared between lengths; with `summed` it is their sum, for
    whose gradients the paper's RMSProp and clipping at ±10 are made: preset `paper`.

Differs from the post
    The post leaves out the addressing and links to the paper.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given

Tree = Any
SHIFTS = 3  # −1, 0, 1
START = 1e-6  # of every number in a constant memory


# --- addressing: T tasks, n heads, N rows of M numbers --------------------------------------------


def content_weights(k: Any, rows: Any, beta: Any) -> Any:
    """w^c(i) = exp(β K[k, M(i)]) / Σ_j exp(β K[k, M(j)]), K the cosine (eq. 5, 6).

    k (T, n, M), rows (T, N, M), β (T, n, 1) -> (T, n, N).
    """
    return ops.softmax(beta * (1.0 - ops.pairwise_distance(k, rows, "cosine")))


def interpolate(w_c: Any, g: Any, w_before: Any) -> Any:
    """w^g = g w^c + (1 − g) w_{t−1} (eq. 7): weights (T, n, N), g (T, n, 1)."""
    return g * w_c + (1.0 - g) * w_before


def shift(w: Any, s: Any) -> Any:
    """w̃(i) = Σ_j w(j) s(i − j), rows in a circle (eq. 8): w (T, n, N), s (T, n, 3) of −1, 0, 1."""
    back, stay, forth = (s[..., j : j + 1] for j in range(SHIFTS))
    return back * ops.roll(w, -1, -1) + stay * w + forth * ops.roll(w, 1, -1)


def sharpen(w: Any, gamma: Any) -> Any:
    """w(i)^γ / Σ_j w(j)^γ (eq. 9): weights (T, n, N), γ ≥ 1 (T, n, 1)."""
    # any constant may divide w; by the largest, Σ is at least 1 however large γ is
    powers = (w / ops.raw(w).max(axis=-1, keepdims=True)) ** gamma
    return powers / ops.sum(powers, axis=-1, keepdims=True)


# --- reading and writing --------------------------------------------------------------------------


def write(rows: Any, w: Any, e: Any, a: Any) -> Any:
    """M(i) Π_h [1 − w_h(i) e_h] + Σ_h w_h(i) a_h (eq. 3, 4).

    rows (T, N, M), weights (T, n, N), e and a (T, n, M) -> (T, N, M).
    """
    kept = ops.prod(1.0 - w[..., None] * e[:, :, None], axis=1)
    return rows * kept + ops.matmul(ops.matrix_transpose(w), a)


def read(rows: Any, w: Any) -> Any:
    """r = Σ_i w(i) M(i) (eq. 2): rows (T, N, M), weights (T, n, N) -> (T, n, M)."""
    return ops.matmul(w, rows)


# --- the machine ----------------------------------------------------------------------------------


class Heads(NamedTuple):
    """What the controller tells the heads: 2 n of them, those that read first; e, a for n."""

    k: Any  # (T, 2 n, M)
    beta: Any  # (T, 2 n, 1)
    g: Any  # (T, 2 n, 1)
    s: Any  # (T, 2 n, 3)
    gamma: Any  # (T, 2 n, 1)
    e: Any  # (T, n, M)
    a: Any  # (T, n, M)


class State(NamedTuple):
    """What a step hands to the next: h and c of the controller, r, M and w."""

    h: Any  # (T, H)
    c: Any  # (T, H), 0 where the controller is no LSTM
    r: Any  # (T, n · M)
    rows: Any  # (T, N, M)
    weights: Any  # (T, 2 n, N), the read heads first


@dataclass(frozen=True)
class NTM(Algorithm):
    """A Neural Turing Machine with `heads` read and write heads on a memory of `rows` x `width`.

    `inputs` and `outputs` are the channels of the sequences.
    """

    inputs: Given[int]
    outputs: Given[int]
    controller: Literal["lstm", "feed-forward"] = "lstm"
    """A controller with a state of its own, or without."""
    units: Count = 100
    """Units of the controller."""
    heads: Count = 1
    """Read heads, and as many write heads."""
    rows: Count = 128
    """Rows of the memory."""
    width: Count = 20
    """Numbers in a row."""
    memory: Literal["constant", "learned"] = "constant"
    """A new memory holds 10⁻⁶ everywhere, or learned numbers."""
    summed: bool = False
    """The loss is a sum over the bits of a sequence, not their mean."""
    _: KW_ONLY
    task_chunk: Given[int | None] = None

    @property
    def sizes(self) -> Heads:
        """How many numbers the heads have of each kind: (heads, numbers of one)."""
        n, m = self.heads, self.width
        each = (2 * n, 1)
        return Heads((2 * n, m), each, each, (2 * n, SHIFTS), each, (n, m), (n, m))

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {controller, heads, out, start}."""
        seen = self.inputs + self.heads * self.width  # by the controller: the input and r_{t−1}
        if self.controller == "lstm":
            controller = nn.LSTM(seen, self.units).init(rng)
            w = controller.pop("w_x")
        else:
            layer = nn.Linear(seen, self.units).init(rng)
            controller, w = {"b": layer["bias"]}, layer["weight"]
        start = {
            "w": nn.normal(rng, (2 * self.heads, self.rows), 1.0),
            "r": nn.normal(rng, (self.heads * self.width,), 0.1),
        }
        if self.memory == "learned":
            start["rows"] = nn.normal(rng, (self.rows, self.width), 0.1)
        n_heads = sum(heads * numbers for heads, numbers in self.sizes)
        return {
            "controller": {**controller, "w_x": w[: self.inputs], "w_r": w[self.inputs :]},
            "heads": nn.Linear(self.units, n_heads).init(rng),
            "out": nn.Linear(self.units + self.heads * self.width, self.outputs).init(rng),
            "start": start,
        }

    def start(self, params: Tree, tasks: int) -> State:
        """The state before a sequence: w_0 = softmax of what is learned, r_0 and M_0."""
        start = params["start"]
        w = ops.softmax(start["w"])
        xp = backend.xp(ops.raw(w))

        def of_all_tasks(x):
            return ops.broadcast_to(x, (tasks, *x.shape))

        zeros = xp.zeros((tasks, self.units), dtype=w.dtype)
        constant = xp.full((self.rows, self.width), START, dtype=w.dtype)
        rows = start["rows"] if self.memory == "learned" else constant
        return State(zeros, zeros, *(of_all_tasks(x) for x in (start["r"], rows, w)))

    def heads_of(self, params: Tree, h: Any) -> Heads:
        """What the heads are told, from the controller's h (T, H)."""
        made = ops.project(h, params["weight"], params["bias"])
        parts = ops.split(made, [heads * numbers for heads, numbers in self.sizes])
        k, beta, g, s, gamma, e, a = (
            ops.reshape(part, (-1, *size)) for part, size in zip(parts, self.sizes, strict=True)
        )
        return Heads(
            ops.tanh(k),
            ops.softplus(beta),
            ops.sigmoid(g),
            ops.softmax(s),
            1.0 + ops.softplus(gamma),
            ops.sigmoid(e),
            ops.tanh(a),
        )

    def step(self, params: Tree, z: Any, state: State) -> State:
        """One step, from the input's part z (T, H or 4H) of what the controller sums up."""
        controller = params["controller"]
        z = z + ops.matmul(state.r, controller["w_r"])
        if self.controller == "lstm":
            h, c = ops.lstm_gates(z + ops.matmul(state.h, controller["w_h"]), state.c)
        else:
            h, c = ops.tanh(z), state.c
        k, beta, g, s, gamma, e, a = self.heads_of(params["heads"], h)
        w_g = interpolate(content_weights(k, state.rows, beta), g, state.weights)
        w = sharpen(shift(w_g, s), gamma)
        rows = write(state.rows, w[:, self.heads :], e, a)
        r = ops.reshape(read(rows, w[:, : self.heads]), state.r.shape)
        return State(h, c, r, rows, w)

    # --- sequences ---

    def states(self, params: Tree, episodes: Episode) -> list[State]:
        """The states after every step, S of the support and Q of the query."""
        x = ops.concat([episodes.support_x, episodes.query_x], axis=1)  # (T, S + Q, I)
        if x.shape[-1] != self.inputs:
            raise ValueError(f"episodes: wanted {self.inputs} inputs, got {x.shape[-1]}")
        controller = params["controller"]
        z = ops.project(x, controller["w_x"], controller["b"])
        states = [self.start(params, len(x))]
        for t in range(x.shape[1]):
            states.append(self.step(params, z[:, t], states[-1]))
        return states[1:]

    def logits(self, params: Tree, episodes: Episode) -> Any:
        """log p / (1 − p) of every bit of the answer: (T, Q, O)."""
        states = self.states(params, episodes)[episodes.support_x.shape[1] :]
        seen = ops.stack([ops.concat([s.h, s.r], axis=-1) for s in states], axis=1)
        return ops.project(seen, params["out"]["weight"], params["out"]["bias"])

    def weights(self, params: Tree, episodes: Episode) -> Any:
        """Where the heads are in every step: (T, S + Q, 2 n, N), those that read first."""
        return ops.stack([s.weights for s in self.states(params, episodes)], axis=1)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of the answer, a mean or a sum over its bits (T,)."""
        logits = self.logits(params, episodes)
        y = episodes.query_y.astype(logits.dtype)
        over_bits = ops.sum if self.summed else ops.mean
        return over_bits(ops.softplus(logits) - y * logits, axis=(1, 2))

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The loss, a mean over tasks, and its gradient."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """The probability that a bit of the answer is 1: (T, Q, O)."""
        parts = [self.logits(params, part) for part in chunks(episodes, self.task_chunk)]
        return ops.sigmoid(backend.xp(episodes.query_x).concatenate(parts))
