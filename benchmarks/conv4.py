"""Training steps on Conv4 against torch: Prototypical Networks, and second-order MAML.

Prototypical: 20-way 5-shot 15-query, 400 images of 28 x 28, Conv4-64 with max-pooling; forward,
backward, Adam. MAML: 5-way 1-shot 15-query, 32 tasks, one inner step, second order, Adam, on the
strided Conv4-64 of its paper, or with `--pooling max` on the pooled one.

How memory is allocated is a setting of the whole process, so every contestant has its own; they
take turns. "kept" is glibc told to keep freed memory (scratchmeta.kernels.memory), for torch too.
Gradients must agree to 1e-8 in float64 before anything is timed, in float32 (where one rectifier or
maximum that falls on the other side changes them by some per cent). Batch-norm is transductive.

    python benchmarks/conv4.py [--rounds N] [--only NAME ...] [--pooling max]
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
import time

import numpy as np
from common import header, show

from scratchmeta import backend, data, nn, optim, tree
from scratchmeta.algorithms import MAML, Prototypical
from scratchmeta.episodes import sample
from scratchmeta.kernels import memory

INNER_LR, META_LR, CHANNELS = 0.4, 1e-3, 64
# n_way, k_shot, n_query, tasks
SHAPES = {"prototypical": (20, 5, 15, 1), "prototypical-60": (60, 1, 5, 1), "maml": (5, 1, 15, 32)}


def episode(task, dtype):
    e = sample(data.Glyphs("train"), *SHAPES[task], seed=0)
    return e._replace(support_x=e.support_x.astype(dtype), query_x=e.query_x.astype(dtype))


def network(task, pooling):
    if task == "maml":
        return nn.Conv4(CHANNELS, pooling=pooling, n_out=SHAPES[task][0])
    return nn.Conv4(CHANNELS)


# --- contestants: gradient() -> arrays in the order of our parameters, step() ---------------------


class Ours:
    """scratchmeta; `kernels` off is the readable references."""

    def __init__(self, task, pooling, dtype, kernels=True, task_chunk=None):
        net = network(task, pooling)
        options = {"task_chunk": task_chunk}
        self.algorithm = (
            MAML(net, INNER_LR, **options) if task == "maml" else Prototypical(net, **options)
        )
        self.kernels, self.episodes = kernels, episode(task, dtype)
        self.params = tree.astype(self.algorithm.init(np.random.default_rng(0)), dtype)
        self.adam = optim.Adam(META_LR)
        self.state = self.adam.init(self.params)

    def gradient(self):
        with backend.use_kernels(self.kernels):
            return tree.flatten(self.algorithm.meta_gradient(self.params, self.episodes)[1])[0]

    def step(self):
        with backend.use_kernels(self.kernels):
            _, gradient = self.algorithm.meta_gradient(self.params, self.episodes)
            self.params, self.state = self.adam.step(self.params, gradient, self.state)


class Torch:
    """What the contestants in torch share: our parameters in a torch.nn.Module, Adam."""

    def __init__(self, task, pooling, dtype, channels_last=False, device="cpu"):
        import torch

        self.torch, self.task = torch, task
        layers, width, side = [], 1, 28
        pooled = task != "maml" or pooling == "max"
        for _ in range(4):
            low, high = (1, 1) if pooled or side % 2 else (0, 1)  # as little as "same" needs
            layers += [
                *([torch.nn.ZeroPad2d((low, high, low, high))] if low != high else []),
                torch.nn.Conv2d(
                    width, CHANNELS, 3, 1 if pooled else 2, low if low == high else 0, bias=False
                ),
                torch.nn.BatchNorm2d(CHANNELS, track_running_stats=False),
                torch.nn.ReLU(),
                *([torch.nn.MaxPool2d(2)] if pooled else []),
            ]
            width, side = CHANNELS, side // 2 if pooled else -(-side // 2)
        if task == "maml":
            layers += [torch.nn.AdaptiveAvgPool2d(1)] * (pooling != "max")
            layers += [torch.nn.Flatten(), torch.nn.Linear(CHANNELS, SHAPES[task][0])]
        else:
            layers += [torch.nn.Flatten()]
        self.net = torch.nn.Sequential(*layers).to(getattr(torch, dtype))
        algorithm = Ours(task, pooling, dtype)
        ours = algorithm.params if task == "maml" else algorithm.params["network"]
        modules = [m for m in self.net if isinstance(m, torch.nn.Conv2d)]
        norms = [m for m in self.net if isinstance(m, torch.nn.BatchNorm2d)]
        with torch.no_grad():
            for i, (conv, norm) in enumerate(zip(modules, norms, strict=True)):
                block = ours[f"block{i + 1}"]
                weight = torch.from_numpy(block["conv"]["weight"])
                conv.weight.copy_(weight.permute(3, 2, 0, 1))
                norm.weight.copy_(torch.from_numpy(block["norm"]["scale"]))
            if task == "maml":
                self.net[-1].weight.copy_(torch.from_numpy(ours["head"]["weight"]).T)
                self.net[-1].bias.copy_(torch.from_numpy(ours["head"]["bias"]))
        self.net = self.net.to(device)
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        images, labels = [0, 2], [1, 3]
        e = episode(task, dtype)
        to_images = [torch.from_numpy(e[i]).permute(0, 1, 4, 2, 3).contiguous() for i in images]
        self.support_x, self.query_x = (x.to(device) for x in to_images)
        self.support_y, self.query_y = (torch.tensor(e[i], device=device) for i in labels)
        self.channels_last = channels_last
        self.adam = torch.optim.Adam(self.net.parameters(), META_LR)

    def images(self, x):
        if not self.channels_last:
            return x
        return x.contiguous(memory_format=self.torch.channels_last)

    def backward(self):
        raise NotImplementedError

    def gradient(self):
        self.adam.zero_grad()
        self.backward()
        arrays = []
        for m in self.net:  # in the order of our parameters: bias, weight; offset, scale
            if isinstance(m, self.torch.nn.Conv2d):
                arrays.append(m.weight.grad.permute(2, 3, 1, 0).cpu().numpy())
            elif isinstance(m, self.torch.nn.BatchNorm2d):
                arrays += [m.bias.grad.cpu().numpy(), m.weight.grad.cpu().numpy()]
            elif isinstance(m, self.torch.nn.Linear):
                arrays += [m.bias.grad.cpu().numpy(), m.weight.grad.T.cpu().numpy()]
        return arrays

    def step(self):
        self.adam.zero_grad()
        self.backward()
        self.adam.step()


class TorchPrototypical(Torch):
    """The loss written as torch users write it; `compiled` by torch.compile."""

    def __init__(self, task, pooling, dtype, channels_last=False, compiled=False, device="cpu"):
        super().__init__(task, pooling, dtype, channels_last, device)
        self.forward = self.torch.compile(self.net) if compiled else self.net

    def backward(self):
        both = self.images(self.torch.cat([self.support_x[0], self.query_x[0]]))
        features = self.forward(both)
        n = self.support_x.shape[1]
        prototypes = features[:n].reshape(SHAPES[self.task][0], -1, CHANNELS).mean(1)
        distances = (features[n:, None] - prototypes).square().sum(-1)
        self.torch.nn.functional.cross_entropy(-distances, self.query_y[0]).backward()


class TorchMAML(Torch):
    """MAML written out: the inner gradient by autograd.grad, in a loop over tasks."""

    def backward(self):
        cross_entropy = self.torch.nn.functional.cross_entropy
        names, params = zip(*self.net.named_parameters(), strict=True)
        tasks = len(self.support_x)
        for t in range(tasks):
            loss = cross_entropy(self.net(self.support_x[t]), self.support_y[t])
            gs = self.torch.autograd.grad(loss, params, create_graph=True)
            fast = [p - INNER_LR * g for p, g in zip(params, gs, strict=True)]
            outputs = self.torch.func.functional_call(
                self.net, dict(zip(names, fast, strict=True)), (self.query_x[t],)
            )
            (cross_entropy(outputs, self.query_y[t]) / tasks).backward()


class Learn2Learn(Torch):
    """learn2learn's MAML: clone and adapt in a loop over tasks."""

    def __init__(self, task, pooling, dtype):
        super().__init__(task, pooling, dtype)
        from sinusoid_step import _learn2learn_maml

        self.maml = _learn2learn_maml()(self.net, lr=INNER_LR, first_order=False)

    def backward(self):
        cross_entropy = self.torch.nn.functional.cross_entropy
        tasks = len(self.support_x)
        for t in range(tasks):
            learner = self.maml.clone()
            learner.adapt(cross_entropy(learner(self.support_x[t]), self.support_y[t]))
            loss = cross_entropy(learner(self.query_x[t]), self.query_y[t])
            (loss / tasks).backward()


# {task: {name: (contestant, its options, whether freed memory is kept, package)}}
CONTESTANTS = {
    "prototypical": {
        "scratchmeta": (Ours, {}, True, "scratchmeta"),
        "scratchmeta, memory not kept": (Ours, {}, False, "scratchmeta"),
        "scratchmeta, kernels off": (Ours, {"kernels": False}, True, "scratchmeta"),
        "torch eager": (TorchPrototypical, {}, False, "torch"),
        "torch.compile": (TorchPrototypical, {"compiled": True}, False, "torch"),
        "torch, channels last, kept": (TorchPrototypical, {"channels_last": True}, True, "torch"),
    },
    "maml": {
        "scratchmeta": (Ours, {}, True, "scratchmeta"),
        "scratchmeta, a task at a time": (Ours, {"task_chunk": 1}, True, "scratchmeta"),
        "scratchmeta, 4 tasks at a time": (Ours, {"task_chunk": 4}, True, "scratchmeta"),
        "scratchmeta, 32 tasks at once": (Ours, {"task_chunk": 32}, True, "scratchmeta"),
        "scratchmeta, kernels off": (Ours, {"kernels": False}, True, "scratchmeta"),
        "torch eager": (TorchMAML, {}, False, "torch"),
        "learn2learn": (Learn2Learn, {}, False, "learn2learn"),
        "learn2learn, kept": (Learn2Learn, {}, True, "learn2learn"),
    },
}


def work(pipe, task, pooling, name):
    """The other end of the pipe: the gradient first, then the time of a step, again and again."""
    contestant, settings, keep, _ = CONTESTANTS[task][name]
    if keep:
        memory.keep_freed()
    if "torch" in name or "learn" in name:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()))
    precise = contestant(task, pooling, "float64", **settings)
    pipe.send([np.array(a) for a in precise.gradient()])
    del precise
    it = contestant(task, pooling, "float32", **settings)
    it.step()
    it.step()
    while pipe.recv():
        start = time.perf_counter()
        it.step()
        seconds = time.perf_counter() - start
        pipe.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))


def main() -> None:
    """Agreement first, then the times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps that each contestant takes")
    parser.add_argument("--only", nargs="*", help="names of contestants")
    parser.add_argument("--tasks", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--pooling", choices=["stride", "max"], default="stride", help="MAML's net")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each task")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for task in options.tasks:
        pipes, wanted = {}, None
        for name, (*_, package) in CONTESTANTS[task].items():
            if options.only and name not in options.only:
                continue
            if importlib.util.find_spec(package) is None:
                print(f"{name}: not installed", file=sys.stderr)
                continue
            pipe, other = context.Pipe()
            arguments = (other, task, options.pooling, name)
            context.Process(target=work, args=arguments, daemon=True).start()
            got = pipe.recv()
            wanted = got if wanted is None else wanted
            refuse_disagreement(name, got, wanted)
            pipes[name] = pipe
        times = {name: [] for name in pipes}
        for _ in range(options.rounds):
            for name, pipe in pipes.items():
                pipe.send(True)
                times[name].append(pipe.recv())
        middle = {name: np.median(np.array(t), axis=0) for name, t in times.items()}
        first = next(iter(middle.values()))[0]
        rows = [[n, 1e3 * float(s), float(s / first), float(m)] for n, (s, m) in middle.items()]
        head = {"step": task, **header(argparse.Namespace(processor_time=False), "numba", "torch")}
        head["OPENBLAS_CORETYPE"] = os.environ.get("OPENBLAS_CORETYPE", "default")
        show(head, ["contestant", "ms per step", "times ours", "peak MiB"], rows, options.json)
        for pipe in pipes.values():
            pipe.send(False)


def refuse_disagreement(name, got, wanted, tolerance=1e-8):
    """Raises AssertionError unless the gradients agree."""
    for g, w in zip(got, wanted, strict=True):
        error = np.linalg.norm(g.ravel() - w.ravel()) / np.linalg.norm(w.ravel())
        if not error <= tolerance:
            raise AssertionError(f"{name}: wanted agreement to {tolerance:.0e}, got {error:.1e}")


if __name__ == "__main__":
    main()
