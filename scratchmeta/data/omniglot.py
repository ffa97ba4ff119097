"""Omniglot (Lake et al. 2015): 1623 handwritten characters, 50 alphabets, each drawn 20 times.

The pictures come from the two official archives, images_background.zip and images_evaluation.zip,
or the folders they extract to. Lake's split trains on the 30 background alphabets (964 characters)
and tests on the 20 of evaluation (659). The papers' "1200/423" is a random split of characters,
which only Snell's files (of the split Vinyals et al. used) pin down: 1028 characters to train, 172
to validate, 423 to test. There one alphabet, Gurmukhi, is in both train and test, with different
characters.
"""

import hashlib
import io
import os
import re
import struct
from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError, files, members, regular
from scratchmeta.data.cache import Arrays, cached
from scratchmeta.data.download import extra, fetch
from scratchmeta.data.images import ImageDataset

URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
SNELL = (
    "https://github.com/jakesnell/prototypical-networks/tree/master/data/omniglot/splits/vinyals"
)

# the alphabets of Vinyals' validation characters, which all are background alphabets
VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
RESAMPLINGS = ("antialiased", "nearest")
LAKE = ("background", "background-train", "background-val", "evaluation")
VINYALS = ("train", "val", "trainval", "test")

SIDE, DRAWERS = 105, 20
MAX_BYTES = 1 << 16  # a picture has about 300
MAX_LIST = 1 << 24  # the longest list of a split has 200,000


class Omniglot(ImageDataset):
    """Omniglot's characters in one split, read from `root` and kept as a cached array.

    `split`, after Lake et al.: "background", "evaluation", and for a validation set that is
    neither, "background-val" (the five background alphabets that Vinyals' validation characters
    come from: 172 characters) with "background-train" (the other 25). After Vinyals et al.:
    "train", "val", "trainval", "test", from the files of that name in `root`/splits/vinyals.
    `rotations`, `jitter` and `affine`: see `ImageDataset`; Vinyals et al. use "classes".

    Images are `image_size` × `image_size` × 1; ink is 255, background 0. `resampling` says how they
    come of 105 × 105, where another size is asked for. "antialiased" is Pillow's bilinear filter on
    grays. "nearest" takes one pixel in each place, so that images stay black and white, and jagged:
    what Pillow makes of binary pictures, as Omniglot's are, whatever filter it is told. The code of
    Snell, Finn, Sung and Nichol et al. trains and tests on those, without saying so. They are the
    harder ones: the nearest neighbour on pixels is right in 38 % of Vinyals' 5-way tasks, not 47 %.

    With `download`, missing archives are fetched into `root` and their MD5 verified.

    Raises `DataError`, naming the file, where something is missing, damaged or not Omniglot.

    Lake, Salakhutdinov & Tenenbaum, Human-level concept learning through probabilistic program
    induction, Science 2015.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "background",
        image_size: int = 28,
        rotations: str = "none",
        jitter: bool = False,
        affine: bool = False,
        download: bool = False,
        resampling: str = "antialiased",
    ) -> None:
        root = Path(root)
        if split not in LAKE + VINYALS:
            raise ValueError(f"split: one of {', '.join(LAKE + VINYALS)} wanted, got {split!r}")
        if not 1 <= image_size <= SIDE:
            raise ValueError(f"image_size: 1 to {SIDE} wanted, got {image_size}")
        if resampling not in RESAMPLINGS:
            raise ValueError(f"resampling: {' or '.join(RESAMPLINGS)} wanted, got {resampling!r}")
        file = root / "splits" / "vinyals" / f"{split}.txt"
        listed = _listed(file) if split in VINYALS else None
        parts = tuple(MD5) if split in VINYALS else (f"images_{split.split('-')[0]}",)
        places = [_locate(root, part, download) for part in parts]
        stored = [
            _stored(*each, image_size, resampling) for each in zip(places, parts, strict=True)
        ]
        images = np.concatenate([arrays["images"] for arrays in stored])
        names = np.concatenate([arrays["names"] for arrays in stored]).tolist()
        if listed is None:
            chosen = [row for row, name in enumerate(names) if _in_lake(name, split)]
        else:
            chosen = _rows(names, listed, root)
        if not chosen:
            raise DataError(f"{root}: no character of split {split!r}; partial archives?")
        super().__init__(images[chosen], [names[row] for row in chosen], rotations, jitter, affine)
        self.root, self.split, self.source = root, split, places[0] if listed is None else file
        self.resampling = resampling
        self.image_shape = (image_size, image_size, 1)

    def pixels(self, characters: np.ndarray, drawings: np.ndarray) -> np.ndarray:
        """Return a copy of these drawings, uint8 (..., H, W, 1); indices broadcast together.

        At 105 × 105 `images` holds one bit a pixel, (C, D, 105, 14), which are spread out here.
        """
        x = super().pixels(characters, drawings)
        if self.image_shape[0] < SIDE:
            return x
        return np.unpackbits(x, axis=-1, count=SIDE)[..., None] * np.uint8(255)


def _in_lake(name: str, split: str) -> bool:
    """Whether a character of the split's archive belongs to the split."""
    validates = name.split("/")[0] in VALIDATION
    return {"background-train": not validates, "background-val": validates}.get(split, True)


def _listed(file: Path) -> list[str]:
    """Read a Vinyals split: characters "Alphabet/characterNN", each listed in four rotations."""
    try:
        regular(file, MAX_LIST)
        lines = file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        raise DataError(f"{file} not found; it is one of the files in {SNELL}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: lines of ASCII text wanted, got {error}") from error
    characters = list(dict.fromkeys(line.rpartition("/")[0] for line in lines))
    wanted = [f"{name}/rot{turn:03}" for name in characters for turn in (0, 90, 180, 270)]
    if not lines or sorted(lines) != sorted(wanted):
        odd = next(iter(set(lines) ^ set(wanted)), "none or repeated lines")
        raise DataError(
            f"{file}: Alphabet/characterNN/rot000, 090, 180 and 270 of each character wanted, "
            f"each once; got {odd!r} without the others"
        )
    return characters


def _rows(names: list[str], listed: list[str], root: Path) -> list[int]:
    """Look up where each listed character is."""
    place = {name: row for row, name in enumerate(names)}
    if missing := [name for name in listed if name not in place]:
        raise DataError(f"{root}: the archives lack {missing[0]!r}, which the split file lists")
    return [place[name] for name in listed]


def _locate(root: Path, part: str, download: bool) -> Path:
    """Return the archive, else the extracted folder, of a part; fetch the archive if asked to."""
    file, folder = root / f"{part}.zip", root / part
    if file.is_file():
        return file
    if folder.is_dir():
        return folder
    if not download:
        raise DataError(
            f"Omniglot: neither {file} nor the folder {folder} exists; put {URL}{part}.zip there, "
            f"or let Omniglot({str(root)!r}, {part.removeprefix('images_')!r}, download=True) do it"
        )
    fetch(f"{URL}{part}.zip", file, MD5[part])
    return file


def _stored(path: Path, part: str, size: int, resampling: str) -> Arrays:
    """Return a part from the cache: its "images" and the "names" (C,) of its characters.

    Images are uint8 (C, 20, size, size, 1), but at 105 × 105 bits (C, 20, 105, 14).
    """
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    key = f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {_identity(path)}"

    def at(looks: str) -> str:
        return f"omniglot-{part}-{looks}-{place}"

    def bits() -> Arrays:
        return cached(at(f"{SIDE}"), key, lambda: _decoded(path, part))

    if size == SIDE:
        return bits()
    return cached(at(f"{size}-{resampling}"), key, lambda: resized(bits(), size, resampling))


def _identity(path: Path) -> str:
    """Return what changes when the data may have changed: names, sizes and times."""
    if path.is_file():
        stats = [(str(path), os.stat(path))]
    else:
        stats = [(name, _picture(name)) for name in files(path)]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _picture(name: str) -> os.stat_result:
    try:
        return regular(name, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{name}: not readable ({error.strerror})") from error


def _decoded(path: Path, part: str) -> Arrays:
    """Read all pictures as bits (C, 20, 105, 14), 1 for ink, sorted by character and drawer."""
    pattern = re.compile(rf"{part}/([^/]+/character\d\d)/\d{{4}}_(\d\d)\.png")
    drawings: dict[str, list[tuple[int, np.ndarray]]] = {}
    for name, content in members(path, MAX_BYTES):
        match = pattern.fullmatch(name)
        if match is None:
            raise DataError(f"{path}: {part}/Alphabet/characterNN/NNNN_NN.png wanted, got {name!r}")
        ink = bits_of(content, f"{path}: {name}")
        drawings.setdefault(match[1], []).append((int(match[2]), ink))
    for name, found in drawings.items():
        drawers = sorted(drawer for drawer, _ in found)
        if drawers != list(range(1, DRAWERS + 1)):
            raise DataError(f"{path}: {name}: drawings 1 to {DRAWERS} wanted, got {drawers}")
    if not drawings:
        raise DataError(f"{path}: no pictures in it")
    images = [
        [bits for _, bits in sorted(found, key=lambda d: d[0])] for found in drawings.values()
    ]
    return {"images": np.array(images), "names": np.array(list(drawings))}


def bits_of(content: bytes, name: str) -> np.ndarray:
    """Decode one PNG to bits (105, 14), 1 where there is ink."""
    Image = extra("PIL.Image")
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise DataError(f"{name} is not a PNG picture")
    # before Pillow reserves memory for what a hostile header declares
    if (size := struct.unpack_from(">II", content.ljust(24), 16)) != (SIDE, SIDE):
        raise DataError(f"{name}: {SIDE} × {SIDE} pixels wanted, got {size[0]} × {size[1]}")
    try:
        picture = Image.open(io.BytesIO(content), formats=["PNG"])
        white = picture.convert("1", dither=Image.Dither.NONE).tobytes()
        return ~np.frombuffer(white, np.uint8).reshape(SIDE, 14)
    except Exception as error:  # fed odd bytes, Pillow raises even IndexError
        raise DataError(f"{name}: damaged picture: {error}") from error


def resized(arrays: Arrays, size: int, resampling: str) -> Arrays:
    """Resample bits (C, 20, 105, 14) to "images" (C, 20, size, size, 1), 255 for full ink."""
    Image = extra("PIL.Image")
    filters = {"antialiased": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
    bits = arrays["images"]
    images = np.empty((*bits.shape[:2], size, size, 1), np.uint8)
    for place in np.ndindex(bits.shape[:2]):
        ink = Image.frombytes("1", (SIDE, SIDE), bits[place].tobytes()).convert("L")
        picture = ink.resize((size, size), filters[resampling])
        images[place] = np.asarray(picture)[..., None]
    return {**arrays, "images": images}
