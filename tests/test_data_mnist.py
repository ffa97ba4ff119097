"""MNIST: generated idx files, and the real test set where it is."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratchmeta import episodes
from scratchmeta.data import MNIST, DataError

DATA = Path(os.environ.get("SCRATCHMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = DATA / "mnist"

RNG = np.random.default_rng(0)
LABELS = np.concatenate([np.arange(10), RNG.integers(0, 10, 40)]).astype(np.uint8)
IMAGES = RNG.integers(0, 256, (50, 28, 28)).astype(np.uint8)
NAMES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))


def idx(array, kind=8):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


@pytest.fixture(params=["", ".gz"])
def root(tmp_path, request):
    for name, array in zip(NAMES, (IMAGES, LABELS), strict=True):
        write(tmp_path / f"{name}{request.param}", idx(array))
    return tmp_path


def write(file, content):
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def place(root, name=NAMES[0]):
    [file] = root.glob(f"{name}*")
    return file


def test_digits_are_classes_of_as_many_drawings_as_there_are(root):
    data = MNIST(root)
    assert data.names == tuple("0123456789")
    assert data.counts.tolist() == np.bincount(LABELS).tolist()
    for digit in range(10):
        wanted = IMAGES[digit == LABELS]
        got = data.pixels(np.full(len(wanted), digit), np.arange(len(wanted)))
        np.testing.assert_array_equal(got[..., 0], wanted)
    episode = episodes.sample(data, n_way=10, k_shot=1, n_query=1, tasks=2)
    assert episode.query_x.shape == (2, 10, 28, 28, 1)


@pytest.mark.parametrize("size", [20, 105])
def test_images_are_resampled_by_pillow(root, size):
    data = MNIST(root, image_size=size)
    wanted = Image.fromarray(IMAGES[LABELS == 7][0]).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.pixels(7, 0)[..., 0], np.asarray(wanted))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"images.*: an idx file of bytes, at most 60000 × 28 × 28, wanted, got .* with $"),
        (b"hello, I am not one", r"images.*: an idx file of bytes"),
        (idx(IMAGES[:, 1:]), r"images.*: an idx file of bytes"),
        (idx(IMAGES.astype(">f4"), kind=13), r"images.*: an idx file of bytes"),
        (idx(IMAGES)[:-1], r"images.*: it declares 39200 bytes of content, got 39199"),
        (idx(IMAGES) + b"!", r"images.*: it declares 39200 bytes of content, got 39201"),
        (
            idx(IMAGES)[:4] + b"\xff" * 4 + idx(IMAGES)[8:],
            r"images.*: an idx file of bytes, at most",
        ),
        (idx(IMAGES[:-1]), r"labels.*: 49 labels wanted, got 50"),
    ],
)
def test_what_is_no_mnist_is_named(root, content, message):
    write(place(root), content)
    with pytest.raises(DataError, match=message):
        MNIST(root)


def test_labels_beyond_ten_digits_are_named(root):
    write(place(root, NAMES[1]), idx(LABELS % 9))
    with pytest.raises(
        DataError, match=r"labels.*: labels 0 to 9 wanted, got \[0 1 2 3 4 5 6 7 8\]"
    ):
        MNIST(root)


def test_missing_files_are_named(root):
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte\.gz nor train-images"):
        MNIST(root, "train")
    place(root, NAMES[1]).unlink()
    with pytest.raises(DataError, match=r"neither t10k-labels-idx1-ubyte\.gz nor t10k-labels"):
        MNIST(root)


def test_a_damaged_archive_is_one_error(tmp_path):
    write(tmp_path / f"{NAMES[1]}.gz", idx(LABELS))
    file, whole = tmp_path / f"{NAMES[0]}.gz", gzip.compress(idx(IMAGES))
    flips = (
        whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :] for k in range(20, len(whole), 999)
    )
    for damaged in (b"", whole[:5], whole[:-100], whole[:-4], b"\0" + whole, *flips):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="images"):
            MNIST(tmp_path)


def test_an_archive_that_expands_without_end_is_not_read_on(tmp_path):
    write(tmp_path / f"{NAMES[1]}.gz", idx(LABELS))
    write(tmp_path / f"{NAMES[0]}.gz", idx(IMAGES) + bytes(1 << 27))
    with pytest.raises(
        DataError, match=rf"declares 39200 bytes of content, got {60_000 * 784 + 1}"
    ):
        MNIST(tmp_path)


def test_wrong_arguments_are_named(root):
    with pytest.raises(ValueError, match="split: one of test, train wanted, got 'val'"):
        MNIST(root, "val")
    with pytest.raises(ValueError, match="image_size: at least 1 wanted, got 0"):
        MNIST(root, image_size=0)


@pytest.mark.skipif(
    not (REAL / f"{NAMES[0]}.gz").is_file(),
    reason=f"no MNIST in {REAL} (set SCRATCHMETA_DATA to the folder that holds mnist/)",
)
def test_real_digits():
    data = MNIST(REAL)
    assert data.counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert 0.1 < data.images.mean() / 255 < 0.2  # ink is the bright part
    right = [
        (episodes.nearest_neighbour(e) == e.query_y).mean()
        for e in episodes.stream(data, n_way=10, k_shot=1, n_query=1, tasks=100, stop=2)
    ]
    assert 0.35 < np.mean(right) < 0.55  # of ten digits, by pixels
