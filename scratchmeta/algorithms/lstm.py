"""Sequences of images with the labels of those before (Santoro et al. 2016, section 3.1), and the
paper's LSTM baseline.

Images of a task come one after another, each with the label of the one before. To name a character
again, a network has to have kept it together with its label: this one in the state of an LSTM, and
MANN, which is built on it, in a memory.

    sec. 3.1   (x_1, null), (x_2, y_1), ..., (x_T, y_{T−1})               sequence_logits
               loss −Σ_t log p(y_t | x_{1:t}, y_{1:t−1})                  task_losses
    table 2    labels of five letters, five-hot                           encode
    table 1    accuracy by instance: 1st, 2nd, ... image of a class       instance_accuracy

Sequences come from a dataset in random order (`data.Shuffled`): support and query of an episode are
one sequence. `predict` is given plain episodes: it reads the support in order of shots, and then
every query by itself, from the state as the support left it.

Differs from the paper
    The loss is the mean over the sequence, whose length is the same in all tasks, not the sum. The
    sequence has as many examples of each class. Trained by Adam, not RMSProp.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np

from scratchmeta import backend, nn, ops, tree
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, n_way
from scratchmeta.algorithms.reptile import shot_by_shot
from scratchmeta.data import Shuffled, Splits
from scratchmeta.data.sequences import LETTERS
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given

Tree = Any


@dataclass(frozen=True)
class LSTMBaseline(Algorithm):
    """An LSTM that has to keep the task in its state.

    `image_size` and `image_channels` are those of the images (..., H, W, C), `ways` the number of
    classes. `labels` "one-hot" gives labels 0 ... ways − 1 to and expects them from the network as
    one of `ways`, "strings" numbers below 3125 as five letters, each one of 5.
    """

    image_size: Given[int] = 20
    ways: Given[int] = 5
    controller: Count = 200
    """Units of the LSTM."""
    labels: Literal["one-hot", "strings"] = "one-hot"
    """One of n_way labels, or five letters drawn anew for each class of an episode."""
    _: KW_ONLY
    image_channels: Given[int] = 1
    task_chunk: Given[int | None] = None

    @property
    def equal_shots(self) -> bool:
        """The support is read shot by shot."""
        return True

    @property
    def fixes_ways(self) -> bool:
        """One-hot labels are of as many classes as in training."""
        return self.labels == "one-hot"

    def datasets(self, splits: Splits) -> Splits:
        """Trained on sequences, the classes mixed."""
        return splits._replace(train=Shuffled(splits.train, self.labels))

    @property
    def n_label(self) -> int:
        """Numbers that a label is written in."""
        return self.ways if self.labels == "one-hot" else 5 * LETTERS

    @property
    def n_read(self) -> int:
        """Numbers that a step reads from memory."""
        return 0

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {lstm, out}."""
        cell = nn.LSTM(self.image_size**2 * self.image_channels + self.n_label, self.controller)
        recurrent = nn.LSTM(self.n_read + self.controller, self.controller)
        lstm = cell.init(rng)
        if self.n_read:  # r_{t−1} enters the controller beside h_{t−1}
            lstm["w_r"] = recurrent.init(rng)["w_x"][: self.n_read]
        return {
            "lstm": lstm,
            "out": nn.Linear(self.controller + self.n_read, self.n_label).init(rng),
        }

    # --- one step, T tasks at a time ---

    def start(self, tasks: int, like: Any) -> Any:
        """The state before a sequence, with the dtype and device of `like`."""
        zeros = backend.xp(ops.raw(like)).zeros((tasks, self.controller), dtype=like.dtype)
        return zeros, zeros

    def step(self, params: Tree, z: Any, state: Any) -> tuple[Any, Any]:
        """From the input's part z (T, 4H) of the gates: what the output sees, and the state."""
        h, c = ops.lstm_gates(z + ops.matmul(state[0], params["lstm"]["w_h"]), state[1])
        return h, (h, c)

    # --- sequences ---

    def encode(self, y: Any, dtype: Any) -> Any:
        """Labels (...) as the network sees them: one-hot (..., N), or five-hot (..., 25)."""
        if self.labels == "one-hot":
            return ops.one_hot(y, self.ways, dtype)
        return ops.reshape(ops.one_hot(letters(y), 5, dtype), (*y.shape, 5 * LETTERS))

    def run(self, params: Tree, x: Any, before: Any, state: Any) -> tuple[Any, Any]:
        """Logits (T, S, label) for images x (T, S, ...) and labels before them (T, S, label)."""
        lstm = params["lstm"]
        flat = ops.reshape(x, (*x.shape[:2], -1))
        z = ops.project(ops.concat([flat, before], axis=-1), lstm["w_x"], lstm["b"])
        seen = []
        for t in range(x.shape[1]):
            output, state = self.step(params, z[:, t], state)
            seen.append(output)
        out = params["out"]
        return ops.project(ops.stack(seen, axis=1), out["weight"], out["bias"]), state

    def sequence_logits(self, params: Tree, x: Any, y: Any) -> Any:
        """Logits (T, S, label) for a sequence, each step given the labels of those before it."""
        seen = self.encode(y, x.dtype)
        before = ops.concat([0 * seen[:, :1], seen[:, :-1]], axis=1)
        return self.run(params, x, before, self.start(len(x), x))[0]

    def label_log_p(self, logits: Any) -> Any:
        """Log-probabilities of the symbols, shaped like the logits: of one label, or of letters."""
        if self.labels == "one-hot":
            return ops.log_softmax(logits)
        by_letter = ops.reshape(logits, (*logits.shape[:-1], LETTERS, 5))
        return ops.reshape(ops.log_softmax(by_letter), logits.shape)

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """−log p of the true labels, a mean over the sequence (T,)."""
        x, y = sequence(episodes)
        log_p = self.label_log_p(self.sequence_logits(params, x, y))
        return -ops.mean(ops.sum(log_p * self.encode(y, log_p.dtype), axis=-1), axis=-1)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The loss, a mean over tasks, and its gradient."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """log p(y = k | x, S) for every query, read by itself after the support: (T, N·Q, N)."""
        parts = [self._queries(params, part) for part in chunks(episodes, self.task_chunk)]
        return backend.xp(episodes.query_x).concatenate(parts)

    def _queries(self, params: Tree, episodes: Episode) -> Any:
        ways = n_way(episodes)
        if self.labels == "one-hot" and ways != self.ways:
            raise ValueError(f"n_way: wanted the {self.ways} classes of training, got {ways}")
        x, y = (shot_by_shot(a, ways) for a in (episodes.support_x, episodes.support_y))
        seen = self.encode(y, x.dtype)
        before = ops.concat([0 * seen[:, :1], seen[:, :-1]], axis=1)
        _, state = self.run(params, x, before, self.start(len(x), x))
        tasks, queries = episodes.query_x.shape[:2]

        def for_each_query(a):
            a = ops.broadcast_to(a[:, None], (tasks, queries, *a.shape[1:]))
            return ops.reshape(a, (tasks * queries, *a.shape[2:]))

        state = tree.map(for_each_query, state)
        alone = episodes.query_x.reshape(tasks * queries, 1, *episodes.query_x.shape[2:])
        logits, _ = self.run(params, alone, for_each_query(seen[:, -1:]), state)
        log_p = self.label_log_p(logits[:, 0])
        codes = self.encode(backend.xp(log_p).arange(ways), log_p.dtype)  # (N, label)
        return ops.log_softmax((log_p @ codes.T).reshape(tasks, queries, ways))

    def instance_accuracy(self, params: Tree, episodes: Episode, instances: int = 10) -> np.ndarray:
        """The share of right answers for the 1st, 2nd, ... image of a class: (instances,).

        `episodes` are sequences; NaN where there is no such image.
        """
        x, y = sequence(episodes)
        logits = self.sequence_logits(params, x, y)
        symbols = 1 if self.labels == "one-hot" else LETTERS
        best = backend.to_numpy(logits).reshape(*y.shape, symbols, -1).argmax(axis=-1)
        labels = backend.to_numpy(y)
        truth = labels[..., None] if symbols == 1 else letters(labels)
        right = (best == truth).all(axis=-1)
        earlier = np.tril(labels[:, :, None] == labels[:, None], -1).sum(axis=-1)  # (T, S)
        chosen = [right[earlier == i] for i in range(instances)]
        return np.array([c.mean() if c.size else np.nan for c in chosen])


def sequence(episodes: Episode) -> tuple[Any, Any]:
    """Support and query as one sequence: x (T, S, ...), y (T, S)."""
    return (
        ops.concat([episodes.support_x, episodes.query_x], axis=1),
        ops.concat([episodes.support_y, episodes.query_y], axis=1),
    )


def letters(numbers: Any) -> Any:
    """The letters (..., 5), each 0 ... 4, of string labels (...)."""
    places = [5**k for k in reversed(range(LETTERS))]
    return backend.xp(numbers).stack([numbers // place % 5 for place in places], axis=-1)
