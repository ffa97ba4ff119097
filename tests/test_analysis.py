"""The expansions of FOMAML, MAML and Reptile, the identities beside them, and the post's errata."""

import numpy as np
import pytest

from scratchmeta import losses, nn, ops
from scratchmeta.analysis import taylor
from scratchmeta.analysis.compare import compare
from scratchmeta.cases import curves, float64


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", taylor.MEASURED)
def test_the_residual_falls_as_the_square_of_alpha(name, k):
    found = taylor.measure(name, k)
    assert found.slope == pytest.approx(2, abs=0.05)
    assert found.residuals[-1] < 0.05


@pytest.mark.parametrize("name", taylor.MEASURED)
def test_another_multiple_of_b_leaves_a_residual_of_first_order(name, monkeypatch):
    """The fit can tell: with B's coefficient off by a tenth, the slope is 1."""
    right = taylor.predicted

    def off(name, problem, alpha):
        return right(name, problem, 1.1 * alpha)

    monkeypatch.setattr(taylor, "predicted", off)
    assert taylor.measure(name).slope == pytest.approx(1, abs=0.1)


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


def test_at_least_two_minibatches():
    with pytest.raises(ValueError, match="k: wanted at least 2 minibatches, got 1"):
        taylor.measure("MAML", 1)


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
