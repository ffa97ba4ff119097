"""The engine's time per operation on 8-element arrays, where its own work is all there is.

Chains of 40 equal links are evaluated, differentiated, and differentiated twice (the gradient of
the squared norm of the gradient), by scratchmeta, HIPS autograd and torch eager; all must agree to
1e-12 first. The time of a chain divided by its number of operations is the time per operation. The
forward pass of each records, so that it could be differentiated. Rivals that are not installed are
left out, and the table says so.

    python benchmarks/engine.py [--json]
"""

import importlib.util
import math

import numpy as np
from common import arguments, assert_agreement, header, seconds, show

from scratchmeta import Tensor, grad, ops

LINKS = 40
rng = np.random.default_rng(0)
V, A, W = rng.uniform(0.5, 1.5, 8), rng.uniform(0.5, 1.5, 8), 0.3 * rng.normal(size=(8, 8))

# name -> (operations in a link, link(module, z, a, w)); no chain leaves the range of numbers
LINK = {
    "x + a": (1, lambda m, z, a, w: z + a),
    "x - a": (1, lambda m, z, a, w: z - a),
    "a / x": (1, lambda m, z, a, w: a / z),
    "exp(-x)": (2, lambda m, z, a, w: m.exp(-z)),
    "sqrt": (1, lambda m, z, a, w: m.sqrt(z)),
    "sin": (1, lambda m, z, a, w: m.sin(z)),
    "tanh(x a)": (2, lambda m, z, a, w: m.tanh(z * a)),
    "x @ w": (1, lambda m, z, a, w: z @ w),
    "reshape": (1, lambda m, z, a, w: m.reshape(z, (2, 4) if z.ndim == 1 else (8,))),
    "a sum(x) / 8": (3, lambda m, z, a, w: a * (m.sum(z) / 8.0)),
    "a |x|": (2, lambda m, z, a, w: a * m.abs(z)),
}


def chain(module, link, z, a, w):
    """|z|² at the end of a chain of LINKS links."""
    for _ in range(LINKS):
        z = link(module, z, a, w)
    return module.sum(z * z)


def ours(link):
    """The three measurements, as functions: forward, gradient, gradient of |gradient|²."""

    def forward():
        return chain(ops, link, Tensor(V), A, W).data

    def gradient():
        x = Tensor(V)
        return grad(chain(ops, link, x, A, W), x)

    def second():
        x = Tensor(V)
        g = grad(chain(ops, link, x, A, W), x, create_graph=True)
        return grad(ops.sum(g * g), x)

    return forward, gradient, second


def hips(link):
    """The same with HIPS autograd."""
    import autograd
    import autograd.numpy as anp

    def f(x):
        return chain(anp, link, x, A, W)

    first = autograd.grad(f)
    return (
        lambda: autograd.make_vjp(f)(V)[1],
        lambda: first(V),
        lambda: autograd.grad(lambda x: anp.sum(first(x) ** 2))(V),
    )


def eager(link):
    """The same with torch."""
    import torch

    a, w = torch.tensor(A), torch.tensor(W)

    def value():
        x = torch.tensor(V, requires_grad=True)
        return x, chain(torch, link, x, a, w)

    def forward():
        return value()[1].detach().numpy()

    def gradient():
        x, y = value()
        return torch.autograd.grad(y, x)[0].numpy()

    def second():
        x, y = value()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        return torch.autograd.grad((g * g).sum(), x)[0].numpy()

    return forward, gradient, second


RIVALS = {"autograd": hips, "torch": eager}
ORDERS = ("forward", "forward + backward", "second order")


def main() -> None:
    """Agreement first, then the times."""
    options = arguments(__doc__)
    rivals = {n: make for n, make in RIVALS.items() if importlib.util.find_spec(n) is not None}

    rows = []
    ratios = {order: {name: [] for name in rivals} for order in ORDERS}
    for name, (operations, link) in LINK.items():
        contestants = {"ours": ours(link), **{n: make(link) for n, make in rivals.items()}}
        for i, order in enumerate(ORDERS):
            calls = {n: functions[i] for n, functions in contestants.items()}
            for rival in rivals:
                assert_agreement(f"{rival}, {name}", [calls[rival]()], [calls["ours"]()], 1e-12)
            times = seconds(calls, options, turn=0.01)
            per_operation = {n: 1e6 * t / (LINKS * operations) for n, t in times.items()}
            row = [name, order, per_operation["ours"]]
            for rival in RIVALS:
                if rival in rivals:
                    ratio = times["ours"] / times[rival]
                    ratios[order][rival].append(ratio)
                    row += [per_operation[rival], ratio]
                else:
                    row += ["not installed", "-"]
            rows.append(row)

    for order in ORDERS:
        row = ["geometric mean", order, "-"]
        for rival in RIVALS:
            row += ["-", geometric_mean(ratios[order][rival]) if rival in rivals else "-"]
        rows.append(row)
    columns = ["link", "order", "ours µs"]
    columns += [c for rival in RIVALS for c in (f"{rival} µs", f"ours / {rival}")]
    show(header(options, "autograd", "torch"), columns, rows, options.json)


def geometric_mean(numbers):
    """exp of the mean logarithm."""
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


if __name__ == "__main__":
    main()
