"""One exact MAML meta-step on sinusoids, ours and the rivals': forward, second order, Adam.

MAML's setting (Finn et al. 2017, section 5.1): a network 1-40-40-1 with ReLU, 10 support and 10
query points, 25 tasks, one inner step with α = 0.01. Every contestant computes the meta-gradient of
the same weights on the same episodes; in float64 they must agree to 1e-9 before anything is
timed, in float32. A rival that is not installed is left out, and the table says so.

    python benchmarks/sinusoid_step.py [--json]
"""

import functools
import importlib.util
import sys
from types import ModuleType

import numpy as np
from common import arguments, assert_agreement, header, seconds, show

from scratchmeta import losses, nn, optim, tree
from scratchmeta.algorithms import MAML
from scratchmeta.data import Sinusoids
from scratchmeta.episodes import Episode, sample

TASKS, POINTS, INNER_LR, META_LR = 25, 10, 0.01, 1e-3
LAYERS = ("linear1", "linear2", "linear3")


class Ours:
    """scratchmeta: all tasks at once by the leading task axis."""

    def __init__(self, params, episodes):
        self.params, self.episodes = params, episodes
        self.algorithm = MAML(nn.MLP([1, 40, 40, 1]), INNER_LR, loss=losses.mse)
        self.adam = optim.Adam(META_LR)
        self.state = self.adam.init(params)

    def meta_gradient(self):
        return tree.flatten(self.algorithm.meta_gradient(self.params, self.episodes)[1])[0]

    def step(self):
        _, grads = self.algorithm.meta_gradient(self.params, self.episodes)
        self.params, self.state = self.adam.step(self.params, grads, self.state)


class TorchContestant:
    """What the torch contestants share: episodes and parameters as torch tensors, Adam."""

    def __init__(self, params, episodes, device="cpu"):
        import torch

        self.torch = torch
        self.episodes = [torch.tensor(a, device=device) for a in episodes]
        self.leaves = [
            torch.tensor(a, device=device, requires_grad=True) for a in tree.flatten(params)[0]
        ]
        self.adam = torch.optim.Adam(self.leaves, META_LR, fused=True)

    def backward(self):
        raise NotImplementedError

    def meta_gradient(self):
        self.adam.zero_grad()
        self.backward()
        return [p.grad.cpu().numpy() for p in self.leaves]

    def step(self):
        self.adam.zero_grad()
        self.backward()
        self.adam.step()


def mse(prediction, target):
    """One number per task, or one number for a task alone."""
    return (prediction - target).square().mean((-2, -1))


class HandBatched(TorchContestant):
    """torch with the batching written out: baddbmm over per-task weights, autograd.grad twice."""

    def network(self, leaves, x):
        b1, w1, b2, w2, b3, w3 = leaves
        h = self.torch.baddbmm(b1[:, None], x, w1).relu()
        h = self.torch.baddbmm(b2[:, None], h, w2).relu()
        return self.torch.baddbmm(b3[:, None], h, w3)

    def backward(self):
        support_x, support_y, query_x, query_y = self.episodes
        fast = [p.expand(TASKS, *p.shape) for p in self.leaves]
        loss = mse(self.network(fast, support_x), support_y).sum()
        gs = self.torch.autograd.grad(loss, fast, create_graph=True)
        fast = [p - INNER_LR * g for p, g in zip(fast, gs, strict=True)]
        mse(self.network(fast, query_x), query_y).mean().backward()


class Func(TorchContestant):
    """torch.func: grad of vmap of a task's loss with grad inside."""

    def network(self, leaves, x):
        b1, w1, b2, w2, b3, w3 = leaves
        return ((x @ w1 + b1).relu() @ w2 + b2).relu() @ w3 + b3

    def backward(self):
        func = self.torch.func

        def task_loss(leaves, support_x, support_y, query_x, query_y):
            def support_loss(leaves):
                return mse(self.network(leaves, support_x), support_y)

            gs = func.grad(support_loss)(leaves)
            fast = [p - INNER_LR * g for p, g in zip(leaves, gs, strict=True)]
            return mse(self.network(fast, query_x), query_y)

        def meta_loss(leaves):
            return func.vmap(task_loss, (None, 0, 0, 0, 0))(leaves, *self.episodes).mean()

        gs = func.grad(meta_loss)([p.detach() for p in self.leaves])
        for p, g in zip(self.leaves, gs, strict=True):
            p.grad = g


class ModuleContestant(TorchContestant):
    """What the contestants share that work on a torch.nn.Module, one task after another."""

    def __init__(self, params, episodes):
        super().__init__(params, episodes)
        linear, relu = self.torch.nn.Linear, self.torch.nn.ReLU
        self.net = self.torch.nn.Sequential(
            linear(1, 40), relu(), linear(40, 40), relu(), linear(40, 1)
        ).to(self.leaves[0].dtype)
        with self.torch.no_grad():
            for layer, name in zip(self.net[::2], LAYERS, strict=True):
                layer.weight.copy_(self.torch.tensor(params[name]["weight"]).T)
                layer.bias.copy_(self.torch.tensor(params[name]["bias"]))
        self.adam = self.torch.optim.Adam(self.net.parameters(), META_LR, fused=True)

    def meta_gradient(self):
        self.adam.zero_grad()
        self.backward()
        return [
            g for layer in self.net[::2] for g in (layer.bias.grad.numpy(), layer.weight.grad.T)
        ]

    def tasks(self):
        return zip(*self.episodes, strict=True)


class Learn2Learn(ModuleContestant):
    """learn2learn: clone and adapt in a loop over tasks."""

    def __init__(self, params, episodes):
        super().__init__(params, episodes)
        self.maml = _learn2learn_maml()(self.net, lr=INNER_LR)

    def backward(self):
        loss = 0.0
        for support_x, support_y, query_x, query_y in self.tasks():
            learner = self.maml.clone()
            learner.adapt(mse(learner(support_x), support_y))
            loss = loss + mse(learner(query_x), query_y)
        (loss / TASKS).backward()


class Higher(ModuleContestant):
    """higher: a patched copy of the module and of its optimiser in a loop over tasks."""

    def backward(self):
        import higher

        inner = self.torch.optim.SGD(self.net.parameters(), INNER_LR)
        for support_x, support_y, query_x, query_y in self.tasks():
            with higher.innerloop_ctx(self.net, inner, copy_initial_weights=False) as (net, sgd):
                sgd.step(mse(net(support_x), support_y))
                (mse(net(query_x), query_y) / TASKS).backward()


class Jax:
    """JAX: grad of vmap with grad inside, and Adam, compiled into one function."""

    def __init__(self, params, episodes):
        import jax

        jax.config.update("jax_enable_x64", True)
        numpy = jax.numpy
        self.episodes = [numpy.asarray(a) for a in episodes]
        self.leaves = [numpy.asarray(a) for a in tree.flatten(params)[0]]

        def network(leaves, x):
            b1, w1, b2, w2, b3, w3 = leaves
            relu = jax.nn.relu
            return relu(relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3

        def loss(leaves, x, y):
            return ((network(leaves, x) - y) ** 2).mean()

        def task_loss(leaves, support_x, support_y, query_x, query_y):
            gs = jax.grad(loss)(leaves, support_x, support_y)
            return loss(
                [p - INNER_LR * g for p, g in zip(leaves, gs, strict=True)], query_x, query_y
            )

        def meta_loss(leaves, *episodes):
            return jax.vmap(task_loss, (None, 0, 0, 0, 0))(leaves, *episodes).mean()

        def step(leaves, state, *episodes):
            t, ms, vs = state
            gs = jax.grad(meta_loss)(leaves, *episodes)
            t = t + 1
            ms = [0.9 * m + 0.1 * g for m, g in zip(ms, gs, strict=True)]
            vs = [0.999 * v + 0.001 * g * g for v, g in zip(vs, gs, strict=True)]
            rate, root = META_LR / (1 - 0.9**t), (1 - 0.999**t) ** -0.5
            leaves = [
                (p - rate * m / (root * numpy.sqrt(v) + 1e-8)).astype(p.dtype)
                for p, m, v in zip(leaves, ms, vs, strict=True)
            ]
            return leaves, (t, ms, vs)

        zeros = [0 * p for p in self.leaves]
        self.state = (numpy.asarray(0), zeros, zeros)
        self.compiled_gradient = jax.jit(jax.grad(meta_loss))
        self.compiled_step = jax.jit(step)
        self.wait = jax.block_until_ready

    def meta_gradient(self):
        return [np.asarray(g) for g in self.compiled_gradient(self.leaves, *self.episodes)]

    def step(self):
        self.leaves, self.state = self.wait(
            self.compiled_step(self.leaves, self.state, *self.episodes)
        )


@functools.cache
def _learn2learn_maml() -> type:
    """learn2learn's MAML, without the rest of the package, which imports gym and torchvision."""
    (folder,) = importlib.util.find_spec("learn2learn").submodule_search_locations
    for name, path in (("learn2learn", folder), ("learn2learn.algorithms", f"{folder}/algorithms")):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [path]
    return importlib.import_module("learn2learn.algorithms.maml").MAML


CONTESTANTS = {
    "scratchmeta": (Ours, "scratchmeta"),
    "hand-batched torch": (HandBatched, "torch"),
    "torch.func": (Func, "torch"),
    "learn2learn": (Learn2Learn, "learn2learn"),
    "higher": (Higher, "higher"),
    "jitted JAX": (Jax, "jax"),
}


def main() -> None:
    """Agreement first, then the times."""
    options = arguments(__doc__)

    params = nn.MLP([1, 40, 40, 1]).init(np.random.default_rng(0))
    episodes = sample(Sinusoids(), 1, POINTS, POINTS, TASKS, seed=0)
    precise = tree.astype(params, "float64"), Episode(*(a.astype("float64") for a in episodes))
    wanted = Ours(*precise).meta_gradient()

    steps, absent = {}, []
    for name, (contestant, package) in CONTESTANTS.items():
        if importlib.util.find_spec(package) is None:
            absent.append(name)
            continue
        assert_agreement(name, contestant(*precise).meta_gradient(), wanted, 1e-9)
        steps[name] = contestant(params, episodes).step

    times = seconds(steps, options, turn=0.1)
    rows = [[name, 1e3 * t, t / times["scratchmeta"]] for name, t in times.items()]
    rows += [[name, "not installed", "-"] for name in absent]
    head = header(options, "torch", "learn2learn", "higher", "jax")
    show(head, ["contestant", "ms per step", "times ours"], rows, options.json)


if __name__ == "__main__":
    main()
