"""Memory-augmented neural networks (Santoro, Bartunov, Botvinick, Wierstra & Lillicrap, ICML 2016;
arXiv 1605.06065).

The task is that of `lstm.py`: images come one after another, each with the label of the one before.
To name a character again, the network has to have bound it to its label in an external memory.

    eq. 2      K(k_t, M_t(i)) = cos                                       MANN.read_weights
    eq. 3, 4   w^r_t = softmax_i K,  r_t = Σ_i w^r_t(i) M_t(i)            MANN.step
    eq. 5      w^u_t = γ w^u_{t−1} + w^r_t + w^w_t                        MANN.step
    eq. 6      w^lu_t(i) = 1 where w^u_t(i) is among the n smallest      ops.top_k_mask(−w^u, n)
    eq. 7      w^w_t = σ(α) w^r_{t−1} + (1 − σ(α)) w^lu_{t−1}             MANN.step
    eq. 8      M_t(i) = M_{t−1}(i) + w^w_t(i) k_t                         MANN.step

Before writing, the least used row by w^u_{t−1} is set to zero. n is the number of read heads; each
head has its key k, which it reads and writes with, and its gate α, a number that the controller
computes at every step.

Differs from the paper
    The temperature τ is explicit, and 1 in the paper, where no read can be sharp: of 128 rows the
    one that matches gets e² / (e² + 127) = 0.055 at most. `quick` has 0.1, which learns sooner.
    A write interpolates towards all n least used rows, as eq. 6 has it, so that n heads leave one
    sum of keys in n rows (it may be meant that each has a row of its own); only the least used one
    is set to zero. Of rows used alike, as all are at the start, the first count: eq. 6 by itself
    would choose them all. Keys pass a tanh, and every head has a gate of its own, where the paper
    names one key and one gate. Memory starts at 10⁻⁶, usage and read weights at zero. γ is the
    supplement's 0.99. Loss, sequences and optimiser are those of `lstm.py`. Two public
    reproductions (snowkylin's, Leputa's) are other models: they write a vector tanh(W h) of its own
    and address the memory as it was before the write, with γ 0.95.

Differs from the post
    α is no hyperparameter but computed at each step; the row that is zeroed is the least used
    before the step, not during it (which would be circular); r_t has the index t; w^lu is 0 or 1,
    by whether a row is among the n least used.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from scratchmeta import backend, nn, ops
from scratchmeta.algorithms.lstm import LSTMBaseline
from scratchmeta.fields import Count, Positive

Tree = Any
START = 1e-6  # of every number in the memory


class Memory(NamedTuple):
    """The state between two steps: that of the controller, and of M, w^r, w^u and r."""

    h: Any  # (T, H)
    c: Any  # (T, H)
    rows: Any  # M (T, rows, width)
    read: Any  # w^r (T, heads, rows)
    usage: Any  # w^u (T, rows)
    r: Any  # (T, heads · width)


@dataclass(frozen=True)
class MANN(LSTMBaseline):
    """MANN with `heads` read heads on a memory of `rows` x `width`; the rest as in LSTMBaseline."""

    _: KW_ONLY
    rows: Count = 128
    """Rows of the memory."""
    width: Count = 40
    """Numbers in a row."""
    heads: Count = 4
    """Read heads."""
    gamma: Positive = 0.99
    """γ, what is left of a row's usage after a step."""
    temperature: Positive = 1.0
    """τ, which divides the cosines of keys and rows; the paper has none, which is 1."""

    @property
    def n_read(self) -> int:
        """Numbers that a step reads from memory."""
        return self.heads * self.width

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {lstm, out, interface}: the interface makes keys and gates out of h."""
        n = self.heads * (self.width + 1)
        return {**super().init(rng), "interface": nn.Linear(self.controller, n).init(rng)}

    def start(self, tasks: int, like: Any) -> Memory:
        """An empty memory."""
        xp, dtype = backend.xp(ops.raw(like)), like.dtype

        def zeros(*shape):
            return xp.zeros((tasks, *shape), dtype=dtype)

        h, c = super().start(tasks, like)
        return Memory(
            h,
            c,
            zeros(self.rows, self.width) + dtype.type(START),
            zeros(self.heads, self.rows),
            zeros(self.rows),
            zeros(self.n_read),
        )

    def read_weights(self, keys: Any, rows: Any) -> Any:
        """softmax_i cos(k, M(i)) / τ: keys (T, heads, width) on M (T, rows, width)."""
        cosines = 1.0 - ops.pairwise_distance(keys, rows, "cosine")
        return ops.softmax(cosines / self.temperature)

    def step(self, params: Tree, z: Any, state: Memory) -> tuple[Any, Memory]:
        """From the input's part z (T, 4H) of the gates: [h, r] (T, H + heads · width), state."""
        lstm, interface = params["lstm"], params["interface"]
        z = z + ops.matmul(state.h, lstm["w_h"]) + ops.matmul(state.r, lstm["w_r"])
        h, c = ops.lstm_gates(z, state.c)
        made = ops.project(h, interface["weight"], interface["bias"])
        keys = ops.tanh(ops.reshape(made[:, : self.n_read], (-1, self.heads, self.width)))
        gate = ops.sigmoid(made[:, self.n_read :])[..., None]  # σ(α) (T, heads, 1)

        used = ops.raw(state.usage)
        least_used = ops.top_k_mask(-used, self.heads)[:, None]  # w^lu_{t−1}
        kept = 1 - ops.top_k_mask(-used, 1)[..., None]
        write = gate * state.read + (1 - gate) * least_used  # w^w (T, heads, rows)
        rows = state.rows * kept + ops.matmul(ops.matrix_transpose(write), keys)
        read = self.read_weights(keys, rows)
        r = ops.reshape(ops.matmul(read, rows), (-1, self.n_read))
        usage = self.gamma * used + ops.raw(read).sum(axis=1) + ops.raw(write).sum(axis=1)
        return ops.concat([h, r], axis=-1), Memory(h, c, rows, read, usage, r)
