"""Images by class and drawing, and how tasks are drawn from them: choice, quarter turns, jitter."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

ROTATIONS = ("none", "classes", "episode", "class-episode")


class ImageDataset:
    """C characters of D drawings each, uint8 (C, D, H, W, channels), to draw tasks from.

    Where characters have different numbers of drawings, `images` is all of them (M, H, W, channels)
    and `spans` (C, 2) says which are whose: the row of the first, and how many. Then `n_drawings`
    is the least.

    The papers turn characters by multiples of 90° in four different ways; `rotations` names the
    convention:

    - "none": not at all (Koch et al. 2015).
    - "classes": each turn of a character is a class of its own, so there are 4 C classes; class 4 i
      + r is character i turned r times, counter-clockwise (Vinyals et al. 2016; Snell et al. 2017,
      and this order in their files).
    - "episode": all classes of a task are turned alike, anew for each task (Sung et al. 2018, their
      code).
    - "class-episode": each class of a task is turned by itself, anew for each task (Finn et al.
      2017; Santoro et al. 2016, who add `jitter`).

    `jitter` moves every drawn image a little: a rotation from U(−π/16, π/16) and a translation from
    U(−10, 10) pixels of a 105-pixel image, scaled to this one's size, along each axis (Santoro et
    al. 2016, section 4.2). `affine` distorts every drawn image (Koch et al. 2015; see `distorted`).
    """

    on_one_scale = False  # of attributes, if there are any: they are standardised

    def __init__(
        self,
        images: np.ndarray,
        names: Sequence[str],
        rotations: str = "none",
        jitter: bool = False,
        affine: bool = False,
        spans: np.ndarray | None = None,
    ) -> None:
        if rotations not in ROTATIONS:
            raise ValueError(f"rotations: one of {', '.join(ROTATIONS)} wanted, got {rotations!r}")
        self.images = images
        self.names = tuple(names)
        self.rotations = rotations
        self.jitter = jitter
        self.affine = affine
        if spans is None:
            each, self.image_shape = images.shape[1], images.shape[2:]
            spans = np.stack([np.arange(len(names)) * each, np.full(len(names), each)], axis=1)
            images = images.reshape(-1, *self.image_shape)
        else:
            self.image_shape = images.shape[1:]
        self._rows = images  # (M, H, W, channels)
        self.starts, self.counts = spans.T
        self.n_drawings = int(self.counts.min())

    @property
    def n_classes(self) -> int:
        """The number of classes a task can choose from: characters, or four times as many."""
        return len(self.names) * (4 if self.rotations == "classes" else 1)

    @functools.cached_property
    def alphabets(self) -> list[np.ndarray]:
        """The classes of each alphabet: those whose names agree up to the last slash.

        With turns as classes, an alphabet turned is another. Raises ValueError where a name has no
        slash.
        """
        members: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            members.setdefault(self.alphabet(name), []).append(row)
        rows = [np.array(found) for found in members.values()]
        if self.rotations == "classes":
            return [4 * found + turn for found in rows for turn in range(4)]
        return rows

    def alphabet(self, name: str) -> str:
        """The alphabet that a character of this name belongs to."""
        alphabet, slash, _ = name.rpartition("/")
        if not slash:
            raise ValueError(f"{self}: wanted names alphabet/character, got {name!r}")
        return alphabet

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw n images of n_way classes: x (T, N, n, H, W, channels) uint8, y (T, N, n) int64."""
        classes, drawings = self.choose(rng, tasks, n_way, n)
        labels = np.arange(n_way, dtype=np.int64)[:, None]
        return self.gather(classes, drawings, rng), np.broadcast_to(labels, drawings.shape)

    def choose(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose distinct classes (T, N) for each task and distinct drawings (T, N, n) of each."""
        classes = distinct(rng, tasks, n_way, self.n_classes)
        drawings = distinct(rng, tasks * n_way, n, self.count(classes).ravel())
        return classes, drawings.reshape(tasks, n_way, n)

    def count(self, classes: np.ndarray) -> np.ndarray:
        """How many drawings classes have."""
        return self.counts[classes // 4 if self.rotations == "classes" else classes]

    def gather(
        self, classes: np.ndarray, drawings: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Look up drawings (T, N, n) of classes (T, N): uint8 (T, N, n, H, W, channels).

        `rng` draws the turns, then the jitter, then the distortions, where the dataset has them.
        """
        if self.rotations == "classes":
            characters, turns = np.divmod(classes, 4)
        else:
            characters, turns = classes, self._turns(rng, *classes.shape)
        x = self.pixels(characters[..., None], drawings)
        if self.jitter:
            x = jittered(x, rng)
        if self.affine:
            x = distorted(x, rng)
        for turn in 1, 2, 3:
            chosen = turns == turn
            x[chosen] = np.rot90(x[chosen], turn, axes=(-3, -2))
        return x

    def pixels(self, characters: np.ndarray, drawings: np.ndarray) -> np.ndarray:
        """Return a copy of drawings, uint8 (..., H, W, channels); indices broadcast together."""
        return self._rows[self.starts[characters] + drawings]

    def _turns(self, rng: np.random.Generator, tasks: int, n_way: int) -> np.ndarray:
        """Draw how often each class of each task is turned by 90°, int64 (T, N)."""
        if self.rotations == "none":
            return np.zeros((tasks, n_way), np.int64)
        turns = below(rng, 4, (tasks, 1 if self.rotations == "episode" else n_way))
        return np.broadcast_to(turns, (tasks, n_way))

    def __repr__(self) -> str:
        size, most = "×".join(map(str, self.image_shape)), self.counts.max()
        drawings = f"{self.n_drawings} drawings"
        if self.n_drawings < most:
            least = self.names[int(self.counts.argmin())]
            drawings = f"{self.n_drawings} (of {least}) to {most} drawings"
        return (
            f"{type(self).__name__}({self.n_classes} classes × {drawings}, {size}, "
            f"rotations={self.rotations!r}, jitter={self.jitter}, affine={self.affine})"
        )


class Numbered:
    """The tasks of a dataset, each class with its number in the whole of it as its label.

    So a classifier of all classes can be trained on batches of some. Raises ValueError where a
    class is turned anew in each task and so is not one class.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        if dataset.rotations not in ("none", "classes"):
            raise ValueError(
                f"rotations: Numbered wants 'none' or 'classes', got {dataset.rotations!r}"
            )
        self.dataset, self.n_drawings = dataset, dataset.n_drawings
        self.n_classes = dataset.n_classes

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw x (T, N, n, H, W, channels) uint8 and y (T, N, n) int64, 0 ... n_classes − 1."""
        classes, drawings = self.dataset.choose(rng, tasks, n_way, n)
        y = np.broadcast_to(classes[..., None], drawings.shape)
        return self.dataset.gather(classes, drawings, rng), y

    def __repr__(self) -> str:
        return f"Numbered({self.dataset!r})"


class InChannels:
    """The tasks of a dataset of images, gray with 1 channel or with 3.

    Gray of colour is 0.299 R + 0.587 G + 0.114 B, as in Pillow; colour of gray three times the
    same.
    """

    def __init__(self, dataset: Any, channels: int) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels: 1 (gray) or 3 (RGB) wanted, got {channels}")
        self.dataset, self.channels = dataset, channels
        self.n_classes, self.n_drawings = dataset.n_classes, dataset.n_drawings

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw x (T, N, n, H, W, channels) uint8 and y (T, N, n) int64."""
        x, y = self.dataset.draw(rng, tasks, n_way, n)
        if x.shape[-1] == self.channels:
            return x, y
        if self.channels == 3:
            return np.repeat(x, 3, axis=-1), y
        gray = x @ np.array([[0.299], [0.587], [0.114]], np.float32)
        return np.rint(gray).astype(np.uint8), y

    def __repr__(self) -> str:
        return f"InChannels({self.dataset!r}, {self.channels})"


def below(rng: np.random.Generator, bound: int | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Draw integers 0..bound−1 as ⌊u · bound⌋, which is the same in every version of NumPy."""
    return (rng.random(shape) * bound).astype(np.int64)


def distinct(rng: np.random.Generator, rows: int, n: int, bound: int | np.ndarray) -> np.ndarray:
    """Draw n distinct integers out of 0..bound−1 for each row: (rows, n) int64.

    `bound` is one for all, or one a row (rows,).

    Every ordered choice is equally likely: the first n steps of a Fisher-Yates shuffle, in all rows
    at a time.
    """
    deck = np.tile(np.arange(np.max(bound)), (rows, 1))
    steps = np.arange(n)
    # step k swaps place k with one of k..bound−1
    others = steps + below(rng, np.reshape(bound, (-1, 1)) - steps, (rows, n))
    row = np.arange(rows)
    for k in steps:
        other = others[:, k]
        deck[row, k], deck[row, other] = deck[row, other], deck[row, k]
    return deck[:, :n]


def jittered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate and shift each image (..., H, W, channels) a little, as Santoro et al. (2016) do."""
    shape = images.shape
    images = images.reshape(-1, *shape[-3:])
    angle = (2 * rng.random(len(images)) - 1) * (np.pi / 16)
    shift = (2 * rng.random((len(images), 2)) - 1) * (10 / 105 * shape[-3])
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)  # (n, 2, 2)
    return affine(images, rotation, shift).reshape(shape)


def distorted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate, shear, scale and shift each image (..., H, W, channels), as Koch et al. (2015) do.

    Scaled by s_x, s_y in [0.8, 1.2], sheared by ρ_x, ρ_y in [−0.3, 0.3], rotated by θ in [−10°,
    10°], shifted by t_x, t_y in [−2, 2] pixels of a 105-pixel image, scaled to this one's size.
    Each of the seven is uniform and used with probability 1/2 (section 3.2).
    """
    shape = images.shape
    images = images.reshape(-1, *shape[-3:])
    n = len(images)
    u = (2 * rng.random((n, 7)) - 1) * (rng.random((n, 7)) < 0.5)  # 0 where it is not used
    θ, ρ, s, t = np.pi / 18 * u[:, 0], 0.3 * u[:, 1:3], 1 + 0.2 * u[:, 3:5], 2 / 105 * u[:, 5:]
    # A = (R(θ) [1 ρ_x; ρ_y 1] diag(s))⁻¹ = diag(1/s) [1 −ρ_x; −ρ_y 1] / (1 − ρ_x ρ_y) R(−θ)
    c, d = np.cos(θ), np.sin(θ)
    a = np.stack([c + ρ[:, 0] * d, d - ρ[:, 0] * c, -ρ[:, 1] * c - d, c - ρ[:, 1] * d], -1)
    a = a.reshape(n, 2, 2) / (1 - ρ[:, 0] * ρ[:, 1])[:, None, None] / s[..., None]
    return affine(images, a, t * shape[-3]).reshape(shape)


def affine(images: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Resample images so that p shows what was at A (p − c − s) + c, with c the image's centre.

    That is, transform by A⁻¹ about the centre, then shift by s. images (n, H, W, channels) uint8;
    matrix A (n, 2, 2) and shift s (n, 2) in pixels, both in (row, column) order. Bilinear, with
    background (0) outside; returns uint8 of the same shape.
    """
    n, height, width, channels = images.shape
    A, s = matrix.astype(np.float32), shift.astype(np.float32)[..., None, None]
    centre = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    r = np.arange(height, dtype=np.float32)[:, None] - centre[0] - s[:, 0]  # (n, H, 1)
    c = np.arange(width, dtype=np.float32) - centre[1] - s[:, 1]  # (n, 1, W)

    def source(axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole and the fractional part of one source coordinate, (n, H·W) each."""
        a, b = A[:, axis, :, None, None].swapaxes(0, 1)
        place = a * r + b * c + centre[axis] + 1  # 1 for the border below
        # beyond the border everything is background, wherever exactly
        place = np.clip(place, 0, size + 1).reshape(n, -1)
        whole = np.minimum(place.astype(np.int64), size)
        return whole, place - whole

    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    (i, di), (j, dj) = source(0, height), source(1, width)
    first = np.arange(n)[:, None] * ((height + 2) * (width + 2))
    corner = first + i * (width + 2) + j
    di, dj = di[..., None], dj[..., None]
    top = (1 - dj) * padded[corner] + dj * padded[corner + 1]
    bottom = (1 - dj) * padded[corner + width + 2] + dj * padded[corner + width + 3]
    return ((1 - di) * top + di * bottom + np.float32(0.5)).astype(np.uint8).reshape(images.shape)
