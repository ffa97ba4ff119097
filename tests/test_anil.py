"""ANIL: a loop over tasks that adapts only the head, and what must hold whatever the network."""

import numpy as np
import pytest
from adaptation import assert_equal, curves, images, new

from scratchmeta import Tensor, grad, losses, nn, ops, tree
from scratchmeta.algorithms import MAML
from scratchmeta.algorithms.anil import ANIL

CONV4 = nn.Conv4(channels=4, image_size=12, pooling="stride", n_out=3)
MLP = nn.MLP([1, 8, 8, 1], activation=ops.tanh)

# For the tables that look at all algorithms: see brought.py.
FIT, TRAIN = {"loss", "gradient", "predict"}, {"loss", "gradient"}
SMALL = {"network": {"channels": 2}}
OPTIONS = {
    "inner_lr": (0.2, FIT),
    "inner_steps": (1, TRAIN),
    "eval_inner_steps": (2, {"predict"}),
    "batch_norm": ("support", FIT),
}


def INITIAL(words):
    return words.DENSE


def adapted(algorithm, θ, head, sx, sy, create_graph):
    """The whole network's weights for one task, after steps that move only the entry `head`."""
    for _ in range(algorithm.inner_steps):
        inner = algorithm.loss(algorithm.network(θ, sx), sy)
        g = grad(inner, θ[head], create_graph)
        moved = tree.map(lambda p, g: p - algorithm.inner_lr * g, θ[head], g)
        θ = {**θ, head: moved}
    return θ


@pytest.mark.parametrize("task_chunk", [None, 1, 2])
def test_a_loop_over_tasks_that_adapts_only_the_head_gives_the_same(task_chunk):
    episodes, params = images(np.random.default_rng(0)), new(CONV4)
    algorithm = ANIL(CONV4, inner_lr=0.4, inner_steps=2, task_chunk=task_chunk)
    wanted = tree.map(np.zeros_like, params)
    for sx, sy, qx, qy in zip(*episodes, strict=True):
        θ = tree.map(Tensor, params)
        fast = adapted(algorithm, θ, "head", sx, sy, create_graph=True)
        g = grad(algorithm.loss(CONV4(fast, qx), qy), θ)
        wanted = tree.map(lambda t, g: t + g / len(episodes.support_x), wanted, g)
    assert_equal(algorithm.meta_gradient(params, episodes)[1], wanted)


def test_predictions_are_those_of_networks_whose_head_was_adapted():
    episodes, params = curves(np.random.default_rng(1)), new(MLP)
    algorithm = ANIL(MLP, inner_lr=0.05, inner_steps=3, loss=losses.mse, task_chunk=3)
    got = algorithm.predict(params, episodes)
    for y, sx, sy, qx in zip(got, *episodes[:3], strict=True):
        fast = adapted(algorithm, tree.map(Tensor, params), "linear3", sx, sy, create_graph=False)
        np.testing.assert_allclose(y, MLP(fast, qx).data, atol=1e-12)


def test_a_network_that_is_all_head_makes_it_maml():
    """One linear layer: there is nothing that MAML adapts and ANIL does not."""
    episodes, network = curves(np.random.default_rng(2)), nn.Sequential([("all", nn.Linear(1, 1))])
    options = {"inner_lr": 0.05, "inner_steps": 3, "loss": losses.mse}
    algorithms = ANIL(network, **options), MAML(network, **options)
    assert_equal(*(a.meta_gradient(new(network), episodes)[1] for a in algorithms))
    assert_equal(*(a.predict(new(network), episodes, inner_steps=5) for a in algorithms))


def test_without_inner_steps_it_is_gradient_descent_on_the_query_loss():
    episodes, params = images(np.random.default_rng(3)), new(CONV4)
    θ = tree.map(Tensor, params)
    loss = losses.cross_entropy(CONV4(θ, episodes.query_x), episodes.query_y)
    _, got = ANIL(CONV4, inner_steps=0).meta_gradient(params, episodes)
    assert_equal(got, grad(ops.mean(loss), θ))


@pytest.mark.parametrize(("batch_norm", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(batch_norm, alone):
    episodes, params = images(np.random.default_rng(4)), new(CONV4)
    algorithm = ANIL(CONV4, 0.4, batch_norm=batch_norm)
    together = algorithm.predict(params, episodes)[:, :1]
    single = episodes._replace(query_x=episodes.query_x[:, :1], query_y=episodes.query_y[:, :1])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_on_noise_accuracy_is_chance():
    """Labels mean nothing: were one to leak into a query, this would be above 1/3."""
    episodes, params = images(np.random.default_rng(5), tasks=300), new(CONV4)
    right = ANIL(CONV4, 0.4, 2).predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / right.size)


def test_a_network_without_a_head_is_refused():
    for network in (nn.Conv4(channels=4), nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="ANIL: wanted a network of layers that ends in Lin"):
            ANIL(network)
    with pytest.raises(ValueError, match="batch_norm: wanted 'transductive' or 'support'"):
        ANIL(CONV4, batch_norm="running")


@pytest.mark.parametrize("pooling", ["stride", "max"])
def test_torch_gives_the_same(pooling):
    from test_against_torch import F, close, float64, leaves, torch, torch_conv4

    rng = np.random.default_rng(6)
    network = nn.Conv4(channels=6, image_size=17, pooling=pooling, n_out=3)
    params = float64(network.init(rng), rng)
    episodes = images(rng, tasks=2, side=17)
    loss, g = ANIL(network, inner_lr=0.3, inner_steps=3).meta_gradient(params, episodes)
    θ = leaves(params)
    total = 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        fast = dict(θ)
        for _ in range(3):
            head = list(fast["head"].values())
            inner = F.cross_entropy(torch_conv4(fast, sx, pooling), sy)
            gs = torch.autograd.grad(inner, head, create_graph=True)
            moved = [p - 0.3 * g for p, g in zip(head, gs, strict=True)]
            fast["head"] = dict(zip(fast["head"], moved, strict=True))
        total = total + F.cross_entropy(torch_conv4(fast, qx, pooling), qy) / 2
    flat, treedef = tree.flatten(θ)
    close(np.asarray(loss), total)
    tree.map(close, g, tree.unflatten(treedef, list(torch.autograd.grad(total, flat))))
