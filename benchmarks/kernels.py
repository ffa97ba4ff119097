"""Every kernel, float32, on a CPU or a GPU: against its reference (kernels off) and against torch.

Agreement first, then the median times of one run; "ours / torch" below 1 is faster than torch.
(Where a maximum is taken, rounding may choose another entry: some of millions, seen in the norm.)
"of ceiling" is the least time that the machine could take, by the numbers a pass must move or by
its multiply-adds, over ours; the ceilings are what a large copy and a large BLAS product reach in
the same run. "memory" is how far the arrays of one call, beside its inputs, go at their highest.
OpenBLAS chooses its kernels when NumPy is imported: set OPENBLAS_CORETYPE to compare them. torch
computes in float32 throughout: TF32 is off.

    python benchmarks/kernels.py [--only WORD] [--backend cupy] [--write FILE.md] [--little]
"""

import importlib.util
import math
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import arguments, header, seconds, show

from scratchmeta import backend, ops
from scratchmeta.core import Tensor, pull_back, raw
from scratchmeta.kernels import attention, conv, lstm, norm_pool, pairwise

STEPS, INPUTS = 50, 64
REFERENCE_BYTES = {"numpy": 2**30, "cupy": 2**33}  # no reference that makes a larger array


class Subject(NamedTuple):
    """One kernel at one size, as functions without arguments that return arrays."""

    forward: Callable
    both: Callable  # forward and backward; returns the gradients
    reference: Callable | None  # returns the results and the gradients, from plain operations
    rival: Callable  # rival(torch, tensor) -> forward, both, both with the results in front
    moved: tuple[int, int]  # numbers that forward, and both, must read or write
    products: tuple[int, int]  # multiply-adds, or what takes the time of one
    tolerance: float = 2e-4  # of |got − wanted| / |wanted|, for every array


def normal(*shape):
    """Numbers on the backend in use, the same for the same number of axes."""
    return backend.asarray(
        np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    )


def by_reference(op, inputs, cotangents, largest):
    """The reference of a subject, or None where it makes an array of too many numbers."""
    if 4 * largest > REFERENCE_BYTES[backend.current()]:
        return None

    def run():
        with backend.use_kernels(False):
            xs = [Tensor(x) for x in inputs]
            ys = op(*xs)
            ys = ys if isinstance(ys, tuple) else (ys,)
            return [raw(y) for y in ys], pull_back(ys, cotangents, xs, create_graph=False)

    return run


def leaves(arrays):
    return [a.clone().requires_grad_() for a in arrays]


def distances(metric, n, m, d):
    """torch.cdist takes the root of squares; the agreement is checked on its powers."""
    x, y = normal(n, d), normal(m, d) + 1
    g = backend.xp(x).ones((n, m), np.float32)
    distance, back = getattr(pairwise, metric), getattr(pairwise, f"{metric}_backward")

    def both():
        distance(x, y)
        return back(g, x, y)[:2]

    def rival(torch, tensor):
        p = {"cityblock": 1, "sqeuclidean": 2}[metric]
        tx, ty, tg = map(tensor, (x, y, g))

        def with_gradient(power=1):
            a, b = leaves((tx, ty))
            (torch.cdist(a, b, p=p) ** power).backward(tg)
            return a.grad, b.grad

        return (
            lambda: (torch.cdist(tx, ty, p=p),),
            with_gradient,
            lambda: (torch.cdist(tx, ty, p=p) ** p, *with_gradient(p)),
        )

    reference = by_reference(
        lambda x, y: ops.pairwise_distance(x, y, metric), (x, y), (g,), n * m * d
    )
    sides, matrix = (n + m) * d, n * m
    moved = sides + matrix, 3 * sides + 2 * matrix
    return Subject(
        lambda: (distance(x, y),), both, reference, rival, moved, (2 * matrix * d, 5 * matrix * d)
    )


def cosine_attention(lead, queries, keys, d):
    """Against torch's scaled_dot_product_attention on normalised rows."""
    q, k, v = normal(*lead, queries, d), normal(*lead, keys, d) + 1, normal(*lead, keys, d) - 1
    g = normal(1, *q.shape)[0]

    def both():
        out, logsumexp = attention.attention(q, k, v)
        return attention.attention_backward(g, q, k, v, out, logsumexp)[:3]

    def rival(torch, tensor):
        tq, tk, tv, tg = map(tensor, (q, k, v, g))
        unit = torch.nn.functional.normalize

        def attend(q, k, v):
            sdpa = torch.nn.functional.scaled_dot_product_attention
            return sdpa(unit(q, dim=-1), unit(k, dim=-1), v, scale=1.0)

        def with_gradient():
            inputs = leaves((tq, tk, tv))
            attend(*inputs).backward(tg)
            return tuple(a.grad for a in inputs)

        return (
            lambda: (attend(tq, tk, tv),),
            with_gradient,
            lambda: (attend(tq, tk, tv), *with_gradient()),
        )

    scores = math.prod(lead) * queries * keys
    rows = math.prod(lead) * (queries + keys) * d
    return Subject(
        lambda: (attention.attention(q, k, v)[0],),
        both,
        by_reference(ops.cosine_attention, (q, k, v), (g,), scores),
        rival,
        (2 * rows, 6 * rows),
        (2 * scores * d, 7 * scores * d),
    )


def sequence(steps, batch=16, hidden=200):
    """LSTM cells one after another, the products with the whole input hoisted out of the loop."""
    xs, h0, c0 = normal(steps, batch, INPUTS), normal(batch, hidden), normal(batch, hidden) / 2
    xp = backend.xp(xs)
    w_x = normal(INPUTS, 4 * hidden) / 8
    w_h = xp.ascontiguousarray(normal(hidden, 4 * hidden)[::-1] / 14)
    b, g = xp.zeros(4 * hidden, np.float32), xp.ones((batch, hidden), np.float32)

    def forward_states():
        h, c, kept = h0, c0, []
        for z in xs @ w_x + b:
            h_new, c_new, gates = lstm.gates(z + h @ w_h, c)
            kept.append((h, c, c_new, gates))
            h, c = h_new, c_new
        return h, c, kept

    def both():
        *_, kept = forward_states()
        gh, gc, gzs = g, g, []
        for _, c, c_new, gates in reversed(kept):
            gz, gc = lstm.gates_backward(gh, gc, c, c_new, gates)
            gh = gz @ w_h.T
            gzs.append(gz)
        gz = xp.concatenate(gzs[::-1])
        hs = xp.concatenate([h for h, *_ in kept])
        gw_x = xs.reshape(-1, INPUTS).T @ gz
        return gz.reshape(steps, batch, -1) @ w_x.T, gh, gc, gw_x, hs.T @ gz, gz.sum(axis=0)

    def plain(xs, h, c, w_x, w_h, b):
        for t in range(steps):
            h, c = ops.lstm_cell(xs[t], h, c, w_x, w_h, b)
        return h, c

    def rival(torch, tensor):
        cell = torch.nn.LSTMCell(INPUTS, hidden).to(tensor(xs).device)
        with torch.no_grad():
            cell.weight_ih.copy_(tensor(w_x).T)
            cell.weight_hh.copy_(tensor(w_h).T)
            cell.bias_ih.zero_()
            cell.bias_hh.zero_()
        tx, th, tc, tg = map(tensor, (xs, h0, c0, g))

        def run(x, h, c):
            for t in range(steps):
                h, c = cell(x[t], (h, c))
            return h, c

        def without_gradient():
            with torch.no_grad():
                return run(tx, th, tc)

        def with_gradient():
            inputs = leaves((tx, th, tc))
            wanted = [*inputs, cell.weight_ih, cell.weight_hh, cell.bias_ih]
            gradients = torch.autograd.grad(run(*inputs), wanted, [tg, tg])
            return [a.T if a.shape[0] == 4 * hidden and a.ndim == 2 else a for a in gradients]

        return without_gradient, with_gradient, lambda: (*without_gradient(), *with_gradient())

    inputs = xs, h0, c0, w_x, w_h, b
    weights, rows = 4 * hidden * (INPUTS + hidden), steps * batch
    moved = weights + rows * (INPUTS + 6 * hidden)
    return Subject(
        lambda: forward_states()[:2],
        both,
        by_reference(plain, inputs, (g, g), 0),
        rival,
        (moved, 3 * moved),
        (rows * weights, 3 * rows * weights),
    )


def convolution(n, side, channels, filters):
    """3 x 3, "same"; torch's images and filters are channels-last, as ours."""
    x, w = normal(1, n, side, side, channels), normal(1, 3, 3, channels, filters)
    gy = normal(1, n, side, side, filters)
    fixed = 1, ((1, 1), (1, 1))
    with_image = channels > 1  # the first layer's images need no gradient

    def forward():
        return (conv.conv2d(x, w, *fixed, (side, side))[0],)

    def both():
        forward()
        gw = conv.conv2d_weight(x, gy, w.shape, *fixed)[0]
        return (conv.conv2d_input(gy, w, x.shape, *fixed)[0], gw) if with_image else (gw,)

    def rival(torch, tensor):
        last = {"memory_format": torch.channels_last}
        tx, tg = (tensor(a)[0].permute(0, 3, 1, 2).contiguous(**last) for a in (x, gy))
        tw = tensor(w)[0].permute(3, 2, 0, 1).contiguous(**last)

        def convolve(x, w):
            return torch.nn.functional.conv2d(x, w, padding=1)

        def with_gradient():
            a, b = leaves((tx, tw))
            inputs = [a, b] if with_image else [b]
            grads = torch.autograd.grad(convolve(a if with_image else tx, b), inputs, tg)
            gw = grads[-1].permute(2, 3, 1, 0)
            return (grads[0].permute(0, 2, 3, 1), gw) if with_image else (gw,)

        return (
            lambda: (convolve(tx, tw).permute(0, 2, 3, 1),),
            with_gradient,
            lambda: (convolve(tx, tw).permute(0, 2, 3, 1), *with_gradient()),
        )

    def by_plain():
        ys, gradients = run_reference()
        return [ys[0][0]], [g[0] for g in (gradients if with_image else gradients[1:])]

    run_reference = by_reference(ops.conv2d, (x, w), (gy,), 0)
    pixels = n * side * side
    images, products = pixels * (channels + filters), pixels * 9 * channels * filters
    passes = 3 if with_image else 2
    return Subject(
        forward, both, by_plain, rival, (images, passes * images), (products, passes * products)
    )


def norm_relu_pool(n, side, channels):
    """Batch-norm, ReLU and 2 x 2 max-pooling; torch's images are channels-last, as ours."""
    x = normal(n, side, side, channels)
    scale, offset = normal(channels) + 2, normal(channels)[::-1] / 3
    y, _ = norm_pool.norm_relu_pool(x, scale, offset, 2, 1e-5)
    g = normal(*y.shape)

    def forward():
        return (norm_pool.norm_relu_pool(x, scale, offset, 2, 1e-5)[0],)

    def both():
        _, kept = norm_pool.norm_relu_pool(x, scale, offset, 2, 1e-5)
        return norm_pool.norm_relu_pool_backward(g, kept, x, scale, 2)

    def rival(torch, tensor):
        last = {"memory_format": torch.channels_last}
        tx, tg = (tensor(a).permute(0, 3, 1, 2).contiguous(**last) for a in (x, g))
        parameters = tensor(scale), tensor(offset)

        def trio(x, scale, offset):
            f = torch.nn.functional
            return f.max_pool2d(
                f.relu(f.batch_norm(x, None, None, scale, offset, training=True)), 2
            )

        def with_gradient():
            inputs = leaves((tx, *parameters))
            gx, *others = torch.autograd.grad(trio(*inputs), inputs, tg)
            return gx.permute(0, 2, 3, 1), *others

        def pooled():
            return (trio(tx, *parameters).permute(0, 2, 3, 1),)

        return pooled, with_gradient, lambda: (*pooled(), *with_gradient())

    return Subject(
        forward,
        both,
        by_reference(ops.norm_relu_pool, (x, scale, offset), (g,), x.size),
        rival,
        (2 * x.size + y.size, 5 * x.size + 3 * y.size),
        (4 * x.size, 12 * x.size),
        tolerance=1e-2,
    )


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
    "conv 400 x 28 x 28, 1 to 64": lambda: convolution(400, 28, 1, 64),
    "conv 400 x 14 x 14, 64 to 64": lambda: convolution(400, 14, 64, 64),
    "norm, ReLU, pool 400 x 28 x 28 x 64": lambda: norm_relu_pool(400, 28, 64),
}


# For tests and rehearsals: what these measure means nothing.
LITTLE = {
    "L1": lambda: distances("cityblock", 5, 3, 4),
    "squared L2": lambda: distances("sqeuclidean", 5, 3, 4),
    "attention": lambda: cosine_attention((2,), 5, 3, 4),
    "LSTM": lambda: sequence(2, batch=2, hidden=8),
    "first conv": lambda: convolution(2, 4, 1, 8),
    "conv": lambda: convolution(2, 4, 8, 8),
    "norm": lambda: norm_relu_pool(2, 4, 3),
}


def ceilings(options, n=2**26, side=4096):
    """(numbers copied, multiply-adds) in a second: a large copy, a large product."""
    n, side = (64, 8) if options.little else (n, side)
    xp = backend.xp(normal(1))
    x, a = xp.ones(n, np.float32), xp.ones((side, side), np.float32)
    y, b = xp.empty_like(x), xp.empty_like(a)
    calls = {"copy": lambda: xp.copyto(y, x), "product": lambda: xp.matmul(a, a, out=b)}
    times = seconds(calls, options, turn=0.05, synchronize=backend.synchronize)
    return 2 * n / times["copy"], side**3 / times["product"]


def highest(call):
    """MiB of arrays that a call holds at once; torch's are not seen by this."""
    if backend.current() == "cupy":
        pool = backend.xp(normal(1)).get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        call()
        return (pool.total_bytes() - before) / 2**20
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def rivals() -> tuple[Any, Callable]:
    """torch where it is installed and sees the device, and what makes a tensor of an array."""
    if importlib.util.find_spec("torch") is None:
        return None, lambda array: array
    torch = importlib.import_module("torch")
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    on_gpu = backend.current() == "cupy"
    if on_gpu and not torch.cuda.is_available():
        return None, lambda array: array
    device = torch.device("cuda" if on_gpu else "cpu")
    return torch, lambda array: torch.from_numpy(backend.to_numpy(array).copy()).to(device)


def refuse_disagreement(name, got, wanted, subject):
    """Raises AssertionError unless the arrays agree to the subject's tolerance, in the norm."""
    difference = got.astype(np.float64).ravel() - wanted.ravel()
    error = np.linalg.norm(difference) / max(np.linalg.norm(wanted.ravel()), 1e-30)
    if not error <= subject.tolerance:
        raise AssertionError(
            f"{name}: wanted agreement to {subject.tolerance:.0e}, got {error:.1e}"
        )


def measure(name, subject, torch, tensor, ceiling, options) -> list[list]:
    """The rows of the table for one subject; raises AssertionError where contestants disagree."""
    passes = {"forward": {"ours": subject.forward}, "forward + backward": {"ours": subject.both}}
    ours = [backend.to_numpy(a) for a in (*subject.forward(), *subject.both())]
    if subject.reference:
        ys, gradients = subject.reference()
        for got, plain in zip(ours, (*ys, *gradients), strict=True):
            refuse_disagreement(f"{name}, kernels off", got, backend.to_numpy(plain), subject)
        passes["forward + backward"]["off"] = subject.reference
    if torch:
        *calls, checked = subject.rival(torch, tensor)
        wanted = [a.detach().cpu().numpy() for a in checked()]
        for got, other in zip(ours, wanted, strict=True):
            refuse_disagreement(name, got, other, subject)
        for contestants, call in zip(passes.values(), calls, strict=True):
            contestants["torch"] = call
    rows = []
    on_gpu = backend.current() == "cupy"
    for (which, contestants), moved, products in zip(
        passes.items(), subject.moved, subject.products, strict=True
    ):
        times = seconds(
            contestants,
            options,
            turn=0.05,
            shortest=2e-3 if on_gpu else 2e-4,
            synchronize=backend.synchronize,
        )
        ours, off, theirs = (1e3 * times.get(c, float("nan")) for c in ("ours", "off", "torch"))
        least = 1e3 * max(moved / ceiling[0], products / ceiling[1])
        memory = highest(contestants["ours"])
        rows.append([name, which, ours, off, theirs, ours / theirs, least / ours, memory])
    return rows


COLUMNS = ["kernel", "pass", "ours ms", "off ms", "torch ms", "ours / torch", "of ceiling", "MiB"]


def device() -> dict:
    """What the header says of a GPU and CuPy."""
    cupy = backend.xp(normal(1))
    runtime = cupy.cuda.runtime
    return {
        "GPU": runtime.getDeviceProperties(0)["name"].decode(),
        "CUDA driver": runtime.driverGetVersion(),
        "CUDA runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def markdown(head: dict, rows: list[list]) -> str:
    """The table as text for a .md file."""
    cells = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    lines = [COLUMNS, ["---"] * 2 + ["---:"] * (len(COLUMNS) - 2), *cells]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{', '.join(f'{k} {v}' for k, v in head.items())}\n\n{table}\n"


def main(argv=None, until=math.inf) -> list[list]:
    """Agreement first, then the times; returns the rows. Subjects that would begin after `until`,
    by time.monotonic(), are named and not run.

    Raises AssertionError, after everything else, where contestants disagree: those have no row.
    """

    def more(parser):
        parser.add_argument("--backend", choices=backend.NAMES, default=backend.current())
        parser.add_argument("--only", default="", help="subjects with this in their names")
        parser.add_argument("--write", type=Path, help="a Markdown file for the table")
        parser.add_argument("--little", action="store_true", help="at sizes for a test")

    options = arguments(__doc__, more, argv)
    with backend.use(options.backend):
        torch, tensor = rivals()
        ceiling, rows, wrong = ceilings(options), [], []
        for name, prepare in (LITTLE if options.little else SUBJECTS).items():
            if options.only not in name:
                continue
            if time.monotonic() > until:
                print(f"{name}: not run in the time")
                continue
            try:
                rows += measure(name, prepare(), torch, tensor, ceiling, options)
            except AssertionError as error:
                wrong.append(str(error))
        head = header(options, "numba", "torch")
        head["OPENBLAS_CORETYPE"] = os.environ.get("OPENBLAS_CORETYPE", "default")
        head["copy GB/s"], head["product GFLOP/s"] = (
            f"{4e-9 * ceiling[0]:.0f}",
            f"{2e-9 * ceiling[1]:.0f}",
        )
        head |= device() if options.backend == "cupy" else {}
    show(head, COLUMNS, rows, options.json)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(f"# Kernels\n\n{markdown(head, rows)}", encoding="utf-8")
    if wrong:
        raise AssertionError("; ".join(wrong))
    return rows


if __name__ == "__main__":
    main()
