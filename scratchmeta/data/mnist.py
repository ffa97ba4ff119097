"""MNIST (LeCun, Cortes & Burges 1998): handwritten digits, to test what was trained elsewhere.

    DIR/t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz      10,000 digits, split "test"
    DIR/train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz     60,000 digits, split "train"

Each may also lie there without .gz, unpacked. An idx file is two zero bytes, the type of its
numbers (8: bytes), how many axes, their lengths (32 bits each, the highest byte first), and the
numbers.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError
from scratchmeta.data.cache import mapped
from scratchmeta.data.download import extra
from scratchmeta.data.images import ImageDataset

FILES = {"test": "t10k", "train": "train"}
SIDE, MOST = 28, 60_000


class MNIST(ImageDataset):
    """MNIST's ten digits, classes "0" to "9" of different numbers of drawings, read from `root`.

    `split` is "test" or "train". Images are 28 × 28 × 1 as published, and resampled to
    `image_size` × `image_size` by Pillow's bilinear where another size is asked for. Ink is 255 on
    a background of 0, as it is in `Omniglot` and `Glyphs`, so a network trained on these sees what
    it knows: nothing is inverted. (A digit fills 20 × 20 of the 28 × 28 and is drawn with a thicker
    pen than Omniglot's characters.)

    Raises `DataError`, naming the file, where something is missing, damaged or not MNIST.
    """

    def __init__(self, root: str | Path, split: str = "test", image_size: int = SIDE) -> None:
        root = Path(root)
        if split not in FILES:
            raise ValueError(f"split: one of {', '.join(FILES)} wanted, got {split!r}")
        if image_size < 1:
            raise ValueError(f"image_size: at least 1 wanted, got {image_size}")
        images = _idx(_located(root, f"{FILES[split]}-images-idx3-ubyte"), (SIDE, SIDE))
        self.source = _located(root, f"{FILES[split]}-labels-idx1-ubyte")
        labels = _idx(self.source, ())
        if len(images) != len(labels):
            raise DataError(f"{self.source}: {len(images)} labels wanted, got {len(labels)}")
        if not np.array_equal(np.unique(labels), np.arange(10)):
            raise DataError(f"{self.source}: labels 0 to 9 wanted, got {np.unique(labels)}")
        images = images[np.argsort(labels, kind="stable")]
        counts = np.bincount(labels)
        spans = np.stack([np.cumsum(counts) - counts, counts], axis=1)
        names = [str(digit) for digit in range(10)]
        super().__init__(_resized(images, image_size, split), names, spans=spans)
        self.split = split


def _located(root: Path, name: str) -> Path:
    for file in (root / f"{name}.gz", root / name):
        if file.is_file():
            return file
    raise DataError(f"MNIST: neither {name}.gz nor {name} is in {root}")


def _idx(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an idx file of at most `MOST` things of a shape: uint8 (M, *shape)."""
    axes, each = 1 + len(shape), int(np.prod(shape))
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            head = opened.read(4 + 4 * axes)
            content = opened.read(MOST * each + 1)  # a file that expands to more is not read on
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not readable: {error}; cut short?") from error
    n, *sizes = np.frombuffer(head[4:].ljust(4 * axes, b"\0"), ">u4").tolist()
    if head[:4] != bytes([0, 0, 8, axes]) or tuple(sizes) != shape or n > MOST:
        wanted = " × ".join(map(str, (f"at most {MOST}", *shape)))
        raise DataError(
            f"{file}: an idx file of bytes, {wanted}, wanted, got one beginning with {head.hex()}"
        )
    if len(content) != n * each:
        raise DataError(f"{file}: it declares {n * each} bytes of content, got {len(content)}")
    return np.frombuffer(content, np.uint8).reshape(n, *shape)


def _resized(images: np.ndarray, size: int, split: str) -> np.ndarray:
    """Resample images (M, 28, 28): uint8 (M, size, size, 1), mapped where they are not as read."""
    if size == SIDE:
        return images[..., None]
    Image = extra("PIL.Image")

    def rows() -> Iterator[np.ndarray]:
        for image in images:
            picture = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
            yield np.asarray(picture)[..., None]

    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    key = f"{code} {hashlib.sha256(images.data).hexdigest()}"
    return mapped(f"mnist-{split}-{size}", key, (len(images), size, size, 1), rows)
