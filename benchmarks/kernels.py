"""Kernels against torch on the CPU, float32: distances, attention, the LSTM cell.

Agreement first, then the median times of one run; "ours / torch" below 1 is faster than torch.
"memory" is how far the arrays of one call, beside its inputs, go at their highest (ours only).
OpenBLAS chooses its kernels when NumPy is imported: set OPENBLAS_CORETYPE to compare them.
"""

import importlib.util
import os
import tracemalloc

import numpy as np
from common import arguments, assert_agreement, header, seconds, show

from scratchmeta.kernels import attention, lstm, pairwise

STEPS, BATCH, INPUTS, HIDDEN = 50, 16, 64, 200


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def distances(metric, n, m, d):
    """Forward and forward + backward, ours and torch.cdist's, which takes the root of squares."""
    x, y, g = normal(n, d), normal(m, d) + 1, np.ones((n, m), np.float32)
    distance, back = getattr(pairwise, metric), getattr(pairwise, f"{metric}_backward")

    def forward():
        return (distance(x, y),)

    def both():
        distance(x, y)
        return back(g, x, y)[:2]

    def rival(torch):
        p = {"cityblock": 1, "sqeuclidean": 2}[metric]
        tx, ty, tg = map(torch.from_numpy, (x, y, g))

        def cdist():
            return (torch.cdist(tx, ty, p=p),)

        def with_gradient():
            a, b = tx.clone().requires_grad_(), ty.clone().requires_grad_()
            torch.cdist(a, b, p=p).backward(tg)
            return a.grad, b.grad

        def checked():
            a, b = tx.clone().requires_grad_(), ty.clone().requires_grad_()
            (torch.cdist(a, b, p=p) ** p).backward(tg)
            return torch.cdist(tx, ty, p=p) ** p, a.grad, b.grad

        return cdist, with_gradient, checked

    return forward, both, rival


def cosine_attention(lead, queries, keys, d):
    """Against torch's scaled_dot_product_attention on normalised rows."""
    q, k, v = normal(*lead, queries, d), normal(*lead, keys, d) + 1, normal(*lead, keys, d) - 1
    g = normal(1, *q.shape)[0]

    def forward():
        return (attention.attention(q, k, v)[0],)

    def both():
        out, logsumexp = attention.attention(q, k, v)
        return attention.attention_backward(g, q, k, v, out, logsumexp)[:3]

    def rival(torch):
        tq, tk, tv, tg = map(torch.from_numpy, (q, k, v, g))
        unit = torch.nn.functional.normalize

        def attend(q, k, v):
            sdpa = torch.nn.functional.scaled_dot_product_attention
            return sdpa(unit(q, dim=-1), unit(k, dim=-1), v, scale=1.0)

        def with_gradient():
            inputs = [a.clone().requires_grad_() for a in (tq, tk, tv)]
            attend(*inputs).backward(tg)
            return tuple(a.grad for a in inputs)

        return (
            lambda: (attend(tq, tk, tv),),
            with_gradient,
            lambda: (attend(tq, tk, tv), *with_gradient()),
        )

    return forward, both, rival


def sequence(steps):
    """LSTM cells one after another, the products with the whole input hoisted out of the loop."""
    xs, h0, c0 = normal(steps, BATCH, INPUTS), normal(BATCH, HIDDEN), normal(BATCH, HIDDEN) / 2
    w_x, w_h = normal(INPUTS, 4 * HIDDEN) / 8, normal(HIDDEN, 4 * HIDDEN)[::-1] / 14
    b, g = np.zeros(4 * HIDDEN, np.float32), np.ones((BATCH, HIDDEN), np.float32)
    w_h = np.ascontiguousarray(w_h)

    def forward_states():
        h, c, kept = h0, c0, []
        for z in xs @ w_x + b:
            h_new, c_new, gates = lstm.gates(z + h @ w_h, c)
            kept.append((h, c, c_new, gates))
            h, c = h_new, c_new
        return h, c, kept

    def forward():
        return forward_states()[:2]

    def both():
        *_, kept = forward_states()
        gh, gc, gzs = g, g, []
        for _, c, c_new, gates in reversed(kept):
            gz, gc = lstm.gates_backward(gh, gc, c, c_new, gates)
            gh = gz @ w_h.T
            gzs.append(gz)
        gz = np.concatenate(gzs[::-1])
        hs = np.concatenate([h for h, *_ in kept])
        gw_x = xs.reshape(-1, INPUTS).T @ gz
        return gz.reshape(steps, BATCH, -1) @ w_x.T, gh, gc, gw_x, hs.T @ gz, gz.sum(axis=0)

    def rival(torch):
        cell = torch.nn.LSTMCell(INPUTS, HIDDEN)
        with torch.no_grad():
            cell.weight_ih.copy_(torch.from_numpy(w_x.T.copy()))
            cell.weight_hh.copy_(torch.from_numpy(w_h.T.copy()))
            cell.bias_ih.zero_()
            cell.bias_hh.zero_()
        tx, th, tc, tg = map(torch.from_numpy, (xs, h0, c0, g))

        def run(x, h, c):
            for t in range(steps):
                h, c = cell(x[t], (h, c))
            return h, c

        def without_gradient():
            with torch.no_grad():
                return run(tx, th, tc)

        def with_gradient():
            inputs = [a.clone().requires_grad_() for a in (tx, th, tc)]
            wanted = [*inputs, cell.weight_ih, cell.weight_hh, cell.bias_ih]
            gradients = torch.autograd.grad(run(*inputs), wanted, [tg, tg])
            return [a.T if a.shape[0] == 4 * HIDDEN and a.ndim == 2 else a for a in gradients]

        return without_gradient, with_gradient, lambda: (*without_gradient(), *with_gradient())

    return forward, both, rival


SUBJECTS = {
    "L1 2000 x 2000 x 64": lambda: distances("cityblock", 2000, 2000, 64),
    "L1 10000 x 1000 x 64": lambda: distances("cityblock", 10000, 1000, 64),
    "L1 75 x 5 x 64": lambda: distances("cityblock", 75, 5, 64),
    "squared L2 2000 x 2000 x 64": lambda: distances("sqeuclidean", 2000, 2000, 64),
    "squared L2 75 x 5 x 64": lambda: distances("sqeuclidean", 75, 5, 64),
    "cosine attention 4096 x 4096 x 64": lambda: cosine_attention((1, 1), 4096, 4096, 64),
    "cosine attention 75 x 5 x 64": lambda: cosine_attention((1, 1), 75, 5, 64),
    "cosine attention 16 x 4 heads, 128 x 40": lambda: cosine_attention((16, 4), 1, 128, 40),
    "LSTM cell 16 x 64 x 200": lambda: sequence(1),
    "LSTM 50 steps 16 x 64 x 200": lambda: sequence(STEPS),
}


def highest(call):
    """MiB of arrays that a call holds at once; torch's are not seen by this."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Agreement first, then the times."""
    options = arguments(__doc__)
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if torch and os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = []
    for name, prepare in SUBJECTS.items():
        forward, both, rival = prepare()
        passes = {"forward": [forward], "forward + backward": [both]}
        if torch:
            *rivals, checked = rival(torch)
            wanted = [a.detach().numpy() for a in checked()]
            for got, other in zip((*forward(), *both()), wanted, strict=True):
                assert_agreement(name, [got], [other], 2e-4)
            for calls, call in zip(passes.values(), rivals, strict=True):
                calls.append(call)
        for which, calls in passes.items():
            contestants = dict(zip(("ours", "torch"), calls, strict=False))
            times = seconds(contestants, options, turn=0.05)
            ours, theirs = 1e3 * times["ours"], 1e3 * times.get("torch", float("nan"))
            rows.append([name, which, ours, theirs, ours / theirs, highest(calls[0])])
    head = header(options, "numba", "torch")
    head["OPENBLAS_CORETYPE"] = os.environ.get("OPENBLAS_CORETYPE", "default")
    show(
        head,
        ["kernel", "pass", "ours ms", "torch ms", "ours / torch", "memory MiB"],
        rows,
        options.json,
    )


if __name__ == "__main__":
    main()
