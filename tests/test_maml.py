"""MAML's identities: what must hold of the meta-gradient whatever the network."""

import numpy as np
import pytest
from adaptation import assert_equal, curves, images, new

from scratchmeta import Tensor, grad, losses, nn, ops, tree
from scratchmeta.algorithms import MAML, MetaLSTM, Prototypical, Reptile

CONV4 = nn.Conv4(channels=4, image_size=12, pooling="stride", n_out=3)
MLP = nn.MLP([1, 8, 8, 1], activation=ops.tanh)


def one_task_at_a_time(algorithm, params, episodes):
    """The definition: for each task, adapt a copy of θ and differentiate through the steps."""
    network, α = algorithm.network, algorithm.inner_lr
    total = tree.map(np.zeros_like, params)
    for sx, sy, qx, qy in zip(*episodes, strict=True):
        θ = tree.map(Tensor, params)
        fast = θ
        for _ in range(algorithm.inner_steps):
            inner = algorithm.loss(network(fast, sx), sy)
            g = grad(inner, fast, create_graph=not algorithm.first_order)
            fast = tree.map(lambda p, g: p - α * g, fast, g)
        g = grad(algorithm.loss(network(fast, qx), qy), θ)
        total = tree.map(lambda t, g: t + g / len(episodes.support_x), total, g)
    return total


@pytest.mark.parametrize("task_chunk", [None, 1, 2, 5])
@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
def test_a_loop_over_tasks_gives_the_same_whatever_the_chunk(task_chunk, first_order):
    rng = np.random.default_rng(0)
    episodes, params = images(rng), new(CONV4)
    algorithm = MAML(CONV4, 0.4, inner_steps=2, first_order=first_order, task_chunk=task_chunk)
    _, got = algorithm.meta_gradient(params, episodes)
    assert_equal(got, one_task_at_a_time(algorithm, params, episodes))


def test_without_a_step_size_it_is_gradient_descent_on_the_query_loss():
    rng = np.random.default_rng(1)
    episodes, params = images(rng), new(CONV4)
    _, got = MAML(CONV4, inner_lr=0.0, inner_steps=3).meta_gradient(params, episodes)
    _, wanted = MAML(CONV4, inner_lr=0.4, inner_steps=0).meta_gradient(params, episodes)
    assert_equal(got, wanted)


def test_first_order_is_exact_where_the_hessian_vanishes():
    """A linear network with a linear loss: the inner gradient does not depend on θ."""

    def linear_loss(prediction, target):
        return ops.mean(prediction * target, axis=(-2, -1))

    episodes, network = curves(np.random.default_rng(2)), nn.Linear(1, 1)
    gradients = [
        MAML(network, 0.3, 2, first_order, loss=linear_loss).meta_gradient(new(network), episodes)
        for first_order in (False, True)
    ]
    assert_equal(*(g for _, g in gradients))


def test_first_order_differs_elsewhere():
    episodes, params = curves(np.random.default_rng(3)), new(MLP)
    exact, first = (
        MAML(MLP, 0.05, 2, first_order, loss=losses.mse).meta_gradient(params, episodes)[1]
        for first_order in (False, True)
    )
    a, b = (tree.ravel(g)[0] for g in (exact, first))
    assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(a)


def test_the_meta_gradient_is_the_slope_of_the_meta_loss():
    rng = np.random.default_rng(4)
    episodes, params = curves(rng), new(MLP)
    algorithm = MAML(MLP, 0.05, inner_steps=3, loss=losses.mse)
    v = tree.map(lambda p: rng.normal(size=p.shape), params)

    def loss(h):
        return algorithm.meta_gradient(tree.map(lambda p, v: p + h * v, params, v), episodes)[0]

    h = 1e-4  # Richardson: (8 (f₊ − f₋) − (f₊₊ − f₋₋)) / 12 h
    slope = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
    _, g = algorithm.meta_gradient(params, episodes)
    along = sum(np.sum(a * b) for a, b in zip(tree.flatten(g)[0], tree.flatten(v)[0], strict=True))
    np.testing.assert_allclose(along, slope, rtol=1e-9)


@pytest.mark.parametrize("ways", [1, 3])
def test_fresh_batches_go_round_the_shots(ways):
    """Also in more steps than training takes: then the first shots come again."""
    maml, shots = MAML(CONV4, inner_steps=3, inner_batches="fresh"), 7
    episode = images(np.random.default_rng(0), ways=ways, shots=shots)
    for step in range(8):
        x, y = maml.inner_batch(episode, step)
        wanted = [k * shots + s for k in range(ways) for s in range(shots) if s % 3 == step % 3]
        np.testing.assert_array_equal(x, episode.support_x[:, wanted])
        np.testing.assert_array_equal(y, episode.support_y[:, wanted])
    curve = curves(np.random.default_rng(0))  # of 6 points
    x, _ = MAML(MLP, inner_steps=4, inner_batches="fresh").inner_batch(curve, 5)
    np.testing.assert_array_equal(x, curve.support_x[:, [1, 5]])


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_prediction_takes_the_steps_that_it_is_to_take(steps):
    """`eval_inner_steps`, whatever training takes, or as many as are asked for."""
    params, episodes = new(MLP), curves(np.random.default_rng(0))
    options = {"inner_lr": 0.05, "loss": losses.mse}
    wanted = MAML(MLP, inner_steps=steps or 1, **options).predict(params, episodes, steps)
    other = MAML(MLP, inner_steps=2, eval_inner_steps=steps, **options)
    np.testing.assert_array_equal(other.predict(params, episodes), wanted)
    np.testing.assert_array_equal(
        other.predict(params, episodes, 2),
        MAML(MLP, inner_steps=2, **options).predict(params, episodes),
    )
    fast = other.per_task(params, episodes)
    for _ in range(steps):
        live = tree.map(Tensor, fast)
        loss = ops.sum(losses.mse(MLP(live, episodes.support_x), episodes.support_y))
        fast = tree.map(lambda p, g: p - 0.05 * g, fast, grad(loss, live))
    np.testing.assert_allclose(wanted, MLP(fast, episodes.query_x), atol=1e-13)


def test_permuting_the_labels_permutes_the_prediction():
    """The head's columns are permuted with the labels, so that the start is the same network."""
    rng = np.random.default_rng(5)
    episodes, params, swap = images(rng), new(CONV4), np.array([2, 0, 1])
    head = params["head"]
    permuted = params | {
        "head": {"weight": head["weight"][:, np.argsort(swap)], "bias": head["bias"]}
    }
    algorithm = MAML(CONV4, 0.4, inner_steps=2)
    relabelled = episodes._replace(support_y=swap[episodes.support_y])
    got = algorithm.predict(permuted, relabelled)
    np.testing.assert_allclose(got[..., swap], algorithm.predict(params, episodes), atol=1e-12)


def test_the_order_of_the_support_does_not_matter():
    rng = np.random.default_rng(6)
    episodes, params = images(rng), new(CONV4)
    order = rng.permutation(episodes.support_y.shape[1])
    shuffled = episodes._replace(
        support_x=episodes.support_x[:, order], support_y=episodes.support_y[:, order]
    )
    algorithm = MAML(CONV4, 0.4)
    np.testing.assert_allclose(
        algorithm.predict(params, shuffled), algorithm.predict(params, episodes), atol=1e-10
    )


@pytest.mark.parametrize(("batch_norm", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(batch_norm, alone):
    rng = np.random.default_rng(7)
    episodes, params = images(rng), new(CONV4)
    algorithm = MAML(CONV4, 0.4, batch_norm=batch_norm)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_running_statistics_are_refused():
    with pytest.raises(ValueError, match="'transductive' or 'support', got 'running'"):
        MAML(CONV4, batch_norm="running")


def test_before_adaptation_accuracy_is_chance():
    """On noise, labels mean nothing: were a label to leak into a query, this would be above 1/3."""
    rng = np.random.default_rng(8)
    episodes, params = images(rng, tasks=400), new(CONV4)
    right = MAML(CONV4, 0.4, eval_inner_steps=0).predict(params, episodes).argmax(-1)
    accuracy = (right == episodes.query_y).mean()
    assert abs(accuracy - 1 / 3) < 4 * np.sqrt(2 / 9 / episodes.query_y.size)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: MAML(net, batch_norm="suport"), "MAML: batch_norm: wanted .*'support', got"),
        (lambda net: MAML(net, inner_batches="new"), "inner_batches: wanted 'same' or 'fresh', go"),
        (lambda net: MetaLSTM(net, test_batch_norm="running"), "MetaLSTM: test_batch_norm: wanted"),
        (lambda net: Prototypical(net, batch_norm="batch"), "Prototypical: batch_norm: wanted"),
        (lambda net: Reptile(net, inner_optimizer="rms"), "inner_optimizer: wanted 'adam' or 'sgd"),
    ],
)
def test_policies_that_do_not_exist_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(nn.MLP([1, 2]))
