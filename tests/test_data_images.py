"""Choosing classes and drawings, quarter turns, jitter: against loops that cannot be misread."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchmeta.data import ImageDataset
from scratchmeta.data.images import affine, below, distinct, distorted, jittered

C, D, H = 6, 4, 5


def dataset(**options):
    """Six characters of four drawings, every pixel of its own."""
    pixels = np.random.default_rng(0).integers(0, 256, (C, D, H, H, 1), dtype=np.uint8)
    return ImageDataset(pixels, [f"c{k}" for k in range(C)], **options)


class Replay:
    """A generator that gives out numbers drawn before."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self, shape):
        assert self.numbers[0].shape == shape
        return self.numbers.pop(0)


@given(st.integers(1, 5), st.integers(1, 30), st.data())
def test_distinct_is_a_shuffle_stopped_early(rows, bound, data):
    n = data.draw(st.integers(1, bound))
    u = np.random.default_rng(data.draw(st.integers(0, 99))).random((rows, n))
    got = distinct(Replay(u), rows, n, bound)
    for row in range(rows):
        deck = list(range(bound))
        for k in range(n):
            other = k + math.floor(u[row, k] * (bound - k))
            deck[k], deck[other] = deck[other], deck[k]
        assert got[row].tolist() == deck[:n]
        assert len(set(got[row].tolist())) == n
    assert got.dtype == np.int64


def test_every_ordered_choice_is_equally_likely():
    rows = 24_000
    counts = Counter(map(tuple, distinct(np.random.default_rng(1), rows, 3, 4).tolist()))
    assert len(counts) == 24
    # 1000 expected of each, with a standard deviation of 31
    assert all(850 < count < 1150 for count in counts.values())


def test_below_never_reaches_its_bound():
    largest = np.full((1,), 1 - 2.0**-53)
    for bound in (1, 3, 4, 20, 964, 4112, 10**9 + 7):
        assert below(Replay(largest), bound, (1,)) == bound - 1


@pytest.mark.parametrize("rotations", ["none", "classes", "episode", "class-episode"])
def test_gather_is_a_look_up_and_a_turn(rotations):
    data = dataset(rotations=rotations)
    T, N, n = 3, 4, 2
    classes, drawings = data.choose(np.random.default_rng(2), T, N, n)
    u = {"episode": (T, 1), "class-episode": (T, N)}.get(rotations)
    numbers = [] if u is None else [np.random.default_rng(3).random(u)]
    x = data.gather(classes, drawings, Replay(*numbers))
    assert x.shape == (T, N, n, H, H, 1)
    for t in range(T):
        for k in range(N):
            turn, character = 0, classes[t, k]
            if rotations == "classes":
                character, turn = divmod(character, 4)
            elif numbers:
                turn = int(4 * numbers[0][t, 0 if rotations == "episode" else k])
            for i in range(n):
                picture = data.images[character, drawings[t, k, i], :, :, 0]
                for _ in range(turn):  # a quarter turn counter-clockwise: the last column on top
                    picture = np.array([[row[c] for row in picture] for c in reversed(range(H))])
                np.testing.assert_array_equal(x[t, k, i, :, :, 0], picture)


def test_turns_as_classes_make_four_times_as_many():
    assert dataset().n_classes == C
    assert dataset(rotations="classes").n_classes == 4 * C
    assert dataset(rotations="class-episode").n_classes == C


def test_all_four_turns_happen_and_repeat_with_the_seed():
    data = dataset(rotations="class-episode")
    a = data.draw(np.random.default_rng(5), 50, 3, 1)[0]
    b = data.draw(np.random.default_rng(5), 50, 3, 1)[0]
    np.testing.assert_array_equal(a, b)
    seen = set()
    for picture in a.reshape(-1, H, H):
        for turn in range(4):
            back = np.rot90(picture, -turn)[..., None]
            seen |= {turn} if (data.images == back).all((2, 3, 4)).any() else set()
    assert seen == {0, 1, 2, 3}


def test_draw_gives_labels_by_place():
    x, y = dataset().draw(np.random.default_rng(0), 2, 3, 4)
    assert x.dtype == np.uint8
    assert y.dtype == np.int64
    assert y.tolist() == [[[0] * 4, [1] * 4, [2] * 4]] * 2


def test_drawing_changes_nothing_in_the_dataset():
    data = dataset(rotations="classes", jitter=True)
    before = data.images.copy()
    data.draw(np.random.default_rng(0), 5, 4, 4)[0][:] = 0
    np.testing.assert_array_equal(data.images, before)


def bilinear(image, matrix, shift):
    """Resample one (H, W) image by loops: p shows what was at A (p − c − s) + c."""
    height, width = image.shape
    centre = ((height - 1) / 2, (width - 1) / 2)
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            p = (i - centre[0] - shift[0], j - centre[1] - shift[1])
            y, x = (matrix[k][0] * p[0] + matrix[k][1] * p[1] + centre[k] for k in (0, 1))
            for a in range(height):
                for b in range(width):
                    out[i, j] += image[a, b] * max(0, 1 - abs(y - a)) * max(0, 1 - abs(x - b))
    return out


@given(st.integers(0, 1000))
def test_affine_is_bilinear_with_background_outside(seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 4, 6, 2), dtype=np.uint8)
    matrix, shift = rng.normal(size=(2, 2, 2)), rng.normal(size=(2, 2)) * 3
    got = affine(images, matrix, shift)
    for n in range(2):
        for channel in range(2):
            wanted = bilinear(images[n, :, :, channel].astype(float), matrix[n], shift[n])
            assert np.abs(got[n, :, :, channel] - wanted).max() <= 0.5 + 1e-3


def test_affine_by_the_identity_and_by_a_whole_shift():
    images = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 1), dtype=np.uint8)
    eye = np.eye(2)[None]
    np.testing.assert_array_equal(affine(images, eye, np.zeros((1, 2))), images)
    moved = affine(images, eye, np.array([[2.0, -1.0]]))  # two down, one to the left
    np.testing.assert_array_equal(moved[0, 2:, :-1], images[0, :-2, 1:])
    assert not moved[0, :2].any()
    assert not moved[0, :, -1].any()


def test_affine_by_a_quarter_turn_is_rot90():
    images = np.random.default_rng(0).integers(0, 256, (1, 7, 7, 1), dtype=np.uint8)
    quarter = np.array([[[0.0, 1.0], [-1.0, 0.0]]])  # row <- column, column <- −row
    turned = affine(images, quarter, np.zeros((1, 2)))
    np.testing.assert_array_equal(turned[0], np.rot90(images[0]))


def test_jitter_stays_within_its_bounds():
    """A blot in the middle moves by 10/105 of the side at most along each axis, and does move."""
    side = 105
    images = np.zeros((200, side, side, 1), np.uint8)
    images[:, 50:55, 50:55] = 255
    moved = jittered(images, np.random.default_rng(0)).astype(float)[..., 0]
    grid = np.arange(side)
    mass = moved.sum((1, 2))
    row = (moved.sum(2) * grid).sum(1) / mass - 52
    column = (moved.sum(1) * grid).sum(1) / mass - 52
    for offset in (row, column):
        assert np.abs(offset).max() <= 10.1
        assert offset.max() > 9
        assert offset.min() < -9
    # a blot 40 pixels from the middle, turned by π/16 at most
    images = np.roll(images, 40, axis=2)
    far = jittered(images, np.random.default_rng(0)).astype(float)[..., 0]
    rise = (far.sum(2) * grid).sum(1) / far.sum((1, 2)) - 52 - row
    limit = 40 * math.sin(math.pi / 16)
    assert np.abs(rise).max() <= limit + 0.3
    assert rise.max() > 0.9 * limit
    assert rise.min() < -0.9 * limit


def test_distortions_are_scale_shear_rotation_and_shift_each_half_of_the_time():
    """Against the matrices of Koch et al. multiplied out and inverted, and a loop over pixels."""
    rng, side = np.random.default_rng(4), 21
    u, used = rng.random((40, 7)), rng.random((40, 7))
    images = rng.integers(0, 256, (40, side, side, 1), dtype=np.uint8)
    got = distorted(images.reshape(4, 10, side, side, 1), Replay(u, used)).reshape(images.shape)
    for n in range(6):
        v = [2 * a - 1 if b < 0.5 else 0.0 for a, b in zip(u[n], used[n], strict=True)]
        θ = math.radians(10) * v[0]
        rotation = np.array([[math.cos(θ), -math.sin(θ)], [math.sin(θ), math.cos(θ)]])
        shear = np.array([[1, 0.3 * v[1]], [0.3 * v[2], 1]])
        scale = np.diag([1 + 0.2 * v[3], 1 + 0.2 * v[4]])
        back = np.linalg.inv(rotation @ shear @ scale)
        wanted = bilinear(images[n, ..., 0].astype(float), back, [2 / 5 * v[5], 2 / 5 * v[6]])
        assert np.abs(got[n, ..., 0] - wanted).max() <= 0.5 + 1e-2
    still = distorted(images, Replay(u, np.ones((40, 7))))
    np.testing.assert_array_equal(still, images)


def test_distortions_are_drawn_for_every_image():
    data = dataset(affine=True)
    x, _ = data.draw(np.random.default_rng(0), 2, 3, 2)
    plain, _ = dataset().draw(np.random.default_rng(0), 2, 3, 2)
    moved = (x != plain).any((3, 4, 5))
    assert moved.sum() > 9  # one in 128 stays as it is


@pytest.mark.parametrize("rotations", ["none", "classes", "class-episode"])
def test_spans_of_equal_length_draw_what_an_array_draws(rotations):
    data = dataset(rotations=rotations)
    spans = np.array([(D * k, D) for k in range(C)])
    rows = ImageDataset(data.images.reshape(-1, H, H, 1), data.names, rotations, spans=spans)
    for a, b in zip(
        *(each.draw(np.random.default_rng(6), 4, 5, 3) for each in (data, rows)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert repr(rows) == repr(data)


def test_spans_say_whose_drawings_are_whose():
    images = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1)
    data = ImageDataset(images, ["last", "first"], spans=np.array([(5, 4), (0, 2)]))
    x, _ = data.draw(np.random.default_rng(0), 500, 2, 2)
    seen = Counter(map(tuple, np.sort(x.reshape(-1, 2)).tolist()))
    assert set(seen) == {(0, 1), (5, 6), (5, 7), (5, 8), (6, 7), (6, 8), (7, 8)}
    assert data.n_drawings == 2
    assert "× 2 (of first) to 4 drawings" in repr(data)


def test_an_unknown_rotation_is_named():
    with pytest.raises(ValueError, match=r"rotations: one of none, .* wanted, got 'tilted'"):
        dataset(rotations="tilted")


def test_repr_says_what_is_in_it():
    assert repr(dataset(rotations="classes")) == (
        "ImageDataset(24 classes × 4 drawings, 5×5×1, rotations='classes', jitter=False, "
        "affine=False)"
    )


def test_a_distortion_is_the_inverse_of_rotation_times_shear_times_scale(monkeypatch):
    told = []
    monkeypatch.setattr("scratchmeta.data.images.affine", lambda x, a, t: told.append((a, t)) or x)
    distorted(np.zeros((50, 21, 21, 1), np.uint8), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    u = (2 * rng.random((50, 7)) - 1) * (rng.random((50, 7)) < 0.5)
    ((matrices, shifts),) = told
    for (angle, x, y, s, t, *shift), a, found in zip(u, matrices, shifts, strict=True):
        c, d = np.cos(np.pi / 18 * angle), np.sin(np.pi / 18 * angle)
        shear = np.array([[1, 0.3 * x], [0.3 * y, 1]])
        made = np.array([[c, -d], [d, c]]) @ shear @ np.diag([1 + 0.2 * s, 1 + 0.2 * t])
        np.testing.assert_allclose(a @ made, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(found, 2 / 105 * 21 * np.array(shift))
