"""Runs on what they were not trained with: pictures in files, and other data sets."""

import gzip
import json
import shutil
import struct
from pathlib import Path

import drawings
import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_cli import refused as refused_at_once

import scratchmeta as sm
from scratchmeta.data import glyphs as generator
from scratchmeta.data import pictures
from scratchmeta.run.cli import main

LOOP = ["--steps", "2", "--validate-every", "2", "--validation-episodes", "2"]
SMALL = ["--channels", "2", "--n-way", "3", "--n-query", "2", "--test-query", "2", *LOOP]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Twelve classes of 5 to 40 coloured drawings."""
    return drawings.folder(tmp_path_factory.mktemp("twelve"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """With an alphabet in each split, of glyphs that are soon drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)
    alphabets = {"train": range(1), "val": range(30, 31), "test": range(35, 36)}
    monkeypatch.setattr(generator, "SPLITS", alphabets)


def few(twelve, n=2, classes=("lines/a", "round/b", "square/c")):
    """A folder `support` with the first n pictures of some classes, and `new` with the next two."""
    for name in classes:
        Path("support", name).mkdir(parents=True)
        Path("new").mkdir(exist_ok=True)
        found = sorted(Path(twelve, name).iterdir())
        for file in found[:n]:
            shutil.copy(file, Path("support", name))
        for file in found[n : n + 2]:
            shutil.copy(file, Path("new", f"{name.replace('/', '-')}-{file.name}"))


def on_glyphs(name="prototypical", *options):
    argv = ["train", name, "--image-size", "16", *options]
    assert main([*argv, *(SMALL if name not in ("mann",) else SMALL[2:]), "--out", name]) == 0


def said(capsys, *argv):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *argv):
    """The one line that says what is wrong with a command."""
    capsys.readouterr()
    return refused_at_once(capsys, *argv)


# --- one's own pictures, from training to prediction ----------------------------------------------


def test_twelve_classes_of_drawings_in_commands_of_one_line(twelve, capsys):
    train = ["train", "prototypical", "--data", "folder", "--data-dir", str(twelve), "--out", "run"]
    assert main([*train, "--image-size", "16", *SMALL]) == 0
    few(twelve)
    shutil.rmtree("cache")  # a machine that has nothing but the run
    config = json.loads(Path("run/config.json").read_text())
    config["data_dir"] = "nowhere"
    Path("run/config.json").write_text(json.dumps(config))
    capsys.readouterr()
    asked = ["predict", "run", "--support", "support", "--query", "new"]
    assert main([*asked, "--picture", "seen.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prototypical, 3 classes of 6 pictures"
    assert lines[1] == "pictures are read as in folder: colour, 16 × 16, brightness as it is"
    assert lines[2].startswith("batch-norm is transductive")
    assert len(lines[3:-1]) == 6
    with Image.open("seen.png") as picture:
        assert min(picture.size) > 150
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50

    found = said(capsys, *asked)
    assert list(found) == ["predictions"]
    run = sm.load("run")
    support = sorted(p for p in Path("support").rglob("*") if p.is_file())
    names = ["lines/a", "round/b", "square/c"]
    assert [p.parent.relative_to("support").as_posix() for p in support] == sorted(2 * names)
    x, q = (
        np.stack([pictures.read(p, 16, 3) for p in paths])
        for paths in (support, sorted(Path("new").iterdir()))
    )
    p = np.exp(run.predict(x, np.repeat(np.arange(3), 2), q))
    for one, file, row in zip(found["predictions"], sorted(Path("new").iterdir()), p, strict=True):
        assert list(one) == ["file", "class", "probability", "probabilities"]
        assert one["file"] == str(file)
        assert list(one["probabilities"]) == names
        np.testing.assert_allclose(list(one["probabilities"].values()), row, rtol=1e-5)
        assert one["class"] == names[row.argmax()]
        assert one["probability"] == one["probabilities"][one["class"]]
    for line, one in zip(lines[3:-1], found["predictions"], strict=True):
        assert line.split()[0] == one["file"]
        assert line.split()[-1] == one["class"]
        assert f"{100 * one['probability']:.2f} %" in line


def test_the_pictures_of_a_class_are_recognised(capsys, tmp_path):
    """Twins of the support in black on white: a network that has hardly been trained will do."""
    on_glyphs()
    x = sm.episodes.sample(sm.data.Glyphs("test", image_size=64), 4, 1, 1, seed=3).support_x[0]
    for k, image in enumerate(x[..., 0]):
        paper = 255 - np.rint(255 * image).astype(np.uint8)
        Path("support", f"k{k}").mkdir(parents=True)
        Path("new").mkdir(exist_ok=True)
        Image.fromarray(paper).save(f"support/k{k}/one.png")
        Image.fromarray(paper).convert("RGB").save(f"new/{k}.webp", lossless=True)
    found = said(capsys, "predict", "prototypical", "--support", "support", "--query", "new")
    assert [p["class"] for p in found["predictions"]] == ["k0", "k1", "k2", "k3"]


@pytest.mark.parametrize("name", ["maml", "reptile", "mann", "baseline-nn", "metanet", "matching"])
def test_any_algorithm_that_classifies_predicts(name, twelve, capsys):
    options = []
    if name == "baseline-nn":
        options = ["--classes", str(sm.data.Glyphs("train", image_size=16).n_classes)]
    if name == "mann":
        options = ["--controller", "4", "--rows", "4", "--width", "2", "--heads", "1"]
    on_glyphs(name, *options)
    few(twelve)
    found = said(capsys, "predict", name, "--support", "support", "--query", "new")
    for one in found["predictions"]:
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    shutil.rmtree("support/round")
    error = refused(capsys, "predict", name, "--support", "support", "--query", "new") if (
        name not in ("baseline-nn", "matching")
    ) else "3 classes, got 2"  # fmt: skip
    assert "3 classes, got 2" in error or "classes of training, got 2" in error


# --- how pictures are read ------------------------------------------------------------------------


def stroke(path, ink, paper):
    """A thick diagonal line with a bar."""
    picture = Image.new("L", (40, 40), paper)
    ImageDraw.Draw(picture).line((4, 4, 35, 35), fill=ink, width=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.mark.filterwarnings("default")
def test_drawings_are_made_what_drawings_were_in_training(capsys, monkeypatch):
    on_glyphs()
    stroke(Path("dark.png"), 0, 255)
    stroke(Path("bright.png"), 255, 0)
    seen = []
    monkeypatch.setattr(sm.run.saved.Saved, "embed", lambda run, x: seen.append(x) or x[:, 0, 0])
    out = ["--out", "x.npz"]
    assert main(["features", "prototypical", "dark.png", *out]) == 0
    shown = capsys.readouterr()
    assert "as in glyphs: gray, 16 × 16, dark ink on white made 1 on 0" in shown.out
    assert "warning" not in shown.err
    assert main(["features", "prototypical", "bright.png", "--ink", "bright", *out]) == 0
    assert "brightness as it is" in capsys.readouterr().out
    np.testing.assert_array_equal(seen[0], seen[1])
    assert np.median(seen[0]) == 0
    assert seen[0].max() > 200
    for file, ink, other in (("bright.png", "dark", "bright"), ("dark.png", "bright", "dark")):
        assert main(["features", "prototypical", file, "--ink", ink, *out]) == 0
        error = capsys.readouterr().err
        assert f"warning: {file}: looks like {other} ink" in error
        assert f"--ink {other} says so" in error


def test_photographs_are_read_as_photographs_were(twelve, capsys, monkeypatch):
    run = ["train", "prototypical", "--data", "folder", "--data-dir", str(twelve)]
    assert main([*run, "--image-size", "16", *SMALL, "--out", "run"]) == 0
    file = str(next(iter((twelve / "round" / "a").iterdir())))
    capsys.readouterr()
    assert "ink: goes with runs on drawings" in refused(
        capsys, "features", "run", file, "--ink", "dark", "--out", "x.npz"
    )
    from scratchmeta.run.datasets.mini_imagenet import MiniImageNet

    a, b = (pictures.read(file, 16, 3, False, how) for how in ("lanczos", "antialiased"))
    assert not np.array_equal(a, b)
    assert (MiniImageNet.resampling, MiniImageNet().ink) == ("lanczos", False)
    Image.fromarray(a).save("same.png")
    np.testing.assert_array_equal(pictures.read("same.png", 16, 3, False, "lanczos"), a)


def test_features_are_written_with_their_files(twelve, capsys):
    on_glyphs("prototypical", "--batch-norm", "running")
    few(twelve)
    assert main(["features", "prototypical", "new", "--out", "x.npz"]) == 0
    with np.load("x.npz") as found:
        assert set(found) == {"files", "features"}
        files, features = found["files"].tolist(), found["features"]
    assert files == [str(p) for p in sorted(Path("new").iterdir())]
    x = np.stack([pictures.read(file, 16, 1, invert=True) for file in files])
    np.testing.assert_allclose(features, sm.load("prototypical").embed(x), rtol=1e-6)
    on_glyphs("maml")
    assert "maml has no embedding" in refused(capsys, "features", "maml", "new", "--out", "x.npz")


def test_what_cannot_be_predicted_says_so(twelve, capsys):
    on_glyphs()
    few(twelve)
    asked = ["predict", "prototypical", "--support"]
    (Path("one") / "a").mkdir(parents=True)
    shutil.copy(next(iter(Path("new").iterdir())), "one/a")
    Path("empty").mkdir()
    Path("text.png").write_text("no picture")
    for argv, message in [
        (["one", "--query", "new"], "one: sub-folders with the pictures of two classes wanted"),
        (["nowhere", "--query", "new"], "nowhere: no such folder"),
        (["support", "--query", "empty"], "empty: no pictures in it"),
        (["support", "--query", "text.png"], "text.png: damaged, or no picture"),
        (["support", "--query", "gone.png"], "gone.png: not readable"),
    ]:
        assert message in refused(capsys, *asked, *argv)
    unequal = [*asked, "support", "--query", "new"]
    next(iter(Path("support/round/b").iterdir())).unlink()
    assert len(said(capsys, *unequal)["predictions"]) == 6
    waves = ["train", "maml", "--data", "sinusoids", "--hidden", "3", *LOOP, "--out", "waves"]
    assert main(waves) == 0
    capsys.readouterr()
    error = refused(capsys, "predict", "waves", "--support", "support", "--query", "new")
    assert error == "predict: wanted a run on images of classes, got sinusoids"
    zero = ["train", "prototypical-zero-shot", "--image-size", "16", *SMALL, "--out", "zero"]
    assert main(zero) == 0
    capsys.readouterr()
    error = refused(capsys, "predict", "zero", "--support", "support", "--query", "new")
    assert "described by attributes, not shown by pictures" in error


# --- another data set -----------------------------------------------------------------------------


def mnist(root):
    """Thirty digits that are none, three of each."""
    root.mkdir()
    labels = np.tile(np.arange(10, dtype=np.uint8), 3)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28)).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        with gzip.open(root / f"t10k-{name}-ubyte.gz", "wb") as file:
            file.write(head + array.tobytes())


def test_a_run_is_tested_on_another_data_set(twelve, capsys, monkeypatch):
    on_glyphs()
    run, shape = sm.load("prototypical"), {"n_way": 5, "k_shot": 1, "n_query": 2, "episodes": 4}
    mnist(Path("data"))
    asked = ["evaluate", "prototypical", "--n-way", "5", "--episodes", "4", "--data"]
    for argv, other in [
        (["mnist", "--data-dir", "data"], sm.data.MNIST("data", "test", 16)),
        (["folder", "--data-dir", twelve], sm.data.Folder(twelve, "all", 16, 1, True)),
        (["folder", "--data-dir", twelve, "--ink", "bright"],
         sm.data.Folder(twelve, "all", 16, 1, False)),
        (["glyphs"], sm.data.Glyphs("test", image_size=16)),
    ]:  # fmt: skip
        wanted = sm.evaluate(run.algorithm, run.params, other, **shape)
        assert said(capsys, *asked, *argv)["accuracy"] == wanted.value
    monkeypatch.setenv("SCRATCHMETA_DATA", ".")
    Path("data").rename("mnist")
    assert main([*asked, "mnist"]) == 0
    assert "prototypical on glyphs, tested on mnist, 5-way 1-shot" in capsys.readouterr().out
    error = refused(capsys, *asked[:2], "--ink", "bright")
    assert error == "--ink and --convert go with --data of another data set"


def test_a_run_on_a_folder_is_tested_on_all_of_another(twelve, capsys, tmp_path):
    train = ["train", "prototypical", "--data", "folder", "--data-dir", str(twelve), "--out", "run"]
    assert main([*train, "--image-size", "16", *SMALL]) == 0
    few(twelve, n=5)
    asked = ["evaluate", "run", "--episodes", "3", "--data", "folder"]
    for folder, split in ((twelve, "test"), (tmp_path / "support", "all")):
        run, other = sm.load("run"), sm.data.Folder(folder, split, 16)
        wanted = sm.evaluate(run.algorithm, run.params, other, 3, 1, 2, episodes=3)
        assert said(capsys, *asked, "--data-dir", folder)["accuracy"] == wanted.value


def test_what_does_not_fit_is_named_or_converted(twelve, capsys):
    train = ["train", "prototypical", "--data", "folder", "--data-dir", str(twelve), "--out", "run"]
    assert main([*train, "--image-size", "16", *SMALL]) == 0
    asked = ["evaluate", "run", "--episodes", "3", "--data"]
    capsys.readouterr()
    error = refused(capsys, *asked, "glyphs")
    assert error == (
        "data: wanted colour images as in folder, got gray of glyphs; --convert converts them"
    )
    run, gray = sm.load("run"), sm.data.Glyphs("test", image_size=16)
    other = sm.data.InChannels(gray, 3)
    wanted = sm.evaluate(run.algorithm, run.params, other, 3, 1, 2, episodes=3)
    assert said(capsys, *asked, "glyphs", "--convert")["accuracy"] == wanted.value
    for name, message in [
        ("sinusoids", "data: wanted classes of examples as in folder, got sinusoids"),
        ("copy", "data: wanted classes of examples as in folder, got copy"),
        ("cub", "data: wanted examples of 16 × 16 × 3 as in folder, got 1024 of cub"),
        ("nothing", "unknown data 'nothing'"),
    ]:
        assert message in refused(capsys, *asked, name)


def test_channels_are_converted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, 5, 5, 3)).astype(np.uint8)
    colour = sm.data.ImageDataset(pixels, [f"a/{i}" for i in range(4)])
    (x, y), (gray, same) = (
        data.draw(np.random.default_rng(1), 2, 3, 2)
        for data in (colour, sm.data.InChannels(colour, 1))
    )
    assert gray.shape == (2, 3, 2, 5, 5, 1)
    np.testing.assert_array_equal(y, same)
    for place in np.ndindex(*x.shape[:-1]):
        r, g, b = x[place].astype(float)
        assert gray[place][0] == round(0.299 * r + 0.587 * g + 0.114 * b)
    plain = sm.data.ImageDataset(pixels[..., :1], colour.names)
    three = sm.data.InChannels(plain, 3).draw(np.random.default_rng(1), 2, 3, 2)[0]
    one = plain.draw(np.random.default_rng(1), 2, 3, 2)[0]
    assert all(np.array_equal(three[..., c], one[..., 0]) for c in range(3))
    with pytest.raises(ValueError, match="channels: 1 "):
        sm.data.InChannels(plain, 2)
