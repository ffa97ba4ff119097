"""Attention, out_i = Σ_j softmax_j(scale_i · score(q_i, k_j)) v_j, without a Q x N matrix.

query is (B.., Q, D), keys (B.., N, D), values (B.., N, V), out (B.., Q, V), logsumexp (B.., Q).
The score is the cosine q̂ · k̂ (0 for a zero vector, with gradient 0, see `unit`) or the dot product
q · k. Either way scores are products s_ij = q'_i · k'_j, with q' = scale q̂ and k' = k̂, or with
q' = scale q and k' = k:

    L_i = log Σ_j exp s_ij        p_ij = exp(s_ij − L_i)        out_i = Σ_j p_ij v_j

For a tile of keys at a time, with m the largest score so far (online softmax):

    m ← max(m, max_j s_j)        z ← z exp(m_before − m) + Σ_j exp(s_j − m)
                                 o ← o exp(m_before − m) + Σ_j exp(s_j − m) v_j
    in the end                   out = o / z        L = m + log z

Backward, for the cotangent g (B.., Q, V) of out, with the scores computed once more:

    u_ij = p_ij (g_i · v_j − g_i · out_i)        the cotangent of s_ij
    gv_j = Σ_i p_ij g_i        gk'_j = Σ_i u_ij q'_i        gq'_i = Σ_j u_ij k'_j
    gq̂_i = scale_i gq'_i       gscale_i = Σ_j u_ij q̂_i · k̂_j = q̂_i · gq'_i

With no keys at all, out is 0. Leading axes are a batch (tasks, heads), the same in all arrays:
broadcasting them is the caller's job. All arrays are float32 or all are float64, of any memory
layout. The online softmax is that of Milakov and Gimelshein (2018), the backward pass in tiles that
of Dao et al. (2022), algorithm 4. The derivation is in docs/derivations/attention.md.
"""

import math
from pathlib import Path

import numpy as np

from .compiling import kernel
from .elementary import exp
from .product import ROWS, WIDE, add_product, lanes, product
from .runtime import CudaSource, dense, module_of, multiple, padded
from .threads import count, run
from .unit import inverse_length, unit, unit_backward

# Up to so many queries, or multiplications in all, packing tiles costs more than it saves.
_FEW_QUERIES, _LITTLE_WORK = 16, 1 << 17
_QUERIES = 64 if WIDE else 48  # in a tile: as many as `product` has in its largest tiles
_KEYS = 64  # in a tile, a multiple of ROWS
_GROUP = 4  # tiles of keys that pass over the queries together, in the second-level cache
_CUDA_WARPS = 4  # of a block that puts parts together, a row each
_CUDA_BLOCKS = 512  # about, into which work is cut: some for every multiprocessor
_CUDA_WIDE = 64  # columns of a tile of the CUDA kernels, for 16 x 16 threads
_CUDA_HIGH = {"f": 128, "d": 64}  # and its rows


@kernel
def _attention(start, stop, q, k, v, cosine, out, lse):
    # q (B, Q, D), k (B, N, D), v (B, N, V) -> out (B, Q, V), lse (B, Q): one query after another;
    # with `cosine`, k as it is given and not yet at length one
    zero, n = q.dtype.type(0), k.shape[1]
    for t in range(start, stop):
        b, i = t // lse.shape[1], t % lse.shape[1]
        p = np.empty(n, q.dtype)
        top = -q.dtype.type(np.inf)
        for j in range(n):
            s = square = zero
            for d in range(q.shape[2]):
                s += q[b, i, d] * k[b, j, d]
                square += k[b, j, d] * k[b, j, d]
            s = s * inverse_length(square) if cosine else s
            p[j] = s
            top = s if s > top else top
        z = zero
        for j in range(n):
            p[j] = exp(p[j] - top)
            z += p[j]
        out[b, i] = zero
        for j in range(n):
            weight = p[j] / z
            for d in range(v.shape[2]):
                out[b, i, d] += weight * v[b, j, d]
        lse[b, i] = top + np.log(z)


@kernel
def _attention_backward(start, stop, g, q, k, v, out, lse, gq, gk, gv):
    # gq, gk and gv come filled with zeros
    zero, n = q.dtype.type(0), k.shape[1]
    for b in range(start, stop):
        p, u = np.empty(n, q.dtype), np.empty(n, q.dtype)
        for i in range(q.shape[1]):
            delta = zero
            for d in range(v.shape[2]):
                delta += g[b, i, d] * out[b, i, d]
            for j in range(n):
                s = gp = zero
                for d in range(q.shape[2]):
                    s += q[b, i, d] * k[b, j, d]
                for d in range(v.shape[2]):
                    gp += g[b, i, d] * v[b, j, d]
                p[j], u[j] = s, gp
            for j in range(n):
                p[j] = exp(p[j] - lse[b, i])
                u[j] = p[j] * (u[j] - delta)
            for j in range(n):
                pj, uj = p[j], u[j]
                for d in range(v.shape[2]):
                    gv[b, j, d] += pj * g[b, i, d]
                for d in range(q.shape[2]):
                    gq[b, i, d] += uj * k[b, j, d]
                for d in range(q.shape[2]):
                    gk[b, j, d] += uj * q[b, i, d]


@kernel
def _attention_in_tiles(start, stop, qt, k, v, n, bound, bounded, ot, lse):
    # qt (B, blocks, D', I), k (B, N', D'), v (B, N', V'), the first n keys count,
    # bound (B, blocks, I) on |s|, bounded (B, blocks) -> ot (B, blocks, V', I), lse (B, blocks, I)
    blocks, width, keys = qt.shape[1], qt.shape[3], k.shape[1]
    for t in range(start, stop):
        b, block = t // blocks, t % blocks
        q, o = qt[b, block], ot[b, block]
        scores, z = np.empty((_KEYS, width), q.dtype), np.zeros(width, q.dtype)
        top, m = np.full(width, -np.inf, q.dtype), bound[b, block].copy()
        shrink = np.empty(width, q.dtype)
        o[:] = 0
        for first in range(0, keys, _KEYS):
            end = min(keys, first + _KEYS)
            # transposed, keys x queries: no loop below has to add or compare along a vector
            p = scores[: end - first]
            product(k[b, first:end], q, p)
            p[n - first :] = -np.inf
            if not bounded[b, block]:
                for i in range(width):
                    m[i] = top[i]
                for j in range(0, end - first, ROWS):
                    p0, p1, p2, p3 = p[j], p[j + 1], p[j + 2], p[j + 3]
                    for i in range(width):
                        m[i] = max(m[i], max(max(p0[i], p1[i]), max(p2[i], p3[i])))
                for i in range(width):
                    shrink[i] = exp(top[i] - m[i])
                    z[i] *= shrink[i]
                    top[i] = m[i]
                for d in range(o.shape[0]):
                    for i in range(width):
                        o[d, i] *= shrink[i]
            for j in range(end - first):
                for i in range(width):
                    p[j, i] = exp(p[j, i] - m[i])
                    z[i] += p[j, i]
            add_product(v[b, first:end].T, p, o)
        for d in range(o.shape[0]):
            for i in range(width):
                o[d, i] /= z[i]
        for i in range(width):
            lse[b, block, i] = m[i] + np.log(z[i])


@kernel
def _attention_backward_in_tiles(start, stop, g, gt, q, qt, k, v, n, delta, lse, gqt, gk, gv):
    # g (B, blocks, I, V'), q (B, blocks, I, D'), gt and qt the same transposed, k (B, N', D'),
    # v (B, N', V'), the first n keys count, delta and lse (B, blocks, I)
    # -> gqt (B, C, blocks, D', I), C parts to add, gk (B, N', D'), gv (B, N', V'): come as zeros
    blocks, width, keys, chunks = qt.shape[1], qt.shape[3], k.shape[1], gqt.shape[1]
    tiles = (keys + _KEYS - 1) // _KEYS
    for t in range(start, stop):
        b, c = t // chunks, t % chunks
        scores, products = np.empty((_KEYS, width), q.dtype), np.empty((_KEYS, width), q.dtype)
        last = tiles * (c + 1) // chunks
        for group in range(tiles * c // chunks, last, _GROUP):
            size = min(_GROUP, last - group)
            for step in range(blocks * size):  # the group's tiles in turn for each block of queries
                block, first = step // size, (group + step % size) * _KEYS
                end = min(keys, first + _KEYS)
                p, u = scores[: end - first], products[: end - first]  # transposed, keys x queries
                ell, mean = lse[b, block], delta[b, block]
                product(k[b, first:end], qt[b, block], p)
                product(v[b, first:end], gt[b, block], u)
                for j in range(min(n, end) - first):
                    for i in range(width):
                        p[j, i] = exp(p[j, i] - ell[i])
                        u[j, i] = p[j, i] * (u[j, i] - mean[i])
                add_product(p, g[b, block], gv[b, first:end])
                add_product(u, q[b, block], gk[b, first:end])
                add_product(k[b, first:end].T, u, gqt[b, c, block])


_cuda = CudaSource(Path(__file__).with_suffix(".cu"))


def _in_blocks(x):
    """x (B, Q, D) as padded blocks (B, blocks, I, D'), and those transposed."""
    vector = lanes(x.dtype)
    blocks = -(-x.shape[1] // _QUERIES)
    width = -(-x.shape[1] // (blocks * vector)) * vector
    x = padded(x, multiple(x.shape[1], width), multiple(x.shape[2], vector))
    x = x.reshape(x.shape[0], blocks, width, x.shape[2])
    return x, np.ascontiguousarray(x.swapaxes(2, 3))


def _from_blocks(xt, rows, columns):
    """x (B, R, C) out of transposed blocks (B, blocks, C', I)."""
    b, blocks, size, width = xt.shape
    x = xt.swapaxes(2, 3).reshape(b, blocks * width, size)
    return np.ascontiguousarray(x[:, :rows, :columns])


def _attention_cpu(q, k, v, cosine):
    """out and logsumexp of q' (B, Q, D), keys (B, N, D), v (B, N, V)."""
    (b, queries, d), (_, n, depth) = q.shape, v.shape
    work = b * queries * n * (d + depth)
    if queries <= _FEW_QUERIES or work <= _LITTLE_WORK:
        out, lse = np.empty((b, queries, depth), q.dtype), np.empty((b, queries), q.dtype)
        run(_attention, work, lse.size, q, k, v, cosine, out, lse)
        return out, lse
    k = unit(k)[0] if cosine else k
    _, qt = _in_blocks(q)
    # |s_ij| ≤ |q'_i| max_j |k'_j|; where exp(s − bound) cannot underflow, it stands for the maximum
    with np.errstate(over="ignore"):
        largest = np.einsum("bnd,bnd->bn", k, k).max()
        bound = np.sqrt(np.einsum("bwdi,bwdi->bwi", qt, qt) * largest)
    bounded = bound.max(axis=-1) < 0.4 * np.log(np.finfo(q.dtype).max)
    k, v = (padded(a, multiple(n, ROWS), multiple(a.shape[2], lanes(q.dtype))) for a in (k, v))
    ot = np.empty((b, qt.shape[1], v.shape[2], qt.shape[3]), q.dtype)
    lse = np.empty((b, qt.shape[1], qt.shape[3]), q.dtype)
    run(_attention_in_tiles, work, b * qt.shape[1], qt, k, v, n, bound, bounded, ot, lse)
    return _from_blocks(ot, queries, depth), _from_blocks(lse[:, :, None], queries, 1)[..., 0]


def _attention_backward_cpu(g, q, k, v, out, lse):
    """gq, gk and gv."""
    (b, queries, d), (_, n, depth) = q.shape, v.shape
    work = b * queries * n * (d + depth)
    if queries <= _FEW_QUERIES or work <= _LITTLE_WORK:
        gq, gk, gv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        run(_attention_backward, work, b, g, q, k, v, out, lse, gq, gk, gv)
        return gq, gk, gv
    (q, qt), (gb, gt) = _in_blocks(q), _in_blocks(g)
    delta = np.einsum("bid,bid->bi", g, out)[..., None]
    delta, lse = (
        padded(x, qt.shape[1] * qt.shape[3], 1).reshape(b, *qt.shape[1::2])
        for x in (delta, lse[..., None])
    )
    k, v = (padded(a, multiple(n, ROWS), multiple(a.shape[2], lanes(q.dtype))) for a in (k, v))
    # with few elements in the batch, threads share one; their parts of gq take no more than scores
    chunks = max(1, min(count() // max(1, b), n // max(1, d)))
    gqt = np.zeros((b, chunks, *qt.shape[1:]), q.dtype)
    gk, gv = np.zeros_like(k), np.zeros_like(v)
    arrays = gb, gt, q, qt, k, v, n, delta, lse, gqt, gk, gv
    run(_attention_backward_in_tiles, work, b * chunks, *arrays)
    gk, gv = (np.ascontiguousarray(x[:, :n, :size]) for x, size in ((gk, d), (gv, depth)))
    return _from_blocks(gqt.sum(axis=1), queries, d), gk, gv


def _attention_cuda(q, k, v, cosine):
    k = unit(k)[0] if cosine else k
    (b, queries, d), (_, n, depth) = q.shape, v.shape
    tiles = b * _tiles(queries, _CUDA_HIGH[q.dtype.char]) * max(1, _tiles(depth))
    parts, empty = _cuda_parts(tiles, n), module_of(q).empty
    o, m = empty((b, parts, queries, depth), q.dtype), empty((b, parts, queries), q.dtype)
    z = empty(m.shape, q.dtype) if parts > 1 else m  # not written to
    if m.size:
        launch, sizes = _cuda("attention", q.dtype), (queries, n, d, depth, parts)
        launch((tiles * parts,), (16, 16), (q, k, v, o, m, z, *sizes))
    if parts == 1:
        return o[:, 0], m[:, 0]
    out, lse = empty((b, queries, depth), q.dtype), empty((b, queries), q.dtype)
    if lse.size:
        grid = (-(-lse.size // _CUDA_WARPS),)
        sizes = lse.size, queries, depth, parts
        _cuda("combine", q.dtype)(grid, (32, _CUDA_WARPS), (o, m, z, out, lse, *sizes))
    return out, lse


def _attention_backward_cuda(g, q, k, v, out, lse):
    (b, queries, d), (_, n, depth) = q.shape, v.shape
    delta = (g * out).sum(axis=-1)
    arrays, sizes, empty = (g, q, k, v, delta, lse), (queries, n, d, depth), module_of(q).empty
    high = _CUDA_HIGH[q.dtype.char]
    tiles = b * _tiles(queries, high) * _tiles(d)
    parts = _cuda_parts(tiles, n)
    gq = empty((b, parts, queries, d), q.dtype)
    if gq.size:
        launch = _cuda("attention_backward_queries", q.dtype)
        launch((tiles * parts,), (16, 16), (*arrays, gq, *sizes, parts))
    tiles = b * _tiles(n, high) * _tiles(max(d, depth))
    parts = _cuda_parts(tiles, queries)
    gk, gv = empty((b, parts, n, d), k.dtype), empty((b, parts, n, depth), v.dtype)
    if gk.size or gv.size:
        launch = _cuda("attention_backward_keys", q.dtype)
        launch((tiles * parts,), (16, 16), (*arrays, gk, gv, *sizes, parts))
    return [x[:, 0] if x.shape[1] == 1 else x.sum(axis=1) for x in (gq, gk, gv)]


def _cuda_parts(blocks, others):
    """Into how many parts the `others` rows are cut that each of so many blocks passes over."""
    return max(1, min(_tiles(others), _CUDA_BLOCKS // max(1, blocks)))


def _tiles(size, of=_CUDA_WIDE):
    return -(-size // of)


def _flat(x, axes=2):
    """x (B.., ...) with its leading axes as one."""
    lead = x.ndim - axes
    return x.reshape(math.prod(x.shape[:lead]), *x.shape[lead:])


def _column_of(name, query, keys, values, scale, score):
    """The scale, to multiply query with; ValueError where the arguments do not agree."""
    lead = query.shape[:-2]
    agree = query.ndim >= 2 and keys.shape[:-2] == values.shape[:-2] == lead
    if not agree or query.shape[-1] != keys.shape[-1] or keys.shape[-2] != values.shape[-2]:
        raise ValueError(
            f"{name}: wanted query (B.., Q, D), keys (B.., N, D), values (B.., N, V), "
            f"got {query.shape}, {keys.shape}, {values.shape}"
        )
    if score not in ("cosine", "dot"):
        raise ValueError(f"{name}: wanted score 'cosine' or 'dot', got {score!r}")
    if isinstance(scale, (int, float)):
        return scale
    if scale.shape in ((), lead):
        return scale[..., None, None]
    if scale.shape == query.shape[:-1]:
        return scale[..., None]
    raise ValueError(
        f"{name}: wanted scale a number, (B..) or (B.., Q), got {scale.shape}, query {query.shape}"
    )


def _times(x, column):
    """x times the scale; a scale of 1 makes no copy."""
    return x if isinstance(column, (int, float)) and column == 1 else x * column


def attention(query, keys, values, scale=1.0, score="cosine"):
    """(out, logsumexp): out (B.., Q, V) = softmax(scale · score(query, keys)) values.

    score is "cosine" or "dot"; scale is a number or an array (B..) or (B.., Q). logsumexp (B.., Q)
    is for the backward pass.
    """
    column = _column_of("attention", query, keys, values, scale, score)
    cosine = score == "cosine"
    q = unit(query)[0] if cosine else query
    q, k, v = dense("attention", _times(q, column), keys, values)
    compute = _attention_cpu if isinstance(q, np.ndarray) else _attention_cuda
    out, lse = compute(_flat(q), _flat(k), _flat(v), cosine)
    return out.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])


def attention_backward(g, query, keys, values, out, logsumexp, scale=1.0, score="cosine"):
    """(gquery, gkeys, gvalues, gscale) for the cotangent g (B.., Q, V) of out.

    gscale has the shape of scale; a number has none.
    """
    column = _column_of("attention_backward", query, keys, values, scale, score)
    if g.shape != (*query.shape[:-1], values.shape[-1]):
        raise ValueError(f"attention_backward: wanted g {out.shape}, got {g.shape}")
    cosine = score == "cosine"
    (q, rq), (k, rk) = (unit(query), unit(keys)) if cosine else ((query, None), (keys, None))
    arrays = dense("attention_backward", g, _times(q, column), k, values, out)
    compute = _attention_backward_cpu if isinstance(q, np.ndarray) else _attention_backward_cuda
    (lse,) = dense("attention_backward", logsumexp)
    gq, gk, gv = compute(*(_flat(x) for x in arrays), _flat(lse, 1))
    gq, gk, gv = gq.reshape(q.shape), gk.reshape(k.shape), gv.reshape(values.shape)
    gscale = None
    if hasattr(scale, "ndim"):  # a NumPy scalar, the value of a 0-d Tensor, is a float too
        gscale = (gq * q).sum(axis=-1)
        if scale.shape != gscale.shape:
            gscale = gscale.sum() if scale.ndim == 0 else gscale.sum(axis=-1)
    gq = _times(gq, column)
    if cosine:
        gq, gk = unit_backward(gq, q, rq), unit_backward(gk, k, rk)
    return gq, gk, gv, gscale
