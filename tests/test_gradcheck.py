"""The checker itself: what it lets pass, what it catches, and what it calls the mistake."""

import re

import numpy as np
import pytest

from scratchmeta import backend, core, ops, tree
from scratchmeta.core import Tensor, primitive, pull_back, raw
from scratchmeta.verify.gradcheck import (
    GradientError,
    NonSmoothPoint,
    combine,
    compare_float32,
    gradcheck,
)
from scratchmeta.verify.slopes import slope


def caught(f, *inputs, **options):
    """The message of the GradientError that gradcheck must raise."""
    with pytest.raises(GradientError) as error:
        gradcheck(f, *inputs, **options)
    return str(error.value)


def product_with(rule_a, rule_b):
    """a · b with the given rules."""

    @primitive(rule_a, rule_b)
    def product(a, b):
        return a * b

    return product


def good_a(g, y, a, b):
    return ops.sum_to(g * b, a.shape)


def good_b(g, y, a, b):
    return ops.sum_to(g * a, b.shape)


# --- what passes ----------------------------------------------------------------------------------


def test_report_of_a_smooth_function(rng):
    report = gradcheck(ops.tanh, rng.standard_normal((2, 3)), order=3, analytic=True)
    assert [o.order for o in report.orders] == [1, 2, 3]
    # one input, then input and cotangent each alone and together, then twice as many
    assert [o.directions for o in report.orders] == [3, 9, 12]
    assert report.directions == 24
    assert report.worst < 1e-10
    assert report.estimate < 1e-8
    assert report.complex_step < 1e-13
    assert report.backend == "numpy"
    assert report.seconds > 0
    assert re.fullmatch(
        r"tanh +order 3  directions +24  worst +\S+  estimate +\S+  complex +\S+ +\S+ s",
        str(report),
    )


def test_lines_of_reports_are_aligned(rng):
    x = rng.standard_normal(3)
    with_witness, without = gradcheck(ops.sin, x, analytic=True), gradcheck(ops.sum, x)
    assert len(str(with_witness)) == len(str(without))
    assert without.complex_step is None


def test_combine_adds_directions_and_keeps_the_worst(rng):
    one = gradcheck(ops.sin, rng.standard_normal(3), order=1)
    two = gradcheck(ops.exp, rng.standard_normal(3), order=2, analytic=True)
    both = combine("both", [one, two])
    assert both.name == "both"
    assert [o.directions for o in both.orders] == [6, 9]
    assert both.worst == max(one.worst, two.worst)
    assert both.complex_step == two.complex_step


def test_trees_integers_and_several_outputs(rng):
    params = {"w": rng.standard_normal((3, 2)), "layers": [rng.standard_normal(2)]}
    labels = np.array([1, 0, 1])

    def f(params, x, labels, power):
        y = ops.tanh(ops.matmul(x, params["w"]) + params["layers"][0]) ** power
        return y, {"picked": ops.take_along_axis(y, labels[:, None])}

    report = gradcheck(f, params, rng.standard_normal((3, 3)), labels, 2, directions=2)
    assert [o.directions for o in report.orders] == [8, 12]


def test_non_contiguous_and_zero_size_inputs(rng):
    x = rng.standard_normal((4, 6))[::2, ::-3].T
    assert gradcheck(ops.exp, x).worst < 1e-9
    assert gradcheck(lambda x, y: ops.sum(x) + ops.sum(y), x, np.zeros((0, 3))).worst < 1e-9
    assert gradcheck(ops.exp, np.zeros((2, 0))).directions == 0


def test_functions_that_differentiate_inside(rng):
    """An inner loop: the gradient of a loss is part of the function."""

    def adapted_loss(theta, x):
        inner = core.grad(ops.sum(ops.tanh(theta * x)), theta, create_graph=True)
        return ops.sum(ops.square(theta - 0.3 * inner))

    report = gradcheck(adapted_loss, rng.standard_normal(3), rng.standard_normal(3), analytic=True)
    assert report.worst < 1e-9
    assert report.complex_step < 1e-12


def test_works_under_no_grad(rng):
    with core.no_grad():
        assert gradcheck(ops.sin, rng.standard_normal(3)).worst < 1e-9


def test_small_and_large_inputs_are_smooth_enough():
    """Steps follow the inputs' size: the logarithm of 1e-6 and of 1e6."""
    assert gradcheck(ops.log, np.array([1e-6, 2e-6]), order=1).worst < 1e-7
    assert gradcheck(ops.log, np.array([1e6, 2e6]), order=1).worst < 1e-7


def test_the_same_seed_gives_the_same_numbers(rng):
    x = rng.standard_normal(3)

    def numbers(seed):
        return [(o.worst, o.estimate) for o in gradcheck(ops.exp, x, rng=seed).orders]

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)
    assert numbers(np.random.default_rng(1)) == numbers(np.random.default_rng(1))


# --- the numerical derivative -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phi", "derivative"),
    [
        (lambda t: np.exp(np.array([t, 2 * t])), [1.0, 2.0]),
        (lambda t: np.sin(3.0 + 5.0 * np.array([t])), [5.0 * np.cos(3.0)]),
        (lambda t: 1e3 + np.array([t]), [1.0]),
    ],
)
def test_slope_error_is_within_its_estimate(phi, derivative):
    s = slope(phi, 1e-9, 1e-12)
    assert np.all(np.abs(s.value - derivative) <= s.error)
    assert np.all(s.error < 1e-8)
    assert not s.jump.any()


def test_slope_gets_between_kinks_by_smaller_steps():
    """A kink a thousandth away spoils the first steps only."""
    s = slope(lambda t: np.abs(np.array([1e-3 + t])), 1e-9, 1e-12)
    assert abs(s.value[0] - 1.0) < 1e-9
    assert s.error[0] < 1e-8
    assert s.coarse[0][0] == pytest.approx(0.128)


def test_slope_sees_the_jump_of_a_kink_at_the_point():
    assert slope(lambda t: np.abs(np.array([t])), 1e-9, 1e-12).jump == pytest.approx([2.0])
    assert slope(lambda t: np.cos(np.array([t])), 1e-9, 1e-12).jump == 0.0


def test_slope_steps_back_into_the_domain():
    s = slope(lambda t: np.log(np.array([1e-3 + t])) if t > -1e-3 else np.array([np.nan]), 1e-8, 0)
    assert s.value[0] == pytest.approx(1e3, rel=1e-6)


# --- what is refused ------------------------------------------------------------------------------


def test_float32_is_refused_by_name(rng):
    with pytest.raises(
        TypeError, match=r"wanted float64, got float32 for input 1 'b'.*compare_float32"
    ):
        gradcheck(ops.add, rng.standard_normal(3), np.ones(3, np.float32))


def test_float32_output_is_refused(rng):
    with pytest.raises(TypeError, match="got float32 for output"):
        gradcheck(lambda x: ops.astype(x, np.float32), rng.standard_normal(3))


def test_results_that_are_no_arrays_are_refused(rng):
    with pytest.raises(TypeError, match="wanted f to return Tensors, got float"):
        gradcheck(lambda x: float(ops.sum(x)), rng.standard_normal(3))


@pytest.mark.parametrize("setting", ["order", "directions"])
def test_a_check_of_nothing_is_refused(setting):
    with pytest.raises(ValueError, match=f"wanted {setting} of at least 1, got 0"):
        gradcheck(ops.exp, np.ones(2), **{setting: 0})


@pytest.mark.parametrize(
    "f",
    [
        lambda x: ops.square(ops.square(x)),
        lambda x: ops.square(ops.square(ops.sum(x))),
        lambda x: ops.square(ops.var(x)),
    ],
)
def test_a_point_where_the_second_derivative_is_0_is_no_kink(f):
    assert gradcheck(f, np.zeros(3)).worst < 1e-7


def test_an_error_too_small_to_be_found_in_one_entry_of_many(rng):
    """It fails along directions only, and is reported so."""

    @primitive(lambda g, y, x: 1.0000002 * g * ops.cos(x))
    def sine(x):
        return np.sin(x)

    with pytest.raises(GradientError, match=r"off by more than any single entry|entries wrong"):
        gradcheck(sine, rng.standard_normal(300), order=1)


def test_a_wrong_gradient_of_a_number():
    @primitive(lambda g, y, x: g)
    def cosine(x):
        return np.cos(x)

    with pytest.raises(GradientError, match="1 of 1 entries wrong"):
        gradcheck(cosine, np.array(0.0), order=1)


def test_nothing_to_differentiate_is_refused():
    with pytest.raises(TypeError, match="at least one float64 array"):
        gradcheck(lambda n: n, np.arange(3))


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (ops.relu, [0.0, 1.0]),
        (ops.relu, [1e-12, 1.0]),
        (ops.abs, [0.0, 1.0]),
        (ops.max, [1.0, 1.0, 0.0]),
        (lambda x: ops.maximum(x, 0.5), [0.5, 1.0]),
        (lambda x: ops.clip(x, -1.0, 1.0), [1.0, 0.0]),
        (lambda x: ops.sum(ops.relu(x)), [0.0] + [1.0] * 299),
    ],
)
def test_kinks_are_never_passed(f, x):
    with pytest.raises(NonSmoothPoint, match="not smooth at this point, order 1"):
        gradcheck(f, np.array(x))


def test_a_kink_in_the_gradient_is_one_of_order_2():
    """x |x| has the slope 2 |x|."""
    with pytest.raises(NonSmoothPoint, match="order 2"):
        gradcheck(lambda x: x * ops.abs(x), np.array([0.0, 1.0]))


def test_values_that_are_not_finite_are_named():
    with np.errstate(divide="ignore"):
        assert "output is not finite" in caught(ops.log, np.array([0.0, 1.0]))


# --- planted mistakes: each is caught, and named ------------------------------------------------


def test_right_rules_pass(rng):
    product = product_with(good_a, good_b)
    gradcheck(product, rng.standard_normal((3, 4)), rng.standard_normal(4), analytic=True)


def test_sign(rng):
    product = product_with(lambda g, y, a, b: -good_a(g, y, a, b), good_b)
    message = caught(product, rng.standard_normal((3, 4)), rng.standard_normal(4))
    assert "gradient check failed: product, order 1, backend numpy, kernels on" in message
    assert "input 0 'a' shape (3, 4): 12 of 12 entries wrong" in message
    assert "analytic = −numeric for all 12: the sign is wrong" in message
    assert "reproduce: gradcheck(product, *inputs, rng=0)" in message


def test_factor_two(rng):
    product = product_with(good_a, lambda g, y, a, b: 2.0 * good_b(g, y, a, b))
    message = caught(product, rng.standard_normal((3, 4)), rng.standard_normal(4), directions=1)
    assert "input 1 'b' shape (4,): 4 of 4 entries wrong" in message
    assert "analytic / numeric is 2 for all 4: a constant factor" in message
    assert "reproduce: gradcheck(product, *inputs, directions=1)" in message


def test_message_shows_the_worst_entry():
    @primitive(lambda g, y, x: g * (2.0 * x + np.array([0.0, 0.0, 0.5])))
    def squares(x):
        return x * x

    message = caught(squares, np.array([1.0, 2.0, 3.0]))
    assert "input 0 'x' shape (3,): 1 of 3 entries wrong" in message
    assert re.search(
        r"worst at \[2\], output \[2\]:  analytic 6\.5   numeric 6 ± \de-1\d   "
        r"abs 5\.0e-01   rel 8\.3e-02",
        message,
    )


@pytest.mark.parametrize("n", [40, 10_000])
def test_one_wrong_entry_among_many(rng, n):
    factor = np.ones(n)
    factor[7] += 1e-3

    @primitive(lambda g, y, x: g * x * (2.0 * factor))
    def squares(x):
        return x * x

    message = caught(squares, rng.standard_normal(n))
    assert f"1 of {n} entries wrong" in message
    assert "worst at [7]" in message
    assert "a single entry is wrong" in message


def test_transposed_operand(rng):
    @primitive(
        lambda g, y, a, b: ops.matmul(g, b),
        lambda g, y, a, b: ops.matmul(ops.transpose(a), g),
    )
    def product(a, b):
        return a @ b

    message = caught(product, rng.standard_normal((3, 3)), rng.standard_normal((3, 3)))
    assert "input 0 'a'" in message
    assert "two axes exchanged: something is transposed" in message


def test_transposed_gradient(rng):
    m = rng.standard_normal((3, 3))

    @primitive(lambda g, y, x: ops.transpose(g * m))
    def weighted(x):
        return x * m

    assert "something is transposed" in caught(weighted, rng.standard_normal((3, 3)))


def test_transposed_shape(rng):
    @primitive(lambda g, y, x: g)
    def transposed(x):
        return x.T

    message = caught(transposed, rng.standard_normal((2, 3)))
    assert "gradient of input 0 'x' has shape (3, 2), wanted (2, 3): it is transposed" in message


def test_missing_sum_over_broadcast_by_shape(rng):
    product = product_with(good_a, lambda g, y, a, b: g * a)
    message = caught(product, rng.standard_normal((3, 4)), rng.standard_normal(4))
    assert (
        "gradient of input 1 'b' has shape (3, 4), wanted (4,): "
        "the sum over what broadcasting copied is missing"
    ) in message


def test_missing_sum_over_broadcast_by_value(rng):
    product = product_with(good_a, lambda g, y, a, b: (g * a)[0])
    message = caught(product, rng.standard_normal((3, 4)), rng.standard_normal(4))
    assert "a missing sum over a broadcast axis" in message
    assert "axis 0 of output" in message


def test_detached_first_order(rng):
    message = caught(lambda x: ops.sin(core.stop_gradient(x)), rng.standard_normal(3))
    assert "analytic is 0 everywhere: the gradient is detached" in message


def test_dropped_contribution(rng):
    message = caught(
        lambda x: (ops.sin(x[:2]), ops.cos(core.stop_gradient(x[1:]))), rng.standard_normal(3)
    )
    assert "analytic is 0 where numeric is not: a contribution is missing" in message
    assert "output 1 [" in message


def test_detached_second_order(rng):
    product = product_with(lambda g, y, a, b: g * raw(b), good_b)
    message = caught(product, rng.standard_normal(4), rng.standard_normal(4))
    assert "order 2 (derivative of the VJP)" in message
    assert "input 1 'b'" in message
    assert "gradient of input 0 'a'" in message
    assert "order 2 is detached" in message


def test_detached_path_of_the_second_order(rng):
    def rule(g, y, a, b):
        return ops.concat([g[:2] * raw(b)[:2], g[2:] * b[2:]])

    message = caught(product_with(rule, good_b), rng.standard_normal(4), rng.standard_normal(4))
    assert "a path of this order is detached" in message


def test_wrong_third_order(rng):
    """The rule of the rule's rule: right twice, wrong the third time."""

    @primitive(lambda g, y, x: 0.0 * g)
    def wrong_sine(x):
        return np.sin(x)

    @primitive(lambda g, y, x: -g * wrong_sine(x))
    def cosine(x):
        return np.cos(x)

    @primitive(lambda g, y, x: g * cosine(x))
    def sine(x):
        return np.sin(x)

    x = rng.standard_normal(3)
    gradcheck(sine, x, order=2)
    assert "order 3 (2 times from the VJP)" in caught(sine, x, order=3)


def total_rule(i):
    """A rule that differentiates a reference without making its arguments independent first."""

    def rule(g, y, a, b):
        with core.recording(True):
            xs = [x if isinstance(x, Tensor) else Tensor(x) for x in (a, b)]
            out = ops.sin(xs[0]) * xs[1]
            return pull_back([out], [g], xs, create_graph=isinstance(a, Tensor))[i]

    return rule


def test_total_instead_of_partial_derivative(rng):
    @primitive(total_rule(0), total_rule(1))
    def modulated(a, b):
        return np.sin(a) * b

    gradcheck(modulated, rng.standard_normal(3), rng.standard_normal(3))  # when independent
    message = caught(lambda x: modulated(x, ops.exp(x)), rng.standard_normal(3))
    assert "with create_graph=True the gradient of input 0 'x'" in message
    assert (
        "the path of modulated's argument 0 through its argument 1: "
        "a total instead of a partial derivative"
    ) in message


def test_total_instead_of_partial_derivative_in_the_plain_gradient(rng):
    """The same mistake in a rule that always follows b = eᵃ."""
    modulated = product_with(lambda g, y, a, b: g * b + g * a * b, good_b)
    message = caught(lambda x: modulated(x, ops.exp(x)), rng.standard_normal(3))
    assert "a total instead of a partial derivative" in message


def test_not_linear_in_the_cotangent(rng):
    @primitive(lambda g, y, x: g * ops.sqrt(ops.sum(g * g)))
    def same(x):
        return x.copy()

    with pytest.raises(GradientError):
        gradcheck(same, rng.standard_normal(3))

    @primitive(lambda g, y, x: g + 1e-9 * g * g)  # too little for differences to see
    def nearly(x):
        return x.copy()

    assert "is not linear in the cotangent" in caught(nearly, rng.standard_normal(3), order=1)


def test_zero_cotangent(rng):
    @primitive(lambda g, y, x: g + 1e-14)
    def same(x):
        return x.copy()

    assert "a zero cotangent gives input 0 'x'" in caught(same, rng.standard_normal(3), order=1)


def test_asymmetric_second_derivative(rng):
    """An order 2 that is wrong by too little for differences shows as an asymmetry."""
    product = product_with(
        lambda g, y, a, b: g * b, lambda g, y, a, b: g * ((1 + 1e-9) * a - 1e-9 * raw(a))
    )
    message = caught(product, rng.standard_normal(4), rng.standard_normal(4))
    assert "the second derivative is not symmetric" in message


def test_randomness_is_caught(rng):
    noise = np.random.default_rng(0)
    message = caught(lambda x: x + 1e-12 * noise.standard_normal(3), rng.standard_normal(3))
    assert "output is not deterministic: two runs differ by" in message

    noisy = product_with(
        lambda g, y, a, b: good_a(g, y, a, b) * (1 + 1e-15 * noise.standard_normal()), good_b
    )
    message = caught(noisy, rng.standard_normal(3), rng.standard_normal(3))
    assert "gradient of input 0 'a' is not deterministic" in message
    gradcheck(noisy, rng.standard_normal(3), rng.standard_normal(3), nondet_tol=1e-12)


def test_modified_inputs_are_caught(rng):
    @primitive(lambda g, y, x: g)
    def shifted(x):
        x += 1e-3
        return x.copy()

    message = caught(shifted, rng.standard_normal(3))
    assert "f modified input 0 'x'" in message or "not deterministic" in message

    @primitive(lambda g, y, x, n: g, None)
    def zeroed(x, n):
        n[...] = 0.0
        return x.copy()

    assert "f modified input 1 'n'" in caught(zeroed, rng.standard_normal(3), np.ones(2))


def test_gradient_of_another_dtype_is_caught(rng):
    @primitive(lambda g, y, x: ops.astype(g, np.float32))
    def same(x):
        return x.copy()

    message = caught(same, np.ones(3))
    assert "gradient of input 0 'x' has type numpy float32, wanted numpy float64" in message


def test_gradient_that_is_not_finite_is_caught():
    with np.errstate(divide="ignore", invalid="ignore"):
        message = caught(lambda x: ops.sqrt(x * 0.0 + x * x), np.array([0.0, 1.0]))
    assert "gradient of input 0 'x' is not finite" in message


def test_the_complex_step_is_a_witness_of_its_own(rng):
    """A function with a wrong value for complex numbers fails only the complex step."""

    @primitive(lambda g, y, x: g * 2.0 * x)
    def squares(x):
        return x.real**2

    gradcheck(squares, rng.standard_normal(3))
    message = caught(squares, rng.standard_normal(3), analytic=True)
    assert "complex step 0" in message


def test_bisection_by_kernels(rng):
    @primitive(lambda g, y, x: g * 2.0 * x * (1.5 if backend.kernels_enabled() else 1.0))
    def squares(x):
        return x * x

    message = caught(squares, rng.standard_normal(3))
    assert "kernels on" in message.splitlines()[0]
    assert "passes with kernels off" in message
    with backend.use_kernels(False):
        assert gradcheck(squares, rng.standard_normal(3)).kernels is False

    wrong_anyway = product_with(lambda g, y, a, b: g, good_b)
    message = caught(wrong_anyway, rng.standard_normal(3), rng.standard_normal(3))
    assert "kernels off" not in message


def test_errors_name_paths_in_trees(rng):
    def f(params, x):
        return ops.matmul(x, params["head"]["weight"]) + core.stop_gradient(params["head"]["bias"])

    params = {"head": {"weight": rng.standard_normal((2, 2)), "bias": rng.standard_normal(2)}}
    message = caught(f, params, rng.standard_normal((3, 2)))
    assert "input 0 'params/head/bias' shape (2,): 2 of 2 entries wrong" in message


def test_every_entry_of_the_jacobian_is_looked_at(rng):
    """The worst entry is found whatever its place."""
    for entry in np.ndindex(2, 3):
        mask = np.zeros((2, 3))
        mask[entry] = 0.1

        @primitive(lambda g, y, x, mask=mask: g * (1.0 + mask))
        def same(x):
            return x.copy()

        message = caught(same, rng.standard_normal((2, 3)), order=1)
        assert f"worst at {list(entry)}, output {list(entry)}" in message


# --- float32 --------------------------------------------------------------------------------------


def test_float32_agrees(rng):
    params = {"w": rng.standard_normal((3, 2))}
    f = lambda p, x: ops.tanh(ops.matmul(x, p["w"]))  # noqa: E731 - a name would say no more
    assert 0 < compare_float32(f, params, rng.standard_normal((4, 3))) < 1e-5
    assert tree.flatten(params)[0][0].dtype == np.float64


def test_float32_loses_too_much(rng):
    with pytest.raises(GradientError, match=r"the gradient of input 0 'x' in float32 is \S+ from"):
        compare_float32(lambda x: ops.square(ops.sin(x + 1e7) - 0.5), rng.standard_normal(3))


def test_float32_that_turns_into_float64_is_caught(rng):
    with pytest.raises(GradientError, match="float32 inputs give an output of dtype float64"):
        compare_float32(lambda x: x * np.float64(2.0), rng.standard_normal(3))

    @primitive(lambda g, y, x: g * np.float64(2.0))
    def doubled(x):
        return x + x

    with pytest.raises(GradientError, match="float32 input 0 'x' has a gradient of dtype float64"):
        compare_float32(doubled, rng.standard_normal(3))


# --- values that are used twice -------------------------------------------------------------------


def in_place(g, y, x):
    if isinstance(g, Tensor):
        return g * (x > 0)
    g[x <= 0] = 0.0
    return g


@primitive(in_place)
def careless_relu(x):
    return np.maximum(x, 0.0)


@primitive(lambda g, y, x: 2.0 * g)
def doubled_in_place(x):
    x *= 2.0
    return x


@pytest.mark.parametrize(
    "f",
    [
        careless_relu,
        lambda x: careless_relu(x) + x,
        lambda x: ops.sin(1.0 * x + careless_relu(1.0 * x)),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_a_rule_that_writes_into_its_cotangent(f, order):
    message = caught(f, np.array([-1.0, 2.0, -3.0]), order=order)
    assert "a rule of careless_relu writes into the cotangent that it is given" in message
    assert "detached" not in message


def test_a_rule_that_writes_into_an_argument(rng):
    def rule(g, y, a, b):
        if isinstance(a, np.ndarray):
            a *= 0.0
        return g * b

    product = product_with(rule, good_b)
    message = caught(lambda x, y: product(x * 1.0, y), *rng.standard_normal((2, 3)), order=1)
    assert "a rule of product writes into an argument" in message


def test_an_operation_that_works_in_place_on_a_value_used_twice(rng):
    def f(x):
        h = ops.sin(x)
        return ops.square(h) + doubled_in_place(h)

    message = caught(f, rng.standard_normal(3))
    assert "doubled_in_place writes into its argument 0: others may use it too" in message


def test_a_value_written_into_afterwards(rng):
    def f(x):
        h = ops.sin(x)
        y = ops.square(h)
        h.data[...] = 0.0
        return y

    message = caught(f, rng.standard_normal(3))
    assert "the result of sin was written into" in message
    assert "detached" not in message


def test_one_value_in_two_places(rng):
    """A rule that asks `a is b` sees one array twice, and no path is detached."""
    product = product_with(
        lambda g, y, a, b: 0.0 * g if raw(a) is raw(b) else good_a(g, y, a, b),
        lambda g, y, a, b: 0.0 * g if raw(a) is raw(b) else good_b(g, y, a, b),
    )
    gradcheck(product, *rng.standard_normal((2, 3)))
    message = caught(lambda x: product(x, x), rng.standard_normal(3))
    assert "product's arguments 0 and 1 are one value here" in message
    assert "detached" not in message


def test_what_is_used_twice_and_right_passes(rng):
    product = product_with(good_a, good_b)
    x = rng.standard_normal(3)
    gradcheck(lambda x: product(x, x), x, order=3)
    gradcheck(lambda x, y: product(x, y) + x, x, x)  # the same array for both inputs
    gradcheck(lambda p: product(p["a"], p["b"]), {"a": x, "b": x[::-1]})
