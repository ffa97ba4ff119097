"""Glyphs: the same bytes everywhere, drawn as the formulas say, neither trivial nor impossible."""

import hashlib
import math
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchmeta import episodes
from scratchmeta.data import Glyphs, glyphs
from scratchmeta.data.glyphs import ATTRIBUTES, _alphabet, _describe, _Dice, _render, _spline

# the first test alphabet at 28 × 28 and at 105 × 105
PINNED = {
    28: "73b35903e7088ebb072ab2d19f494238cfea1c154372dd2dc6b12dbeb1d00f39",
    105: "c3c14f8fe73455ff276a34a2f66a65add00be4a6c999246cf5a819e11ea44f5e",
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for this file, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SCRATCHMETA_CACHE", str(folder))
        yield folder


def digest(images):
    return hashlib.sha256(images.tobytes()).hexdigest()


@pytest.mark.parametrize("size", PINNED)
def test_the_pictures_of_other_machines(size):
    assert digest(glyphs._generated(range(35, 36), size, 0)["images"]) == PINNED[size]


def test_the_pictures_do_not_hang_on_what_the_processor_can_do():
    """NumPy with all its optional instructions switched off draws the same bytes."""
    umath = pytest.importorskip("numpy._core._multiarray_umath")
    usable = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]
    code = (
        "import hashlib; from scratchmeta.data import glyphs; "
        "images = glyphs._generated(range(35, 36), 28, 0)['images']; "
        "print(hashlib.sha256(images.tobytes()).hexdigest())"
    )
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(usable)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert out.stdout.strip() == PINNED[28]


def test_splits_are_disjoint_and_like_omniglot():
    alphabets = {}
    for split, count in (("train", 30), ("val", 5), ("test", 10)):
        data = Glyphs(split)
        assert data.split == split
        assert data.images.shape == (data.n_classes, 20, 28, 28, 1)
        assert data.images.dtype == np.uint8
        sizes = {}
        for name in data.names:
            alphabet = name.split("/")[0]
            sizes[alphabet] = sizes.get(alphabet, 0) + 1
        assert len(sizes) == count
        assert all(14 <= size <= 26 for size in sizes.values())
        alphabets[split] = set(sizes)
        # about as much ink as Omniglot has (8 %), in every single drawing some
        ink = data.images.mean((2, 3, 4)) / 255
        assert 0.04 < ink.mean() < 0.1
        assert ink.min() > 0.005
        assert len({picture.tobytes() for picture in data.images.reshape(-1, 784)}) == ink.size
    assert len(set.union(*alphabets.values())) == 45


def test_pixels_make_a_weak_classifier():
    """Nearest neighbour on pixels, 5-way 1-shot: Omniglot's evaluation set gives about 45 %."""
    episode = episodes.sample(Glyphs("test"), n_way=5, k_shot=1, n_query=15, tasks=300)
    accuracy = (episodes.nearest_neighbour(episode) == episode.query_y).mean()
    assert 0.4 < accuracy < 0.6


def test_an_alphabet_does_not_hang_on_its_neighbours_and_a_seed_makes_another_world():
    several = glyphs._generated(range(30, 32), 14, 0)
    alone = glyphs._generated(range(31, 32), 14, 0)
    np.testing.assert_array_equal(several["images"][-len(alone["images"]) :], alone["images"])
    assert several["names"][-1] == alone["names"][-1]
    other = glyphs._generated(range(31, 32), 14, 1)
    assert digest(other["images"]) != digest(alone["images"])


def test_the_second_time_it_comes_from_the_cache(cache, monkeypatch):
    first = Glyphs("val", image_size=12)
    assert (cache / "glyphs-val-12-0.npz").is_file()
    monkeypatch.setattr(glyphs, "_generated", None)
    again = Glyphs("val", image_size=12)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.attributes, first.attributes)
    assert again.names == first.names


def test_sizes_show_the_same_characters():
    """Averaged over 2 × 2 pixels, the larger picture has its ink where the smaller has."""
    small, large = Glyphs("val", image_size=20).images, Glyphs("val", image_size=40).images
    shrunk = large.reshape(*small.shape[:2], 20, 2, 20, 2).mean((3, 5))
    a, b = (x.reshape(-1, 400) - x.reshape(-1, 400).mean(1, keepdims=True) for x in (small, shrunk))
    correlation = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert correlation.min() > 0.9


def distance(p, a, b):
    """From a point to a segment."""
    length2 = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    t = 0.0
    if length2 > 0:
        t = ((p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1])) / length2
        t = min(max(t, 0.0), 1.0)
    return math.hypot(p[0] - a[0] - t * (b[0] - a[0]), p[1] - a[1] - t * (b[1] - a[1]))


@given(st.integers(1, 11), st.integers(0, 1000))
def test_render_is_the_distance_to_the_nearest_line(size, seed):
    rng = np.random.default_rng(seed)
    lines = rng.uniform(-0.3, 1.3, (2, 2, 13, 2))  # some of it off the page
    lines[0, 0, 4] = lines[0, 0, 5]  # a segment without length
    pens = rng.uniform(0.01, 0.1, 2)
    got = _render(lines, pens, size)
    assert got.shape == (2, size, size)
    assert got.dtype == np.uint8
    for n in range(2):
        for i in range(size):
            for j in range(size):
                centre = ((j + 0.5) / size, (i + 0.5) / size)
                d = min(
                    distance(centre, line[k], line[k + 1]) for line in lines[n] for k in range(12)
                )
                ink = min(max((pens[n] - d) * size + 0.5, 0.0), 1.0)
                assert abs(got[n, i, j] - 255 * ink) <= 0.5 + 1e-3


@given(st.floats(0, 1), st.integers(0, 1000))
def test_a_stroke_goes_through_its_control_points(roundness, seed):
    control = np.random.default_rng(seed).normal(size=(2, 5, 2))
    control[1, 4] = control[1, 0]
    lines = _spline(control, np.array([roundness, roundness]))
    assert lines.shape == (2, 13, 2)
    np.testing.assert_allclose(lines[:, ::3], control, atol=1e-12)


def test_roundness_goes_from_straight_lines_to_catmull_roms_spline():
    control = np.random.default_rng(0).normal(size=(1, 5, 2))
    straight, half, spline = (_spline(control, np.array([r]))[0] for r in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (straight + spline) / 2, atol=1e-12)
    p = [2 * control[0, 0] - control[0, 1], *control[0], 2 * control[0, 4] - control[0, 3]]
    for span in range(4):
        for step in range(3):
            t = step / 3
            chord = (1 - t) * p[span + 1] + t * p[span + 2]
            np.testing.assert_allclose(straight[3 * span + step], chord, atol=1e-12)
            weights = (
                (-t + 2 * t**2 - t**3) / 2,
                (2 - 5 * t**2 + 3 * t**3) / 2,
                (t + 4 * t**2 - 3 * t**3) / 2,
                (-(t**2) + t**3) / 2,
            )
            point = sum(w * p[span + k] for k, w in enumerate(weights))
            np.testing.assert_allclose(spline[3 * span + step], point, atol=1e-12)


def test_a_round_loop_has_no_corner_where_it_closes():
    square = np.array([[(0, 0), (1, 1), (2, 0), (1, -1), (0, 0)]], float)
    line = _spline(square, np.ones(1))[0]
    np.testing.assert_allclose(line, np.roll(line[:-1], -6, 0)[np.r_[:12, 0]] * (-1, -1) + (2, 0))
    arriving, leaving = line[12] - line[11], line[1] - line[0]
    np.testing.assert_allclose(arriving, leaving * (-1, 1), atol=1e-12)


def test_attributes_say_what_a_character_is_made_of():
    data = Glyphs("test")
    assert data.attributes.shape == (data.n_classes, len(ATTRIBUTES))
    assert data.attributes.dtype == np.float32
    assert np.isfinite(data.attributes).all()
    assert (data.attributes.std(0) > 0.01).all()  # every column says something
    characters = [c for number in range(35, 45) for c in _alphabet(_Dice(0, number))]
    assert len(characters) == data.n_classes
    for row, character in zip(data.attributes, characters, strict=True):
        has = dict(zip(data.attribute_names, row.tolist(), strict=True))
        assert has["strokes"] == len(character.control)
        for kind, name in enumerate(glyphs.KINDS):
            assert has[f"{name}s"] == sum(k == kind for k in character.kinds)
        assert has["symmetric"] == character.symmetric
        length, along, slope, x, y = 0.0, 0.0, 0.0, [], []
        for line in _spline(character.control, character.roundness):
            for a, b in pairwise(line):
                step, θ = math.dist(a, b), math.atan2(b[1] - a[1], b[0] - a[0])
                length += step
                along += step * math.cos(2 * θ)
                slope += step * math.sin(2 * θ)
            x += line[:, 0].tolist()
            y += line[:, 1].tolist()
        wanted = {
            "length": length,
            "width": max(x) - min(x),
            "height": max(y) - min(y),
            "horizontal": along / length,
            "descending": slope / length,
            "roundness": sum(character.roundness) / len(character.roundness),
        }
        for name, value in wanted.items():
            assert has[name] == pytest.approx(value, abs=1e-5), name


def test_a_turned_character_has_turned_attributes_and_a_turned_picture():
    data, turned = Glyphs("val"), Glyphs("val", rotations="classes")
    assert turned.n_classes == 4 * data.n_classes
    assert turned.attributes.shape == (turned.n_classes, len(ATTRIBUTES))
    np.testing.assert_array_equal(turned.attributes[::4], data.attributes)
    column = {name: k for k, name in enumerate(ATTRIBUTES)}
    once, twice = turned.attributes[1::4], turned.attributes[2::4]
    for a, b in (("width", "height"), ("height", "width"), ("centre x", "centre y")):
        np.testing.assert_allclose(once[:, column[a]], data.attributes[:, column[b]], atol=1e-6)
    for name in ("horizontal", "descending"):
        np.testing.assert_allclose(
            once[:, column[name]], -data.attributes[:, column[name]], atol=1e-6
        )
        np.testing.assert_allclose(
            twice[:, column[name]], data.attributes[:, column[name]], atol=1e-6
        )
    for character in _alphabet(_Dice(0, 30)):
        upright, quarter = (
            _render(_spline(c.control, c.roundness)[None], np.array([0.02]), 30)[0].astype(int)
            for c in (character, character.turned(1))
        )
        assert np.abs(np.rot90(upright) - quarter).max() <= 1


def test_no_two_characters_of_an_alphabet_are_the_same_pieces():
    for number in range(5):
        described = [tuple(_describe(c)) for c in _alphabet(_Dice(0, number))]
        assert len(set(described)) == len(described)


def test_dice():
    dice = _Dice(7)
    u = dice.uniform(2, 5, (30_000,))
    assert 2 <= u.min() < 2.001
    assert 4.999 < u.max() < 5
    assert abs(u.mean() - 3.5) < 0.02
    z = dice.normal((30_000,))
    assert abs(z.mean()) < 0.02
    assert abs(z.var() - 1) < 0.03
    assert {dice.below(3) for _ in range(100)} == {0, 1, 2}
    assert abs(sum(dice.chance(0.3) for _ in range(5000)) / 5000 - 0.3) < 0.03
    counts = np.bincount([dice.weighted(np.array([1.0, 0.0, 3.0])) for _ in range(5000)])
    assert counts[1] == 0
    assert abs(counts[2] / 5000 - 0.75) < 0.03
    raw = np.random.PCG64(np.random.SeedSequence((7,))).random_raw(3)
    wanted = [(int(r) >> 11) / 2**53 for r in raw]
    assert _Dice(7).uniform(shape=(3,)).tolist() == wanted


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"split": "dev"}, "split: one of train, val, test wanted, got 'dev'"),
        ({"image_size": 0}, "image_size: at least 1 wanted, got 0"),
        ({"rotations": "all"}, "rotations: one of"),
    ],
)
def test_an_option_that_does_not_exist(option, match):
    with pytest.raises(ValueError, match=match):
        Glyphs(**{"split": "val"} | option)
