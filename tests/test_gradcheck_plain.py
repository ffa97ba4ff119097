"""Functions of plain arrays with VJPs of their own: right ones pass, wrong ones are named."""

import numpy as np
import pytest

from scratchmeta import backend
from scratchmeta.verify.gradcheck import GradientError, gradcheck


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    y = softmax(x)
    return y * (g - (g * y).sum(-1, keepdims=True))


def softmax_double(u, g, x):
    """⟨u, J(x)ᵀ g⟩ with J symmetric: in g it is J u; in x by the product rule."""
    y = softmax(x)
    a, b, c = ((t * y).sum(-1, keepdims=True) for t in (u, g, u * g))
    return softmax_vjp(u, x), y * (u * g - c - b * (u - a) - a * (g - b))


def product(a, b, n):
    return n * a @ b


def product_vjp(g, a, b, n):
    return n * g @ b.T, n * a.T @ g, None


def product_double(us, g, a, b, n):
    ua, ub, _ = us
    return n * (ua @ b + a @ ub), n * g @ ub.T, n * ua.T @ g, None


def both(x):
    return np.sin(x), np.cos(x)


def both_vjp(gs, x):
    return gs[0] * np.cos(x) - gs[1] * np.sin(x)


def both_double(u, gs, x):
    return (u * np.cos(x), -u * np.sin(x)), u * (-gs[0] * np.sin(x) - gs[1] * np.cos(x))


FUNCTIONS = {
    "softmax": (softmax, softmax_vjp, softmax_double, [(2, 3)]),
    "product": (product, product_vjp, product_double, [(2, 3), (3, 4), 2]),
    "both": (both, both_vjp, both_double, [(3,)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_ones_pass_to_the_order_that_is_given(name, rng):
    f, vjp, double, shapes = FUNCTIONS[name]
    xs = [rng.standard_normal(s) if isinstance(s, tuple) else s for s in shapes]
    assert gradcheck(f, *xs, vjp=vjp).order == 1
    assert gradcheck(f, *xs, vjp=[vjp]).order == 1
    report = gradcheck(f, *xs, vjp=(vjp, double))
    assert report.order == 2
    assert report.name == f.__name__
    assert report.worst < 1e-9


def test_a_wrong_vjp_is_named(rng):
    with pytest.raises(GradientError, match=r"(?s)softmax, order 1.*vjp=vjp"):
        gradcheck(softmax, rng.standard_normal((2, 3)), vjp=lambda g, x: g * softmax(x))
    with pytest.raises(GradientError, match=r"product, order 1(?s:.*)the sign is wrong"):
        gradcheck(
            product,
            rng.standard_normal((2, 3)),
            rng.standard_normal((3, 4)),
            1,
            vjp=lambda g, a, b, n: (g @ b.T, -a.T @ g, None),
        )
    with pytest.raises(GradientError, match=r"has shape \(3, 2\), wanted \(2, 3\)"):
        gradcheck(np.sin, np.ones((2, 3)), vjp=lambda g, x: (g * np.cos(x)).T)


def test_a_wrong_second_vjp_is_named(rng):
    def wrong(u, g, x):
        gg, gx = softmax_double(u, g, x)
        return gg, 2.0 * gx

    with pytest.raises(GradientError, match=r"(?s)softmax, order 2.*analytic / numeric is 2"):
        gradcheck(softmax, rng.standard_normal((2, 3)), vjp=(softmax_vjp, wrong))


@pytest.mark.parametrize(
    ("vjp", "order", "message"),
    [
        (softmax_vjp, 2, "order of at most 1, as many as there are VJPs; got 2"),
        ((softmax_vjp, softmax_double), 3, "order of at most 2, as many as there are VJPs; got 3"),
        ((), None, "wanted one vjp or a pair of them, got 0"),
        (lambda g, x: (g, g), None, "vjp: wanted a cotangent of each of 1 inputs, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(vjp, order, message):
    with pytest.raises(ValueError, match=message):
        gradcheck(softmax, np.ones((2, 3)), vjp=vjp, order=order)


def test_an_order_that_would_take_hours_is_refused_at_once():
    with pytest.raises(ValueError, match=r"order of at most 6, each takes several times .*; got 9"):
        gradcheck(np.sin, np.ones(2), order=9)


def test_on_another_backend(cupy):
    x = backend.asarray(np.array([[1.0, 2.0, 0.5]]))
    assert gradcheck(lambda x: 2.0 * x * x, x, vjp=lambda g, x: 4.0 * x * g).worst < 1e-9
