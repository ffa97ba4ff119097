"""The expansions of FOMAML, MAML and Reptile, the identities beside them, and the post's errata."""

import itertools

import numpy as np
import pytest

from scratchmeta import losses, nn, ops
from scratchmeta.analysis import taylor
from scratchmeta.analysis.compare import compare
from scratchmeta.verify.episodes import curves
from scratchmeta.verify.numbers import float64


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", taylor.MEASURED)
def test_the_residual_falls_as_the_square_of_alpha(name, k):
    """And without the terms in B only as α itself."""
    found = taylor.measure(name, taylor.problem(k))
    assert found.slope == pytest.approx(2, abs=0.05)
    assert found.slope_without_b == pytest.approx(1, abs=0.05)
    left, without_b = found.at(0.01)
    assert left < 1e-3 < without_b


@pytest.mark.parametrize("name", taylor.MEASURED)
def test_so_it_does_for_a_network_on_a_sine_wave(name):
    found = taylor.measure(name, taylor.problem(2, kind="sinusoid"), alphas=taylor.ALPHAS[:5])
    assert found.slope == pytest.approx(2, abs=0.05)


def in_order(p, order):
    """The problem with its minibatches in this order."""
    order = list(order)
    return p._replace(x=p.x[order], y=p.y[order])


@pytest.mark.parametrize("kind", taylor.PROBLEMS)
def test_what_is_measured_is_what_plain_gradient_descent_gives(kind):
    """One order after another, without the library's algorithms."""
    p = taylor.problem(3, kind=kind)
    orders = list(itertools.permutations(range(3)))
    gradients = [taylor.path(p, 0.05, order)[1] for order in orders]
    wanted = {
        "FOMAML": np.mean([g[-1] for g in gradients], axis=0),
        "MAML": np.mean([taylor.maml_in_order(in_order(p, o), 0.05) for o in orders], axis=0),
        "Reptile": np.mean([sum(g) for g in gradients], axis=0),
    }
    for name, measured in taylor.MEASURED.items():
        np.testing.assert_allclose(measured(p, 0.05), wanted[name], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", taylor.MEASURED)
def test_another_multiple_of_b_leaves_a_residual_of_first_order(name, monkeypatch):
    """The fit can tell: with B's coefficient off by a tenth, the slope is 1."""
    right = taylor.predicted

    def off(name, problem, alpha):
        return right(name, problem, 1.1 * alpha)

    monkeypatch.setattr(taylor, "predicted", off)
    assert taylor.measure(name, taylor.problem()).slope == pytest.approx(1, abs=0.1)


def test_a_and_b_are_gradients_of_what_they_are_said_to_be():
    p = taylor.problem(3)
    a, b = taylor.terms(p)
    step = 1e-6

    def mean_loss(params):
        return np.mean([p.loss(i)(params) for i in range(3)])

    def agreement(params):
        g = [p.gradient(i, params) for i in range(3)]
        return np.mean([g[i] @ g[j] for i in range(3) for j in range(3) if i != j]) / 2

    for f, gradient in ((mean_loss, a), (agreement, b)):
        for d in np.eye(7):
            numeric = (f(p.moved(step * d)) - f(p.moved(-step * d))) / (2 * step)
            assert numeric == pytest.approx(gradient @ d, abs=1e-7)


def falls_with(p, gradient, terms):
    """The exponent of α with which gradient(α) − terms(α) falls."""
    left = [np.linalg.norm(gradient(alpha) - terms(alpha)) for alpha in taylor.ALPHAS]
    return taylor.slope(taylor.ALPHAS, left)


def test_with_one_batch_for_all_steps_reptile_does_not_compare_batches():
    """The post's section on MAML repeats a batch, that on Reptile does not: there it matters.

    H_i g_j with i ≠ j makes the gradients of batches agree; H_i g_i only makes them short.
    """
    p = taylor.problem(3)
    a, b = taylor.terms(p)
    own = np.mean([p.hessian_times(i, p.gradient(i)) for i in range(3)], axis=0)

    def repeated(alpha):
        return np.mean([sum(taylor.path(p, alpha, [i] * 3)[1]) for i in range(3)], axis=0)

    def expanded(c):
        return lambda alpha: 3 * a - 3 * alpha * c

    assert falls_with(p, repeated, expanded(b)) == pytest.approx(1, abs=0.05)
    assert falls_with(p, repeated, expanded(own)) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", ["FOMAML", "MAML"])
def test_for_maml_one_batch_for_all_inner_steps_changes_no_leading_term(name):
    """As the query comes from another batch, all pairs still are of different ones."""
    p = taylor.problem(3)
    pairs = list(itertools.permutations(range(3), 2))

    def repeated(alpha):
        orders = [[i, i, j] for i, j in pairs]
        if name == "MAML":
            found = [taylor.maml_in_order(in_order(p, order), alpha) for order in orders]
        else:
            found = [taylor.path(p, alpha, order)[1][-1] for order in orders]
        return np.mean(found, axis=0)

    def expanded(alpha):
        return taylor.predicted(name, p, alpha)

    assert falls_with(p, repeated, expanded) == pytest.approx(2, abs=0.05)
    fresh = taylor.MEASURED[name](p, 0.1)
    assert np.linalg.norm(repeated(0.1) - fresh) > 1e-4 * np.linalg.norm(fresh)


def test_the_outer_rate_is_not_the_inner_one():
    """The post's (1 − α) θ + α W with Reptile's W moves by α² g for one step, not by α g."""
    p, alpha = taylor.problem(2), 0.1
    g = p.gradient(0)
    start = taylor.vector(p.params)
    w = taylor.vector(taylor.path(p, alpha, [0, 1])[0][1])
    np.testing.assert_allclose(w, start - alpha * g)  # ε = 1: gradient descent
    np.testing.assert_allclose((1 - alpha) * start + alpha * w, start - alpha**2 * g)


def test_the_first_steps_factor_stands_leftmost():
    """The other reading of the post's product is not MAML's gradient."""
    p = taylor.problem(4)
    exact = taylor.maml_in_order(p, 0.3)
    np.testing.assert_allclose(taylor.product_form(p, 0.3), exact, rtol=1e-10)
    other = taylor.product_form(p, 0.3, first_step_leftmost=False)
    assert np.linalg.norm(other - exact) > 1e-3 * np.linalg.norm(exact)


def test_the_last_term_of_the_expansion_is_alpha_squared():
    """Not α² α, as the post has it: that leaves an error of second order."""
    p = taylor.problem(2)
    assert taylor.second_order_term(p, 0.01, power=2) < 1e-14
    errors = [taylor.second_order_term(p, alpha, power=3) for alpha in taylor.ALPHAS]
    assert taylor.slope(taylor.ALPHAS, errors) == pytest.approx(2, abs=0.05)


def test_the_gradient_of_half_the_squared_distance_is_the_way_from_the_projection():
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(5)
    c, d = rng.standard_normal((2, 5)), rng.standard_normal(2)
    pinv = np.linalg.pinv(c)

    def on_plane(t):  # {w: C w = d}
        return t - (t @ c.T - d) @ pinv.T

    def to_plane(t):
        return ops.norm((t @ c.T - d) @ pinv.T)

    assert taylor.envelope(theta, on_plane, to_plane) < 1e-10

    def on_sphere(t):  # a curved set: |w| = 1
        return t / np.linalg.norm(t)

    assert taylor.envelope(theta, on_sphere, lambda t: ops.norm(t) - 1.0) < 1e-10


@pytest.mark.parametrize("k", [-1, 1, 8, 12])
def test_there_are_two_to_seven_minibatches(k):
    with pytest.raises(ValueError, match=f"k: wanted 2 to 7 minibatches .*, got {k}"):
        taylor.problem(k)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="seed: wanted at least 0, got -1"):
        taylor.problem(2, seed=-1)
    with pytest.raises(ValueError, match="kind: wanted one of linear, sinusoid, got 'cubic'"):
        taylor.problem(2, kind="cubic")


def test_compare_tends_to_agreement_as_alpha_falls():
    rng = np.random.default_rng(0)
    network = nn.MLP([1, 4, 1], activation=ops.tanh)
    params, episodes = float64(network.init(rng), rng), curves(rng, shots=4, queries=4)
    cosines = []
    for alpha in (0.3, 1e-6):
        rows = compare(network, params, episodes, alpha, 2, rounds=1, loss=losses.mse)
        assert [row.name for row in rows] == ["maml", "fomaml", "reptile"]
        assert rows[0].cosine == pytest.approx(1)
        assert rows[0].norm_ratio == 1
        cosines.append(rows[1].cosine)
    assert cosines[0] < 1 - 1e-4 < cosines[1]
