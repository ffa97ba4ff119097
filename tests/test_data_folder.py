"""One's own pictures: generated drawings, in every order that a folder can have and cannot."""

import contextlib
import json
import os
import shutil
import warnings
from dataclasses import replace

import drawings
import numpy as np
import pytest
from drawings import CLASSES, COUNTS
from PIL import Image

from scratchmeta import episodes, presets
from scratchmeta.data import (
    DataError,
    Folder,
    Pairs,
    Shuffled,
    WithinAlphabet,
    folder,
    pictures,
)
from scratchmeta.run import datasets, experiment
from scratchmeta.run.cli import main
from scratchmeta.run.evaluation import by_instance


@pytest.fixture(scope="session")
def twelve(tmp_path_factory):
    return drawings.folder(tmp_path_factory.mktemp("folder") / "twelve")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCRATCHMETA_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def few(tmp_path):
    """Four classes of 3 to 6 drawings, to be damaged."""
    return drawings.folder(
        tmp_path / "few",
        {name: 3 + k for k, name in enumerate(["round/a", "round/b", *CLASSES[4:6]])},
    )


def files(root, name):
    return sorted((root / name).iterdir())


# --- classes and pictures ---


def test_every_class_has_all_its_pictures(twelve):
    data = Folder(twelve, "all", image_size=20)
    assert data.names == tuple(sorted(CLASSES))
    assert dict(zip(data.names, data.counts.tolist(), strict=True)) == COUNTS
    assert (data.n_classes, data.n_drawings, data.image_shape) == (12, 5, (20, 20, 3))
    for k, name in enumerate(data.names):
        got = data.pixels(np.full(COUNTS[name], k), np.arange(COUNTS[name]))
        for number, file in enumerate(files(twelve, name)):
            with Image.open(file) as picture:
                whole = picture.convert("RGB")
            wanted = np.asarray(whole.resize((20, 20), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(got[number], wanted)


def test_episodes_reach_every_picture_and_no_other_class(twelve):
    """Which picture is drawn is uniform over its own class, however many that has."""
    data = Folder(twelve, "all", image_size=16)
    rng, seen = np.random.default_rng(0), {k: [] for k in range(12)}
    for _ in range(100):
        classes, numbers = data.choose(rng, 2, 4, 5)
        for row, each in zip(classes.ravel(), numbers.reshape(-1, 5), strict=True):
            assert len(set(each.tolist())) == 5
            seen[row] += each.tolist()
    for row, numbers in seen.items():
        count = data.counts[row]
        found = np.bincount(numbers, minlength=count)
        assert len(found) == count
        assert (found > 0).all()
        assert (np.abs(found - len(numbers) / count) < 6 * np.sqrt(len(numbers) / count)).all()
    batch = episodes.sample(data, n_way=5, k_shot=1, n_query=4, tasks=3, seed=7, index=2)
    again = episodes.sample(data, n_way=5, k_shot=1, n_query=4, tasks=3, seed=7, index=2)
    assert batch.query_x.shape == (3, 20, 16, 16, 3)
    np.testing.assert_array_equal(batch.query_x, again.query_x)


def test_turns_as_classes_keep_their_counts(twelve):
    data = Folder(twelve, "all", image_size=16, rotations="classes")
    assert data.n_classes == 48
    classes, numbers = data.choose(np.random.default_rng(0), 300, 5, 5)
    assert (numbers < data.counts[classes // 4][..., None]).all()
    assert numbers.max() > 35


def test_a_class_with_too_few_pictures_is_named(twelve):
    message = (
        r"at most the 5 drawings .*Folder\(12 classes × 5 \(of round/a\) to 40 drawings, 16×16×3"
    )
    with pytest.raises(ValueError, match=message):
        episodes.sample(Folder(twelve, "all", image_size=16), n_way=2, k_shot=1, n_query=5)


@pytest.mark.parametrize("rotations", ["none", "classes"])
def test_pairs_are_of_one_folder_and_of_any_pictures(twelve, rotations):
    data = Folder(twelve, "all", image_size=16, rotations=rotations)
    found = {}
    data.gather = lambda classes, numbers, rng: found.update(c=classes, n=numbers[..., 0]) or data_x
    data_x = np.zeros((3000, 2, 1, 16, 16, 3), np.uint8)
    _, y = Pairs(data).draw(np.random.default_rng(0), 1500, 2, 2)
    classes, numbers = found["c"], found["n"]
    np.testing.assert_array_equal(y.reshape(3000, 2), classes)
    assert (numbers < data.count(classes)).all()
    same = classes[:, 0] == classes[:, 1]
    assert same.sum() == 1500
    assert (numbers[same][:, 0] != numbers[same][:, 1]).all()
    assert numbers[same].max() == numbers[~same].max() == 39
    characters = classes // 4 if rotations == "classes" else classes
    kinds = np.array([name.split("/")[0] for name in data.names])[characters]
    assert (kinds[:, 0] == kinds[:, 1]).all()


def test_tasks_within_one_folder_draw_any_pictures(twelve):
    data = Folder(twelve, "all", image_size=16)
    tasks = WithinAlphabet(data)
    assert (tasks.n_classes, tasks.n_drawings) == (4, 5)
    asked = []
    gather = data.gather
    data.gather = lambda classes, numbers, rng: (
        asked.append((classes, numbers)) or gather(classes, numbers, rng)
    )
    x, _ = tasks.draw(np.random.default_rng(0), 300, 3, 2)
    ((classes, numbers),) = asked
    assert x.shape == (300, 3, 2, 16, 16, 3)
    assert (classes // 4 == classes[:, :1] // 4).all()  # sorted by name, four of a kind
    assert (numbers < data.counts[classes][..., None]).all()
    assert numbers.max() == 39
    assert (numbers[..., 0] != numbers[..., 1]).all()


def test_classes_side_by_side_are_alike(few):
    data = Folder(few / "round", "all", image_size=16)
    assert [a.tolist() for a in data.alphabets] == [[0, 1]]
    (few / "round" / "b").rename(few / "b")
    shutil.rmtree(few / "square" / "b")
    with pytest.raises(
        ValueError, match=r"Pairs: an alphabet of two characters wanted, got Folder"
    ):
        Pairs(Folder(few, "all", image_size=16))


# --- who is in which split ---


def test_splits_are_drawn_by_shares_and_seed(twelve):
    def names(split, **options):
        return Folder(twelve, split, image_size=16, **options).names

    parts = [names(split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert sorted(sum(parts, ())) == sorted(CLASSES)
    assert names("test") == parts[2]
    assert any(names("test", split_seed=seed) != parts[2] for seed in (1, 2))
    assert [len(names(s, shares=(10, 1, 1))) for s in ("train", "val", "test")] == [10, 1, 1]
    assert [len(names(s, shares=(98, 1, 1))) for s in ("train", "val", "test")] == [10, 1, 1]
    with pytest.raises(
        DataError, match=r"twelve: classes for training, .* got 12 classes in shares"
    ):
        names("train", shares=(1, 98, 1))


def test_each_split_shows_its_own_pictures(twelve):
    every = Folder(twelve, "all", image_size=16)
    for split in ("train", "val", "test"):
        part = Folder(twelve, split, image_size=16)
        for k, name in enumerate(part.names):
            row = every.names.index(name)
            numbers = np.arange(COUNTS[name])
            np.testing.assert_array_equal(part.pixels(k, numbers), every.pixels(row, numbers))


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_splits_by_sub_folders(twelve, tmp_path, validation):
    root = tmp_path / "sorted"
    for split, kind in {"train": "round", validation: "square", "test": "lines"}.items():
        shutil.copytree(twelve / kind, root / split / "deeper" / kind)
    for split, kind in {"train": "round", "val": "square", "test": "lines"}.items():
        data = Folder(root, split, image_size=16)
        assert data.names == tuple(f"deeper/{kind}/{letter}" for letter in "abcd")
        assert data.counts.tolist() == [COUNTS[f"{kind}/{letter}"] for letter in "abcd"]
    assert Folder(root, "all", image_size=16).n_classes == 12


def test_splits_by_a_list(few):
    lines = ["round/b,test", "round/a,train", "square/a,validation", "square/b,train"]
    (few / "splits.csv").write_text("class,split\n" + "\n".join(lines) + "\n")
    assert Folder(few, "train", image_size=16).names == ("round/a", "square/b")
    assert Folder(few, "val", image_size=16).names == ("square/a",)
    assert Folder(few, "test", image_size=16).names == ("round/b",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"splits\.csv: columns class,split wanted, got ''"),
        (["class"], r"splits\.csv: columns class,split wanted, got 'class'"),
        (
            ["class,split", "round/a"],
            r"line 2: a class and one of train, val, test wanted, got 'rou",
        ),
        (["class,split", "round/a,dev"], r"line 2: .* wanted, got 'round/a,dev'"),
        (["class,split", "round/a,train", "round/a,test"], r"line 3: 'round/a' is listed twice"),
        (["class,split", "round/z,train"], r"line 2: .*few/round/z has no pictures"),
        (
            ["class,split", "round/a,train"],
            r"splits\.csv: every class wanted, got none of 'round/b'",
        ),
        (
            ["class,split", *(f"{name},train" for name in ("round/a", "round/b", *CLASSES[4:6]))],
            r"splits\.csv: classes for each of train, val, test wanted, got none for val",
        ),
        (
            ["class,split", "x" * 140_000],
            r"splits\.csv: lines class,split wanted, got field larger",
        ),
    ],
)
def test_a_list_that_cannot_be_is_named(few, lines, message):
    (few / "splits.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        Folder(few, image_size=16)


def test_a_list_of_another_encoding_is_named(few):
    (few / "splits.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match=r"splits\.csv: lines class,split wanted, got 'utf-8'"):
        Folder(few, image_size=16)


def test_splits_by_some_of_the_sub_folders_are_refused(few):
    (few / "round").rename(few / "train")
    with pytest.raises(DataError, match=r"few: sub-folders train, val, test and no others wanted"):
        Folder(few, image_size=16)
    (few / "square" / "a").rename(few / "val")
    (few / "square" / "b").rename(few / "square" / "z")
    (few / "square").rename(few / "test")
    with pytest.raises(DataError, match=r"few/val: a sub-folder for each class wanted, got pict"):
        Folder(few, image_size=16)


def test_a_class_in_two_splits_is_refused(few):
    for split, old in {"train": "round/a", "val": "round/b", "test": "square/b"}.items():
        (few / split).mkdir()
        (few / old).rename(few / split / "a" if split != "val" else few / split / "b")
    shutil.rmtree(few / "round")
    shutil.rmtree(few / "square")
    with pytest.raises(
        DataError, match=r"few/train/a: other classes .* got 'a' as in .*few/test/a"
    ):
        Folder(few, image_size=16)


# --- what a picture becomes ---


def save(root, picture, name="00.png", **options):
    picture.save(root / "round" / "a" / name, **options)


def first(root, **options):
    """The first picture of round/a."""
    return Folder(root, "all", image_size=16, **options).pixels(0, 0)


def test_gray_and_inverted(few):
    colour, gray = first(few), first(few, channels=1)
    assert gray.shape == (16, 16, 1)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - colour @ weights).max() < 3
    np.testing.assert_array_equal(first(few, channels=1, invert=True), 255 - gray)
    np.testing.assert_array_equal(first(few, invert=True), 255 - colour)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_kind_of_pixel(few, mode):
    """A black square on white is what it is however it is stored; where it can be, on nothing."""
    ink = np.zeros((32, 32), bool)
    ink[8:24, 8:24] = True
    white = Image.fromarray(np.where(ink, 0, 255).astype(np.uint8))
    transparent = Image.fromarray(np.stack([np.zeros((32, 32)), 255 * ink], -1).astype(np.uint8))
    name = "00.png"
    if mode == "I;16":
        picture = Image.fromarray(np.where(ink, 255, 65535).astype(np.uint16))
    elif mode in ("LA", "RGBA"):
        picture = transparent.convert(mode)
    else:
        picture, name = white.convert(mode), "00.tif"
    picture.save(few / name)
    got = pictures.read(few / name, 16, 3)
    assert got.shape == (16, 16, 3)
    assert (got[5:11, 5:11] < 2).all()
    assert (got[:3] > 253).all()


def test_numbers_that_are_no_brightness_are_refused(few):
    save(few, Image.fromarray(np.ones((8, 8), np.float32)), "00.tif")
    with pytest.raises(DataError, match=r"00\.tif: .*pixels of 8 or 16 bits wanted, got 'F'"):
        first(few)


def test_photographs_are_turned_as_their_camera_says(few):
    picture = Image.fromarray(np.repeat([[0, 255]], 16, 0).astype(np.uint8)).resize((32, 32))
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise is to be made
    save(few, picture, "00.jpg", exif=exif, quality=95)
    (few / "round" / "a" / "00.png").unlink()
    got = first(few, channels=1)[..., 0]
    assert (got[:4] < 20).all()
    assert (got[-4:] > 235).all()


def test_a_large_photograph_is_read_small(few):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (5, 4, 3)).astype(np.uint8)).resize((1600, 2000))
    save(few, picture, "00.jpg", quality=95)
    (few / "round" / "a" / "00.png").unlink()
    wanted = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR), int)
    assert np.abs(first(few) - wanted).max() < 6


@pytest.mark.parametrize("name", pictures.RESAMPLINGS)
def test_pictures_are_brought_to_their_size_by_name(few, name):
    file = few / "round" / "a" / "00.png"
    with Image.open(file) as opened:
        whole = opened.convert("RGB")
    wanted = whole.resize((16, 16), Image.Resampling[pictures.RESAMPLINGS[name]])
    np.testing.assert_array_equal(pictures.read(file, 16, 3, False, name), np.asarray(wanted))


def test_every_data_set_of_images_names_its_resampling():
    for name in datasets.NAMES:
        if issubclass(made := datasets.find(name), datasets.Images):
            assert made().resampling in pictures.RESAMPLINGS


# --- the cache ---


def test_pictures_are_decoded_once(few, monkeypatch, cache):
    before = Folder(few, "all", image_size=16)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read", None)
        for split in ("train", "val", "test"):
            assert not Folder(few, split, image_size=16).images.flags.writeable
        Folder(few, "all", image_size=16, split_seed=3)
    assert len(list(cache.iterdir())) == 1
    black = Image.new("RGB", (9, 9))
    save(few, black)
    assert first(few).max() == 0  # a changed picture is read anew
    save(few, black, "zz.png")
    assert Folder(few, "all", image_size=16).counts[0] == before.counts[0] + 1
    assert len(list(cache.iterdir())) == 1


# --- what is wrong is named ---


def test_other_files_are_passed_over_with_a_warning(few):
    (few / "round" / "a" / "notes.txt").write_text("drawn in spring")
    (few / "round" / "a" / ".DS_Store").write_text("?")
    (few / "round" / "a" / "00.eps").write_text("%!PS a program")
    with pytest.warns(UserWarning, match=r"few: 2 files are passed over.*first round/a/00\.eps"):
        data = Folder(few, "all", image_size=16)
    assert data.counts[0] == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: shutil.rmtree(a.parent.parent), r"few: no such folder"),
        (lambda a: (a / "00.png").write_bytes(b""), r"round/a/00\.png: damaged, or no picture"),
        (lambda a: (a / "00.png").write_text("hello"), r"round/a/00\.png: damaged, or no picture"),
        (
            lambda a: (a / "00.png").write_text("%!PS-Adobe-3.0 EPSF-3.0"),
            r"00\.png: damaged, or no",
        ),
        (
            lambda a: (a / "00.png").write_bytes((a / "00.png").read_bytes()[:60]),
            r"00\.png: damaged",
        ),
        (
            lambda a: (a / "01.jpg").write_bytes((a / "01.jpg").read_bytes()[:700]),
            r"01\.jpg: damaged",
        ),
        (
            lambda a: (a / "x").mkdir(),
            r"round/a: either pictures .* or folders wanted, got both: 00",
        ),
        (lambda a: (a.parent / "x").mkdir(), r"round/x: no pictures in it"),
        (
            lambda a: shutil.copy(a / "00.png", a.parent.parent / "x.png"),
            r"few: either pictures .* or folders wanted, got both: x\.png",
        ),
        (lambda a: (a.parent / "x").symlink_to(a), r"round/x: a folder wanted, got a link to one"),
        (
            lambda a: (a / "x.png").symlink_to(a / "none.png"),
            r"a/x\.png: not readable \(No such file",
        ),
        (lambda a: os.mkfifo(a / "x.png"), r"a/x\.png: a regular file wanted, got prw"),
    ],
)
def test_what_is_wrong_is_named(few, damage, message, cache):
    damage(few / "round" / "a")
    with pytest.raises(DataError, match=message):
        Folder(few, image_size=16)
    assert not cache.exists() or not list(cache.iterdir())


def test_pictures_without_folders_are_named(few):
    with pytest.raises(DataError, match=r"round/a: a sub-folder for each class wanted, got pict"):
        Folder(few / "round" / "a", image_size=16)


def test_a_picture_of_too_many_pixels_or_bytes(few, monkeypatch):
    save(few, Image.new("1", (20_000, 20_000)))  # a few thousand bytes, and 400 million pixels
    with pytest.raises(DataError, match=r"00\.png: .*decompression bomb"):
        first(few)
    save(few, Image.new("1", (8200, 8200)))
    with pytest.raises(
        DataError, match=r"00\.png: at most 67108864 pixels wanted, got 8200 × 8200"
    ):
        first(few)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"00\.png: at most 1000 bytes wanted"):
        first(few)


def test_no_byte_of_a_picture_can_be_changed_into_another_kind_of_error(few):
    """Bytes inverted, in files of every format: a picture, or DataError and nothing else."""
    rng = np.random.default_rng(0)
    kinds = {
        "png": {},
        "jpg": {},
        "gif": {},
        "webp": {},
        "bmp": {},
        "tif": {},
        "ico": {},
        "tga": {},
    }
    for ending in kinds:
        file = few / f"x.{ending}"
        drawings.draw("round/a", 1).resize((12, 12)).save(file)
        whole = file.read_bytes()
        for place in {*range(60), *rng.integers(0, len(whole), 60).tolist()} & {*range(len(whole))}:
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with warnings.catch_warnings(), contextlib.suppress(DataError):
                warnings.simplefilter("ignore")  # Pillow's own, of odd metadata
                assert pictures.read(file, 8, 3).shape == (8, 8, 3)


def test_wrong_arguments_are_named(few):
    for options, message in [
        ({"split": "dev"}, "split: one of train, val, test, all wanted, got 'dev'"),
        ({"image_size": 0}, "image_size: at least 1 wanted, got 0"),
        ({"channels": 2}, r"channels: 1 \(gray\) or 3 \(RGB\) wanted, got 2"),
        ({"shares": (1, 1)}, r"shares: three positive numbers wanted, got \(1, 1\)"),
        ({"shares": (1, 0, 1)}, r"shares: three positive numbers wanted, got \(1, 0, 1\)"),
        ({"rotations": "tilted"}, "rotations: one of none, "),
    ]:
        with pytest.raises(ValueError, match=message):
            Folder(few, **options)


# --- the command line -----------------------------------------------------------------------------

SMALL = ["--channels", "4", "--steps", "2", "--validate-every", "2", "--validation-episodes", "3"]


@pytest.mark.parametrize("name", ["prototypical", "maml", "siamese", "mann"])
def test_trained_and_evaluated_in_commands_of_one_line(twelve, tmp_path, capsys, name):
    """On as many classes and pictures as there are, without an option that says so."""
    small = SMALL if name != "mann" else [*SMALL[2:], "--controller", "4", "--rows", "4"]
    out = str(tmp_path / "run")
    argv = ["train", name, "--data", "folder", "--data-dir", str(twelve), "--out", out, *small]
    assert main(argv) == 0
    capsys.readouterr()
    assert main(["evaluate", out, "--episodes", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_way"], found["k_shot"]) == (3, 1)
    assert 0 <= found["accuracy"] <= 1
    assert main(["evaluate", out, "--episodes", "5", "--k-shot", "40"]) == 2
    assert "drawings a class has in Folder(3 classes × " in capsys.readouterr().err


def test_instances_are_as_many_as_a_class_has(few):
    class Right:
        def instance_accuracy(self, params, batch):
            return [1.0] * (1 + batch.query_y.shape[1] // 2)

    sequences = Shuffled(Folder(few, "all", image_size=16))
    assert by_instance(Right(), None, sequences, n_way=2, episodes=1) == [1.0] * 3


def test_options_of_a_folder_arrive(twelve):
    options = {"image_size": 16, "image_channels": 1, "invert": True, "shares": (2, 1, 1)}
    config = presets.lookup("prototypical", "folder")
    assert config.training == replace(
        presets.lookup("prototypical", "glyphs").training,
        n_way=3, n_query=4, test_way=3, test_query=4,
    )  # fmt: skip
    config = replace(
        config, dataset=replace(config.dataset, **options, split_seed=4, rotations="classes")
    )
    assert presets.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    found = experiment.splits(config, twelve)
    for part, split, turns in zip(
        found, ("train", "val", "test"), ("classes", "none", "none"), strict=True
    ):
        wanted = Folder(twelve, split, 16, 1, True, (2, 1, 1), 4, turns)
        assert (part.names, part.n_classes) == (wanted.names, wanted.n_classes)
        np.testing.assert_array_equal(part.pixels(0, [0, 1]), wanted.pixels(0, [0, 1]))
    assert experiment.network(config).layers[0][1].n_in == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "folder: where is it? --data-dir DIR names it, with a sub-folder a class"),
        (["--data-dir", "{few}"], "n_way: at most the 2 classes of Folder(2 classes × "),
        (["--data-dir", "{few}", "--image-channels", "2"], "2"),
    ],
)
def test_what_the_command_line_refuses(few, tmp_path, capsys, argv, message):
    argv = [argument.format(few=few) for argument in argv]
    assert main(["train", "prototypical", "--data", "folder", "--out", "run", *argv]) == 2
    assert message in capsys.readouterr().err


def test_an_algorithm_that_wants_what_pictures_have_not_says_so(twelve, capsys):
    argv = ["train", "prototypical-zero-shot", "--data", "folder", "--data-dir", str(twelve)]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "data: folder has no n_attributes, which Conv4WithAttributes wants" in error
