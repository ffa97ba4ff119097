"""The LSTM meta-learner (Ravi & Larochelle, ICLR 2017, openreview rJY0-Kcll).

An update of gradient descent looks like that of an LSTM's cell state. So the cell state is the
learner's parameters, and how far they forget and how far they follow the gradient is learned.

    eq. 1, 2   c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t,  c_t = θ_t, c̃_t = −∇L_t      MetaLSTM.step
    sec. 3     f_t = σ(W_F [∇L_t, L_t, θ_{t−1}, f_{t−1}] + b_F)              gate
               i_t = σ(W_I [∇L_t, L_t, θ_{t−1}, i_{t−1}] + b_I)              gate
               one meta-learner for all coordinates; ∇L and L preprocessed    MetaLSTM.step
    alg. 1     θ_t for t = 1 ... T on D_train, then the loss on D_test        MetaLSTM.task_losses

With f = 1 and i = α this is gradient descent. What the gates see of ∇L_t and L_t is what a first,
ordinary LSTM of 20 units makes of them; the gradient that θ follows is the plain one. The initial
cell state c_0 = θ_0 is learned with the rest.

Every number of θ is a coordinate with an LSTM's states of its own. The tree of weights is laid out
as one axis of P coordinates, so that a step of T tasks sends T · P rows through one small LSTM.

The paper assumes that gradients and losses do not depend on the meta-learner, which leaves out all
second derivatives: `first_order=True`. `first_order=False` is the exact meta-gradient,
differentiated through ∇L_t and L_t too.

Batch-norm: in meta-training by a batch's own statistics, on D_train and D_test alike, which is
`batch_norm="transductive"`; in meta-testing by those of D_train on D_test too, which is
`test_batch_norm="support"`. They live as long as one prediction, so no task knows of another.

Differs from the paper
    The statistics for D_test are D_train's under θ_T, not moving averages over θ_0 ... θ_{T−1}. The
    states before the first step, f_0 and i_0 among them, are 0; the paper leaves them open. Every
    step uses all of D_train, as the authors' code does. That code feeds the gates' pre-activations
    back where the paper's equations have f_{t−1} and i_{t−1}: the paper is followed. The paper's
    text once has c̃ = ∇L_t, without the minus that equation 1 needs.

Differs from the post
    The post's gates see ∇L_t and L_t themselves, without the first LSTM and the preprocessing. It
    has neither batch-norm nor initial values, and its remark on shared parameters breaks off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from scratchmeta import backend, core, nn, ops, tree
from scratchmeta.algorithms.preprocessing import preprocess
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, query_outputs
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given, Interval, Natural, Positive
from scratchmeta.losses import cross_entropy

Tree = Any

# Coordinates of the tasks in one chunk: what their LSTM keeps of a step is 1 kB each.
_CHUNK_COORDINATES = {"numpy": 2**15, "cupy": 2**19}


class State(NamedTuple):
    """The meta-learner between two steps, for P coordinates of T tasks."""

    theta: Any  # c of the learner's LSTM: θ (T, P)
    f: Any  # (T, P)
    i: Any  # (T, P)
    h: Any  # of the first LSTM (T, P, H)
    c: Any  # (T, P, H)


def gate(params: dict, h: Any, theta: Any, before: Any) -> Any:
    """σ(W [h, θ_{t−1}, g_{t−1}] + b) for a gate g, which was `before`: (T, P)."""
    w, n = params["weight"], h.shape[-1]
    return ops.sigmoid(ops.matmul(h, w[:n]) + theta * w[n] + before * w[n + 1] + params["bias"])


@dataclass(frozen=True)
class MetaLSTM(Algorithm):
    """The LSTM meta-learner of any `network` with init(rng) and network(params, x) -> logits, or
    values.

    `loss` maps outputs (T, N, D) and targets to one number per task. `task_chunk` is the number of
    tasks at a time (None: chosen by the number of coordinates).
    """

    head: ClassVar[bool] = True

    network: Given[Any]
    inner_steps: Count = 12
    """T, updates of the learner in training."""
    eval_inner_steps: Natural | None = None
    """Updates of the learner in validation and test; as in training if not given."""
    hidden: Count = 20
    """Units H of the first LSTM."""
    p: Positive = 10.0
    """Gradients and losses below e^−p are small to the preprocessing."""
    forget_bias: Interval = (4.0, 5.0)
    """Range that the forget gate's bias is drawn from: f starts near 1."""
    input_bias: Interval = (-5.0, -4.0)
    """Range that the input gate's bias is drawn from: its sigmoid is the first learning rate."""
    first_order: bool = True
    """Take the learner's gradients and losses for constants, as the paper does."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """In training, batch-norm of the queries by their own statistics, or by the support's."""
    test_batch_norm: Literal["transductive", "support"] = "support"
    """The same in validation and test."""
    loss: Given[Callable] = cross_entropy
    task_chunk: Given[int | None] = None

    def __post_init__(self) -> None:
        if self.eval_inner_steps is None:
            object.__setattr__(self, "eval_inner_steps", self.inner_steps)
        super().__post_init__()

    @cached_property
    def lstm(self) -> nn.LSTM:
        """The first LSTM."""
        return nn.LSTM(4, self.hidden)

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {theta, lstm, forget, input}: weights from U(−0.01, 0.01), θ_0 the
        network's."""

        def uniform(low, high, *shape):
            return backend.asarray(rng.uniform(low, high, shape).astype(np.float32))

        n = self.lstm.n_hidden
        made = {"theta": self.network.init(rng)}
        made["lstm"] = {
            name: uniform(-0.01, 0.01, *shape)
            for name, shape in {"w_x": (4, 4 * n), "w_h": (n, 4 * n), "b": (4 * n,)}.items()
        }
        for name, (low, high) in {"forget": self.forget_bias, "input": self.input_bias}.items():
            made[name] = {"weight": uniform(-0.01, 0.01, n + 2), "bias": uniform(low, high)}
        return made

    # --- the tree of weights, and its coordinates ---

    def coordinates(self, weights: Tree) -> Any:
        """Weights (T, ...) of every task as one row each: (T, P)."""
        leaves = tree.flatten(weights)[0]
        return ops.concat([ops.reshape(w, (len(w), -1)) for w in leaves], axis=1)

    def weights(self, theta: Any, like: Tree) -> Tree:
        """Coordinates (T, P) as the tree that they came from, in the form of `like`."""
        leaves, treedef = tree.flatten(like)
        parts = ops.split(theta, [w.size for w in leaves], axis=1)
        shaped = [ops.reshape(x, (len(x), *w.shape)) for x, w in zip(parts, leaves, strict=True)]
        return tree.unflatten(treedef, shaped)

    # --- the learner's loss, and a step of the meta-learner ---

    def gradient(self, theta: Any, like: Tree, episodes: Episode, exact: bool) -> tuple[Any, Any]:
        """∇L_t (T, P) and L_t (T,) on all of D_train; constants unless `exact`."""
        weights = self.weights(theta, like)
        if not exact:
            weights = tree.map(lambda w: core.Tensor(core.raw(w)), weights)
        losses = self.loss(self.network(weights, episodes.support_x), episodes.support_y)
        gradient = self.coordinates(core.grad(ops.sum(losses), weights, create_graph=exact))
        return gradient, losses if exact else core.raw(losses)

    def start(self, params: Tree, tasks: int) -> State:
        """The state before the first step: c_0 = θ_0, all else 0."""
        theta = self.coordinates(tree.map(lambda w: w[None], params["theta"]))
        theta = ops.broadcast_to(theta, (tasks, theta.shape[1]))
        zeros = 0.0 * core.raw(theta)
        return State(theta, zeros, zeros, *self.lstm.start(theta.shape, theta))

    def step(self, params: Tree, state: State, gradient: Any, losses: Any) -> State:
        """One update: c_t = f_t ⊙ c_{t−1} + i_t ⊙ (−∇L_t)."""
        theta = state.theta
        loss = ops.broadcast_to(preprocess(losses, self.p)[:, None], (*theta.shape, 2))
        one = backend.xp(core.raw(theta)).ones_like(core.raw(theta))[..., None]
        # [x, h, 1] times [w_x, w_h, b]: one product for these many rows, not two and two sums
        x = ops.concat([preprocess(gradient, self.p), loss, state.h, one], axis=-1)
        lstm = params["lstm"]
        w = ops.concat([lstm["w_x"], lstm["w_h"], lstm["b"][None]])  # (4 + H + 1, 4H)
        h, c = ops.lstm_gates(ops.matmul(x, w), state.c)  # (T, P, H)
        f = gate(params["forget"], h, theta, state.f)
        i = gate(params["input"], h, theta, state.i)
        return State(f * theta - i * gradient, f, i, h, c)

    def adapt(self, params: Tree, episodes: Episode, inner_steps: int, exact: bool = False) -> Tree:
        """The weights θ_T of every task (T, ...) after `inner_steps` steps on D_train."""
        state = self.start(params, len(episodes.support_x))
        for _ in range(inner_steps):
            given = self.gradient(state.theta, params["theta"], episodes, exact)
            state = self.step(params, state, *given)
        return self.weights(state.theta, params["theta"])

    # --- the protocol ---

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """L(M(D_test; θ_T), D_test) of every task (T,)."""
        weights = self.adapt(params, episodes, self.inner_steps, exact=not self.first_order)
        outputs = query_outputs(self.network, weights, episodes, self.batch_norm)
        return self.loss(outputs, episodes.query_y)

    def tasks_at_a_time(self, params: Tree) -> int:
        """`task_chunk`, or as many tasks as have a chunk's coordinates together."""
        if self.task_chunk is not None:
            return self.task_chunk
        leaves = tree.flatten(params["theta"])[0]
        at_most = _CHUNK_COORDINATES["numpy" if backend.xp(*leaves) is np else "cupy"]
        return max(1, at_most // sum(math.prod(w.shape) for w in leaves))

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The loss on D_test after adaptation, a mean over tasks, and its gradient ∂/∂Θ."""
        return mean_over_tasks(self.task_losses, params, episodes, self.tasks_at_a_time(params))

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """After adaptation: log-probabilities (T, N·Q, N), or values (T, Q, D) in regression."""
        steps: Any = self.eval_inner_steps
        policy = self.test_batch_norm
        outputs = backend.xp(episodes.query_x).concatenate(
            [
                query_outputs(self.network, self.adapt(params, part, steps), part, policy)
                for part in chunks(episodes, self.tasks_at_a_time(params))
            ]
        )
        return ops.log_softmax(outputs) if self.loss is cross_entropy else outputs
