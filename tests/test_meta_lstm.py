"""The LSTM meta-learner: one coordinate by hand, gradient descent a special case, tasks apart."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scratchmeta import core, data, losses, nn, ops, optim, tree
from scratchmeta.algorithms import MAML, MetaLSTM
from scratchmeta.episodes import sample
from scratchmeta.verify.episodes import curves, images
from scratchmeta.verify.numbers import float64

NETWORK = nn.MLP([4, 5, 2], activation=ops.tanh, batch_norm=True)


def learner(tasks=2, **options):
    rng = np.random.default_rng(0)
    algorithm = MetaLSTM(NETWORK, **{"inner_steps": 3, "hidden": 3} | options)
    params = float64(algorithm.init(rng), rng)
    return algorithm, params, images(rng, side=2, tasks=tasks, shots=1, queries=3)


def assert_close(a, b):
    for x, y in zip(tree.flatten(a)[0], tree.flatten(b)[0], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


# --- one coordinate by hand ---


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def preprocessed(x, p):
    if abs(x) >= math.exp(-p):
        return [math.log(abs(x)) / p, math.copysign(1, x)]
    return [-1.0, math.exp(p) * x]


def one_coordinate(params, theta, gradients, losses, p=10):
    """θ_T of a single coordinate, number by number."""
    lstm, n = params["lstm"], params["lstm"]["w_h"].shape[0]
    h, c = [0.0] * n, [0.0] * n
    gates = {"forget": 0.0, "input": 0.0}
    for g, loss in zip(gradients, losses, strict=True):
        x = preprocessed(g, p) + preprocessed(loss, p)
        z = [
            sum(x[k] * lstm["w_x"][k, j] for k in range(4))
            + sum(h[k] * lstm["w_h"][k, j] for k in range(n))
            + lstm["b"][j]
            for j in range(4 * n)
        ]
        for j in range(n):
            i, f, u, o = z[j], z[n + j], z[2 * n + j], z[3 * n + j]
            c[j] = sigmoid(f) * c[j] + sigmoid(i) * math.tanh(u)
            h[j] = sigmoid(o) * math.tanh(c[j])
        for name in gates:
            seen = [*h, theta, gates[name]]  # the other parts of W's argument: θ, and its own past
            w, b = params[name]["weight"], params[name]["bias"]
            gates[name] = sigmoid(sum(a * v for a, v in zip(seen, w, strict=True)) + b)
        theta = gates["forget"] * theta - gates["input"] * g
    return theta


def test_every_coordinate_is_updated_as_one_by_hand():
    algorithm, params, episodes = learner(input_bias=(-1.0, 0.0))
    state, seen = algorithm.start(params, 2), []
    start = state.theta
    for _ in range(3):
        seen.append(algorithm.gradient(state.theta, params["theta"], episodes, exact=False))
        state = algorithm.step(params, state, *seen[-1])
    for t in range(2):
        for k in range(start.shape[1]):
            gradients, task_losses = [g[t, k] for g, _ in seen], [loss[t] for _, loss in seen]
            wanted = one_coordinate(params, start[t, k], gradients, task_losses)
            np.testing.assert_allclose(state.theta[t, k], wanted, rtol=1e-12)
    assert np.abs(state.theta - start).max() > 0.1


def test_the_gradient_is_that_of_the_task_alone():
    algorithm, params, episodes = learner()
    theta = algorithm.start(params, 2).theta + np.array([[0.0], [0.3]])
    gradient, task_losses = algorithm.gradient(theta, params["theta"], episodes, exact=False)
    for t in range(2):
        weights = tree.map(lambda w, shift=0.3 * t: core.Tensor(w + shift), params["theta"])
        loss = losses.cross_entropy(NETWORK(weights, episodes.support_x[t]), episodes.support_y[t])
        np.testing.assert_allclose(task_losses[t], loss.data)
        wanted, _ = tree.ravel(core.grad(loss, weights))
        np.testing.assert_allclose(gradient[t], wanted, atol=1e-12)


# --- gradient descent ---


def as_gradient_descent(params, rate):
    """f = 1 and i = rate, whatever the coordinate."""

    def constant(bias, gate):
        return {"weight": 0.0 * gate["weight"], "bias": np.asarray(bias)}

    forget, into = (
        constant(50.0, params["forget"]),
        constant(math.log(rate / (1 - rate)), params["input"]),
    )
    return params | {"forget": forget, "input": into}


@pytest.mark.parametrize("policy", ["transductive", "support"])
def test_with_f_1_and_i_alpha_it_is_gradient_descent(policy):
    algorithm, params, episodes = learner(batch_norm=policy, test_batch_norm=policy)
    params = as_gradient_descent(params, 0.3)
    rate = float(ops.sigmoid(params["input"]["bias"]))
    assert rate == pytest.approx(0.3)
    maml = MAML(NETWORK, rate, inner_steps=3, first_order=True, batch_norm=policy)
    got, wanted = algorithm.adapt(params, episodes, 3), maml.adapt(params["theta"], episodes, 3)
    assert_close(got, wanted)  # not to the last bit: MAML multiplies the loss by α
    np.testing.assert_allclose(
        algorithm.predict(params, episodes), maml.predict(params["theta"], episodes), rtol=1e-12
    )


@pytest.mark.parametrize("first_order", [True, False])
def test_then_the_gradient_of_the_initial_state_is_mamls(first_order):
    """The paper's assumption leaves FOMAML's, the exact gradient is MAML's."""
    algorithm, params, episodes = learner(first_order=first_order)
    params = as_gradient_descent(params, 0.3)
    rate = float(ops.sigmoid(params["input"]["bias"]))
    loss, gradient = algorithm.meta_gradient(params, episodes)
    maml = MAML(NETWORK, rate, inner_steps=3, first_order=first_order)
    wanted_loss, wanted = maml.meta_gradient(params["theta"], episodes)
    assert loss == pytest.approx(wanted_loss, rel=1e-12)
    assert_close(gradient["theta"], wanted)


def test_the_exact_gradient_is_another_than_the_papers():
    gradients = []
    for first_order in (True, False):
        algorithm, params, episodes = learner(first_order=first_order, input_bias=(-1.0, 0.0))
        gradients.append(algorithm.meta_gradient(params, episodes)[1])
    a, b = (tree.ravel(g)[0] for g in gradients)
    assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(b)


# --- tasks, labels, queries ---


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("first_order", [True, False])
def test_chunks_of_tasks_do_not_matter(chunk, first_order):
    algorithm, params, episodes = learner(tasks=3, first_order=first_order)
    whole = algorithm.meta_gradient(params, episodes)
    algorithm = replace(algorithm, task_chunk=chunk)
    assert_close(algorithm.meta_gradient(params, episodes), whole)


def test_permuting_the_labels_permutes_the_prediction():
    """The head's columns are permuted with the labels, so that the start is the same network."""
    algorithm, params, episodes = learner(input_bias=(-1.0, 0.0))
    last = params["theta"]["linear2"]
    flipped = {name: w[..., ::-1] for name, w in last.items()}
    permuted = params | {"theta": params["theta"] | {"linear2": flipped}}
    relabelled = episodes._replace(support_y=1 - episodes.support_y)
    got = algorithm.predict(permuted, relabelled)
    np.testing.assert_allclose(got[..., ::-1], algorithm.predict(params, episodes), atol=1e-12)


@pytest.mark.parametrize(("policy", "alone"), [("support", True), ("transductive", False)])
def test_queries_influence_one_another_only_under_the_transductive_policy(policy, alone):
    algorithm, params, episodes = learner(test_batch_norm=policy)
    together = algorithm.predict(params, episodes)[:, :2]
    single = episodes._replace(query_x=episodes.query_x[:, :2], query_y=episodes.query_y[:, :2])
    assert np.allclose(algorithm.predict(params, single), together, atol=1e-10) == alone


def test_no_task_knows_of_the_one_before():
    """Statistics are erased after each task: predictions are the same in any company."""
    algorithm, params, episodes = learner(tasks=3)
    together = algorithm.predict(params, episodes)
    for t in range(3):
        one = type(episodes)(*(a[t : t + 1] for a in episodes))
        np.testing.assert_allclose(algorithm.predict(params, one)[0], together[t], atol=1e-12)


def test_before_adaptation_accuracy_is_chance():
    algorithm, params, episodes = learner(tasks=500, eval_inner_steps=0)
    right = algorithm.predict(params, episodes).argmax(-1) == episodes.query_y
    assert abs(right.mean() - 1 / 2) < 4 * np.sqrt(1 / 4 / right.size)


def test_regression():
    rng = np.random.default_rng(0)
    algorithm = MetaLSTM(nn.MLP([1, 3, 1]), inner_steps=2, loss=losses.mse)
    params, episodes = float64(algorithm.init(rng), rng), curves(rng)
    assert algorithm.predict(params, episodes).shape == (2, 2, 1)
    assert np.isfinite(algorithm.meta_gradient(params, episodes)[0])


# --- the start, and learning ---


def test_at_the_start_it_forgets_little_and_follows_the_gradient_a_little():
    algorithm = MetaLSTM(NETWORK)
    params = algorithm.init(np.random.default_rng(0))
    assert 4 < params["forget"]["bias"] < 5
    assert -5 < params["input"]["bias"] < -4
    for leaf in tree.flatten([params["lstm"], params["forget"]["weight"]])[0]:
        assert np.abs(leaf).max() <= 0.01
    # the meta-learner's own numbers: an LSTM of 4 inputs and 20 units, and two gates
    own = {k: v for k, v in params.items() if k != "theta"}
    assert sum(leaf.size for leaf in tree.flatten(own)[0]) == 4 * 20 * (4 + 20 + 1) + 2 * 23
    state = algorithm.start(params, 2)
    after = algorithm.step(params, state, 0 * state.theta + 1, np.ones(2, np.float32))
    assert (ops.sigmoid(4.0 - 0.1) < after.f).all()
    assert (ops.sigmoid(-5.0 - 0.1) < after.i).all()
    assert (after.i < ops.sigmoid(-4.0 + 0.1)).all()


@pytest.mark.parametrize("first_order", [True, False])
def test_it_learns(first_order):
    """Sinusoids: three updates come to halve the error, and do what training alone does not."""
    algorithm = MetaLSTM(
        nn.MLP([1, 16, 16, 1], activation=ops.tanh),
        inner_steps=3,
        hidden=4,
        input_bias=(-3.0, -2.0),
        first_order=first_order,
        loss=losses.mse,
    )
    dataset = data.Sinusoids()
    start = params = algorithm.init(np.random.default_rng(0))
    adam = optim.Adam(1e-2)
    state = adam.init(params)
    for index in range(200):
        batch = sample(dataset, 1, 10, 10, 8, seed=0, index=index)
        params, state = adam.step(params, algorithm.meta_gradient(params, batch)[1], state)
    test = sample(dataset, 1, 10, 10, 200, seed=1)

    def error(params):
        return np.square(algorithm.predict(params, test) - test.query_y).mean()

    after = error(params)
    assert after < error(start) / 2
    algorithm = replace(algorithm, eval_inner_steps=0)
    assert after < 0.7 * error(params)
