"""Layers, losses and optimisers: against loops and formulas, and one task at a time."""

import numpy as np
import pytest

from scratchmeta import Tensor, grad, losses, nn, ops, optim, tree

T, N = 3, 4


def per_task(layer, seed=0):
    """Parameters with a task axis: T different sets, stacked."""
    sets = [tree.astype(layer.init(np.random.default_rng(seed + t)), np.float64) for t in range(T)]
    rng = np.random.default_rng(seed)
    sets = [tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), s) for s in sets]
    return sets, tree.map(lambda *leaves: np.stack(leaves), *sets)


LAYERS = {
    "linear": (nn.Linear(5, 2), (N, 5)),
    "linear over maps": (nn.Linear(5, 2), (N, 3, 3, 5)),
    "conv": (nn.Conv2d(2, 3), (N, 5, 4, 2)),
    "strided conv": (nn.Conv2d(2, 3, stride=2), (N, 5, 4, 2)),
    "batch-norm of images": (nn.BatchNorm(2), (N, 3, 3, 2)),
    "batch-norm of vectors": (nn.BatchNorm(5, images=False), (N, 5)),
    "block": (nn.ConvBlock(2, 3), (N, 5, 6, 2)),
    "conv4": (nn.Conv4(3, in_channels=2, image_size=16, n_out=4), (N, 16, 16, 2)),
    "strided conv4": (nn.Conv4(3, 2, image_size=9, pooling="stride"), (N, 9, 9, 2)),
    "mlp": (nn.MLP([5, 6, 2]), (N, 5)),
    "mlp with batch-norm": (nn.MLP([5, 6, 2], ops.tanh, batch_norm=True), (N, 5)),
    "mlp of images": (nn.MLP([12, 6, 2]), (N, 3, 4, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_task_axis_is_a_loop_over_tasks(name):
    layer, shape = LAYERS[name]
    sets, stacked = per_task(layer)
    x = np.random.default_rng(1).normal(size=(T, *shape))
    together = layer(stacked, x)
    shared = layer(sets[0], x)
    for t in range(T):
        np.testing.assert_allclose(together[t], layer(sets[t], x[t]), atol=1e-12)
        np.testing.assert_allclose(shared[t], layer(sets[0], x[t]), atol=1e-12)


@pytest.mark.parametrize("recurrent", [nn.LSTM(5, 3), nn.BiLSTM(5, 3)], ids=["LSTM", "BiLSTM"])
def test_a_task_axis_is_a_loop_over_tasks_in_time_too(recurrent):
    sets, stacked = per_task(recurrent)
    x = np.random.default_rng(2).normal(size=(T, N, 6, 5))
    together = recurrent(stacked, x)[0]
    for t in range(T):
        np.testing.assert_allclose(together[t], recurrent(sets[t], x[t])[0], atol=1e-12)


def test_lstm_step_by_step_in_scalars():
    rng, layer = np.random.default_rng(3), nn.LSTM(2, 3)
    params = tree.astype(layer.init(rng), np.float64)
    x = rng.normal(size=(5, 2))
    h, c = [0.0] * 3, [0.0] * 3

    def σ(a):
        return 1 / (1 + np.exp(-a))

    for t in range(5):
        z = [
            sum(x[t, d] * params["w_x"][d, k] for d in range(2))
            + sum(h[d] * params["w_h"][d, k] for d in range(3))
            + params["b"][k]
            for k in range(12)
        ]
        i, f, g, o = z[:3], z[3:6], z[6:9], z[9:]
        c = [σ(f[k]) * c[k] + σ(i[k]) * np.tanh(g[k]) for k in range(3)]
        h = [σ(o[k]) * np.tanh(c[k]) for k in range(3)]
    hs, state = layer(params, x)
    np.testing.assert_allclose(hs[-1], h, atol=1e-14)
    np.testing.assert_allclose(state, (h, c), atol=1e-14)
    np.testing.assert_allclose(layer.step(params, x[0], layer.start((), x))[0], hs[0], atol=1e-14)


def test_bilstm_reads_both_ways():
    rng, layer = np.random.default_rng(4), nn.BiLSTM(2, 3)
    params, x = layer.init(rng), rng.normal(size=(4, 2)).astype(np.float32)
    forward, backward = layer(params, x)
    one = nn.LSTM(2, 3)
    np.testing.assert_array_equal(forward, one(params["forward"], x)[0])
    np.testing.assert_array_equal(backward[::-1], one(params["backward"], x[::-1])[0])


# --- batch-norm ---------------------------------------------------------------------------------


def test_batch_norm_normalises_each_task_by_its_own_images():
    x = 5.0 + 3.0 * np.random.default_rng(5).normal(size=(T, N, 3, 3, 2))
    layer = nn.BatchNorm(2, eps=0.0)
    y = layer(tree.astype(layer.init(np.random.default_rng(0)), np.float64), x)
    for t in range(T):
        for c in range(2):
            np.testing.assert_allclose(y[t, ..., c].mean(), 0, atol=1e-12)
            np.testing.assert_allclose(y[t, ..., c].std(), 1, atol=1e-12)


def test_stored_statistics_are_used_as_they_stand():
    rng, network = np.random.default_rng(6), nn.Conv4(3, image_size=16)
    params = tree.astype(network.init(rng), np.float64)
    x, other = rng.normal(size=(2, N, 16, 16, 1))
    filled = network.with_statistics(params, x)
    np.testing.assert_allclose(network(filled, x), network(params, x), atol=1e-12)
    assert not np.allclose(network(filled, other), network(params, other))
    one_by_one = [network(filled, other[i : i + 1])[0] for i in range(N)]
    np.testing.assert_allclose(network(filled, other), one_by_one, atol=1e-12)
    assert nn.has_statistics(filled)
    assert not nn.has_statistics(params)
    assert tree.paths(nn.without_statistics(filled)) == tree.paths(params)


def test_statistics_are_differentiable():
    rng, layer = np.random.default_rng(7), nn.BatchNorm(2, images=False)
    params = tree.astype(layer.init(rng), np.float64)
    x = Tensor(rng.normal(size=(N, 2)))
    g = grad(ops.sum(layer.with_statistics(params, x)["var"]), x)
    np.testing.assert_allclose(g, 2 * (x.data - x.data.mean(0)) / N, atol=1e-14)


def test_conv4_refuses_images_too_small():
    with pytest.raises(ValueError, match="at least 16 with max-pooling, got 15"):
        nn.Conv4(image_size=15)


@pytest.mark.parametrize(("side", "features"), [(28, 64), (84, 1600)])
def test_conv4_has_the_papers_number_of_features(side, features):
    network = nn.Conv4(image_size=side)
    x = np.zeros((1, side, side, 1), np.float32)
    assert network(network.init(np.random.default_rng(0)), x).shape == (1, features)


def test_a_strided_conv4_takes_the_mean_over_the_last_map():
    network = nn.Conv4(3, 2, image_size=28, pooling="stride", n_out=5)
    params, rng = network.init(np.random.default_rng(0)), np.random.default_rng(1)
    x = rng.normal(size=(4, 28, 28, 2)).astype(np.float32)
    maps = x
    for name, block in network.layers[:4]:
        maps = block(params[name], maps)
    assert maps.shape == (4, 2, 2, 3)
    weight, bias = (params["head"][name] for name in ("weight", "bias"))
    wanted = [[maps[n, :, :, c].mean() for c in range(3)] for n in range(4)] @ weight + bias
    np.testing.assert_allclose(network(params, x), wanted, atol=1e-5)


# --- losses -------------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    logits, labels = np.log(np.array([[[0.2, 0.8], [0.5, 0.5]]])), np.array([[1, 0]])
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), [-(np.log(0.8) + np.log(0.5)) / 2]
    )
    far = np.array([[1000.0, 0.0]])
    assert losses.cross_entropy(far, np.array([1])) == 1000.0
    impossible = Tensor(np.array([[0.0, -np.inf, 0.0]]))
    loss = losses.cross_entropy(impossible, np.array([0]))
    assert float(loss) == pytest.approx(np.log(2.0))
    assert grad(loss, impossible).tolist() == [[-0.5, 0.0, 0.5]]
    with pytest.raises(ValueError, match=r"wanted labels from 0 to 2, got \[ 3 -1\]"):
        losses.cross_entropy(np.zeros((2, 3)), np.array([3, -1]))


def test_mse_and_binary_cross_entropy_by_hand():
    assert losses.mse(np.array([[1.0], [3.0]]), np.array([[0.0], [1.0]])) == 2.5
    p = 1 / (1 + np.exp(-0.7))
    got = losses.binary_cross_entropy(np.array([0.7, 0.7]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(got, -(np.log(p) + np.log(1 - p)) / 2)


def test_project_wants_every_task_its_own_rows():
    shared, w = np.ones((4, 3)), np.ones((2, 3, 5))
    with pytest.raises(ValueError, match=r"x to begin with w's leading axes \(2,\), got \(4, 3\)"):
        ops.project(shared, w)
    both = ops.project(np.stack([shared, shared])[:, :, None], w, np.zeros((2, 5)))
    assert both.shape == (2, 4, 1, 5)
    wide = ops.project(shared.astype("f"), w[0].astype("f"), np.zeros(5))
    assert wide.dtype == np.float64  # as x w + b has it


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.mse, losses.binary_cross_entropy])
def test_losses_name_the_shapes_that_do_not_fit(loss):
    with pytest.raises(ValueError, match=f"{loss.__name__}: wanted .* of shape"):
        loss(np.zeros((4, 3)), np.zeros((5, 3)))


# --- optimisers ---------------------------------------------------------------------------------


def test_rmsprop_by_hand():
    rms = optim.RMSProp(0.1, decay=0.9, momentum=0.5, eps=1e-2)
    params, state = np.array([1.0]), rms.init(np.array([1.0]))
    p, n, m, v = 1.0, 0.0, 0.0, 0.0
    for g in (0.3, -0.2, 0.1):
        params, state = rms.step(params, np.array([g]), state)
        n, m = 0.9 * n + 0.1 * g * g, 0.9 * m + 0.1 * g
        v = 0.5 * v + g / np.sqrt(n - m * m + 1e-2)
        p -= 0.1 * v
    np.testing.assert_allclose(params, [p])


@pytest.mark.parametrize("optimiser", [optim.SGD(0.1, 0.9), optim.RMSProp(0.1), optim.Adam(0.1)])
def test_a_parameter_without_gradient_stays_and_steps_are_pure(optimiser):
    params = {"a": np.array([1.0, -2.0], np.float32)}
    state = optimiser.init(params)
    zero = {"a": np.zeros(2, np.float32)}
    moved, after = optimiser.step(params, zero, state)
    np.testing.assert_array_equal(moved["a"], [1.0, -2.0])
    assert moved["a"].dtype == np.float32
    assert (int(state["step"]), int(after["step"])) == (0, 1)


@pytest.mark.parametrize("optimiser", [optim.SGD(0.1, 0.9), optim.RMSProp(0.1), optim.Adam(0.1)])
def test_gradients_flow_through_steps_also_where_a_gradient_is_zero(optimiser):
    x = np.array([0.0, 0.4, -0.7])  # ∂/∂w of ½ w² x: the first entry has no gradient at all

    def after_two_steps(w):
        state = optimiser.init(w)
        for _ in range(2):
            w, state = optimiser.step(w, w * x, state)
        return ops.sum(w * w)

    w = np.array([0.5, -1.5, 2.0])
    live = Tensor(w)
    got = grad(after_two_steps(live), live)
    h = 1e-6
    for i in range(3):
        e = h * np.eye(3)[i]
        slope = (after_two_steps(w + e) - after_two_steps(w - e)) / (2 * h)
        np.testing.assert_allclose(got[i], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("optimiser", [optim.SGD(0.1, 0.9), optim.RMSProp(0.1), optim.Adam(0.1)])
def test_arrays_of_several_dtypes_are_refused(optimiser):
    params = {"a": np.zeros(2, np.float32), "b": np.zeros(2)}
    with pytest.raises(
        ValueError, match=r"wanted arrays of one dtype, got \['float32', 'float64'\]"
    ):
        optimiser.init(params)


def test_schedules():
    halved, falling = optim.step_decay(0.8, every=10), optim.linear_decay(1.0, 4)
    assert [halved(s) for s in (0, 9, 10, 25)] == [0.8, 0.8, 0.4, 0.2]
    assert [falling(s) for s in (0, 1, 4, 9)] == [1.0, 0.75, 0.0, 0.0]
    sgd = optim.SGD(optim.linear_decay(1.0, 2))
    w, state = np.array([0.0]), sgd.init(np.array([0.0]))
    for wanted in (-1.0, -1.5, -1.5):
        w, state = sgd.step(w, np.array([1.0]), state)
        assert w[0] == wanted


def test_clipping():
    grads = {"a": np.array([3.0]), "b": np.array([[4.0]])}
    assert float(optim.global_norm(grads)) == 5.0
    clipped = optim.clip_by_norm(grads, 1.0)
    np.testing.assert_allclose((clipped["a"], clipped["b"][0]), [[0.6], [0.8]])
    for name, g in optim.clip_by_norm(grads, 6.0).items():
        np.testing.assert_array_equal(g, grads[name])
    assert optim.clip_by_value(grads, 3.5)["b"][0, 0] == 3.5
