"""mini-ImageNet: generated lists and photographs in Ravi's layout."""

import os

import numpy as np
import pytest
from PIL import Image

from scratchmeta import episodes, presets
from scratchmeta.data import DataError, MiniImageNet, mini_imagenet
from scratchmeta.run import experiment

COUNTS = {"train": 3, "val": 2, "test": 2}
SHOTS = 4
NAME = "n0train100000002.jpg"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """Photographs of several sizes, and the lists in an order that is not the labels'."""
    root = tmp_path / "mini"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        lines = ["filename,label"]
        for k in reversed(range(classes)):
            for shot in range(SHOTS):
                name = f"n0{split}{k}0000000{shot}.jpg"
                size = (int(rng.integers(30, 90)), int(rng.integers(30, 90)))
                colours = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
                Image.fromarray(colours).resize(size).save(root / "images" / name)
                lines.append(f"{name},n0{split}{k}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def lines(root, split="train"):
    return (root / f"{split}.csv").read_text().splitlines()


def write(root, rows, split="train"):
    (root / f"{split}.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("split", COUNTS)
def test_a_split_has_its_classes_and_their_photographs(root, split):
    dataset = MiniImageNet(root, split)
    assert dataset.names == tuple(f"n0{split}{k}" for k in range(COUNTS[split]))
    assert (dataset.n_classes, dataset.n_drawings) == (COUNTS[split], SHOTS)
    assert dataset.image_shape == (84, 84, 3)
    for k, name in enumerate(dataset.names):
        for shot in range(SHOTS):
            photograph = Image.open(root / "images" / f"{name}0000000{shot}.jpg")
            wanted = photograph.resize((84, 84), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(dataset.images[k, shot], np.asarray(wanted))


def test_episodes_are_drawn_from_it(root):
    dataset = MiniImageNet(root, image_size=16)
    episode = episodes.sample(dataset, n_way=3, k_shot=1, n_query=3, tasks=2)
    assert episode.support_x.shape == (2, 3, 16, 16, 3)
    assert episode.query_x.shape == (2, 9, 16, 16, 3)
    assert episode.query_x.dtype == np.float32
    assert 0.5 < episode.query_x.max() <= 1
    episode.query_x[:] = 0  # a copy: the file is mapped read-only


def test_grey_photographs_get_three_equal_channels(root):
    name = lines(root)[1].split(",")[0]
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(root / "images" / name)
    dataset = MiniImageNet(root)
    grey = dataset.images[2, 0]  # the list has the last class first
    assert np.ptp(grey) > 50
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, axis=-1))


def test_photographs_are_decoded_once(root, monkeypatch, cache):
    first = MiniImageNet(root)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(mini_imagenet, "_decoded", None)
        again = MiniImageNet(root)
    np.testing.assert_array_equal(again.images, first.images)
    assert not again.images.flags.writeable
    name = lines(root)[1].split(",")[0]
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root / "images" / name)
    assert MiniImageNet(root).images[2, 0].max() == 0  # a changed photograph is read anew
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "train.csv").unlink(), r"train\.csv not found; .*twitter-research"),
        (
            lambda r: write(r, ["file,class", *lines(r)[1:]]),
            r"train\.csv: columns filename,label wanted, got 'file,class'",
        ),
        (lambda r: write(r, []), r"columns filename,label wanted, got ''"),
        (lambda r: write(r, lines(r)[:1]), r"train\.csv: no images in it"),
        (
            lambda r: write(r, [*lines(r), "x" * 140_000]),
            r"train\.csv: lines filename,label wanted, got field larger than",
        ),
        (
            lambda r: write(r, [*lines(r), "only-a-name.jpg"]),
            r"train\.csv, line 14: a file's name and a label wanted, got 'only-a-name\.jpg'",
        ),
        (
            lambda r: write(r, [*lines(r), "../x.jpg,n0"]),
            r"line 14: a file's name and a label wanted, got '\.\./x\.jpg,n0'",
        ),
        (
            lambda r: write(r, [*lines(r), lines(r)[1]]),
            r"line 14: 'n0train200000000\.jpg' is listed twice",
        ),
        (
            lambda r: write(r, lines(r)[:-1]),
            r"train\.csv: 4 images of each class wanted, got 3 of 'n0train0'",
        ),
        (
            lambda r: (r / "images" / "n0train100000002.jpg").unlink(),
            r"images: 1 of 12 listed images are missing, first 'n0train100000002\.jpg'",
        ),
        (
            lambda r: (r / "images" / "n0train100000002.jpg").write_bytes(b"\xff\xd8\xff" * 9),
            r"n0train100000002\.jpg: damaged picture",
        ),
        (  # 100 kB that decode to 240 MB
            lambda r: Image.new("1", (9000, 9000)).save(r / "images" / NAME, "PNG"),
            r"n0train100000002\.jpg: .* at most 67108864 pixels wanted, got 9000 × 9000",
        ),
        (lambda r: pipe(r / "images" / NAME), "n0train100000002.jpg: a regular file wanted"),
        (lambda r: pipe(r / "train.csv"), r"train\.csv: a regular file wanted, got prw"),
        (
            lambda r: (r / "train.csv").write_bytes(b"\xff\xfe\x80"),
            r"train\.csv: lines of text wanted",
        ),
    ],
)
def test_what_is_wrong_is_named(root, damage, message, cache):
    damage(root)
    with pytest.raises(DataError, match=message):
        MiniImageNet(root)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_class_in_two_splits_is_refused(root, one, other):
    config = presets.lookup("maml", "mini-imagenet", "paper")
    assert experiment.splits(config, root).test.n_classes == COUNTS["test"]
    write(root, lines(root, one), other)
    message = rf"{other}\.csv: other classes wanted .*/{one}\.csv, got 'n0{one}0' in both"
    with pytest.raises(DataError, match=message):
        experiment.splits(config, root)


def test_a_photograph_cut_short_is_damaged(root):
    file = root / "images" / "n0train100000002.jpg"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged picture"):
        MiniImageNet(root)


def test_wrong_arguments_are_named(root):
    with pytest.raises(ValueError, match="split: one of train, val, test wanted, got 'dev'"):
        MiniImageNet(root, "dev")
    with pytest.raises(ValueError, match="image_size: at least 1 wanted, got 0"):
        MiniImageNet(root, image_size=0)
