"""Birds: generated files in the layout of docs/data.md."""

import os

import numpy as np
import pytest

from scratchmeta import episodes, presets
from scratchmeta.data import CUB, DataError, Described, cub
from scratchmeta.run import experiment

NAMES = [f"{k:03}.Bird_{k}" for k in range(1, 8)]
PARTS = {"train": NAMES[4:], "val": NAMES[:2], "test": NAMES[2:4]}


def features(k, crops=3):
    """Entry [i, f, c] of class k says which it is."""
    n = 5 + k
    i, c = np.arange(n)[:, None, None], np.arange(crops)
    return np.broadcast_to(1000 * k + 10 * i + c, (n, cub.FEATURES, crops)).astype(np.float32)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("attributes", "features"):
        (tmp_path / folder).mkdir()
    rows = rng.uniform(0, 100, (7, cub.ATTRIBUTES))
    lines = [" ".join(f"{entry:.4f}" for entry in row) for row in rows]
    (tmp_path / cub.MATRIX).write_text("\n".join(lines) + "\n")
    listed = [f"{k} {name}\n" for k, name in enumerate(NAMES, 1)]
    (tmp_path / "classes.txt").write_text("".join(listed))
    for part, names in PARTS.items():
        (tmp_path / f"{part}classes.txt").write_text("\n".join(names) + "\n")
    for k, name in enumerate(NAMES):
        np.save(tmp_path / "features" / f"{name}.npy", features(k))
    return tmp_path


def attributes(root):
    return np.loadtxt(root / cub.MATRIX) / 100


@pytest.mark.parametrize("split", ["train", "val", "test", "trainval"])
def test_a_split_has_its_classes_attributes_and_features(root, split):
    data = CUB(root, split)
    names = PARTS["train"] + PARTS["val"] if split == "trainval" else PARTS[split]
    rows = [NAMES.index(name) for name in names]
    assert data.names == tuple(names)
    assert (data.n_classes, data.n_drawings) == (len(names), 5 + min(rows))
    np.testing.assert_allclose(data.attributes, attributes(root)[rows], rtol=1e-6)
    for place, k in enumerate(rows):
        images = np.arange(5 + k)[None, None]
        got = data.gather(np.array([[place]]), images, np.random.default_rng(0))
        np.testing.assert_array_equal(got[0, 0], features(k)[:, :, 0])


def test_images_of_larger_classes_all_occur_and_none_twice(root):
    data = CUB(root, "train")  # 9, 10 and 11 images
    classes, images = data.choose(np.random.default_rng(0), 200, 3, 9)
    assert (np.sort(classes) == np.arange(3)).all()
    assert all(len(set(row)) == 9 for row in images.reshape(-1, 9))
    for k in range(3):
        assert set(images[classes == k].ravel()) == set(range(9 + k))


def test_crops(root):
    def seen(crops):
        x, y = CUB(root, "train", crops=crops).draw(np.random.default_rng(0), 20, 3, 4)
        assert x.shape == (20, 3, 4, cub.FEATURES)
        assert y[0].tolist() == [[0] * 4, [1] * 4, [2] * 4]
        return set((x % 10).ravel())

    assert seen("middle") == {0}
    assert seen("random") == {0, 1, 2}


def test_features_without_crops(root):
    for k, name in enumerate(NAMES):
        np.save(root / "features" / f"{name}.npy", features(k)[:, :, 0])
    x, _ = CUB(root, "val", crops="random").draw(np.random.default_rng(0), 2, 2, 4)
    assert set((x % 10).ravel()) == {0}


def test_episodes_of_described_birds(root):
    batch = episodes.sample(Described(CUB(root, "train")), 3, 1, 4, tasks=2)
    assert batch.support_x.shape == (2, 3, cub.ATTRIBUTES)
    assert batch.query_x.shape == (2, 12, cub.FEATURES)
    described = attributes(root)
    for t in range(2):
        for x, y in zip(batch.query_x[t], batch.query_y[t], strict=True):
            wanted = described[int(x[0] // 1000)]
            np.testing.assert_allclose(batch.support_x[t, y], wanted, rtol=1e-6)


def first_line(root, line):
    file = root / cub.MATRIX
    file.write_text("\n".join([line, *file.read_text().splitlines()[1:]]))


def renamed_archive(file):
    np.savez(file.with_suffix(".npz"), features(5))
    file.with_suffix(".npz").replace(file)


def pipe(file):
    file.unlink()
    os.mkfifo(file)


def declares(file, shape):
    """An array's heading that promises more than there is."""
    with file.open("wb") as opened:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(opened, header)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "classes.txt").unlink(), r"classes\.txt not found \(docs/data\.md"),
        (lambda r: (r / "classes.txt").write_text("1 a\n3 b"), r"'2 NAME' wanted, got '3 b'"),
        (lambda r: (r / "classes.txt").write_text("1 a\n2 b"), r"2 lines wanted, .*, got 7"),
        (lambda r: (r / "trainclasses.txt").write_text("Dodo"), r"train.*'Dodo' is not in classes"),
        (
            lambda r: (r / "trainclasses.txt").write_text("\n".join(NAMES[4:6] * 2)),
            r"trainclasses\.txt: '005\.Bird_5' is listed twice",
        ),
        (
            lambda r: (r / "classes.txt").write_text("1 a\n2 a"),
            r"[/\\]classes\.txt: 'a' is listed twice",
        ),
        (lambda r: (r / "trainclasses.txt").write_text("\n"), r"trainclasses\.txt: nothing in it"),
        (lambda r: (r / "trainclasses.txt").write_bytes(b"\xff"), r"lines of text wanted"),
        (lambda r: first_line(r, "1 2 x"), r"line 1: numbers wanted, got '1 2 x'"),
        (lambda r: first_line(r, "1 2 3"), r"line 1: 312 percentages wanted, got 3 numbers"),
        (
            lambda r: first_line(r, " ".join(["101"] * 312)),
            r"line 1: 312 percentages wanted, got 312 numbers from 101 to 101",
        ),
        (
            lambda r: (r / "features" / f"{NAMES[5]}.npy").unlink(),
            r"006\.Bird_6\.npy not found \(docs/data\.md",
        ),
        (
            lambda r: (r / "features" / f"{NAMES[5]}.npy").write_bytes(b"nothing"),
            r"006\.Bird_6\.npy: not readable as a NumPy array",
        ),
        (
            lambda r: renamed_archive(r / "features" / f"{NAMES[5]}.npy"),
            r"006\.Bird_6\.npy: not readable as a NumPy array",
        ),
        (
            lambda r: np.save(r / "features" / f"{NAMES[5]}.npy", np.zeros((4, 10))),
            r"006\.Bird_6\.npy: floats \(images, 1024\) .* wanted, got float64 \(4, 10\)",
        ),
        (
            lambda r: np.save(r / "features" / f"{NAMES[5]}.npy", features(5) * np.nan),
            r"006\.Bird_6\.npy: finite numbers wanted",
        ),
        (  # finite, but not in float32
            lambda r: np.save(r / "features" / f"{NAMES[5]}.npy", np.full((4, 1024), 1e300)),
            r"006\.Bird_6\.npy: finite numbers wanted, in float32 too",
        ),
        (
            lambda r: pipe(r / "features" / f"{NAMES[5]}.npy"),
            r"006\.Bird_6\.npy: a regular file wanted, got prw",
        ),
        (lambda r: pipe(r / "classes.txt"), r"classes\.txt: a regular file wanted, got prw"),
        (
            lambda r: declares(r / "features" / f"{NAMES[5]}.npy", (1 << 50, 1024)),
            r"006\.Bird_6\.npy: not readable as a NumPy array",
        ),
        (lambda r: first_line(r, " ".join(["1e300"] * 312)), "312 percentages wanted"),
        (
            lambda r: np.save(r / "features" / f"{NAMES[5]}.npy", features(5)[:, :, :2]),
            r"006\.Bird_6\.npy: 3 crops of each image wanted, as in 005\.Bird_5, got 2",
        ),
    ],
)
def test_what_is_wrong_is_named(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        CUB(root)


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_class_in_two_splits_is_refused(root, one, other):
    birds = presets.lookup("prototypical-zero-shot", "cub", "paper")
    assert experiment.splits(birds, root).train.dataset.names == tuple(PARTS["train"])
    (root / f"{other}classes.txt").write_text("\n".join([*PARTS[other], PARTS[one][0]]))
    message = rf"{other}classes\.txt: other classes .*/{one}classes\.txt, got '{PARTS[one][0]}' in"
    with pytest.raises(DataError, match=message):
        experiment.splits(birds, root)


def test_wrong_arguments_are_named(root):
    with pytest.raises(ValueError, match="split: one of train, val, trainval, test wanted"):
        CUB(root, "dev")
    with pytest.raises(ValueError, match="crops: 'middle' or 'random' wanted, got 'all'"):
        CUB(root, crops="all")
