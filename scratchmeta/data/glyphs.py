"""Glyphs: alphabets that never were, generated, so that a learner of characters needs no download.

An alphabet has a style (how many strokes, which kinds, how round, how symmetric) and a few pieces
from which its characters are put together: each stroke of a character is a piece, hung on a stroke
before it. Twenty writers draw every character, each with a hand of their own (slant, proportions,
pen) and none twice the same. Only the structure imitates Omniglot's; every character is ours.

Nothing but + − × ÷ √, comparisons and PCG64's integers makes the pictures. IEEE 754 rounds each of
these correctly, NumPy rounds after each, so the pictures are the same bytes on every machine.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scratchmeta.data.cache import Arrays, cached
from scratchmeta.data.images import ImageDataset

SPLITS = {"train": range(30), "val": range(30, 35), "test": range(35, 45)}  # numbers of alphabets
WRITERS = 20

# a stroke's five control points, along its chord from (0, 0) to (1, 0) and across it
KINDS = {
    "bar": ((0, 0), (0.25, 0), (0.5, 0), (0.75, 0), (1, 0)),
    "bow": ((0, 0), (0.15, 0.4), (0.5, 0.6), (0.85, 0.4), (1, 0)),
    "corner": ((0, 0), (0.25, 0.4), (0.5, 0.8), (0.75, 0.4), (1, 0)),
    "hook": ((0, 0), (0.4, 0), (0.8, 0), (1, 0.3), (0.8, 0.6)),
    "wave": ((0, 0), (0.25, 0.4), (0.5, 0), (0.75, -0.4), (1, 0)),
    "loop": ((0, 0), (0.5, 0.5), (1, 0), (0.5, -0.5), (0, 0)),
}
PROFILES = np.array(list(KINDS.values()))  # (kinds, 5, 2)
DIAGONAL = 0.5**0.5
COMPASS = np.array([(1, 0), (0, 1), (DIAGONAL, DIAGONAL), (DIAGONAL, -DIAGONAL)])

ATTRIBUTES = (
    "strokes",
    *(f"{kind}s" for kind in KINDS),
    "roundness",
    "symmetric",
    "length",
    "width",
    "height",
    "centre x",
    "centre y",
    "horizontal",
    "descending",
)


class Glyphs(ImageDataset):
    """Generated characters, drawn by 20 writers each; the alphabets of the splits are disjoint.

    `split` is "train" (30 alphabets), "val" (5) or "test" (10), with 14 to 26 characters in an
    alphabet. Images are `image_size` × `image_size` × 1, ink 255 on background 0, rendered at that
    size with antialiasing. `seed` makes another world of alphabets. `rotations`, `jitter` and
    `affine`: see `ImageDataset`.

    `attributes` (n_classes, A) float32 describes each class by what the generator made it from;
    `attribute_names` says what each column is. Lengths and places are fractions of the image's
    side; "horizontal" and "descending" are the strokes' mean cos 2θ and sin 2θ, with θ the
    direction of the pen. A turned character ("classes") has the attributes of its turned strokes.
    """

    attribute_names = ATTRIBUTES

    def __init__(
        self,
        split: str = "train",
        image_size: int = 28,
        seed: int = 0,
        rotations: str = "none",
        jitter: bool = False,
        affine: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: one of {', '.join(SPLITS)} wanted, got {split!r}")
        if image_size < 1:
            raise ValueError(f"image_size: at least 1 wanted, got {image_size}")
        arrays = cached(
            f"glyphs-{split}-{image_size}-{seed}",
            hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
            lambda: _generated(SPLITS[split], image_size, seed),
        )
        super().__init__(arrays["images"], arrays["names"].tolist(), rotations, jitter, affine)
        self.split, self.seed = split, seed
        turned = arrays["attributes"]  # (C, 4, A)
        self.attributes = (
            turned.reshape(-1, len(ATTRIBUTES)) if rotations == "classes" else turned[:, 0]
        )


def _generated(alphabets: range, size: int, seed: int) -> Arrays:
    """Generate all characters of some alphabets: "images", "names" and "attributes" (C, 4, A)."""
    images, names, attributes = [], [], []
    for number in alphabets:
        dice = _Dice(seed, number)
        characters = _alphabet(dice)
        hands = _Hands(dice)
        for place, character in enumerate(characters):
            names.append(f"alphabet{number:02}/character{place + 1:02}")
            attributes.append([_describe(character.turned(turns)) for turns in range(4)])
            drawn, pens = hands.draw(character.control)
            images.append(_render(_spline(drawn, character.roundness), pens, size))
    return {
        "images": np.array(images)[..., None],
        "names": np.array(names),
        "attributes": np.array(attributes, np.float32),
    }


class _Dice:
    """Random numbers out of PCG64's integers alone, which no version of NumPy changes."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Any:
        """Draw from U(low, high)."""
        raw = self._bits.random_raw(int(np.prod(shape))).reshape(shape)
        return low + (high - low) * ((raw >> np.uint64(11)) * 2.0**-53)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw from a sum of three U(−1, 1): mean 0, variance 1, nearly normal, never beyond 3."""
        a, b, c = self.uniform(-1, 1, (3, *shape))
        return a + b + c

    def below(self, bound: int) -> int:
        """Draw one of 0..bound−1."""
        return int(self.uniform() * bound)

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return bool(self.uniform() < probability)

    def weighted(self, weights: np.ndarray) -> int:
        """Draw an index with a probability proportional to its weight."""
        cumulative = np.cumsum(weights)
        return int(np.searchsorted(cumulative, self.uniform() * cumulative[-1], side="right"))


class _Piece(NamedTuple):
    """A stroke that an alphabet's characters share."""

    control: np.ndarray  # (5, 2), (x, y) with y downwards
    roundness: float  # 0: straight between control points, 1: a spline through them
    kind: int


class _Character(NamedTuple):
    """S strokes in the unit square, as nobody draws them."""

    control: np.ndarray  # (S, 5, 2)
    roundness: np.ndarray  # (S,)
    kinds: np.ndarray  # (S,)
    symmetric: bool

    def turned(self, turns: int) -> "_Character":
        """Turn counter-clockwise by multiples of 90°, as `np.rot90` turns its pictures."""
        control = self.control
        for _ in range(turns):
            control = np.stack([control[..., 1], 1 - control[..., 0]], -1)
        return self._replace(control=control)


def _alphabet(dice: _Dice) -> list[_Character]:
    """Draw a style, pieces in this style, then characters, no two of the same pieces."""
    taste = dice.uniform(0.05, 1, (len(KINDS),))
    taste = taste * taste * taste  # an alphabet is fond of few kinds
    roundness = dice.uniform(0.1, 1.3)
    snapped = dice.chance(0.5)
    fewest = 1 + dice.below(2)
    most = fewest + 1 + dice.below(2)
    symmetry = dice.uniform(0, 0.4)
    size = dice.uniform(0.58, 0.72)
    pieces = [_piece(dice, taste, roundness, snapped) for _ in range(9)]

    characters: list[_Character] = []
    recipes: set[tuple[int, ...]] = set()
    count = 14 + dice.below(13)
    while len(characters) < count:
        strokes = fewest + dice.below(most - fewest + 1)
        recipe = tuple(sorted(dice.below(len(pieces)) for _ in range(strokes)))
        if recipe not in recipes:
            recipes.add(recipe)
            parts = [pieces[k] for k in recipe]
            characters.append(_character(dice, parts, dice.chance(symmetry), size))
    return characters


def _piece(dice: _Dice, taste: np.ndarray, roundness: float, snapped: bool) -> _Piece:
    kind = dice.weighted(taste)
    if snapped:
        u = COMPASS[dice.below(4)]
    else:
        t = dice.uniform(-1, 1)  # tan of half the angle: a rotation without sine and cosine
        u = np.array([1 - t * t, 2 * t]) / (1 + t * t)
    along, across = (PROFILES[kind] * dice.uniform(0.35, 1)).T[..., None]  # (5, 1) each
    across = across * (dice.uniform(0.6, 1.3) * (1 if dice.chance(0.5) else -1))
    control = along * u + across * np.array([-u[1], u[0]])
    own = min(max(roundness + dice.uniform(-0.2, 0.2), 0.0), 1.0)
    return _Piece(control, float(own), kind)


def _character(dice: _Dice, pieces: list[_Piece], symmetric: bool, size: float) -> _Character:
    """Hang each piece by an end or the middle on a stroke before it; fit all into the square."""
    strokes: list[np.ndarray] = []
    for piece in pieces:
        control = piece.control
        if strokes:
            held = strokes[dice.below(len(strokes))][2 * dice.below(3)]
            control = control - control[2 * dice.below(3)] + held
            if dice.chance(0.25):  # near, not attached
                control = control + dice.uniform(-0.35, 0.35, (2,))
        strokes.append(control)
    roundness = [piece.roundness for piece in pieces]
    kinds = [piece.kind for piece in pieces]
    if symmetric:  # mirror the last stroke at the first one's middle
        axis = strokes[0][2, 0]
        strokes.append(strokes[-1] * (-1, 1) + (2 * axis, 0))
        roundness.append(roundness[-1])
        kinds.append(kinds[-1])
    control, rounded = np.array(strokes), np.array(roundness)
    outline = _spline(control, rounded).reshape(-1, 2)
    low, high = outline.min(0), outline.max(0)
    fitted = 0.5 + (control - (low + high) / 2) * (
        size * dice.uniform(0.8, 1.1) / (high - low).max()
    )
    return _Character(fitted, rounded, np.array(kinds), symmetric)


class _Hands:
    """The hands of an alphabet's twenty writers."""

    def __init__(self, dice: _Dice) -> None:
        self._dice = dice
        self.pen = dice.uniform(0.015, 0.025, (WRITERS,))  # half its width
        self.turn = dice.normal((WRITERS,)) * 0.05  # tan of half the angle
        self.stretch = 1 + dice.normal((WRITERS, 2)) * 0.08
        self.shear = dice.normal((WRITERS,)) * 0.1
        self.wobble = dice.uniform(0.015, 0.03, (WRITERS,))

    def draw(self, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let all draw a character (S, 5, 2): control points (20, S, 5, 2) and pens (20,)."""
        dice, strokes = self._dice, len(control)
        wobble = self.wobble[:, None, None, None]
        noise = dice.normal((WRITERS, strokes, 5, 2)) * wobble
        slip = dice.normal((WRITERS, strokes, 1, 2)) * wobble
        x, y = np.moveaxis(control - 0.5 + noise + slip, -1, 0)  # (20, S, 5) each

        sx, sy = (self.stretch * (1 + dice.normal((WRITERS, 2)) * 0.07)).T[..., None, None]
        shear = (self.shear + dice.normal((WRITERS,)) * 0.05)[:, None, None]
        t = (self.turn + dice.normal((WRITERS,)) * 0.03)[:, None, None]
        x, y = sx * x + shear * y, sy * y
        # [cos −sin; sin cos] with cos = (1 − t²) / (1 + t²), sin = 2 t / (1 + t²)
        c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        place = 0.5 + dice.normal((WRITERS, 1, 1, 2)) * 0.04
        drawn = np.stack([c * x - s * y, s * x + c * y], -1) + place
        return drawn, self.pen * (1 + dice.normal((WRITERS,)) * 0.06)


def _spline(control: np.ndarray, roundness: np.ndarray) -> np.ndarray:
    """Draw strokes (..., S, 5, 2) as lines of 12 segments, (..., S, 13, 2).

    Between straight lines and Catmull-Rom's spline through the control points, by `roundness` (S,).
    """
    first, last = control[..., :1, :], control[..., -1:, :]
    second, fourth = control[..., 1:2, :], control[..., 3:4, :]
    closed = (first == last).all(-1, keepdims=True)
    before = np.where(closed, fourth, 2 * first - second)
    after = np.where(closed, second, 2 * last - fourth)
    points = np.concatenate([before, control, after], -2)[..., None, :]  # (..., S, 7, 1, 2)
    p0, p1, p2, p3 = (points[..., k : k + 4, :, :] for k in range(4))  # (..., S, 4, 1, 2)
    t = np.array([0, 1, 2])[:, None] / 3
    straight = p1 + t * (p2 - p1)  # (..., S, 4, 3, 2)
    a, b, c = p2 - p0, 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
    spline = p1 + t * (a + t * (b + t * c)) / 2
    line = straight + roundness[:, None, None, None] * (spline - straight)
    return np.concatenate([line.reshape(*line.shape[:-3], 12, 2), last], -2)


def _render(lines: np.ndarray, pens: np.ndarray, size: int) -> np.ndarray:
    """Draw pictures of lines (P, S, 13, 2) with round pens (P,): (P, size, size) uint8.

    A pixel's ink is clip(r + ½ − d, 0, 1), with r half the pen's width and d its centre's distance
    to the nearest line, in pixels. Distances are taken in a window around each segment only:
    beyond, there is no ink.
    """
    pictures = len(lines)
    lines = (lines * size + 0.5).astype(np.float32)  # framed pixel (i, j) is y = i, x = j
    reach = (pens * size + 0.5).astype(np.float32)[:, None, None]
    start, end = lines[:, :, :-1].reshape(-1, 2), lines[:, :, 1:].reshape(-1, 2)
    low, high = np.minimum(start, end), np.maximum(start, end)
    corner = np.ceil(low - reach.max()).astype(np.int64)
    window = np.arange(int((high - low + 2 * reach.max()).max()) + 2)

    column = (corner[:, 0, None] + window)[:, None, :]  # (segments, 1, w)
    row = (corner[:, 1, None] + window)[:, :, None]  # (segments, w, 1)
    dx = column.astype(np.float32) - start[:, 0, None, None]
    dy = row.astype(np.float32) - start[:, 1, None, None]
    x, y = (end - start).T[..., None, None]  # (segments, 1, 1) each
    # the nearest point of the segment is t of the way to its end
    t = np.clip((dx * x + dy * y) / np.maximum(x * x + y * y, np.float32(1e-12)), 0, 1)
    rx, ry = dx - t * x, dy - t * y  # (segments, w, w)

    # what falls off the page falls on its frame, which is cut off
    side = size + 2
    page = np.repeat(np.arange(pictures), len(start) // pictures)[:, None, None]
    place = (page * side + np.clip(row, 0, side - 1)) * side + np.clip(column, 0, side - 1)
    square = np.full(pictures * side * side, np.inf, np.float32)
    np.minimum.at(square, place.ravel(), (rx * rx + ry * ry).ravel())
    d = np.sqrt(square).reshape(pictures, side, side)[:, 1:-1, 1:-1]
    return (np.clip(reach - d, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _describe(character: _Character) -> list[float]:
    """Measure a character's attributes, in the order of ATTRIBUTES."""
    lines = _spline(character.control, character.roundness)  # (S, 13, 2)
    x, y = np.moveaxis(lines[:, 1:] - lines[:, :-1], -1, 0)
    square = np.maximum(x * x + y * y, 1e-12)
    length = np.sqrt(square)
    share = length / length.sum()
    width, height = np.ptp(lines.reshape(-1, 2), axis=0)
    centre = (share[..., None] * (lines[:, 1:] + lines[:, :-1]) / 2).sum((0, 1))
    return [
        len(lines),
        *np.bincount(character.kinds, minlength=len(KINDS)),
        character.roundness.mean(),
        character.symmetric,
        length.sum(),
        width,
        height,
        *centre,
        (share * (x * x - y * y) / square).sum(),
        (share * 2 * x * y / square).sum(),
    ]
