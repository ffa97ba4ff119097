"""What runs on a GPU, run on the stand-in: algorithms, training, checkpoints, the command line.

That operations, layers, losses and optimisers compute on CuPy what they do on NumPy is in the sweep
over the table of cases (`test_cases.py`). That the stand-in refuses what CuPy refuses is here.
"""

import contextlib
import json
import sys
from pathlib import Path

import fakecupy
import numpy as np
import pytest
from small import INSTANCES

from scratchmeta import backend, ops, tree
from scratchmeta.backend import BackendError
from scratchmeta.core import Tensor
from scratchmeta.episodes import Episode
from scratchmeta.run import training
from scratchmeta.run.cli import main

# --- the stand-in refuses what CuPy refuses -------------------------------------------------------


@pytest.fixture
def stand_in():
    return fakecupy.build()


HOST = np.ones((2, 3))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda cupy, x: np.asarray(x),
        lambda cupy, x: np.array([x]),
        lambda cupy, x: np.exp(x),
        lambda cupy, x: np.mean(x),
        lambda cupy, x: np.concatenate([x, x]),
        lambda cupy, x: x + HOST,
        lambda cupy, x: HOST + x,
        lambda cupy, x: HOST * x,
        lambda cupy, x: x @ HOST.T,
        lambda cupy, x: x == HOST,
        lambda cupy, x: x.__iadd__(HOST),
        lambda cupy, x: x.__add__([1.0, 2.0, 3.0]),
        lambda cupy, x: cupy.add(x, HOST),
        lambda cupy, x: cupy.exp(HOST),
        lambda cupy, x: cupy.exp([1.0, 2.0]),
        lambda cupy, x: cupy.where(HOST > 0, x, 0.0),
        lambda cupy, x: cupy.concatenate([x, HOST]),
        lambda cupy, x: cupy.sum(HOST),
        lambda cupy, x: cupy.add.at(x, np.array([0]), x),
        lambda cupy, x: x.dot(HOST.T),
        lambda cupy, x: x[np.array([0, 1])],
        lambda cupy, x: x[HOST > 0],
        lambda cupy, x: x[0.5],
        lambda cupy, x: x.__setitem__(0, HOST[0]),
    ],
)
def test_nothing_mixes_with_numpy(stand_in, mixing):
    x = stand_in.asarray(HOST)
    with pytest.raises(TypeError):
        mixing(stand_in, x)


def test_numbers_mix_with_arrays(stand_in):
    x = stand_in.asarray(np.float32([1, 2]))
    for y in (x + 1, 1 + x, x + np.float32(1), np.float32(1) + x, 1.0 + x):
        assert type(y) is stand_in.ndarray
        assert y.dtype == np.float32
        assert y.tolist() == [2.0, 3.0]
    y = x.copy()
    y -= 1
    y[0] = 5
    assert y.tolist() == [5.0, 1.0]
    assert x.tolist() == [1.0, 2.0]


def test_results_are_arrays_not_scalars(stand_in):
    x = stand_in.asarray(np.arange(6.0).reshape(2, 3))
    i = stand_in.asarray(np.array(1))
    results = [x.sum(), x.max(), x[1, 2], x[i, i], stand_in.mean(x), x[0] @ x[1], x.sum() * 2]
    results += [-x[0, 0], x.sum() > 3, stand_in.exp(0.0), x.argmax()]
    assert {type(y) for y in results} == {stand_in.ndarray}
    assert {y.shape for y in results} == {()}
    assert float(results[2]) == 5.0
    assert type(x[0, 0].item()) is float


def test_what_cupy_does_not_have_the_stand_in_does_not_have(stand_in):
    x = stand_in.zeros(3)
    for missing in (
        lambda: stand_in.broadcast_shapes,
        lambda: stand_in.cuda.is_there,
        lambda: stand_in.frompyfunc,
        lambda: x.flags.carray,
        lambda: x.ctypes,
        lambda: x.__array_interface__,
    ):
        with pytest.raises(AttributeError):
            missing()
    with pytest.raises(NotImplementedError, match=r"no multiply\.at"):
        stand_in.multiply.at(x, 0, x)


def test_solve_neither_broadcasts_nor_refuses_singular_matrices(stand_in):
    a, b = stand_in.asarray(np.eye(2) * 2), stand_in.asarray(np.ones((3, 2, 1)))
    with pytest.raises(ValueError, match=r"a must have \(\.\.\., M, M\) shape"):
        stand_in.linalg.solve(a, b)
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        stand_in.linalg.solve(b, b)
    assert stand_in.linalg.solve(a, b[0]).tolist() == [[0.5], [0.5]]
    assert np.isnan(stand_in.linalg.solve(a * 0, b[0]).get()).all()


def test_views_and_copies_are_numpys(stand_in):
    x = stand_in.zeros((2, 3))
    x.T[1] = 7
    x.reshape(-1)[0] = 5
    assert x.tolist() == [[5, 7, 0], [0, 7, 0]]
    assert stand_in.asarray(x) is x
    host = stand_in.asnumpy(x)
    host[:] = 1
    assert float(x[0, 0]) == 5
    new = stand_in.empty_like(x.T)
    assert np.isnan(new.get()).all()
    assert new.flags.f_contiguous
    assert not new.flags.c_contiguous


def test_tensors_take_over_operators(stand_in):
    with fakecupy.install() as cupy:
        x = cupy.asarray(np.array([1.0, 2.0]))
        y = x * Tensor(x)
        assert type(y) is Tensor
        assert cupy.asnumpy(y.data).tolist() == [1.0, 4.0]


@pytest.mark.skipif(fakecupy.ON_GPU, reason="looks at the stand-in's traces")
def test_nothing_stays_behind(rng):
    from scratchmeta.kernels import unit

    before = dict(backend._module_of_type), "cupy" in sys.modules
    with fakecupy.install(), backend.use("cupy"):
        ops.pairwise_distance(
            *(backend.asarray(rng.standard_normal((2, 3))) for _ in "xy"), "cosine"
        )
        assert "_module" in vars(unit._cuda)
        assert unit._cuda._functions
    assert (dict(backend._module_of_type), "cupy" in sys.modules) == before
    assert "_module" not in vars(unit._cuda)
    assert not unit._cuda._functions


# --- the backend ----------------------------------------------------------------------------------


def test_without_a_device_the_backend_says_so(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(stand_in.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(BackendError, match="asked for, but this machine has no GPU"):
        backend.use("cupy")

    def broken():
        raise stand_in.cuda.runtime.CUDARuntimeError("driver version is insufficient")

    monkeypatch.setattr(stand_in.cuda.runtime, "getDeviceCount", broken)
    with pytest.raises(BackendError, match="CUDA answered: driver version is insufficient"):
        backend.use("cupy")


def test_arrays_move_to_the_device_and_back(rng):
    with fakecupy.install() as cupy, backend.use("cupy"):
        params = {"w": rng.standard_normal((2, 3)), "b": [rng.standard_normal(2)]}
        there = tree.to_backend(params)
        assert all(isinstance(leaf, cupy.ndarray) for leaf in tree.flatten(there)[0])
        back = tree.to_numpy(there)
        assert all(type(leaf) is np.ndarray for leaf in tree.flatten(back)[0])
        np.testing.assert_array_equal(back["b"][0], params["b"][0])
        assert backend.is_array(there["w"])
        assert backend.xp(there["w"]) is cupy
        backend.synchronize()
        with backend.use("numpy"):
            assert type(backend.asarray(there["w"])) is np.ndarray


# --- algorithms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("name", INSTANCES)
def test_an_algorithm_computes_on_cupy_what_it_does_on_numpy(name, kernels):

    def everything():
        algorithm, params, batch = INSTANCES[name](np.random.default_rng(3))
        loss, grads = algorithm.meta_gradient(params, batch)
        calibrated = algorithm.calibrate(params, batch)
        predicted = algorithm.predict(calibrated, batch)
        return {"loss": loss, "grads": grads, "params": calibrated, "predicted": predicted}

    with backend.use_kernels(kernels), backend.use("numpy"):
        wanted = everything()
        with fakecupy.install() as cupy, backend.use("cupy"):
            got = everything()
            assert all(isinstance(leaf, cupy.ndarray) for leaf in tree.flatten(got)[0])
            got = tree.to_numpy(got)
    assert tree.paths(got) == tree.paths(wanted)
    for path, a, b in zip(
        tree.paths(got), tree.flatten(got)[0], tree.flatten(wanted)[0], strict=True
    ):
        b = np.asarray(b)
        np.testing.assert_allclose(
            a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max(initial=1.0), err_msg=path
        )


# --- training, checkpoints, the command line ------------------------------------------------------

WAVES = ["train", "maml", "--data", "sinusoids", "--tasks", "2", "--k-shot", "3", "--n-query", "3"]
WAVES += ["--hidden", "4", "--validation-episodes", "3", "--validate-every", "2"]
GLYPHS = ["train", "prototypical", "--data", "glyphs", "--tasks", "1", "--n-way", "3", "--k-shot"]
GLYPHS += ["1", "--n-query", "1", "--test-way", "3", "--channels", "2", "--validation-episodes"]
GLYPHS += ["2", "--validate-every", "2"]


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with fakecupy.install() as module:
        yield module


def weights(run, name="last"):
    from safetensors.numpy import load_file

    return load_file(f"{run}/{name}.safetensors")


@pytest.mark.parametrize("argv", [WAVES, GLYPHS], ids=["sinusoids", "glyphs"])
def test_a_run_on_cupy(argv, cupy, capsys):
    """Trained, stopped, resumed and evaluated on CuPy: what one run on NumPy gives."""
    on_cupy = ["--backend", "cupy"]
    assert main([*argv, *on_cupy, "--steps", "4", "--out", "whole"]) == 0
    assert main([*argv, *on_cupy, "--steps", "2", "--out", "parts"]) == 0
    assert main(["train", "--resume", "parts", *on_cupy, "--steps", "4"]) == 0
    assert main([*argv, "--backend", "numpy", "--steps", "4", "--out", "host"]) == 0
    whole, parts, host = weights("whole"), weights("parts"), weights("host")
    assert whole.keys() == parts.keys() == host.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)
        np.testing.assert_allclose(whole[name], host[name], rtol=1e-3, atol=1e-5, err_msg=name)
    assert json.loads(Path("whole/config.json").read_text())["backend"] == "cupy"
    results = []
    for name in ("cupy", "numpy"):  # a run of one backend is evaluated on either
        capsys.readouterr()
        assert main(["evaluate", "whole", "--episodes", "4", "--json", "--backend", name]) == 0
        results.append(json.loads(capsys.readouterr().out))
    measure = "mse" if "mse" in results[0] else "accuracy"
    assert results[0][measure] == pytest.approx(results[1][measure], rel=1e-4)


def test_check_on_cupy(cupy, capsys):
    assert main(["check", "softmax", "lstm_cell", "--backend", "cupy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert {row["backend"] for row in found["results"]} == {"cupy"}


def test_a_loss_that_is_not_finite_stops_training_on_cupy(cupy, rng):
    class Diverging:
        def init(self, rng):
            return {"w": backend.asarray(np.ones(2, np.float32))}

        def meta_gradient(self, params, batch):
            return params["w"].sum(), {"w": params["w"] * np.float32(np.inf)}

    settings = training.Training(steps=1)
    with backend.use("cupy"), contextlib.ExitStack() as stack:
        optimizer, state = training.start(Diverging(), settings)
        batch = Episode(*(backend.asarray(np.zeros((1, 1))) for _ in range(4)))
        stack.enter_context(pytest.raises(training.NonFiniteError, match="gradient of w is not"))
        training.step(Diverging(), optimizer, state, batch, settings)
