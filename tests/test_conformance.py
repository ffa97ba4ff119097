"""Published weights in our classes: what is read where the files are, and what measures it."""

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scratchmeta.data.images import ImageDataset
from scratchmeta.run.cli import main
from scratchmeta.run.evaluation import Evaluation
from scratchmeta.verify import author_images, conformance
from scratchmeta.verify import plain_networks as plain

DATA = Path(os.environ.get("SCRATCHMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"
CLAIMS = {(s, c.whose, c.what): c for s, c in conformance.claims()}

with_the_files = pytest.mark.skipif(
    not (DATA / "authors").is_dir() or not (DATA / "omniglot").is_dir(),
    reason=f"no authors and omniglot in {DATA} (set SCRATCHMETA_DATA to the folder with both)",
)

# --- the page -------------------------------------------------------------------------------------


def page():
    """{claim: (theirs, ours, half its interval, agreement)} of the page's table; None: skipped."""
    block = PAGE.read_text(encoding="utf-8").partition("```text\n")[2].partition("```")[0]
    found = {}
    for line in block.splitlines()[1:]:
        *claim, theirs, ours, agreement = re.split(r" {2,}", line)
        value, _, ci95 = ours.removesuffix(" %").removesuffix(" bits").partition(" ± ")
        numbers = (float(value), float(ci95)) if ci95 else (None, None)
        found[tuple(claim)] = theirs, *numbers, float(agreement)
    return found


MEASURED, EPISODES = page(), 600


def test_the_page_has_every_claim_and_no_other():
    assert {c: row[0] for c, row in MEASURED.items()} == {
        name: claim.theirs or "-" for name, claim in CLAIMS.items()
    }


@with_the_files
@pytest.mark.parametrize("name", CLAIMS, ids=" ".join)
def test_our_class_computes_what_theirs_does(name):
    assert CLAIMS[name].agreement(DATA, name[0]) < conformance.TOLERANCE


@with_the_files
@pytest.mark.parametrize("name", [n for n in CLAIMS if MEASURED[n][1] is not None], ids=" ".join)
def test_what_the_page_says_at_few_episodes(name):
    claim, (_, value, ci95, _) = CLAIMS[name], MEASURED[name]
    n = 5 if claim.shape[0] == 20 else 12
    found = claim.measured(DATA, name[0], n)
    scale = 100 if found.measure == "accuracy" else 1
    assert abs(scale * found.value - value) <= 4 / 1.96 * ci95 * (EPISODES / n) ** 0.5
    assert found.episodes == n


# --- without the files ----------------------------------------------------------------------------

NTM = {
    "ntm.read0_bias": (1, 20), "ntm.controller.lstm_h_bias": (1, 1, 100),
    "ntm.controller.lstm_c_bias": (1, 1, 100), "ntm.controller.lstm.weight_ih_l0": (400, 29),
    "ntm.controller.lstm.weight_hh_l0": (400, 100), "ntm.controller.lstm.bias_ih_l0": (400,),
    "ntm.controller.lstm.bias_hh_l0": (400,), "ntm.heads.0.fc_read.weight": (26, 100),
    "ntm.heads.0.fc_read.bias": (26,), "ntm.heads.1.fc_write.weight": (66, 100),
    "ntm.heads.1.fc_write.bias": (66,), "ntm.fc.weight": (8, 120), "ntm.fc.bias": (8,),
    "memory.mem_bias": (128, 20),
}  # fmt: skip
ADDRESS = {"k": 20, "beta": 1, "g": 1, "s": 3, "gamma": 1}
LASAGNE = {
    "h0": (1, 100), "w_x": (9, 100), "b_x": (100,), "w_r": (20, 100), "b_r": (100,),
    "rows": (128, 20), "out": (100, 9), "bout": (9,), "read_w0": (1, 128), "write_w0": (1, 128),
    **{f"{head}_{n}": (100, m) for head in ("read", "write") for n, m in ADDRESS.items()},
    **{f"{head}_b{n}": (m,) for head in ("read", "write") for n, m in ADDRESS.items()},
    "write_e": (100, 20), "write_be": (20,), "write_a": (100, 20), "write_ba": (20,),
}  # fmt: skip
FINN = {
    "w5": (800, 5), "b5": (5,),
    **{f"conv{i}": (3, 3, 3 if i == 1 else 32, 32) for i in range(1, 5)},
    **{f"{name}{i}": (32,) for i in range(1, 5) for name in ("bias", "beta")},
}  # fmt: skip


def blocks(channels=64):
    """Of an embedding, as the library names it."""
    shapes = {}
    for i in range(1, 5):
        shapes[f"block{i}/conv/weight"] = (3, 3, 1 if i == 1 else channels, channels)
        shapes |= {f"block{i}/norm/{k}": (channels,) for k in ("scale", "offset", "mean", "var")}
    return shapes


def sung(layers, last=()):
    """A state dict of convolution blocks {i: channels that it sees}, and of linear layers."""
    shapes = {}
    for i, seen in layers.items():
        shapes[f"layer{i}.0.weight"] = (64, seen, 3, 3)
        shapes |= {f"layer{i}.{k}": (64,) for k in ("0.bias", "1.weight", "1.bias")}
    for i, (seen, out) in enumerate(last, 1):
        shapes |= {f"fc{i}.weight": (out, seen), f"fc{i}.bias": (out,)}
    return shapes


LSTM = {"w_x": (64, 256), "w_h": (64, 256), "b": (256,)}
CONTEXT = {
    **{f"g/{way}/{k}": shape for way in ("forward", "backward") for k, shape in LSTM.items()},
    "f/w_x": (128, 256), "f/w_h": (64, 256), "f/b": (256,),
}  # fmt: skip
DEMO = {
    f"{prefix}{name}": shape
    for prefix in ("", "v_")
    for name, shape in {
        "dense": (96, 3), "bias": (3,),
        **{f"kernel{i}": (3, 3, 1 if i == 1 else 24, 24) for i in range(1, 5)},
        **{f"{k}{i}": (24,) for i in range(1, 5) for k in ("gamma", "beta")},
    }.items()
}  # fmt: skip
MADE_UP = {
    ("prototypical", "oscarknagg/few-shot", "5-way 5-shot"): [blocks()],
    ("matching", "oscarknagg/few-shot", "l2, 20-way 5-shot"): [blocks()],
    ("matching", "oscarknagg/few-shot", "cosine, 5-way 1-shot"): [blocks()],
    ("matching", "oscarknagg/few-shot", "cosine, FCE, 5-way 1-shot"): [blocks() | CONTEXT],
    ("relation", "floodsung", "5-way 5-shot"): [
        sung({1: 1, 2: 64, 3: 64, 4: 64}), sung({1: 128, 2: 64}, [(64, 8), (8, 1)])
    ],
    ("reptile", "openai", "demo, 3-way 1-shot"): [DEMO],
    ("maml", "cbfinn/maml", "mini-ImageNet, 5-way 1-shot"): [FINN],
    ("ntm", "loudinthecloud", "copy 20, seed 1"): [NTM],
    ("ntm-lasagne", "snipsco", "copy 20"): [LASAGNE],
}  # fmt: skip


def drawn_up(name, shape, rng):
    """Numbers of a size that a network lives with; of what cannot be negative, none."""
    if name.endswith("_w0"):  # weights over rows
        return plain.softmax(rng.standard_normal(shape))
    if name.endswith("/var") or name.startswith("v_"):
        return 0.5 + rng.random(shape)
    return rng.standard_normal(shape) / max(1, np.prod(shape[:-1])) ** 0.5


def put(data, system, files, shapes, rng):
    folder = data / "authors" / system
    folder.mkdir(parents=True)
    for name, own in zip(files, shapes, strict=True):
        arrays = {k: drawn_up(k, s, rng) for k, s in own.items()}
        if "f/w_x" in arrays:  # [W_ih; W_hh] of a state h + r
            arrays["f/w_x"][64:] = arrays["f/w_h"]
        np.savez(folder / f"{name}.npz", **arrays)


def noise(data):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 28, 28, 1)).astype(np.uint8)
    return ImageDataset(images, [f"noise/{i}" for i in range(20)])


def test_made_up_weights_are_there_for_every_forward():
    assert {CLAIMS[name].forward for name in MADE_UP} == {c.forward for c in CLAIMS.values()}


@pytest.mark.parametrize("name", MADE_UP, ids=" ".join)
def test_agreement_on_made_up_weights(name, tmp_path, rng):
    """Without data too: our class and their forward are one function of any weights."""
    claim = CLAIMS[name]
    if name[0] not in ("maml", "ntm", "ntm-lasagne"):
        claim = replace(claim, drawn=noise)
    put(tmp_path, name[0], claim.files, MADE_UP[name], rng)
    assert claim.agreement(tmp_path, name[0]) < conformance.TOLERANCE


def test_what_is_not_there_is_said(tmp_path, capsys):
    assert main(["conformance", "relation", "ntm", "--data-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("skipped") == 4 + 16
    assert f"ntm: {tmp_path}/authors/ntm/seed7.npz not found" in text


def test_no_pictures_but_agreement(tmp_path, monkeypatch, rng):
    name = "maml", "cbfinn/maml", "mini-ImageNet, 5-way 1-shot"
    put(tmp_path, "maml", ["weights"], [FINN], rng)
    monkeypatch.setattr(conformance.Claim, "agreement", lambda *_: 1e-14)  # it takes seconds
    row = conformance.row("maml", CLAIMS[name], tmp_path, 2)
    assert row.passed
    assert (row.ours, row.agreement) == (None, 1e-14)
    assert list(row.skipped) == ["ours"]
    assert "test.csv" in row.skipped["ours"]


def test_one_that_does_not_agree_fails(tmp_path, capsys, monkeypatch, rng):
    name = "ntm", "loudinthecloud", "copy 20, seed 1"
    put(tmp_path, "ntm", ["seed1"], [NTM], rng)
    claim = CLAIMS[name]
    wrong = replace(claim, forward=lambda *args: 1.00000001 * claim.forward(*args))
    monkeypatch.setattr(conformance, "claims", lambda name: [("ntm", wrong)])
    assert main(["conformance", "--data-dir", str(tmp_path), "--episodes", "2"]) == 1
    assert "1e-08" in capsys.readouterr().out


def test_an_unknown_system_is_refused(capsys):
    assert main(["conformance", "elsewhere", "--data-dir", "."]) == 2
    assert "system" in capsys.readouterr().err


def test_the_table():
    claim = CLAIMS["ntm", "loudinthecloud", "copy 40, seed 1"]
    other = CLAIMS["relation", "floodsung", "5-way 1-shot"]
    rows = [
        conformance.Row("ntm", claim, Evaluation("bit_errors", 1.5, 0.25, 600, 1, 1), 1e-13),
        conformance.Row("relation", other, Evaluation("accuracy", 0.99, 0.001, 600, 5, 1), 1e-12),
        conformance.Row("relation", other, skipped={"ours": "no file"}),
    ]
    head, *lines, reason = conformance.table(rows).splitlines()
    assert re.split(" {2,}", head) == ["system", "whose weights", "theirs", "ours", "agreement"]
    assert [re.split(" {2,}", line)[3:] for line in lines] == [
        ["-", "1.50 ± 0.25 bits", "1e-13"], ["99.6", "99.00 ± 0.10 %", "1e-12"],
        ["99.6", "skipped", "-"],
    ]  # fmt: skip
    assert reason == "relation: no file"


# --- what it is measured with ---------------------------------------------------------------------


def numerical(f, x, g):
    """⟨g, ∂f/∂x⟩ by central differences."""
    found = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-6
        found[at] = ((f(x + step) - f(x - step)) * g).sum() / 2e-6
    return found


@pytest.mark.parametrize(("stride", "padded", "side"), [(1, True, 5), (2, True, 6), (2, True, 5),
                                                        (1, False, 5)])  # fmt: skip
def test_plain_convolution(stride, padded, side, rng):
    x, w = rng.standard_normal((2, side, side, 3)), rng.standard_normal((3, 3, 3, 2))
    y, back = plain.conv(x, w, stride, padded)
    before = plain.same(side, 3, stride)[0] if padded else 0
    for n, i, j in np.ndindex(y.shape[:3]):  # nested loops over scalars
        total = np.zeros(2)
        for a, b in itertools.product(range(3), range(3)):
            r, c = stride * i + a - before, stride * j + b - before
            if 0 <= r < side and 0 <= c < side:
                total += x[n, r, c] @ w[a, b]
        assert np.allclose(y[n, i, j], total)
    assert y.shape[1] == (-(-side // stride) if padded else side - 2)
    g = rng.standard_normal(y.shape)
    for found, wanted in zip(
        back(g),
        (numerical(lambda x: plain.conv(x, w, stride, padded)[0], x, g),
         numerical(lambda w: plain.conv(x, w, stride, padded)[0], w, g)),
        strict=True,
    ):  # fmt: skip
        assert np.allclose(found, wanted, atol=1e-7)


def test_plain_normalisation_relu_and_pooling(rng):
    x, scale, offset = rng.standard_normal((2, 5, 4, 3)), rng.random(3), rng.standard_normal(3)
    y, back = plain.norm(x, scale, offset, 1e-3)
    flat = x.reshape(-1, 3)
    assert np.allclose(
        y.reshape(-1, 3), scale * (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-3) + offset
    )
    g = rng.standard_normal(y.shape)
    for k, found in enumerate(back(g)):
        args = [x, scale, offset]

        def of(a, k=k, args=args):
            return plain.norm(*args[:k], a, *args[k + 1 :], 1e-3)[0]

        assert np.allclose(found, numerical(of, args[k], g), atol=1e-7)
    for f in plain.relu, plain.pool:
        y, back = f(x)
        g = rng.standard_normal(y.shape)
        assert np.allclose(back(g), numerical(lambda a, f=f: f(a)[0], x, g), atol=1e-7)
    assert plain.pool(x)[0].shape == (2, 2, 2, 3)
    assert plain.pool(x)[0][1, 1, 0, 2] == x[1, 2:4, :2, 2].max()


def test_smoothed_is_a_gaussian_then_a_line_between_two_pixels(rng):
    """One pixel of the result in loops, before it is stretched."""
    ink = 255 * (rng.random((105, 105)) < 0.3)
    found = author_images.smoothed(ink.astype(np.uint8)[..., None])[..., 0]
    assert (found.min(), found.max()) == (0, 255)
    σ = (105 / 28 - 1) / 2
    bell = {d: np.exp(-0.5 * (d / σ) ** 2) for d in range(-6, 7)}

    def blurred(r, c):
        return sum(
            bell[a] * bell[b] * (1 - ink[r + a, c + b] / 255)
            for a in bell for b in bell
            if 0 <= r + a < 105 and 0 <= c + b < 105
        ) / sum(bell.values()) ** 2  # fmt: skip

    def at(i, j):
        (r, dr), (c, dc) = (divmod(3.75 * k + 1.375, 1) for k in (i, j))
        return sum(
            wr * wc * blurred(int(r) + a, int(c) + b)
            for a, wr in ((0, 1 - dr), (1, dr))
            for b, wc in ((0, 1 - dc), (1, dc))
        )

    whole = np.array([[at(i, j) for j in range(28)] for i in range(28)])
    stretched = 255 * (whole - whole.min()) / (whole.max() - whole.min())
    assert np.abs(stretched - found).max() < 0.51
