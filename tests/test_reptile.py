"""Reptile against a loop over tasks and steps, and what it says of its training data."""

import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import data, losses, nn, ops, optim, tree
from scratchmeta.algorithms import Reptile
from scratchmeta.algorithms.reptile import shot_by_shot
from scratchmeta.cases import curves, float64, images
from scratchmeta.core import value_and_grad
from scratchmeta.episodes import sample

NETWORK = nn.MLP([4, 5, 2], activation=ops.tanh, batch_norm=True)


def learner(**options):
    rng = np.random.default_rng(0)
    algorithm = Reptile(NETWORK, inner_lr=0.05, inner_steps=3, inner_batch=4, **options)
    return algorithm, float64(algorithm.init(rng), rng), images(rng, side=2, shots=1, queries=3)


def test_minibatches_go_round_the_shots_class_by_class():
    y = np.array([[0, 0, 0, 1, 1, 1]])
    x = np.array([[0, 1, 2, 10, 11, 12]])
    np.testing.assert_array_equal(shot_by_shot(x, 2), [[0, 10, 1, 11, 2, 12]])
    np.testing.assert_array_equal(shot_by_shot(y, 2), [[0, 1, 0, 1, 0, 1]])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_gradient_is_the_way_back_from_a_loop_over_tasks(optimizer):
    """Each task by itself, its minibatches written out, Adam from its formula."""
    algorithm, params, episodes = learner(inner_optimizer=optimizer)
    loss, gradient = algorithm.meta_gradient(params, episodes)
    ends, all_losses = [], []
    for t in range(2):
        s, q = episodes.support_x[t], episodes.query_x[t]
        shots = [(s[0], 0), (s[1], 1), *[(q[k * 3 + i], k) for i in range(3) for k in (0, 1)]]
        flat, spec = tree.flatten(params)
        v = [0.0 * p for p in flat]
        for step in range(3):
            batch = [shots[(4 * step + i) % 8] for i in range(4)]
            x, y = np.stack([b[0] for b in batch]), np.array([b[1] for b in batch])
            value, g = value_and_grad(lambda p, x=x, y=y: losses.cross_entropy(NETWORK(p, x), y))(
                tree.unflatten(spec, flat)
            )
            all_losses.append(value)
            for i, gi in enumerate(tree.flatten(g)[0]):
                if optimizer == "sgd":
                    flat[i] = flat[i] - 0.05 * gi
                else:
                    v[i] = 0.999 * v[i] + 0.001 * gi**2
                    corrected = v[i] / (1 - 0.999 ** (step + 1))
                    flat[i] = flat[i] - 0.05 * gi / (np.sqrt(corrected) + 1e-8)
        ends.append(flat)
    np.testing.assert_allclose(loss, np.mean(all_losses))
    for start, got, a, b in zip(
        tree.flatten(params)[0], tree.flatten(gradient)[0], *ends, strict=True
    ):
        np.testing.assert_allclose(got, start - (a + b) / 2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_of_tasks_do_not_matter(chunk):
    algorithm, params, episodes = learner()
    whole = algorithm.meta_gradient(params, episodes)
    algorithm.task_chunk = chunk
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
        rng = np.random.default_rng(0)
        params = float64(algorithm.init(rng), rng)
        a, b = (algorithm.predict(params, e)[:, 0] for e in (episodes, changed))
        assert np.allclose(a, b) == same


def test_regression():
    algorithm = Reptile(nn.MLP([1, 3, 1]), inner_batch=2, loss=losses.mse, eval_inner_steps=1)
    rng = np.random.default_rng(0)
    params, episodes = float64(algorithm.init(rng), rng), curves(rng)
    assert algorithm.predict(params, episodes).shape == (2, 2, 1)
    loss, _ = algorithm.meta_gradient(params, episodes)
    assert np.isfinite(loss)


@pytest.mark.parametrize("name", ["reptile", "reptile, Adam", "reptile, one by one"])
def test_on_noise_accuracy_is_chance_before_and_after_adaptation(name):
    algorithm, params, _ = INSTANCES[name](np.random.default_rng(2))
    episodes = images(np.random.default_rng(3), tasks=150, queries=2)
    for steps in (0, 2):
        algorithm.eval_inner_steps = steps
        right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
        assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


def test_one_step_of_gradient_descent_is_ordinary_training():
    """Reptile with one inner step is SGD on the minibatch (section 5)."""
    algorithm, params, episodes = learner(inner_optimizer="sgd")
    algorithm.inner_steps = 1
    _, gradient = algorithm.meta_gradient(params, episodes)
    x, y = algorithm.training_data(episodes)

    def loss(params):
        return ops.mean(losses.cross_entropy(NETWORK(params, x[:, :4]), y[:, :4]))

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
