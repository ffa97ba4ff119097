"""Meta Networks (Munkhdalai & Yu, ICML 2017, arXiv 1703.00837).

Networks turn the gradients of a few losses into fast weights, which work beside the slow weights
that training has learned: at once, without a descent. In the post's numbering:

    1a       ∇_i = ∂loss_emb(u(θ, x'_i), y'_i)/∂θ           MetaNet.embedding_losses
    2        θ⁺ = d(∇_1, ∇_2, ...), an LSTM                  MetaNet.task_fast_weights
    3a       ∇_i = ∂loss_task(b(φ, x'_i), y'_i)/∂φ           example_gradients
    3b       M_i = φ⁺_i = m(∇_i), a network                  MetaNet.example_fast_weights
    3d, 4a   R_i = u(θ, θ⁺, x'_i),  r = u(θ, θ⁺, x)          SlowFast.embed
    4b       φ⁺ = Σ_i softmax_i(cos(r, R_i)) M_i             ops.cosine_attention
    4c       L = loss_task(b(φ, φ⁺, x), y)                   MetaNet.task_losses
    fig. 8   h = ReLU(W h') + ReLU(W⁺ h')                    SlowFast.hidden
             p = softmax(W h + W⁺ h)                         SlowFast.logits

Weights have the post's letters, θ of the embedding and φ of the base learner, with a ⁺ where they
are fast; functions have the paper's, u, b, d and m. d and m work on single numbers: they are the
same for all coordinates, and see of each its preprocessed gradient (p = 7). The loss is
differentiated with respect to θ, φ, d and m, through the ∇_i too: to second order.

A task has a θ⁺, an example of the support a φ⁺_i, a query a φ⁺: each is weights with leading axes,
so that one call of a layer serves them all, and the sum of the examples' losses has every example's
gradient. A query's filters are added up before they are used. Convolving with all N·K of the
memory's and adding up the results is the same, a convolution being linear, but on a map of S pixels
costs N·K S products per number of a filter instead of N·K + S.

No layer has batch-norm: queries never influence one another.

Differs from the paper
    The ∇_i of the embedding are those of the whole support, in the order of the episode. loss_emb
    is a cross-entropy where classes have one example, of logits that a last layer of u, which
    serves nothing else, gives for the labels of the episode; where they have several, the
    contrastive loss of Hadsell et al. (2006), of pairs of support examples. As in the authors' code
    no layer of u and b has a bias, the layer before the logits has 64 units, and R and r are what
    it gives without its ReLU. That code has one d and one m for convolutions, another for linear
    layers, and takes the ∇_i for constants: `first_order=True`. u and b start as layers here do (He
    et al. 2015), d and m, as all of the paper's parameters, uniform in [−0.1, 0.1). Trained on
    turned characters, it is tested on those as they are (`paper`, `author-code`). `quick` halves
    by strides instead of pooling and has fast weights in the last two layers only (the paper, in
    the last three on mini-ImageNet).

Differs from the post
    Its losses lack their minus sign; its loss of the embedding is a binary cross-entropy of
    σ(W |u(x_1) − u(x_2)|), whatever the number of examples. That slow and fast weights each have
    their ReLU is in its figure only.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from scratchmeta import backend, core, nn, ops, tree
from scratchmeta.algorithms.preprocessing import preprocess
from scratchmeta.algorithms.protocol import Algorithm, chunks, mean_over_tasks, n_way
from scratchmeta.algorithms.slow_fast import SlowFast
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given
from scratchmeta.losses import cross_entropy

Tree = Any

P = 7.0  # of the gradients' preprocessing
MARGIN = 1.0  # of the contrastive loss


# --- weights as vectors ---------------------------------------------------------------------------


def example_gradients(losses: Callable, weights: Tree, lead: tuple[int, int]) -> Any:
    """Every example's own ∂loss/∂weights, as vectors (T, S, coordinates), for `lead` (T, S).

    `losses` gives (T, S) numbers for weights (T, S, ...). Differentiable if the weights are.
    """
    live = isinstance(tree.flatten(weights)[0][0], core.Tensor)
    copies = tree.map(lambda w: ops.broadcast_to(w, (*lead, *w.shape)), weights)
    with core.recording(True):
        copies = copies if live else tree.map(core.Tensor, copies)
        g = core.grad(ops.sum(losses(copies)), copies, create_graph=live)
    return ops.concat([ops.reshape(leaf, (*lead, -1)) for leaf in tree.flatten(g)[0]], axis=-1)


def as_weights(vectors: Any, like: Tree) -> Tree:
    """Vectors (..., coordinates) as weights with these leading axes, in the form of `like`."""
    leaves, treedef = tree.flatten(like)
    parts = ops.split(vectors, [w.size for w in leaves])
    shapes = [(*vectors.shape[:-1], *w.shape) for w in leaves]
    return tree.unflatten(treedef, list(map(ops.reshape, parts, shapes)))


# --- the embedding's loss -------------------------------------------------------------------------


def pairs(n: int, ways: int) -> tuple[list[int], list[int]]:
    """n pairs of the examples 0 to n − 1 of an episode, each the first of one of them.

    The second is in turn the next example, of the same class if the first is not the last one
    there, and the one a class further. Classes and drawings of an episode being in random order, so
    are these pairs.
    """
    return list(range(n)), [(i + (n // ways if i % 2 else 1)) % n for i in range(n)]


def contrastive(h: Any, y: Any) -> Any:
    """½ d² for two of a class, ½ max(0, margin − d)² for others, d their distance.

    Features h (..., 2, D) and labels y (..., 2) -> (...).
    """
    d = ops.norm(h[..., 0, :] - h[..., 1, :])
    apart = ops.relu(MARGIN - d)
    return 0.5 * ops.square(ops.where(y[..., 0] == y[..., 1], d, apart))


# --- the algorithm --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MetaNet(Algorithm):
    """Meta Networks whose embedding u and base learner b are two networks like `network`.

    `task_chunk` is the number of tasks at a time: the coordinates of one fill the cache of a CPU.
    An episode has as many classes as `network` has logits.
    """

    head: ClassVar[bool] = True

    network: Given[SlowFast]
    hidden: Count = 20
    """Units of the networks d and m that make fast weights, and of each layer of m."""
    first_order: bool = False
    """Take the gradients that become fast weights for constants."""
    task_chunk: Given[int | None] = 1

    @property
    def equal_shots(self) -> bool:
        """Pairs of them are made shot by shot."""
        return True

    @cached_property
    def d(self) -> nn.LSTM:
        """What makes θ⁺ of the gradients."""
        return nn.LSTM(2, self.hidden)

    @cached_property
    def d_out(self) -> nn.Linear:
        """The last layer of d."""
        return nn.Linear(self.hidden, 1)

    @cached_property
    def m(self) -> nn.Sequential:
        """What makes φ⁺ of a gradient."""
        return nn.MLP([2, self.hidden, self.hidden, 1])

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {u: θ, b: φ, d: {lstm, out}, m}."""

        def uniform(p):
            return backend.asarray(rng.uniform(-0.1, 0.1, p.shape).astype(np.float32))

        u, b = self.network.init(rng), self.network.init(rng)
        d = {"lstm": self.d.init(rng), "out": self.d_out.init(rng)}
        return {"u": u, "b": b, **tree.map(uniform, {"d": d, "m": self.m.init(rng)})}

    def meta_information(self, losses: Callable, weights: Tree, lead: tuple[int, int]) -> Any:
        """The preprocessed ∇_i of every example: (T, S, coordinates, 2)."""
        g = example_gradients(losses, weights, lead)
        return preprocess(core.stop_gradient(g) if self.first_order else g, P)

    def embedding_losses(self, θ: Tree, u: Tree, x: Any, y: Any) -> Any:
        """loss_emb of single examples x (T, S, 1, ...), or of pairs (T, S, 2, ...): (T, S).

        θ are the slow weights of u's augmented layers; labels y are (T, S, 1) or (T, S, 2).
        """
        if y.shape[2] == 2:
            return contrastive(self.network.embed([θ], x), y)
        return cross_entropy(self.network.logits([u | θ], x), y)

    def task_fast_weights(self, u: Tree, d: Tree, x: Any, y: Any, ways: int) -> Tree:
        """θ⁺ of every task from its support: x (T, S, ...) from `lower`, labels y (T, S)."""
        if y.shape[1] == ways:
            x, y = x[:, :, None], y[:, :, None]
        else:
            left, right = pairs(y.shape[1], ways)
            x, y = (ops.stack([a[:, left], a[:, right]], axis=2) for a in (x, y))
        θ = self.network.augmented(u, logits=False)
        # ∇_i = ∂loss_emb/∂θ
        losses = functools.partial(self.embedding_losses, u=u, x=x, y=y)
        g = self.meta_information(losses, θ, y.shape[:2])
        # θ⁺ = d(∇_1, ∇_2, ...)
        state = self.d.start((len(g), g.shape[2]), g)
        for i in range(g.shape[1]):
            state = self.d.step(d["lstm"], g[:, i], state)
        return as_weights(self.d_out(d["out"], state[0])[..., 0], θ)

    def example_fast_weights(self, b: Tree, m: Tree, x: Any, y: Any) -> Any:
        """M, the φ⁺_i of all support examples (T, S, coordinates): x from `lower`, labels y."""

        def losses(φ):
            return cross_entropy(self.network.logits([φ], x[:, :, None]), y[:, :, None])

        # M_i = m(∂loss_task/∂φ)
        φ = self.network.augmented(b, logits=True)
        return self.m(m, self.meta_information(losses, φ, y.shape))[..., 0]

    def logits(self, params: Tree, episodes: Episode) -> Any:
        """b(φ, φ⁺, x) for every query x, each with a φ⁺ of its own: (T, N·Q, N)."""
        net, (θ, φ, d, m) = self.network, (params[name] for name in ("u", "b", "d", "m"))
        labels, ways = episodes.support_y, n_way(episodes)
        # R_i = u(θ, θ⁺, x'_i),  r = u(θ, θ⁺, x)
        support, query = net.lower(θ, episodes.support_x), net.lower(θ, episodes.query_x)
        paths = [θ, self.task_fast_weights(θ, d, support, labels, ways)]
        R, r = net.embed(paths, support), net.embed(paths, query)
        # φ⁺ = Σ_i softmax_i(cos(r, R_i)) M_i
        support, query = net.lower(φ, episodes.support_x), net.lower(φ, episodes.query_x)
        M = self.example_fast_weights(φ, m, support, labels)
        fast = as_weights(ops.cosine_attention(r, R, M), net.augmented(φ, logits=True))
        return net.logits([φ, fast], query[:, :, None])[:, :, 0]

    def task_losses(self, params: Tree, episodes: Episode) -> Any:
        """loss_task, a mean over the queries of every task (T,)."""
        return cross_entropy(self.logits(params, episodes), episodes.query_y)

    def meta_gradient(self, params: Tree, episodes: Episode) -> tuple[Any, Tree]:
        """The loss, a mean over tasks, and its gradient in θ, φ, d and m."""
        return mean_over_tasks(self.task_losses, params, episodes, self.task_chunk)

    def predict(self, params: Tree, episodes: Episode) -> Any:
        """log p(y = k | x, S) for every query: (T, N·Q, N)."""
        parts = [self.logits(params, part) for part in chunks(episodes, self.task_chunk)]
        return ops.log_softmax(backend.xp(episodes.query_x).concatenate(parts))
