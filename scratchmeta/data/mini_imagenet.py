"""mini-ImageNet (Vinyals et al. 2016) in the split of Ravi & Larochelle (2017): colour photographs
of 64 classes to train, 16 to validate and 20 to test, 600 of each.

    DIR/train.csv  val.csv  test.csv    lines filename,label below this heading
    DIR/images/n0153282900000005.jpg ...

The lists are in https://github.com/twitter-research/meta-learning-lstm (data/miniImagenet). The
photographs are ImageNet's, whose terms do not let us fetch them. From ImageNet's own training
images (ILSVRC 2012, https://image-net.org), https://github.com/yaoyao-liu/mini-imagenet-tools
collects those that the lists name.
"""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError, regular
from scratchmeta.data.cache import mapped
from scratchmeta.data.download import extra
from scratchmeta.data.images import ImageDataset

SPLITS = ("train", "val", "test")
LISTS = "https://github.com/twitter-research/meta-learning-lstm/tree/master/data/miniImagenet"
SIDE = 84
MAX_BYTES = 1 << 25  # a photograph has about 100,000, a list 2,000,000
MAX_PIXELS = 1 << 26  # a photograph has about 200,000


class MiniImageNet(ImageDataset):
    """mini-ImageNet's classes in one split, read from `root` and kept as a file that is mapped.

    `split` is "train", "val" or "test". Images are `image_size` × `image_size` × 3, whatever the
    shape of the photograph, resampled by Lanczos as in MAML's code. All are decoded the first time
    (minutes for the whole set), and mapped from one uint8 array on disk later (813 MB for "train").
    `names` are the labels, sorted; a class has its images in the list's order.

    Raises `DataError`, naming the file, where something is missing or damaged, and where the
    classes of a list have not all the same number of images.
    """

    def __init__(self, root: str | Path, split: str = "train", image_size: int = SIDE) -> None:
        root = Path(root)
        if split not in SPLITS:
            raise ValueError(f"split: one of {', '.join(SPLITS)} wanted, got {split!r}")
        if image_size < 1:
            raise ValueError(f"image_size: at least 1 wanted, got {image_size}")
        self.source = root / f"{split}.csv"
        classes = _listed(self.source)
        files = [[root / "images" / name for name in names] for names in classes.values()]
        shape = len(files), len(files[0]), image_size, image_size, 3
        place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
        images = mapped(
            f"mini-imagenet-{split}-{image_size}-{place}",
            f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {_identity(files, root)}",
            shape,
            lambda: (np.stack([_decoded(p, image_size) for p in paths]) for paths in files),
        )
        super().__init__(images, list(classes))
        self.root, self.split = root, split


def _listed(file: Path) -> dict[str, list[str]]:
    """Read a list: {label: names of its images}, sorted by label, as many of each."""
    try:
        regular(file, MAX_BYTES)
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file} not found; it is one of the lists in {LISTS}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: lines of text wanted, got {error}") from error
    try:
        heading, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    except csv.Error as error:
        raise DataError(f"{file}: lines filename,label wanted, got {error}") from error
    if heading != ["filename", "label"]:
        raise DataError(f"{file}: columns filename,label wanted, got {','.join(heading)!r}")
    classes: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        if len(row) != 2 or not all(row) or Path(row[0]).name != row[0]:
            raise DataError(
                f"{file}, line {number}: a file's name and a label wanted, got {','.join(row)!r}"
            )
        name, label = row
        if name in seen:
            raise DataError(f"{file}, line {number}: {name!r} is listed twice")
        seen.add(name)
        classes.setdefault(label, []).append(name)
    if not classes:
        raise DataError(f"{file}: no images in it")
    most = max(map(len, classes.values()))
    for label, names in classes.items():
        if len(names) < most:
            raise DataError(
                f"{file}: {most} images of each class wanted, got {len(names)} of {label!r}"
            )
    return dict(sorted(classes.items()))


def _identity(files: list[list[Path]], root: Path) -> str:
    """Return what changes when a photograph may have changed: names, sizes and times."""
    found, missing = [], []
    for path in (path for paths in files for path in paths):
        try:
            stat = regular(path, MAX_BYTES)
        except OSError:
            missing.append(path.name)
            continue
        found.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    if missing:
        raise DataError(
            f"{root / 'images'}: {len(missing)} of {len(missing) + len(found)} listed images are "
            f"missing, first {missing[0]!r}"
        )
    return " ".join(found)


def _decoded(path: Path, size: int) -> np.ndarray:
    """Decode one photograph: uint8 (size, size, 3)."""
    Image = extra("PIL.Image")
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as picture:  # which reads its header only
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"at most {MAX_PIXELS} pixels wanted, got {picture.width} × {picture.height}"
                )
            colour = picture.convert("RGB")
        return np.asarray(colour.resize((size, size), Image.Resampling.LANCZOS))
    except Exception as error:  # fed odd bytes, Pillow raises even IndexError
        raise DataError(f"{path}: damaged picture: {error}") from error
