"""Matching Networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, NIPS 2016, arXiv
1606.04080).

A query takes the labels of the support examples, weighted by attention to them.

    eq. 1       P(y = k | x, S) = Σ_i a(x, x_i) 1[y_i = k]             Matching.log_probabilities
    sec. 2.1.1  a(x, x_i) = softmax_i(cos(f(x), g(x_i)) / τ)           ops.cosine_attention
    appendix A  g(x_i, S) = →h_i + ←h_i + g'(x_i), a BiLSTM over S     FullContext.embed_support
                ĥ_k, c_k = LSTM(f'(x), [h_{k−1}, r_{k−1}], c_{k−1})   FullContext.embed_query
                h_k = ĥ_k + f'(x)
                r_{k−1} = Σ_i softmax_i(h_{k−1} · g(x_i)) g(x_i)

Differs from the paper
    The temperature τ is explicit. The paper has none (τ = 1), and cosines then cannot make a
    probability large: 1 / (1 + (N − 1) e^−1) at most where features are positive, 0.40 for 5 ways.
    In f each step first reads r_{k−1} with h_{k−1}, then moves on. The paper leaves h_0, c_0 and
    the number of steps open: here both are zero, so that r_0 is the mean of g, or h_0 is f'(x),
    which h_0 = ĥ_0 + f'(x) with ĥ_0 = 0 would be (`first_state`), and `processing_steps` is an
    option. The BiLSTM reads the support in the order of the episode, class
    after class, and the numbering of classes is random: the paper says no more than "arbitrary".

Differs from the post
    The post says cosine distance; it is the similarity. Its LSTM equation counts with t what counts
    processing steps k, and its sum of P in the objective is a sum of log P.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np

from scratchmeta import fields, nn, ops
from scratchmeta.algorithms.protocol import MetricLearner, Tree, n_way
from scratchmeta.episodes import Episode
from scratchmeta.fields import Count, Given, at_least


@dataclass(frozen=True)
class Matching(MetricLearner):
    """Matching Networks around any `network` with init(rng) and network(params, x) -> features.

    The rest as in `MetricLearner`. With a smaller temperature a probability, down to e^(−2/τ),
    can underflow in float32.
    """

    temperature: Annotated[float, at_least(0.025)] = 1.0
    """τ, which divides the cosines; the paper has none, which is 1."""

    def __post_init__(self) -> None:
        fields.check(self)
        super().__post_init__()

    def full_context(self, params: Tree, support: Any, query: Any) -> tuple[Any, Any]:
        """g(x_i, S) and f(x, S); without full context embeddings the features as they are."""
        return support, query

    def log_probabilities(self, params: Tree, episodes: Episode, batch_norm: nn.Policy) -> Any:
        """log Σ_i a(x, x_i) 1[y_i = k] for every query: (T, N·Q, N)."""
        g, f = self.full_context(params, *self.embed(params, episodes, batch_norm))
        labels = ops.one_hot(episodes.support_y, n_way(episodes), g.dtype)  # (T, N·K, N)
        return ops.log(ops.cosine_attention(f, g, labels, 1 / self.temperature))


@dataclass(frozen=True)
class FullContext(Matching):
    """Matching Networks with full context embeddings of features (T, ·, D), D = `n_features`."""

    n_features: Given[int] = 64
    processing_steps: Count = 3
    """K, steps of the attention LSTM that embeds a query."""
    first_state: Literal["zero", "features"] = "zero"
    """h_0 of this LSTM, which the paper leaves open: 0, or f'(x)."""

    @cached_property
    def g(self) -> nn.BiLSTM:
        """What embeds the support."""
        return nn.BiLSTM(self.n_features, self.n_features)

    @cached_property
    def f(self) -> nn.LSTM:
        """What embeds a query: input [f'(x), r], state h."""
        return nn.LSTM(2 * self.n_features, self.n_features)

    def init(self, rng: np.random.Generator) -> Tree:
        """New parameters {network, g, f}: of the embedding, the BiLSTM, the attention LSTM."""
        return {**super().init(rng), "g": self.g.init(rng), "f": self.f.init(rng)}

    def embed_support(self, params: Tree, features: Any) -> Any:
        """g(x_i, S) from g'(x_i) (T, N·K, D)."""
        forward, backward = self.g(params["g"], features)
        return forward + backward + features

    def embed_query(self, params: Tree, features: Any, g: Any) -> Any:
        """f(x, S) = h_K from f'(x) (T, N·Q, D) and g (T, N·K, D)."""
        h, c = self.f.start(features.shape[:-1], features)
        h = features if self.first_state == "features" else h
        for _ in range(self.processing_steps):
            r = ops.attention(h, g, g)
            h, c = self.f.step(params["f"], ops.concat([features, r], axis=-1), (h, c))
            h = h + features
        return h

    def full_context(self, params: Tree, support: Any, query: Any) -> tuple[Any, Any]:
        """g(x_i, S) and f(x, S)."""
        g = self.embed_support(params, support)
        return g, self.embed_query(params, query, g)
