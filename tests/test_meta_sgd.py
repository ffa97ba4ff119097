"""Meta-SGD: a loop over tasks with a rate for each weight, and what must hold whatever they are."""

import numpy as np
import pytest
from adaptation import assert_equal, curves, images

from scratchmeta import Tensor, grad, losses, nn, ops, tree
from scratchmeta.algorithms import MAML
from scratchmeta.algorithms.meta_sgd import MetaSGD

CONV4 = nn.Conv4(channels=4, image_size=12, pooling="stride", n_out=3)
MLP = nn.MLP([1, 8, 8, 1], activation=ops.tanh)

# For the tables that look at all algorithms: see brought.py.
FIT, TRAIN = {"loss", "gradient", "predict"}, {"loss", "gradient"}
SMALL = {"network": {"channels": 2}}
OPTIONS = {
    "rate": ((0.2, 0.3), {"init", *FIT}),
    "inner_steps": (2, TRAIN),
    "eval_inner_steps": (2, {"predict"}),
    "batch_norm": ("support", FIT),
}


def INITIAL(words):
    return {**words.METRIC, "rate/*": words.uniform(0.005, 0.1)}


def new(algorithm, seed=0):
    return tree.astype(algorithm.init(np.random.default_rng(seed)), np.float64)


def adapted(algorithm, live, sx, sy, create_graph):
    """The weights of one task after the inner steps."""
    fast = live["network"]
    for _ in range(algorithm.inner_steps):
        g = grad(algorithm.loss(algorithm.network(fast, sx), sy), fast, create_graph)
        fast = tree.map(lambda p, α, g: p - α * g, fast, live["rate"], g)
    return fast


@pytest.mark.parametrize("task_chunk", [None, 1, 2])
def test_a_loop_over_tasks_gives_the_same_whatever_the_chunk(task_chunk):
    episodes = images(np.random.default_rng(0))
    algorithm = MetaSGD(CONV4, rate=(0.1, 0.5), inner_steps=2, task_chunk=task_chunk)
    params = new(algorithm)
    wanted = tree.map(np.zeros_like, params)
    for sx, sy, qx, qy in zip(*episodes, strict=True):
        live = tree.map(Tensor, params)
        fast = adapted(algorithm, live, sx, sy, create_graph=True)
        g = grad(algorithm.loss(CONV4(fast, qx), qy), live)
        wanted = tree.map(lambda t, g: t + g / len(episodes.support_x), wanted, g)
    assert_equal(algorithm.meta_gradient(params, episodes)[1], wanted)


def test_predictions_are_those_of_adapted_networks():
    episodes = curves(np.random.default_rng(1))
    algorithm = MetaSGD(MLP, inner_steps=3, loss=losses.mse, task_chunk=3)
    params = new(algorithm)
    got = algorithm.predict(params, episodes)
    for y, sx, sy, qx in zip(got, *episodes[:3], strict=True):
        fast = adapted(algorithm, tree.map(Tensor, params), sx, sy, create_graph=False)
        np.testing.assert_allclose(y, MLP(fast, qx).data, atol=1e-12)


def test_equal_rates_make_it_maml():
    """Its gradient in θ is MAML's, and α's adds up to the slope of MAML's loss in its one rate."""
    episodes = curves(np.random.default_rng(2))
    algorithm = MetaSGD(MLP, inner_steps=2, loss=losses.mse)
    params = new(algorithm)

    def with_rate(α):
        return {**params, "rate": tree.map(lambda p: np.full_like(p, α), params["rate"])}

    def maml(α):
        return MAML(MLP, α, 2, loss=losses.mse).meta_gradient(params["network"], episodes)

    _, g = algorithm.meta_gradient(with_rate(0.03), episodes)
    assert_equal(g["network"], maml(0.03)[1])
    h = 1e-4
    slope = (8 * (maml(0.03 + h)[0] - maml(0.03 - h)[0])) / (12 * h)
    slope -= (maml(0.03 + 2 * h)[0] - maml(0.03 - 2 * h)[0]) / (12 * h)
    np.testing.assert_allclose(sum(a.sum() for a in tree.flatten(g["rate"])[0]), slope, rtol=1e-8)
    assert_equal(
        algorithm.predict(with_rate(0.03), episodes, inner_steps=4),
        MAML(MLP, 0.03, loss=losses.mse).predict(params["network"], episodes, inner_steps=4),
    )


def test_rates_start_in_their_range_one_for_each_weight():
    params = MetaSGD(CONV4, rate=(0.2, 0.3)).init(np.random.default_rng(3))
    assert tree.paths(params["rate"]) == tree.paths(params["network"])
    for p, α in zip(*(tree.flatten(params[k])[0] for k in ("network", "rate")), strict=True):
        assert α.shape == p.shape
        assert α.dtype == np.float32
        assert α.min() >= np.float32(0.2)
        assert α.max() <= np.float32(0.3)
    weights = params["rate"]["block1"]["conv"]["weight"]
    assert len(np.unique(weights)) == weights.size


@pytest.mark.parametrize(("batch_norm", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(batch_norm, alone):
    episodes = images(np.random.default_rng(4))
    algorithm = MetaSGD(CONV4, rate=(0.1, 0.5), batch_norm=batch_norm)
    params = new(algorithm)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_on_noise_accuracy_is_chance():
    """Labels mean nothing: were one to leak into a query, this would be above 1/3."""
    algorithm, episodes = MetaSGD(CONV4, rate=(0.2, 0.4)), images(np.random.default_rng(5), 300)
    right = algorithm.predict(new(algorithm), episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / right.size)


def test_running_statistics_are_refused():
    with pytest.raises(ValueError, match="batch_norm: wanted 'transductive' or 'support'"):
        MetaSGD(CONV4, batch_norm="running")


@pytest.mark.parametrize("steps", [1, 3])
def test_torch_gives_the_same(steps):
    from test_against_torch import F, close, float64, leaves, torch, torch_conv4

    rng = np.random.default_rng(6)
    network = nn.Conv4(channels=6, image_size=17, pooling="stride", n_out=3)
    algorithm = MetaSGD(network, rate=(0.1, 0.4), inner_steps=steps)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=2, side=17)
    loss, g = algorithm.meta_gradient(params, episodes)
    live = leaves(params)
    θ, treedef = tree.flatten(live["network"])
    α = tree.flatten(live["rate"])[0]
    total = 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        fast = θ
        for _ in range(steps):
            outputs = torch_conv4(tree.unflatten(treedef, fast), sx, "stride")
            gs = torch.autograd.grad(F.cross_entropy(outputs, sy), fast, create_graph=True)
            fast = [p - a * g for p, a, g in zip(fast, α, gs, strict=True)]
        outputs = torch_conv4(tree.unflatten(treedef, fast), qx, "stride")
        total = total + F.cross_entropy(outputs, qy) / 2
    close(np.asarray(loss), total)
    flat, whole = tree.flatten(live)
    tree.map(close, g, tree.unflatten(whole, list(torch.autograd.grad(total, flat))))
