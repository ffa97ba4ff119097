"""One's own pictures: a folder with a sub-folder for each class.

    DIR/cats/siamese/one.jpg  two.png ...     the class "cats/siamese"
    DIR/robin/a.webp ...                      the class "robin"

Which classes are for training, validation and test is said by DIR/splits.csv, lines class,split
below this heading with one of train, val, test for each class; or by sub-folders of these names
with the classes in them (DIR/train/robin/a.webp); or else it is drawn. val may be written
validation.
"""

import csv
import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError, is_litter
from scratchmeta.data.cache import mapped
from scratchmeta.data.images import ImageDataset, distinct
from scratchmeta.data.pictures import is_picture, known, read
from scratchmeta.episodes import generator

SPLITS = ("train", "val", "test")
NAMED = {"train": "train", "val": "val", "validation": "val", "test": "test"}
LIST = "splits.csv"


class Folder(ImageDataset):
    """The classes of one split of a folder of pictures, each a sub-folder, at any depth.

    `split` is "train", "val", "test", or "all" for every class. Where neither `root`/splits.csv nor
    sub-folders train, val and test say which class belongs where, `shares` of them, drawn by
    `split_seed`, are for the three. A class is called by its path below `root` (below train, val or
    test where they are), and has as many pictures as it has.

    Pictures are of any format that Pillow reads, and become `image_size` × `image_size` ×
    `channels`, gray with 1, RGB with 3; `invert` makes dark ink on white 255 on 0, as it is in
    `Omniglot` (see `pictures.read`). All are decoded the first time and mapped from one file later.
    `rotations`, `jitter` and `affine`: see `ImageDataset`.

    A folder holds pictures or folders, not both, and no links to folders, which may go in circles.
    Files whose names do not end like pictures' are passed over with a warning. Raises `DataError`,
    naming the file or folder, where something is missing, damaged or ambiguous.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "train",
        image_size: int = 84,
        channels: int = 3,
        invert: bool = False,
        shares: Sequence[float] = (0.5, 0.25, 0.25),
        split_seed: int = 0,
        rotations: str = "none",
        jitter: bool = False,
        affine: bool = False,
    ) -> None:
        root = Path(root)
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: one of {', '.join(SPLITS)}, all wanted, got {split!r}")
        if image_size < 1:
            raise ValueError(f"image_size: at least 1 wanted, got {image_size}")
        if channels not in (1, 3):
            raise ValueError(f"channels: 1 (gray) or 3 (RGB) wanted, got {channels}")
        if len(shares) != 3 or not all(0 < share < float("inf") for share in shares):
            raise ValueError(f"shares: three positive numbers wanted, got {shares}")
        found = classes(root)
        names, said, self.source = _assigned(root, list(found))
        if said is None:  # then it is drawn, where it matters
            n = len(names)
            said = [split] * n if split == "all" else _drawn(root, n, shares, split_seed)
        chosen = [row for row, of in enumerate(said) if split in (of, "all")]
        files = [file for own in found.values() for file in own]
        counts = np.array([len(own) for own in found.values()])
        spans = np.stack([np.cumsum(counts) - counts, counts], axis=1)
        place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
        images = mapped(
            f"folder-{image_size}-{channels}{'-inverted' * invert}-{place}",
            f"{_code()} {_identity(files)}",
            (len(files), image_size, image_size, channels),
            lambda: (read(file, image_size, channels, invert) for file in files),
        )
        names = [names[row] for row in chosen]
        super().__init__(images, names, rotations, jitter, affine, spans[chosen])
        self.root, self.split, self.invert = root, split, invert
        self.shares, self.split_seed = tuple(shares), split_seed

    def alphabet(self, name: str) -> str:
        """The folder that a class is in: its classes are alike, as an alphabet's characters are."""
        return name.rpartition("/")[0]


def classes(root: Path) -> dict[str, list[Path]]:
    """{path below the root: its pictures, sorted} of every folder that holds pictures, sorted."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    classes: dict[str, list[Path]] = {}
    others: list[Path] = []

    def failed(error: OSError) -> None:
        raise DataError(f"{error.filename}: not readable: {error.strerror}") from error

    for where, folders, names in os.walk(root, onerror=failed):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not is_litter(name))
        paths = sorted(here / name for name in names if not is_litter(name))
        pictures = [path for path in paths if is_picture(path)]
        others += [path for path in paths if not is_picture(path) and path != root / LIST]
        for name in folders:
            if (here / name).is_symlink():
                raise DataError(f"{here / name}: a folder wanted, got a link to one")
        if pictures and folders:
            raise DataError(
                f"{here}: either pictures (of one class) or folders wanted, got both: "
                f"{pictures[0].name} and {folders[0]}/"
            )
        if pictures and here == root:
            raise DataError(
                f"{root}: a sub-folder for each class wanted, got pictures: {pictures[0].name}"
            )
        if not pictures and not folders:
            raise DataError(f"{here}: no pictures in it")
        if pictures:
            classes[here.relative_to(root).as_posix()] = pictures
    if others:
        warnings.warn(
            f"{root}: {len(others)} files are passed over, whose names do not end like those of "
            f"pictures, first {others[0].relative_to(root)}",
            stacklevel=4,
        )
    return dict(sorted(classes.items()))


def _assigned(root: Path, paths: list[str]) -> tuple[list[str], list[str] | None, Path]:
    """The name and the split of the class at each path, and what says so; None if nothing does."""
    if (file := root / LIST).exists():
        return paths, _listed(file, paths), file
    if {path.split("/")[0] for path in paths} & NAMED.keys():
        return *_by_folder(root, paths), root
    return paths, None, root


def _listed(file: Path, paths: list[str]) -> list[str]:
    """The split of each class by the list in a file."""
    try:
        heading, *rows = list(csv.reader(io.StringIO(file.read_text("utf-8-sig")))) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: lines class,split wanted, got {error}") from error
    if heading != ["class", "split"]:
        raise DataError(f"{file}: columns class,split wanted, got {','.join(heading)!r}")
    splits: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != 2 or row[1] not in NAMED:
            raise DataError(
                f"{file}, line {number}: a class and one of {', '.join(SPLITS)} wanted, "
                f"got {','.join(row)!r}"
            )
        if row[0] in splits:
            raise DataError(f"{file}, line {number}: {row[0]!r} is listed twice")
        if row[0] not in paths:
            raise DataError(f"{file}, line {number}: {file.parent / row[0]} has no pictures")
        splits[row[0]] = NAMED[row[1]]
    if missing := [path for path in paths if path not in splits]:
        raise DataError(f"{file}: every class wanted, got none of {missing[0]!r}")
    if empty := [split for split in SPLITS if split not in splits.values()]:
        raise DataError(
            f"{file}: classes for each of {', '.join(SPLITS)} wanted, got none for {empty[0]}"
        )
    return [splits[path] for path in paths]


def _by_folder(root: Path, paths: list[str]) -> tuple[list[str], list[str]]:
    """The names and splits of classes in the folders train, val and test."""
    tops = {path.split("/")[0] for path in paths}
    if not tops <= NAMED.keys() or {NAMED[top] for top in tops} != set(SPLITS):
        raise DataError(
            f"{root}: sub-folders {', '.join(SPLITS)} and no others wanted, or none of these names "
            f"(or a list of classes, {LIST}), got {', '.join(sorted(tops))}"
        )
    found: dict[str, str] = {}
    for path in paths:
        _, slash, name = path.partition("/")
        if not slash:
            raise DataError(f"{root / path}: a sub-folder for each class wanted, got pictures")
        if name in found:
            raise DataError(
                f"{root / path}: other classes wanted in another split, got {name!r} as in "
                f"{root / found[name]}"
            )
        found[name] = path
    return list(found), [NAMED[path.split("/")[0]] for path in paths]


def _drawn(root: Path, n: int, shares: Sequence[float], seed: int) -> list[str]:
    """Draw the splits of n classes, at least one class for each."""
    _, val, test = (max(1, round(n * share / sum(shares))) for share in shares)
    if n - val - test < 1:
        raise DataError(
            f"{root}: classes for training, validation and test wanted, got {n} classes in shares "
            f"of {', '.join(f'{share:g}' for share in shares)}"
        )
    splits = np.repeat(SPLITS, (n - val - test, val, test))
    order = distinct(generator(seed, 0), 1, n, n)[0]
    return splits[order].tolist()


def _code() -> str:
    """Return what changes when the code that decodes changes."""
    code = [Path(__file__).with_name(name).read_bytes() for name in ("folder.py", "pictures.py")]
    return hashlib.sha256(b"".join(code)).hexdigest()


def _identity(files: list[Path]) -> str:
    """Return what changes when a picture may have changed: names, sizes and times."""
    stats = ((file, known(file)) for file in files)
    return "\n".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)
