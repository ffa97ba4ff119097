"""Training steps on a GPU: gradients as on the CPU, times, launches, and torch eager beside them.

A step is a meta-gradient and Adam; "checked" is the library's own step, which also looks whether
the loss and the gradients are finite. Gradients are compared with the CPU's in float64 and float32,
|got − wanted| / |wanted| over all of them, and with torch's where there is a twin, before anything
is timed. Rounding may change them by more than itself, where a rectifier or a maximum falls on the
other side or a cosine is taken of next to nothing: "round" is by how much the CPU's own, in
float64, change with parameters that differ in their last digit, and the card may be ten times as
far off, or 1e-11.

Launches, host copies and the time that the card is busy are counted by torch's profiler, which sees
CuPy's work too. TF32 is off.

    python benchmarks/gpu.py --parts steps
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import conv4
import numpy as np
import sinusoid_step
from common import seconds

from kernels import rivals
from scratchmeta import backend, data, episodes, losses, nn, optim, tree
from scratchmeta.algorithms import MAML, Prototypical
from scratchmeta.run.config import Training
from scratchmeta.run.training import start, step


class Subject(NamedTuple):
    """A training step: an algorithm, its episodes on the host, and how torch does it."""

    algorithm: Any
    episodes: Any
    twin: Callable | None  # twin(dtype) -> something with gradient() and step()


def preset(name, dataset, **changes):
    """The algorithm and an episode batch of a preset `quick`, which is glyphs' or a sequence's."""
    from scratchmeta import presets
    from scratchmeta.run import experiment

    config = presets.lookup(name, dataset)
    settings = config.training
    batch = episodes.sample(
        experiment.splits(config).train, *settings.shape, **({"tasks": settings.tasks} | changes)
    )
    return Subject(experiment.algorithm(config), batch, None)


def sinusoid():
    e = episodes.sample(data.Sinusoids(), 1, 10, 10, tasks=sinusoid_step.TASKS)
    algorithm = MAML(nn.MLP([1, 40, 40, 1]), sinusoid_step.INNER_LR, loss=losses.mse)

    def twin(dtype):
        params = tree.astype(algorithm.init(np.random.default_rng(0)), dtype)
        it = sinusoid_step.HandBatched(params, [a.astype(dtype) for a in e], device="cuda")
        it.gradient = it.meta_gradient
        return it

    return Subject(algorithm, e, twin)


def conv4_step(task, made, **options):
    def twin(dtype):
        torch = conv4.TorchMAML if task == "maml" else conv4.TorchPrototypical
        return torch(task, "stride", dtype, device="cuda")

    return Subject(
        made(conv4.network(task, "stride"), **options), conv4.episode(task, "float32"), twin
    )


SUBJECTS = {
    "sinusoid MAML, 25 tasks": sinusoid,
    "MAML Conv4, 32 tasks": lambda: conv4_step("maml", MAML, inner_lr=conv4.INNER_LR),
    "Prototypical 20-way 5-shot": lambda: conv4_step("prototypical", Prototypical),
    "Prototypical 60-way 1-shot": lambda: conv4_step("prototypical-60", Prototypical),
    "matching-fce 20-way 1-shot": lambda: preset("matching-fce", "glyphs"),
    "MANN, 16 sequences of 25": lambda: preset("mann", "glyphs"),
    "NTM, copying": lambda: preset("ntm", "copy"),
}


def little():
    """For a rehearsal."""
    e = episodes.sample(data.Glyphs("train", image_size=8), 2, 1, 1)
    return Subject(Prototypical(nn.MLP([64, 4])), e._replace(), None)


LITTLE = {
    "sinusoid MAML, 25 tasks": sinusoid,
    "Prototypical": little,
}


def typed(e, dtype):
    """The episodes with floating-point numbers of this type."""
    return type(e)(*(a.astype(dtype) if a.dtype.kind == "f" else a for a in e))


def gradient(subject, dtype, name, rounding=0.0):
    """The meta-gradient on a backend, as NumPy's; `rounding` changes parameters by so much."""
    rng = np.random.default_rng(1)
    with backend.use(name):
        params = tree.to_numpy(subject.algorithm.init(np.random.default_rng(0)))
        params = tree.map(lambda p: p * (1 + rounding * rng.choice([-1, 1], p.shape)), params)
        params = tree.to_backend(tree.astype(params, dtype))
        _, grads = subject.algorithm.meta_gradient(
            params, tree.to_backend(typed(subject.episodes, dtype))
        )
        return [np.asarray(g) for g in tree.flatten(tree.to_numpy(grads))[0]]


def error(got, wanted):
    """|got − wanted| / |wanted| over all arrays."""
    off = sum(np.sum((g.astype(np.float64) - w) ** 2) for g, w in zip(got, wanted, strict=True))
    size = sum(np.sum(w.astype(np.float64) ** 2) for w in wanted)
    return float(np.sqrt(off / size))


def twin(subject, dtype):
    """torch's contestant, whose parameters are made on the host."""
    with backend.use("numpy"):
        return subject.twin(dtype)


def counted(call, torch):
    """(kernels launched, copies to the host, ms in which the card was busy) of one call."""
    if torch is None:
        return "-", "-", float("nan")
    activity = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[activity]) as profile:
        call()
        backend.synchronize()
        torch.cuda.synchronize()
    on_card = [
        e
        for e in profile.profiler.kineto_results.events()
        if e.device_type() == torch.autograd.DeviceType.CUDA
    ]
    copies = [e for e in on_card if e.name().startswith(("Memcpy", "Memset"))]
    to_host = sum("DtoH" in e.name() for e in copies)
    busy = sum(e.duration_ns() for e in on_card) / 1e6
    by_name: dict[str, list[float]] = {}
    for e in on_card:
        by_name.setdefault(e.name(), []).append(e.duration_ns() / 1e3)
    for name, times in sorted(by_name.items(), key=lambda item: -sum(item[1]))[:12]:
        print(f"      {sum(times):9.1f} µs in {len(times):4} of {name[:90]}")
    return len(on_card) - len(copies), to_host, busy


def measure(name, subject, say, torch) -> bool:
    """Prints a subject's line; whether its gradients are the CPU's."""
    errors = {}
    for dtype in ("float64", "float32"):
        wanted = gradient(subject, dtype, "numpy")
        got = gradient(subject, dtype, "cupy")
        errors[dtype] = error(got, wanted)
        if torch is not None and subject.twin and dtype == "float64":
            errors["torch"] = error([np.array(g) for g in twin(subject, dtype).gradient()], wanted)
        if dtype == "float64":
            errors["rounding"] = error(gradient(subject, dtype, "numpy", 2.0**-52), wanted)
    settings = Training()
    with backend.use("cupy"):
        optimizer, state = start(subject.algorithm, settings)
        batch = tree.to_backend(subject.episodes)
        adam = optim.Adam(1e-3)
        params, moments = state.params, adam.init(state.params)

        def plain():
            _, grads = subject.algorithm.meta_gradient(params, batch)
            adam.step(params, grads, moments)

        calls = {
            "ours": plain,
            "checked": lambda: step(subject.algorithm, optimizer, state, batch, settings),
        }
        if torch is not None and subject.twin:
            calls["torch"] = twin(subject, "float32").step
        options = argparse.Namespace(processor_time=False, rounds=6)

        def synchronize():
            backend.synchronize()
            if torch is not None:
                torch.cuda.synchronize()

        times = seconds(calls, options, turn=0.1, shortest=2e-2, synchronize=synchronize)
        print(f"   {name}: what the card does in one step of ours, the longest first")
        launches, to_host, busy = counted(calls["checked"], torch)
        if "torch" in calls:
            print(f"   {name}: and of torch's")
            theirs = counted(calls["torch"], torch)[0]
        else:
            theirs = "-"
    ms = {which: 1e3 * value for which, value in times.items()}
    rival = ms.get("torch", float("nan"))
    say(
        f"{name:<28}{ms['ours']:9.2f}{ms['checked']:9.2f}{busy:8.2f}{rival:9.2f}"
        f"{ms['ours'] / rival:7.2f}{launches:>7}{theirs:>7}{to_host:>5}"
        f"{errors['float64']:8.0e}{errors['rounding']:8.0e}{errors['float32']:8.0e}"
        f"{errors.get('torch', float('nan')):8.0e}"
    )
    return errors["float64"] <= max(1e-11, 10 * errors["rounding"])


def table(say: Callable, rehearsal: bool, until: float) -> int:
    """The rows, as far as the time reaches; 1 if a gradient in float64 is not the CPU's."""
    with backend.use("cupy"):
        torch = rivals()[0]
    say(
        f"{'step, ms':<28}{'ours':>9}{'checked':>9}{'busy':>8}{'torch':>9}{'ours/t':>7}"
        f"{'launch':>7}{'torch':>7}{'toH':>5}{'Δ f64':>8}{'round':>8}{'Δ f32':>8}{'Δ torch':>8}"
    )
    right = True
    for name, prepare in (LITTLE if rehearsal else SUBJECTS).items():
        if time.monotonic() > until:
            say(f"{name:<28} not run in the time")
            continue
        right &= measure(name, prepare(), say, torch)
    return 0 if right else 1
