"""Reptile against a loop over tasks and steps, and what it says of its training data."""

from dataclasses import replace

import numpy as np
import pytest
from small import INSTANCES, reptile_params

from scratchmeta import data, losses, nn, ops, optim, tree
from scratchmeta.algorithms import Reptile
from scratchmeta.algorithms.reptile import shot_by_shot
from scratchmeta.core import value_and_grad
from scratchmeta.episodes import sample
from scratchmeta.run import training
from scratchmeta.run.config import Training
from scratchmeta.run.training import train
from scratchmeta.verify.episodes import curves, images

NETWORK = nn.MLP([4, 5, 2], activation=ops.tanh, batch_norm=True)


def learner(**options):
    rng = np.random.default_rng(0)
    algorithm = Reptile(NETWORK, inner_lr=0.05, inner_steps=3, inner_batch=4, **options)
    params = reptile_params(algorithm, rng)
    return algorithm, params, images(rng, side=2, shots=1, queries=3)


def test_minibatches_go_round_the_shots_class_by_class():
    y = np.array([[0, 0, 0, 1, 1, 1]])
    x = np.array([[0, 1, 2, 10, 11, 12]])
    np.testing.assert_array_equal(shot_by_shot(x, 2), [[0, 10, 1, 11, 2, 12]])
    np.testing.assert_array_equal(shot_by_shot(y, 2), [[0, 1, 0, 1, 0, 1]])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_gradient_is_the_way_back_from_a_loop_over_tasks(optimizer):
    """Each task by itself, its minibatches written out, Adam from its formula."""
    algorithm, params, episodes = learner(inner_optimizer=optimizer)
    adam = optimizer == "adam"
    loss, gradient = algorithm.meta_gradient(params, episodes)
    ends, all_losses, kept = [], [], 0.999**3
    for t in range(2):
        s, q = episodes.support_x[t], episodes.query_x[t]
        shots = [(s[0], 0), (s[1], 1), *[(q[k * 3 + i], k) for i in range(3) for k in (0, 1)]]
        flat, spec = tree.flatten(params["network"])
        v = tree.flatten(params["square"])[0] if adam else None
        n = params["weight"] if adam else None
        for step in range(3):
            batch = [shots[(4 * step + i) % 8] for i in range(4)]
            x, y = np.stack([b[0] for b in batch]), np.array([b[1] for b in batch])
            value, g = value_and_grad(lambda p, x=x, y=y: losses.cross_entropy(NETWORK(p, x), y))(
                tree.unflatten(spec, flat)
            )
            all_losses.append(value)
            n = 0.999 * n + 0.001 if adam else None
            for i, gi in enumerate(tree.flatten(g)[0]):
                if adam:
                    v[i] = 0.999 * v[i] + 0.001 * gi**2
                    flat[i] = flat[i] - 0.05 * gi / (np.sqrt(v[i] / n) + 1e-8)
                else:
                    flat[i] = flat[i] - 0.05 * gi
        network = tree.unflatten(spec, flat)
        moments = {"square": tree.unflatten(spec, v), "weight": n} if adam else {}
        ends.append(tree.flatten({"network": network, **moments})[0])
    np.testing.assert_allclose(loss, np.mean(all_losses))
    for name, start, got, a, b in zip(
        tree.paths(params), *(tree.flatten(x)[0] for x in (params, gradient)), *ends, strict=True
    ):
        end = (a + b) / 2
        if not name.startswith("network"):  # the tasks one after another, in either order
            own_a, own_b = a - kept * start, b - kept * start
            orders = kept * a + own_b, kept * b + own_a
            end = sum(orders) / 2
        np.testing.assert_allclose(got, start - end, rtol=1e-7, atol=1e-9)


def test_moments_go_on_from_task_to_task():
    """One task a step and ε = 1: one Adam for all tasks, its count never reset."""
    network = nn.MLP([4, 5, 2], activation=ops.tanh)
    algorithm = Reptile(network, inner_lr=0.05, inner_steps=3, inner_batch=4)
    rng = np.random.default_rng(1)
    params = tree.astype(algorithm.init(rng), "float64")
    outer = optim.SGD(1.0)
    adam = optim.Adam(0.05, beta1=0.0)
    state, inner = outer.init(params), adam.init(params["network"])
    wanted = params["network"]
    for _ in range(4):
        episodes = images(rng, side=2, shots=1, queries=3, tasks=1)
        x, y = (a[0] for a in algorithm.training_data(episodes))
        for step in range(3):
            batch = [(4 * step + i) % 8 for i in range(4)]
            _, g = value_and_grad(
                lambda p, x=x[batch], y=y[batch]: losses.cross_entropy(network(p, x), y)
            )(wanted)
            wanted, inner = adam.step(wanted, g, inner)
        params, state = outer.step(params, algorithm.meta_gradient(params, episodes)[1], state)
    np.testing.assert_allclose(params["weight"], 1 - 0.999**12)
    got = tree.ravel(params["network"])[0], tree.ravel(params["square"])[0]
    for a, b in zip(got, (tree.ravel(wanted)[0], inner["v"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_of_tasks_do_not_matter(chunk):
    algorithm, params, episodes = learner()
    whole = algorithm.meta_gradient(params, episodes)
    algorithm = replace(algorithm, task_chunk=chunk)
    parts = algorithm.meta_gradient(params, episodes)
    for a, b in zip(tree.flatten(whole)[0], tree.flatten(parts)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_one_by_one_a_query_does_not_see_the_others():
    _, params, episodes = INSTANCES["reptile, one by one"](np.random.default_rng(1))
    changed = episodes._replace(query_x=episodes.query_x.copy())
    changed.query_x[:, 1:] += 1.0
    for one_by_one, same in ((True, True), (False, False)):
        algorithm = Reptile(
            nn.MLP([64, 3, 2], batch_norm=True), eval_inner_steps=2, one_by_one=one_by_one
        )
        params = reptile_params(algorithm, np.random.default_rng(0))
        a, b = (algorithm.predict(params, e)[:, 0] for e in (episodes, changed))
        assert np.allclose(a, b) == same


def test_regression():
    algorithm = Reptile(nn.MLP([1, 3, 1]), inner_batch=2, loss=losses.mse, eval_inner_steps=1)
    rng = np.random.default_rng(0)
    params, episodes = reptile_params(algorithm, rng), curves(rng)
    assert algorithm.predict(params, episodes).shape == (2, 2, 1)
    loss, _ = algorithm.meta_gradient(params, episodes)
    assert np.isfinite(loss)


@pytest.mark.parametrize("name", ["reptile", "reptile, Adam", "reptile, one by one"])
def test_on_noise_accuracy_is_chance_before_and_after_adaptation(name):
    algorithm, params, _ = INSTANCES[name](np.random.default_rng(2))
    episodes = images(np.random.default_rng(3), tasks=150, queries=2)
    for steps in (0, 2):
        algorithm = replace(algorithm, eval_inner_steps=steps)
        right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
        assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


def test_one_step_of_gradient_descent_is_ordinary_training():
    """Reptile with one inner step is SGD on the minibatch (section 5)."""
    algorithm, params, episodes = learner(inner_optimizer="sgd")
    algorithm = replace(algorithm, inner_steps=1)
    _, gradient = algorithm.meta_gradient(params, episodes)
    x, y = algorithm.training_data(episodes)

    def loss(params):
        logits = NETWORK(params["network"], x[:, :4])
        return ops.mean(losses.cross_entropy(logits, y[:, :4]))

    _, wanted = value_and_grad(loss)(params)
    tree.map(lambda a, b: np.testing.assert_allclose(a, 0.05 * b, atol=1e-15), gradient, wanted)


def test_it_learns():
    """Sinusoids: after training, the same adaptation ends with a third of the error."""
    algorithm = Reptile(
        nn.MLP([1, 40, 40, 1], activation=ops.tanh),
        inner_lr=0.02,
        inner_steps=5,
        inner_batch=4,
        eval_inner_steps=10,
        eval_batch=10,
        inner_optimizer="sgd",
        loss=losses.mse,
    )
    dataset = data.Sinusoids()
    start = params = algorithm.init(np.random.default_rng(0))
    outer = optim.SGD(0.5)
    state = outer.init(params)
    for index in range(400):
        batch = sample(dataset, 1, 10, 10, 10, seed=0, index=index)
        params, state = outer.step(params, algorithm.meta_gradient(params, batch)[1], state)
    test = sample(dataset, 1, 10, 10, 100, seed=1)
    before, after = (
        np.square(algorithm.predict(p, test) - test.query_y).mean() for p in (start, params)
    )
    assert after < before / 3


@pytest.mark.parametrize("outer", [{"optimizer": "sgd", "linear_decay": True}, {}])
def test_moments_know_nothing_of_the_outer_step(outer):
    """They keep 0.999 at each inner step, whatever the rate, the optimizer and the clipping are."""
    algorithm = Reptile(nn.MLP([1, 4, 1]), inner_steps=3, inner_batch=5, loss=losses.mse)
    episode = dict(n_way=1, k_shot=5, n_query=5, tasks=2)
    settings = Training(**episode, steps=4, lr=0.1, clip_norm=1e-3, clip_value=1e-4, **outer)
    params = train(algorithm, data.Sinusoids(), settings).params
    np.testing.assert_allclose(params["weight"], 1 - 0.999 ** (4 * 2 * 3), rtol=1e-5)
    still = replace(settings, lr=1e-30)
    as_begun = train(algorithm, data.Sinusoids(), still).params
    network = algorithm.init(np.random.default_rng(0))["network"]
    still_there = tree.ravel(as_begun["network"])[0], tree.ravel(network)[0]
    np.testing.assert_allclose(*still_there, rtol=0, atol=1e-28)
    np.testing.assert_array_equal(as_begun["weight"], params["weight"])
    assert all(v.max() > 0 for v in tree.flatten(as_begun["square"])[0])


def test_no_optimizer_has_moments_of_moments():
    algorithm = Reptile(nn.MLP([1, 4, 1]), loss=losses.mse)
    _, state = training.start(algorithm, Training())
    numbers = sum(p.size for p in tree.flatten(state.params["network"])[0])
    assert state.optimizer["m"].size == numbers
