"""ONNX graphs against our own predictions, run by onnxruntime."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import scratchmeta.run
from scratchmeta import nn, ops, tree
from scratchmeta.algorithms import (
    MAML,
    BaselineFinetune,
    BaselineNN,
    FullContext,
    Matching,
    Prototypical,
    Relation,
    Siamese,
)
from scratchmeta.algorithms.relation import embedding as relation_embedding
from scratchmeta.algorithms.siamese import KOCH_FEATURES, koch_network
from scratchmeta.core import Tensor, raw
from scratchmeta.episodes import Episode
from scratchmeta.presets import REGISTRY
from scratchmeta.run import experiment, export, onnx_graph
from scratchmeta.run.cli import main

RNG = np.random.default_rng(0)


def images(n, size=28, channels=1):
    return RNG.random((n, size, size, channels), np.float32)


def episode(ways=5, shots=2, queries=7, size=28, channels=1):
    """One task with the support in any order."""
    y = RNG.permutation(np.repeat(np.arange(ways), shots))
    x = images(len(y), size, channels)
    return Episode(
        x[None], y[None], images(queries, size, channels)[None], np.zeros((1, queries), int)
    )


def run(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (output,) = session.run(None, inputs)
    return output


def run_classifier(model, e):
    return run(model, support=e.support_x[0], labels=e.support_y[0], query=e.query_x[0])


def conv4(size=28, channels=1, pooling="max"):
    return nn.Conv4(16, channels, size, pooling)


NETWORKS = {
    "conv4": (conv4(), (28, 28, 1)),
    "conv4, stride": (conv4(pooling="stride"), (28, 28, 1)),
    "conv4, colour": (conv4(36, 3), (36, 36, 3)),
    "mlp": (nn.MLP([784, 40, 20]), (28, 28, 1)),
    "mlp, batch-norm": (nn.MLP([784, 40, 20], ops.tanh, batch_norm=True), (28, 28, 1)),
    "relation": (relation_embedding(8), (28, 28, 1)),
}


@pytest.mark.parametrize("policy", ["transductive", "running"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_embedding_of_any_number_of_images(name, policy):
    network, shape = NETWORKS[name]
    if policy == "running" and not name.startswith(("conv4", "mlp, ")):
        pytest.skip("no batch-norm with statistics")
    algorithm = Prototypical(network, batch_norm=policy)
    params = algorithm.init(np.random.default_rng(1))
    params = algorithm.calibrate(params, episode(size=shape[0], channels=shape[2]))
    model = export.embedding(algorithm, params, shape)
    for n in (1, 4):
        x = images(n, shape[0], shape[2])
        wanted = network(params["network"], x)
        got = run(model, images=x)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


ALGORITHMS = {
    "prototypical": lambda policy: Prototypical(conv4(), batch_norm=policy),
    "prototypical, cosine": lambda policy: Prototypical(conv4(), "cosine", batch_norm=policy),
    "prototypical, cityblock": lambda policy: Prototypical(conv4(), "cityblock", batch_norm=policy),
    "matching": lambda policy: Matching(conv4(), 0.1, batch_norm=policy),
    "siamese": lambda policy: Siamese(conv4(), 16, batch_norm=policy),
    "siamese, cosine": lambda policy: Siamese(conv4(), 16, distance="cosine", batch_norm=policy),
    "siamese, most similar": lambda policy: Siamese(
        conv4(), 16, shots="most-similar", batch_norm=policy
    ),
    "nearest neighbour": lambda policy: BaselineNN(conv4(), 7, 16, batch_norm=policy),
}


@pytest.mark.parametrize("policy", ["transductive", "support", "running"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_whole_classifier(name, policy):
    algorithm = ALGORITHMS[name](policy)
    params = algorithm.init(np.random.default_rng(1))
    params = algorithm.calibrate(params, episode())
    model = export.classifier(algorithm, params, (28, 28, 1), n_way=5)
    for shots, queries in ((1, 1), (3, 8)):
        e = episode(5, shots, queries)
        wanted = np.exp(algorithm.predict(params, e))[0]
        got = run_classifier(model, e)
        np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-5)
        np.testing.assert_allclose(got, wanted, atol=1e-5)


REFUSED = {
    "baseline-finetune": "adapts to each episode by gradients",
    "prototypical-zero-shot": "is shown descriptions",
    "r2d2": "the operation solve",
}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_algorithm_is_exported_or_says_why_not(name):
    """Of the library's, whichever it has; the small instances of the checks."""
    algorithm, params, batch = REGISTRY[name].small(np.random.default_rng(0))
    params = tree.map(lambda p: p.astype(np.float32), params)
    one = Episode(*(a[:1] for a in batch))
    one = Episode(*(a.astype(np.float32) if a.dtype.kind == "f" else a for a in one))
    shape, ways = one.query_x.shape[2:], 1 + int(one.support_y.max())
    shots = one.support_y.shape[1] // ways
    if not hasattr(algorithm, "log_probabilities"):
        with pytest.raises(ValueError, match=r"^export: .* by gradients or in a memory, cannot be"):
            export.embedding(algorithm, params, shape)
        return
    wanted = algorithm.network(params["network"], one.query_x[0])
    got = run(export.embedding(algorithm, params, shape), images=one.query_x[0])
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"^export: .*{REFUSED[name]}"):
            export.classifier(algorithm, params, shape, ways, shots)
        return
    model = export.classifier(algorithm, params, shape, ways, shots)
    wanted = np.exp(algorithm.predict(params, one))[0]
    np.testing.assert_allclose(run_classifier(model, one), wanted, atol=1e-5)


def test_classes_of_unequal_shots():
    algorithm = Siamese(conv4(), 16)
    params = algorithm.init(np.random.default_rng(1))
    model = export.classifier(algorithm, params, (28, 28, 1), n_way=3)
    y = np.array([2, 0, 0, 1, 0, 2])
    e = Episode(images(6)[None], y[None], images(4)[None], np.zeros((1, 4), int))
    np.testing.assert_allclose(
        run_classifier(model, e), np.exp(algorithm.predict(params, e))[0], atol=1e-5
    )


def test_a_support_that_is_read_one_by_one_wants_its_number():
    algorithm = FullContext(conv4(), n_features=16)
    params = algorithm.init(np.random.default_rng(1))
    with pytest.raises(ValueError, match=r"on their number .* --k-shot fixes it"):
        export.classifier(algorithm, params, (28, 28, 1), n_way=5)
    model = export.classifier(algorithm, params, (28, 28, 1), n_way=5, k_shot=2)
    e = episode(5, 2, 9)
    np.testing.assert_allclose(
        run_classifier(model, e), np.exp(algorithm.predict(params, e))[0], atol=1e-5
    )


def test_relation_networks_and_kochs():
    relation = Relation(relation_embedding(8), n_channels=8)
    koch = Siamese(koch_network(), KOCH_FEATURES)
    for algorithm, size in ((relation, 28), (koch, 105)):
        params = algorithm.init(np.random.default_rng(1))
        model = export.classifier(algorithm, params, (size, size, 1), n_way=3, k_shot=1)
        e = episode(3, 1, 2, size)
        wanted = np.exp(algorithm.predict(params, e))[0]
        np.testing.assert_allclose(run_classifier(model, e), wanted, atol=1e-5)


@pytest.mark.parametrize("metric", ["matching", "cosine"])
def test_features_of_length_zero_have_cosine_zero(metric):
    network = nn.Sequential([("flatten", nn.Function(nn.flatten_images))])
    algorithm = Matching(network) if metric == "matching" else Prototypical(network, "cosine")
    model = export.classifier(algorithm, {"network": {}}, (4, 4, 1), n_way=2)
    e = episode(2, 1, 3, 4)
    e.query_x[0, 1] = 0
    e.support_x[0, 0] = 0
    wanted = np.exp(algorithm.predict({"network": {}}, e))[0]
    np.testing.assert_allclose(run_classifier(model, e), wanted, atol=1e-6)


def test_a_graph_says_what_is_free_and_keeps_the_parameters_names():
    algorithm = Prototypical(conv4())
    params = algorithm.init(np.random.default_rng(1))
    graph = export.classifier(algorithm, params, (28, 28, 1), n_way=5).graph

    def dimensions(value):
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert {v.name: dimensions(v) for v in graph.input} == {
        "support": ["n_support", 28, 28, 1],
        "labels": ["n_support"],
        "query": ["n_query", 28, 28, 1],
    }
    assert {v.name: dimensions(v) for v in graph.output} == {"probabilities": ["n_query", 5]}
    stored = {i.name: tuple(i.dims) for i in graph.initializer}
    assert stored["network/block2/conv/weight"] == (3, 3, 16, 16)
    fixed = export.classifier(algorithm, params, (28, 28, 1), n_way=5, k_shot=3).graph
    assert dimensions(fixed.input[0]) == [15, 28, 28, 1]


# --- every operation ------------------------------------------------------------------------------

CASES = {
    "log1p": lambda x: ops.log1p(ops.square(x)),
    "add": lambda x: x + 2 + x,
    "subtract": lambda x: 1.0 - x,
    "multiply": lambda x: 3 * x * x,
    "divide": lambda x: x / 7,
    "power": lambda x: ops.power(ops.abs(x) + 0.1, 3) + ops.power(ops.abs(x) + 0.1, 0.5),
    "log": lambda x: ops.log(ops.abs(x) + 0.1),
    "sqrt": lambda x: ops.sqrt(ops.abs(x)),
    "maximum": lambda x: ops.maximum(x, 0.1),
    "minimum": lambda x: ops.minimum(0.1, x),
    "clip": lambda x: ops.clip(x, -0.3, 0.3) + ops.clip(x, None, 0.1),
    "where": lambda x: ops.where(np.arange(4) > 1, x, 2.0),
    "broadcast_to": lambda x: ops.broadcast_to(x, (2, *x.shape)),
    "reshape": lambda x: ops.reshape(x, (-1, 2)) + ops.reshape(x, (x.shape[0] * 6, 2)),
    "transpose": lambda x: ops.transpose(x),
    "getitem": lambda x: x[1:, None, 1, ..., :-1] + x[x.shape[0] - 1, 0, 0],
    "concat": lambda x: ops.concat([x, 2 * x, np.ones((1, 3, 4), np.float32)]),
    "pad": lambda x: ops.pad(x, [(0, 1), (2, 0), (0, 0)], 0.5),
    "flip": lambda x: ops.flip(x, (0, -1)),
    "sum": lambda x: ops.sum(x, axis=(0, -1)) + ops.sum(x),
    "mean": lambda x: ops.mean(x, -1, keepdims=True) + ops.mean(x, 0),
    "mean_square": lambda x: ops.mean_square(x, -1, keepdims=True) + ops.mean_square(x),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x),
    "logsumexp": lambda x: ops.logsumexp(100 * x, axis=-1),
    "softmax": lambda x: ops.softmax(x, axis=1),
    "matmul": lambda x: ops.matmul(x, ops.matrix_transpose(x)),
    "affine": lambda x: ops.project(x, np.ones((4, 2), np.float32), np.ones(2, np.float32)),
    "einsum": lambda x: ops.einsum("nij,nkj->ik", x, x),
    "conv2d": lambda x: ops.conv2d(x[..., None], np.ones((2, 3, 1, 2), np.float32), 2, 1),
    "max_pool2d": lambda x: ops.max_pool2d(x[..., None], 2),
    "norm_relu_pool": lambda x: ops.norm_relu_pool(x[..., None], SCALE, SCALE, 2),
    "sqeuclidean": lambda x: ops.pairwise_distance(x, x + 1),
    "cityblock": lambda x: ops.pairwise_distance(x, x + 1, "cityblock"),
    "cosine": lambda x: ops.pairwise_distance(x, x + 1, "cosine"),
    "attention": lambda x: ops.attention(x, x, x, 0.5),
    "cosine_attention": lambda x: ops.cosine_attention(x, x, x),
    "lstm_gates": lambda x: ops.concat(ops.lstm_gates(x, x[..., :1])),
}
SCALE = np.array([0.7], np.float32)


# one_hot is in every classifier: only labels are whole numbers
@pytest.mark.parametrize("name", sorted(onnx_graph.OPERATIONS.keys() - {"one_hot"}))
def test_every_operation(name):
    f = CASES.get(name) or getattr(ops, name)
    seen = []
    for n in (2, 3):
        x = Tensor(RNG.normal(size=(n, 3, 4)).astype(np.float32))
        seen.append(({"x": x}, f(x)))
    model = onnx_graph.model("y", *map(list, zip(*seen, strict=True)), {})
    assert name in {node.op.__name__ for node in onnx_graph._record(seen[0][1]) if node.op}
    x = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    wanted = f(x)
    np.testing.assert_allclose(run(model, x=x), wanted, rtol=1e-5, atol=1e-6)


# --- what cannot be exported ----------------------------------------------------------------------


def of_function(f):
    """The embedding of images by a function."""
    algorithm = Prototypical(nn.Sequential([("f", nn.Function(f))]))
    return export.embedding(algorithm, {"network": {}}, (4, 4, 1))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: ops.roll(x, 1, 0), "the operation roll cannot be exported"),
        (
            lambda x: ops.where(raw(x) > 0.5, x, 0.0),
            "where was given numbers that depend on the in",
        ),
        (lambda x: x * raw(x).mean(), "multiply was given numbers that depend on the inputs"),
        (lambda x: x + Tensor(np.ones(1, np.float32)), "a Tensor was made that is none of the in"),
        (lambda x: x[:, ::2], "getitem with steps cannot be exported"),
        (lambda x: x[:, np.array([0, 1])], "getitem with an array of indices cannot be exported"),
        (lambda x: ops.conv2d(x, np.ones((len(x), 1, 1, 1, 1), np.float32)), "filters for each"),
        (lambda x: x * np.ones(1), "float32 wanted, got multiply with float64"),
        (lambda x: x if len(x) == 2 else x + 1, "which operations there are depends on the inp"),
    ],
)
def test_what_cannot_be_exported_says_so(f, message):
    with pytest.raises(ValueError, match=f"export: .*{message}"):
        of_function(f)


def test_zeros_for_every_input_are_as_many_as_there_are():
    model = of_function(lambda x: ops.concat([x, np.zeros(x.shape, np.float32)], axis=-1))
    assert run(model, images=images(3, 4)).shape == (3, 4, 4, 2)


def test_adaptation_by_gradients_says_so():
    network = nn.Conv4(8, n_out=5)
    maml = MAML(network)
    params = maml.init(np.random.default_rng(0))
    for write in (export.embedding, lambda *given: export.classifier(*given, n_way=5)):
        with pytest.raises(
            ValueError, match=r"an algorithm that compares embeddings, got MAML: .*gra"
        ):
            write(maml, params, (28, 28, 1))
    tuned = BaselineFinetune(conv4(), classes=7, n_features=16)
    params = tuned.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"BaselineFinetune adapts to each episode by gradients"):
        export.classifier(tuned, params, (28, 28, 1), n_way=5)
    assert export.embedding(tuned, params, (28, 28, 1)).graph.output[0].name == "features"


def test_running_statistics_are_wanted():
    algorithm = Prototypical(conv4(), batch_norm="running")
    params = algorithm.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match="the parameters hold no statistics yet"):
        export.embedding(algorithm, params, (28, 28, 1))


# --- the command ----------------------------------------------------------------------------------

QUICK = ["--channels", "8", "--steps", "2", "--validate-every", "2", "--validation-episodes", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "proto"
    assert main(["train", "prototypical", *QUICK, "--out", str(path)]) == 0
    return path


def test_a_run_is_exported(trained, tmp_path, capsys):
    saved = experiment.saved(trained)
    e = episode(5, 1, 6)
    wanted = np.exp(saved.algorithm.predict(saved.params, e))[0]
    out = tmp_path / "whole.onnx"
    assert main(["export", str(trained), str(out), "--part", "classifier", "--n-way", "5"]) == 0
    assert "query (n_query, 28, 28, 1)\nprobabilities (n_query, 5)" in capsys.readouterr().out
    np.testing.assert_allclose(run_classifier(onnx.load(out), e), wanted, atol=1e-5)
    assert main(["export", str(trained), str(out)]) == 0
    assert run(onnx.load(out), images=e.query_x[0]).shape == (6, 8)
    assert [file.name for file in tmp_path.iterdir()] == ["whole.onnx"]


def test_what_the_command_refuses(trained, tmp_path, capsys, monkeypatch):
    def refused(*argv):
        assert main(["export", *map(str, argv)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "x.onnx"
    assert "n_way: goes with --part classifier" in refused(trained, out, "--n-way", "3")
    assert "n_way: wanted at least 1, got 0" in refused(trained, out, "--n-way", "0")
    assert "none/x.onnx: its folder does not exist" in refused(
        trained, tmp_path / "none" / "x.onnx"
    )
    maml = tmp_path / "maml"
    assert main(["train", "maml", *QUICK, "--out", str(maml)]) == 0
    assert "got MAML: what an episode changes in a network, by gradients" in refused(maml, out)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for module in ("export", "onnx_graph"):
        monkeypatch.delitem(sys.modules, f"scratchmeta.run.{module}")
        monkeypatch.delattr(scratchmeta.run, module)
    assert "onnx is not installed: pip install 'scratchmeta[onnx]'" in refused(trained, out)
    assert not out.exists()
