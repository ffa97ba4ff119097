"""Caltech-UCSD Birds 200-2011 (Wah et al. 2011) as attributes of classes and features of images.

    DIR/classes.txt                                              lines: number name
    DIR/attributes/class_attribute_labels_continuous.txt         a line a class: 312 percentages
    DIR/trainclasses.txt  valclasses.txt  testclasses.txt        the split: a name a line
    DIR/features/001.Black_footed_Albatross.npy  ...             (images, 1024), or with crops
                                                                 (images, 1024, crops)

The first two are the data set's own. The split into 100, 50 and 50 classes and GoogLeNet's features
of ten crops, of which the middle one is the first, are Reed et al.'s (CVPR 2016,
https://github.com/reedscot/cvpr2016); there a class's features are a Torch file of this shape.
"""

from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError, regular
from scratchmeta.data.images import below, distinct

SPLITS = ("train", "val", "trainval", "test")
ATTRIBUTES, FEATURES = 312, 1024  # of a class, of an image
MAX_LINES = 1 << 24  # bytes of a text; the attributes have 600,000
MAX_FEATURES = 1 << 30  # bytes of a class; 60 images of 10 crops in float64 have 5,000,000
MATRIX = "attributes/class_attribute_labels_continuous.txt"


class CUB:
    """Birds of one split: features of images, and `attributes` (C, A) of classes between 0 and 1.

    `split` is "train", "val", "test" or "trainval", both of the first two. An image is one of its
    crops, drawn anew each time with `crops` "random", the middle one with "middle". Classes have
    different numbers of images; `n_drawings` is the least.

    Raises `DataError`, naming the file, where something is missing or of another shape.
    """

    on_one_scale = True  # attributes are percentages

    def __init__(self, root: str | Path, split: str = "train", crops: str = "middle") -> None:
        root = Path(root)
        if split not in SPLITS:
            raise ValueError(f"split: one of {', '.join(SPLITS)} wanted, got {split!r}")
        if crops not in ("middle", "random"):
            raise ValueError(f"crops: 'middle' or 'random' wanted, got {crops!r}")
        described = _attributes(root)
        parts = ("train", "val") if split == "trainval" else (split,)
        names: list[str] = []
        for file in (root / f"{part}classes.txt" for part in parts):
            for name in _lines(file):
                if name not in described:
                    raise DataError(f"{file}: {name!r} is not in classes.txt")
                if name in names:
                    raise DataError(f"{file}: {name!r} is listed twice")
                names.append(name)
        features = [_features(root / "features" / f"{name}.npy") for name in names]
        for name, array in zip(names, features, strict=True):
            if array.shape[2] != (crops_first := features[0].shape[2]):
                raise DataError(
                    f"{root / 'features' / name}.npy: {crops_first} crops of each image wanted, "
                    f"as in {names[0]}, got {array.shape[2]}"
                )
        self.root, self.names, self.source = root, tuple(names), file
        self.split, self.crops = split, crops
        self.attributes = np.stack([described[name] for name in names])
        self.features = np.concatenate(features)  # (images, F, crops)
        self.counts = np.array([len(array) for array in features])
        self.starts = np.cumsum(self.counts) - self.counts
        self.n_classes, self.n_drawings = len(names), int(self.counts.min())

    def choose(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose distinct classes (T, N) for each task and distinct images (T, N, n) of each."""
        classes = distinct(rng, tasks, n_way, self.n_classes)
        images = distinct(rng, tasks * n_way, n, self.counts[classes].ravel())
        return classes, images.reshape(tasks, n_way, n)

    def gather(
        self, classes: np.ndarray, images: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Look up images (T, N, n) of classes (T, N): features (T, N, n, F) float32."""
        crop = 0 if self.crops == "middle" else below(rng, self.features.shape[2], images.shape)
        return self.features[self.starts[classes][..., None] + images, :, crop]

    def draw(
        self, rng: np.random.Generator, tasks: int, n_way: int, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw n images of n_way classes: x (T, N, n, F) float32, y (T, N, n) int64."""
        classes, images = self.choose(rng, tasks, n_way, n)
        labels = np.arange(n_way, dtype=np.int64)[:, None]
        return self.gather(classes, images, rng), np.broadcast_to(labels, images.shape)

    def __repr__(self) -> str:
        return (
            f"CUB({self.split}: {self.n_classes} classes, at least {self.n_drawings} images each)"
        )


def _lines(file: Path) -> list[str]:
    try:
        regular(file, MAX_LINES)
        found = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{file} not found (docs/data.md says what belongs where)") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: lines of text wanted, got {error}") from error
    if not found:
        raise DataError(f"{file}: nothing in it")
    return found


def _attributes(root: Path) -> dict[str, np.ndarray]:
    """Read each class's attributes (A,), between 0 and 1: {name: attributes}."""
    names = []
    for number, line in enumerate(_lines(root / "classes.txt"), 1):
        words = line.split()
        if len(words) != 2 or words[0] != str(number):
            raise DataError(f"{root / 'classes.txt'}: '{number} NAME' wanted, got {line!r}")
        if words[1] in names:
            raise DataError(f"{root / 'classes.txt'}: {words[1]!r} is listed twice")
        names.append(words[1])
    file, rows = root / MATRIX, []
    for number, line in enumerate(_lines(file), 1):
        try:
            row = np.array([float(word) for word in line.split()])
        except ValueError:
            raise DataError(f"{file}, line {number}: numbers wanted, got {line[:40]!r}") from None
        if len(row) != ATTRIBUTES or not ((row >= 0) & (row <= 100)).all():
            raise DataError(
                f"{file}, line {number}: {ATTRIBUTES} percentages wanted, got {len(row)} numbers "
                f"from {row.min():g} to {row.max():g}"
            )
        rows.append(row.astype(np.float32) / 100)
    if len(rows) != len(names):
        raise DataError(f"{file}: {len(names)} lines wanted, one a class, got {len(rows)}")
    return dict(zip(names, rows, strict=True))


def _features(file: Path) -> np.ndarray:
    """Read a class's features: (images, F, crops) float32."""
    try:
        regular(file, MAX_FEATURES)
        with file.open("rb") as opened:  # np.load would read an archive of arrays too
            array = np.lib.format.read_array(opened, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{file} not found (docs/data.md says what belongs where)") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not readable as a NumPy array: {error}") from error
    if array.dtype.kind != "f" or array.ndim not in (2, 3) or array.shape[1] != FEATURES:
        raise DataError(
            f"{file}: floats (images, {FEATURES}) or (images, {FEATURES}, crops) wanted, got "
            f"{array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes ∞, and is refused
        features = np.atleast_3d(array).astype(np.float32)
    if not (features.size and np.isfinite(features).all()):
        raise DataError(f"{file}: finite numbers wanted, in float32 too, got others, or none")
    return features
