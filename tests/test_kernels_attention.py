"""Attention, by Numba and in CUDA: against loops over scalars, gradients by complex step."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_tools import LAYOUTS, RTOL, assert_close, three_threads

from scratchmeta.kernels import attention

SCORES = ["cosine", "dot"]
# (Q, N, D, V): plain loops; one tile; tiles with ends, in groups; more of everything than a tile;
# whole tiles and nothing else, of Numba's and of CUDA's
SIZES = [(3, 5, 4, 2), (17, 4, 8, 8), (97, 70, 9, 5), (49, 400, 3, 17), (130, 257, 33, 65)]
SIZES += [(48, 64, 16, 8), (64, 128, 16, 64), (128, 64, 64, 128)]


@pytest.fixture(scope="module")
def kernels(on):
    return on(attention)


def oracle(query, keys, values, scale, score):
    """out and logsumexp for one query, keys (N, D), values (N, V), number by number."""
    scores = []
    for key in keys:
        s = math.fsum(float(a) * float(b) for a, b in zip(query, key, strict=True))
        if score == "cosine":
            lengths = math.hypot(*map(float, query)) * math.hypot(*map(float, key))
            s = s / lengths if lengths else 0.0
        scores.append(float(scale) * s)
    top = max(scores, default=0.0)
    p = [math.exp(s - top) for s in scores]
    z = math.fsum(p)
    out = np.zeros(values.shape[1])
    for weight, value in zip(p, values, strict=True):
        out += weight / z * value
    return out, top + math.log(z) if z else -math.inf


def analytic(query, keys, values, scale, score):
    """The same for whole arrays that may be complex, scale (..., Q)."""
    if score == "cosine":
        query, keys = (a / np.sqrt((a * a).sum(-1, keepdims=True)) for a in (query, keys))
    s = np.einsum("...qd,...nd->...qn", query, keys) * scale[..., None]
    p = np.exp(s - s.real.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ values


def drawn(rng, dtype, lead, q, n, d, v):
    shapes = (q, d), (n, d), (n, v), (q, v)
    return [rng.standard_normal((*lead, *shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", RTOL)
@given(
    lead=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    sizes=st.tuples(st.sampled_from([0, 1, 3, 18]), *[st.integers(0, 7)] * 3),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_loops_over_scalars(kernels, score, dtype, lead, sizes, layout, seed):
    rng = np.random.default_rng(seed)
    query, keys, values, _ = (LAYOUTS[layout](a) for a in drawn(rng, dtype, lead, *sizes))
    scale = rng.standard_normal((*lead, sizes[0])).astype(dtype)
    out, logsumexp = kernels.attention(query, keys, values, scale, score)
    assert out.dtype == logsumexp.dtype == dtype
    assert (out.shape, logsumexp.shape) == ((*lead, sizes[0], sizes[3]), (*lead, sizes[0]))
    for index in np.ndindex(scale.shape):
        b = index[:-1]
        wanted, ell = oracle(query[index], keys[b], values[b], scale[index], score)
        assert_close(out[index], wanted, 4 * RTOL[dtype])
        assert logsumexp[index] == pytest.approx(ell, rel=RTOL[dtype], abs=10 * RTOL[dtype])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("batch", [1, 2])  # one alone is shared among the threads
def test_gradients_by_complex_step(kernels, score, batch, sizes, rng, monkeypatch):
    query, keys, values, g = drawn(rng, np.float64, (batch,), *sizes)
    scale = rng.standard_normal((batch, sizes[0]))
    inputs = [query, keys, values, scale]
    with three_threads(monkeypatch):
        out, logsumexp = kernels.attention(*inputs, score)
        gradients = kernels.attention_backward(g, *inputs[:3], out, logsumexp, scale, score)
    assert_close(out, analytic(*inputs, score), 1e-12)
    for i, gradient in enumerate(gradients):
        for _ in range(2):
            u = rng.standard_normal(inputs[i].shape)
            moved = [a + 1e-30j * u if j == i else a for j, a in enumerate(inputs)]
            wanted = np.vdot(g, analytic(*moved, score).imag) / 1e-30
            assert np.vdot(gradient, u) == pytest.approx(wanted, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_float32_against_float64(kernels, score, sizes, rng):
    query, keys, values, g = drawn(rng, np.float64, (2,), *sizes)
    results = []
    for dtype in (np.float64, np.float32):
        q, k, v, cotangent = (a.astype(dtype) for a in (query, keys, values, g))
        scale = np.full((2, sizes[0]), 2.0, dtype)
        out, logsumexp = kernels.attention(q, k, v, scale, score)
        back = kernels.attention_backward(cotangent, q, k, v, out, logsumexp, scale, score)
        assert all(a.dtype == dtype for a in (out, logsumexp, *back))
        results.append((out, logsumexp, *back))
    for wanted, got in zip(*results, strict=True):
        assert_close(got, wanted, 1e-4)


@pytest.mark.parametrize("score", SCORES)
def test_scale_as_a_number_and_by_head(kernels, score, rng):
    query, keys, values, g = drawn(rng, np.float64, (3, 2), 4, 5, 3, 2)
    heads = rng.standard_normal((3, 2))
    for scale, rows in (
        (2.5, np.full((3, 2, 4), 2.5)),
        (heads, np.repeat(heads, 4).reshape(3, 2, 4)),
    ):
        results = []
        for s in (scale, rows):
            out, logsumexp = kernels.attention(query, keys, values, s, score)
            back = kernels.attention_backward(g, query, keys, values, out, logsumexp, s, score)
            results.append((out, logsumexp, *back))
        *one, gscale = results[0]
        *other, grows = results[1]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
        if np.ndim(scale) == 0:
            assert gscale is None
        else:
            np.testing.assert_allclose(gscale, grows.sum(-1))


@pytest.mark.parametrize("queries", [3, 40])
def test_zero_vectors_are_like_nothing(kernels, queries, rng):
    query, keys, values, g = drawn(rng, np.float64, (), queries, 6, 4, 3)
    query[1], keys[2] = 0, 0
    out, logsumexp = kernels.attention(query, keys, values, 3.0)
    np.testing.assert_allclose(out[1], values.mean(axis=0))
    gq, gk, _, _ = kernels.attention_backward(g, query, keys, values, out, logsumexp, 3.0)
    assert not gq[1].any()
    assert not gk[2].any()
    assert gq[0].all()
    assert gk[0].all()


@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("dtype", RTOL)
def test_scores_far_beyond_the_range_of_exp(kernels, queries, dtype, rng):
    """The largest score wins, whether the others are near or 10,000 below it."""
    query = np.full((queries, 2), 100, dtype)
    keys = np.array([[-50, -50], [50, 50], [49.5, 50], [0, 0]], dtype)
    values = np.arange(4.0, dtype=dtype)[:, None]
    out, logsumexp = kernels.attention(query, keys, values, 1.0, "dot")
    assert_close(out, np.ones((queries, 1), dtype), RTOL[dtype])
    assert_close(logsumexp, np.full(queries, 1e4), RTOL[dtype])
    # all scores very low: nothing underflows to 0 / 0
    out, logsumexp = kernels.attention(-query, keys[1:2], values[1:2], 1.0, "dot")
    assert_close(out, np.ones((queries, 1), dtype), RTOL[dtype])
    assert_close(logsumexp, np.full(queries, -1e4), RTOL[dtype])


@pytest.mark.parametrize("queries", [3, 40])
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
@pytest.mark.parametrize("highest", [80, -30, -120, -900])
def test_far_scores_over_many_keys(kernels, highest, order, dtype, queries, rng):
    """50 apart, near the ends of exp's range or far below: only how far apart counts.

    Where logsumexp is so low, exp(−logsumexp) is ∞: for keys past the end, which have score 0.
    """
    n = 1100  # enough for tiles, the last with an end
    scores = np.sort(rng.uniform(highest - 50, highest, n))[::order].astype(dtype)
    query, keys = np.ones((queries, 1), dtype), scores[:, None]
    values, g = rng.standard_normal((n, 3)), rng.standard_normal((queries, 3))
    values, g = values.astype(dtype), g.astype(dtype)
    out, logsumexp = kernels.attention(query, keys, values, 1.0, "dot")
    wanted, ell = oracle(query[0], keys, values, 1.0, "dot")
    assert_close(out, np.tile(wanted, (queries, 1)), 4 * RTOL[dtype])
    assert_close(logsumexp, np.full(queries, ell), 4 * RTOL[dtype])
    gq, gk, gv, _ = kernels.attention_backward(g, query, keys, values, out, logsumexp, 1.0, "dot")
    p = np.exp(scores.astype(float) - ell)[:, None]
    # logsumexp has an error of its last digit, and with it every p
    assert_close(gv, p * g.sum(axis=0, dtype=float), 1e2 * RTOL[dtype])
    u = p * (values - wanted) @ g.T.astype(float)
    assert_close(gk, u.sum(axis=1, keepdims=True), 1e2 * RTOL[dtype])
    assert_close(gq, u.T @ keys, 1e2 * RTOL[dtype])


@pytest.mark.parametrize("queries", [3, 40])
def test_nan_stays_in_its_row(kernels, queries, rng):
    query, keys, values, _ = drawn(rng, np.float64, (), queries, 70, 4, 3)
    query[2, 1] = np.nan
    for score in SCORES:
        out, logsumexp = kernels.attention(query, keys, values, 1.0, score)
        rows = np.arange(queries) == 2
        assert (np.isnan(out).all(axis=1) == rows).all()
        assert (np.isnan(out).any(axis=1) == rows).all()
        assert (np.isnan(logsumexp) == rows).all()


def test_no_matrix_of_all_scores(rng):
    """Memory beside the results stays far below Q N numbers."""
    query, keys, values, g = drawn(rng, np.float32, (), 1536, 1536, 8, 8)
    out, logsumexp = attention.attention(query, keys, values)  # compiles
    attention.attention_backward(g, query, keys, values, out, logsumexp)
    tracemalloc.start()
    out, logsumexp = attention.attention(query, keys, values)
    attention.attention_backward(g, query, keys, values, out, logsumexp)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < query.shape[0] * keys.shape[0] * 4 / 8


def test_what_does_not_fit_is_named(kernels, rng):
    query, keys, values, g = drawn(rng, np.float64, (2,), 4, 5, 3, 2)
    with pytest.raises(ValueError, match=r"attention: wanted query .*got \(2, 4, 3\), \(2, 5, 2\)"):
        kernels.attention(query, keys[..., :2], values)
    with pytest.raises(ValueError, match=r"attention: wanted query .*\(2, 5, 3\), \(2, 4, 2\)"):
        kernels.attention(query, keys, values[:, :4])
    with pytest.raises(ValueError, match=r"attention: wanted query .*\(5, 3\), \(2, 5, 2\)"):
        kernels.attention(query, keys[0], values)
    with pytest.raises(ValueError, match=r"attention: wanted score 'cosine' or 'dot', got 'l2'"):
        kernels.attention(query, keys, values, 1.0, "l2")
    with pytest.raises(ValueError, match=r"attention: wanted scale .*got \(4,\)"):
        kernels.attention(query, keys, values, np.ones(4))
    with pytest.raises(TypeError, match="attention: wanted arrays of float32 or of float64"):
        kernels.attention(query, keys, values.astype(np.float32))
    out, logsumexp = kernels.attention(query, keys, values)
    with pytest.raises(ValueError, match=r"attention_backward: wanted g \(2, 4, 2\), got \(4, 2\)"):
        kernels.attention_backward(g[0], query, keys, values, out, logsumexp)
