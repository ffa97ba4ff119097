"""iMAML: the exact implicit gradient on a quadratic, long unrolled MAML, and loops over tasks."""

import numpy as np
import pytest
from adaptation import assert_equal, images, new

from scratchmeta import Tensor, grad, losses, nn, ops, tree
from scratchmeta.algorithms.imaml import IMAML, conjugate_gradients
from scratchmeta.core import hvp
from scratchmeta.episodes import Episode

CONV4 = nn.Conv4(channels=4, image_size=12, pooling="stride", n_out=3)
MLP = nn.MLP([1, 4, 1], activation=ops.tanh)
# Enough steps for the minimum and its system to be exact: λ is large beside the curvature.
EXACT = {"penalty": 4.0, "inner_lr": 0.15, "inner_steps": 60, "cg_steps": 13, "loss": losses.mse}

# For the tables that look at all algorithms: see brought.py.
FIT = {"loss", "gradient", "predict"}
SMALL = {"network": {"channels": 2}}
OPTIONS = {
    "penalty": (1.0, FIT),
    "inner_lr": (0.2, FIT),
    "inner_steps": (2, FIT),
    "eval_inner_steps": (2, {"predict"}),
    "cg_steps": (1, {"gradient"}),
    "damping": (1.0, {"gradient"}),
    "batch_norm": ("support", FIT),
}


def INITIAL(words):
    return words.DENSE


def curves(rng, tasks=4, inputs=1):
    x = [rng.uniform(-1, 1, (tasks, 6, inputs)) for _ in range(2)]
    y = [np.sin(3 * a.sum(-1, keepdims=True)) for a in x]
    return Episode(x[0], y[0], x[1], y[1])


def test_on_a_quadratic_the_gradient_is_the_exact_implicit_one():
    """A linear network with squared errors: L_S(w) = ‖X w − y‖² / n, so φ* and ∂φ*/∂θ are known."""
    network, λ = nn.Linear(3, 1, bias=False), 0.7
    episodes, params = curves(np.random.default_rng(0), inputs=3), new(network)
    algorithm = IMAML(network, λ, 0.3, 200, cg_steps=3, loss=losses.mse)
    θ = params["weight"]
    wanted = np.zeros_like(θ)
    for t, (x, y, qx, qy) in enumerate(zip(*episodes, strict=True)):
        h = 2 / len(x) * x.T @ x
        φ = np.linalg.solve(h + λ * np.eye(3), 2 / len(x) * x.T @ y + λ * θ)
        found = algorithm.adapt(params, episodes, 200)["weight"][t]
        np.testing.assert_allclose(found, φ, atol=1e-12)
        outer = 2 / len(qx) * qx.T @ (qx @ φ - qy)
        wanted += np.linalg.inv(np.eye(3) + h / λ) @ outer / len(episodes.support_x)
    assert_equal(algorithm.meta_gradient(params, episodes)[1]["weight"], wanted)


def test_the_gradient_is_that_of_long_unrolled_maml():
    """Differentiated through all the steps of gradient descent, a loop over tasks."""
    episodes, params = curves(np.random.default_rng(1)), new(MLP)
    algorithm = IMAML(MLP, **EXACT)
    wanted = tree.map(np.zeros_like, params)
    for sx, sy, qx, qy in zip(*episodes, strict=True):
        θ = tree.map(Tensor, params)
        φ = θ
        for _ in range(60):
            g = grad(losses.mse(MLP(φ, sx), sy), φ, create_graph=True)
            φ = tree.map(lambda p, g, p0: p - 0.15 * (g + 4.0 * (p - p0)), φ, g, θ)
        g = grad(losses.mse(MLP(φ, qx), qy), θ)
        wanted = tree.map(lambda t, g: t + g / len(episodes.support_x), wanted, g)
    assert_equal(algorithm.meta_gradient(params, episodes)[1], wanted, tolerance=1e-10)


def test_few_conjugate_gradients_solve_the_system_of_every_task():
    """The gradient is (I + H/λ)⁻¹ ∇L_Q at the minimum, for the Hessian column by column."""
    episodes, params = curves(np.random.default_rng(2), tasks=2), new(MLP)
    algorithm = IMAML(MLP, **EXACT)
    φ = algorithm.adapt(params, episodes, 60)
    wanted = 0.0
    for t, (sx, sy, qx, qy) in enumerate(zip(*episodes, strict=True)):
        at = tree.map(lambda a, t=t: a[t], φ)
        vector, unravel = tree.ravel(at)

        def inner(w, sx=sx, sy=sy):
            return losses.mse(MLP(w, sx), sy)

        columns = [tree.ravel(hvp(inner, at, unravel(e)))[0] for e in np.eye(vector.size)]
        live = tree.map(Tensor, at)
        outer, _ = tree.ravel(grad(losses.mse(MLP(live, qx), qy), live))
        wanted = wanted + np.linalg.solve(np.eye(vector.size) + np.stack(columns) / 4.0, outer) / 2
    got, _ = tree.ravel(algorithm.meta_gradient(params, episodes)[1])
    np.testing.assert_allclose(got, wanted, atol=1e-10 * np.abs(wanted).max())


def test_conjugate_gradients_solve_several_systems_at_once():
    """Also where one is solved before the others, or has nothing to solve."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(4, 5, 5))
    a = a @ a.swapaxes(1, 2) + np.eye(5)
    a[1] = np.eye(5)  # after one step
    b = rng.normal(size=(4, 5))
    b[2] = 0.0
    x = conjugate_gradients(lambda v: np.einsum("tij,tj->ti", a, v), b, steps=7)
    np.testing.assert_allclose(x, np.linalg.solve(a, b[..., None])[..., 0], atol=1e-9)


def test_one_conjugate_gradient_is_the_best_step_along_the_residual():
    a, b = np.diag([1.0, 3.0]), np.array([[1.0, 1.0]])
    x = conjugate_gradients(lambda v: v @ a, b, steps=1)
    np.testing.assert_allclose(x, 0.5 * b)  # bᵀb / bᵀA b


def test_a_large_penalty_keeps_the_weights_where_they_are():
    """Then it is gradient descent on the query loss: nothing is adapted."""
    episodes, params = images(np.random.default_rng(4)), new(CONV4)
    stiff = IMAML(CONV4, penalty=1e9, inner_lr=1e-10, inner_steps=5)
    still = IMAML(CONV4, inner_steps=0)
    assert_equal(stiff.predict(params, episodes), still.predict(params, episodes), 1e-6)
    got, _ = tree.ravel(stiff.meta_gradient(params, episodes)[1])
    outer = tree.map(Tensor, params)
    loss = losses.cross_entropy(CONV4(outer, episodes.query_x), episodes.query_y)
    wanted, _ = tree.ravel(grad(ops.mean(loss), outer))
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("task_chunk", [1, 2])
def test_the_chunk_of_tasks_changes_nothing(task_chunk):
    episodes, params = images(np.random.default_rng(5)), new(CONV4)
    whole, parts = (IMAML(CONV4, inner_steps=3, task_chunk=n) for n in (5, task_chunk))
    assert_equal(*(a.meta_gradient(params, episodes)[1] for a in (parts, whole)), 1e-10)
    assert_equal(*(a.predict(params, episodes) for a in (parts, whole)), 1e-10)


def test_the_steps_leave_no_graph():
    """The time it takes to find φ* is not in the memory that its gradient needs."""
    from scratchmeta.core import Node

    episodes, params = curves(np.random.default_rng(6)), new(MLP)

    def nodes(steps):
        algorithm = IMAML(MLP, inner_steps=steps, loss=losses.mse)
        stack = [algorithm.task_losses(tree.map(Tensor, params), episodes).node]
        seen = set(stack)
        while stack:
            new_ones = {p for p in stack.pop().parents if isinstance(p, Node)} - seen
            seen |= new_ones
            stack += new_ones
        return len(seen)

    assert nodes(1) == nodes(30)


@pytest.mark.parametrize(("batch_norm", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(batch_norm, alone):
    episodes, params = images(np.random.default_rng(7)), new(CONV4)
    algorithm = IMAML(CONV4, inner_steps=3, batch_norm=batch_norm)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_on_noise_accuracy_is_chance():
    """Labels mean nothing: were one to leak into a query, this would be above 1/3."""
    episodes, params = images(np.random.default_rng(8), tasks=300), new(CONV4)
    right = IMAML(CONV4, inner_steps=2).predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / right.size)


def test_damping_weakens_the_hessian():
    """With δ the system is that of a penalty λ + δ, at the minimum that λ has."""
    network, λ, δ = nn.Linear(2, 1, bias=False), 0.7, 0.5
    episodes, params = curves(np.random.default_rng(10), tasks=1, inputs=2), new(network)
    algorithm = IMAML(network, λ, 0.3, 200, cg_steps=2, damping=δ, loss=losses.mse)
    _, got = algorithm.meta_gradient(params, episodes)
    x, qx, qy = episodes.support_x[0], episodes.query_x[0], episodes.query_y[0]
    φ = algorithm.adapt(params, episodes, 200)["weight"][0]
    h, outer = 2 / len(x) * x.T @ x, 2 / len(qx) * qx.T @ (qx @ φ - qy)
    wanted = np.linalg.solve(np.eye(2) + h / (λ + δ), outer)
    np.testing.assert_allclose(got["weight"], wanted, atol=1e-12)


def test_running_statistics_are_refused():
    with pytest.raises(ValueError, match="batch_norm: wanted 'transductive' or 'support'"):
        IMAML(CONV4, batch_norm="running")


def test_torch_gives_the_same():
    """torch finds the minimum by its own steps and solves the system with the whole Hessian."""
    from test_against_torch import F, close, float64, leaves, torch

    rng = np.random.default_rng(9)
    params, episodes = float64(MLP.init(rng), rng), curves(rng, tasks=2)
    algorithm = IMAML(MLP, **EXACT)
    loss, g = algorithm.meta_gradient(params, episodes)
    flat, treedef = tree.flatten(leaves(params))
    θ = torch.cat([p.flatten() for p in flat]).detach()

    def forward(v, x):
        parts = [
            part.reshape(p.shape)
            for part, p in zip(v.split([p.numel() for p in flat]), flat, strict=True)
        ]
        first, second = tree.unflatten(treedef, parts).values()
        return torch.tanh(x @ first["weight"] + first["bias"]) @ second["weight"] + second["bias"]

    total, wanted = 0.0, 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        φ = θ.clone()
        for _ in range(60):
            φ = φ.detach().requires_grad_()
            (step,) = torch.autograd.grad(F.mse_loss(forward(φ, sx), sy), φ)
            φ = φ - 0.15 * (step + 4.0 * (φ - θ))
        φ = φ.detach().requires_grad_()
        h = torch.autograd.functional.hessian(lambda v, x=sx, y=sy: F.mse_loss(forward(v, x), y), φ)
        outer = F.mse_loss(forward(φ, qx), qy)
        total = total + outer.detach() / 2
        (slope,) = torch.autograd.grad(outer, φ)
        wanted = wanted + torch.linalg.solve(torch.eye(len(θ)).double() + h / 4.0, slope) / 2
    close(np.asarray(loss), total)
    close(tree.ravel(g)[0], wanted)
