"""Tasks within an alphabet: pairs half the same, and episodes by one hand a shot."""

from collections import Counter

import numpy as np
import pytest

from scratchmeta.data import Glyphs, ImageDataset, Pairs, WithinAlphabet
from scratchmeta.episodes import sample

SIZES = {"a": 4, "b": 2, "c": 7, "lonely": 1}


def dataset(**options):
    """Every pixel of an image is (number of the character, number of the drawing)."""
    names = [f"{name}/{k}" for name, size in SIZES.items() for k in range(size)]
    images = np.zeros((len(names), 5, 2, 2, 2), np.uint8)
    images[..., 0] = np.arange(len(names))[:, None, None, None]
    images[..., 1] = np.arange(5)[:, None, None]
    return ImageDataset(images, names, **options)


def read(x):
    """Character and drawing of images (..., 2, 2, 2)."""
    return x[..., 0, 0, 0].astype(int), x[..., 0, 0, 1].astype(int)


def test_alphabets_are_names_up_to_the_slash():
    found = [a.tolist() for a in dataset().alphabets]
    assert found == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11, 12], [13]]
    turned = dataset(rotations="classes").alphabets
    assert len(turned) == 16
    assert [a.tolist() for a in turned[:4]] == [[t, 4 + t, 8 + t, 12 + t] for t in range(4)]
    assert sorted(np.concatenate(turned)) == list(range(4 * 14))
    nameless = ImageDataset(np.zeros((1, 1, 2, 2, 1), np.uint8), ["c0"])
    with pytest.raises(ValueError, match="wanted names alphabet/character, got 'c0'"):
        _ = nameless.alphabets


@pytest.mark.parametrize("rotations", ["none", "classes", "class-episode"])
def test_within_an_alphabet_a_shot_is_by_one_hand(rotations):
    data = dataset(rotations=rotations)
    tasks = WithinAlphabet(data)
    assert tasks.n_classes == 7
    x, y = tasks.draw(np.random.default_rng(0), 200, 4, 3)
    assert y.tolist() == [[[0] * 3, [1] * 3, [2] * 3, [3] * 3]] * 200
    characters, drawings = read(x)
    assert (characters == characters[:, :, :1]).all()
    assert (drawings == drawings[:, :1]).all()
    alphabets = Counter()
    for task, hands in zip(characters[:, :, 0], drawings[:, 0], strict=True):
        assert len(set(task)) == 4
        assert len(set(hands)) == 3
        (name,) = {data.names[c].split("/")[0] for c in task}
        alphabets[name] += 1
    assert set(alphabets) == {"a", "c"}  # those that have four characters
    assert 70 < alphabets["a"] < 130
    with pytest.raises(ValueError, match="n_way: at most the 7 classes of WithinAlphabet"):
        sample(tasks, n_way=8, k_shot=1, n_query=1)


@pytest.mark.parametrize("ways", [1, 8])
def test_pairs_are_half_the_same_and_uniform_over_alphabets(ways):
    data = dataset()
    x, y = Pairs(data).draw(np.random.default_rng(1), 2400 // ways, ways, 2)
    characters, drawings = (a.reshape(-1, 2) for a in read(x))
    np.testing.assert_array_equal(characters, y.reshape(-1, 2))
    same = characters[:, 0] == characters[:, 1]
    assert same.sum() == 1200
    assert (drawings[:, 0] != drawings[:, 1]).all()
    names = np.array([name.split("/")[0] for name in data.names])[characters]
    assert (names[:, 0] == names[:, 1]).all()
    count = Counter(names[:, 0])
    assert set(count) == {"a", "b", "c"}  # no two characters to tell apart in the other
    assert all(720 < n < 880 for n in count.values())
    # of the large alphabet every different ordered pair
    different = Counter(map(tuple, characters[(names[:, 0] == "c") & ~same]))
    assert len(different) == 42


@pytest.mark.parametrize("rotations", ["classes", "episode"])
def test_pairs_of_turned_characters_are_turned_alike(rotations):
    images = np.zeros((3, 2, 3, 3, 1), np.uint8)
    images[:, :, 0, 0] = 1 + np.arange(3)[:, None, None]  # a corner says how it was turned
    data = ImageDataset(images, ["a/0", "a/1", "a/2"], rotations=rotations)
    x, y = Pairs(data).draw(np.random.default_rng(2), 50, 2, 2)
    corners = x[..., 0].reshape(100, 2, 3, 3) > 0
    assert (corners[:, 0] == corners[:, 1]).all()
    assert len({c.tobytes() for c in corners[:, 0]}) == 4
    assert (x.max((3, 4, 5)) - 1 == (y // 4 if rotations == "classes" else y)).all()


def test_pairs_refuse_classes_turned_by_themselves():
    with pytest.raises(ValueError, match="none, classes or episode, got 'class-episode'"):
        Pairs(dataset(rotations="class-episode"))


def test_pairs_are_episodes():
    batch = sample(Pairs(Glyphs("val", image_size=16)), 1, 1, 1, tasks=6, seed=3, index=4)
    assert batch.support_x.shape == batch.query_x.shape == (6, 1, 16, 16, 1)
    same = batch.support_y == batch.query_y
    assert same[:, 0].tolist() == [True, False] * 3
