"""A picture of any format that Pillow reads, as an array of the size and channels of choice."""

import functools
import os
from pathlib import Path

import numpy as np

from scratchmeta.data.archive import DataError, regular
from scratchmeta.data.download import extra

MAX_BYTES = 1 << 28
MAX_PIXELS = 1 << 26  # a telephone's photographs have 1 << 24
RESAMPLINGS = {"antialiased": "BILINEAR", "lanczos": "LANCZOS", "nearest": "NEAREST"}  # Pillow's
# Encapsulated PostScript is a program, which Pillow would have Ghostscript run; of the others it
# knows the name only
UNREAD = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@functools.cache
def formats() -> dict[str, str]:
    """{ending of a file's name: format} of what is read."""
    Image = extra("PIL.Image")
    endings = Image.registered_extensions()
    return {end: kind for end, kind in endings.items() if kind in Image.OPEN.keys() - UNREAD}


def is_picture(path: Path) -> bool:
    """Whether a file's name ends like those of pictures."""
    return path.suffix.lower() in formats()


def known(path: Path) -> os.stat_result:
    """What the system knows of a file; raises DataError where it is none, or too large a one."""
    try:
        return regular(path, MAX_BYTES)
    except OSError as error:  # a link that leads nowhere, or round
        raise DataError(f"{path}: not readable ({error.strerror})") from error


def read(
    path: str | Path,
    image_size: int,
    channels: int,
    invert: bool = False,
    resampling: str = "antialiased",
) -> np.ndarray:
    """Read a picture: uint8 (image_size, image_size, channels), gray with 1 channel, RGB with 3.

    It is turned as its camera says (EXIF), laid on white where it is transparent, and brought to
    the size, whatever its shape, by one of `RESAMPLINGS`. Of several pictures in one file it is the
    first; of 16 bits a pixel, the higher 8. With `invert`, v becomes
    255 − v: dark ink on white paper is then what ink is in `Omniglot`, 255 on a background of 0.

    Raises `DataError`, naming the file, for what is no picture, damaged, or has more than
    `MAX_PIXELS`.
    """
    path = Path(path)
    known(path)
    Image, ImageOps = extra("PIL.Image"), extra("PIL.ImageOps")
    mode, size = {1: "L", 3: "RGB"}[channels], (image_size, image_size)
    kind = Image.Resampling[RESAMPLINGS[resampling]]
    try:
        with Image.open(path, formats=sorted(set(formats().values()))) as opened:
            width, height = opened.size
            if width * height <= MAX_PIXELS:
                opened.draft(mode, (2 * image_size, 2 * image_size))  # a JPEG needs no more
                upright = _eight_bits(ImageOps.exif_transpose(opened))
                picture = _on_white(upright).convert(mode)
                pixels = np.asarray(picture.resize(size, kind))
    except Exception as error:  # fed odd bytes, Pillow raises even IndexError
        raise DataError(f"{path}: damaged, or no picture that Pillow reads: {error}") from error
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: at most {MAX_PIXELS} pixels wanted, got {width} × {height}")
    pixels = pixels.reshape(image_size, image_size, channels)
    return 255 - pixels if invert else pixels


def _eight_bits(picture):
    """The picture with 8 bits a channel; Pillow's own conversion cuts 16 off at 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    if values.dtype.kind == "f" or not 0 <= values.min() <= values.max() < 1 << 16:
        raise ValueError(f"pixels of 8 or 16 bits wanted, got {picture.mode!r}")
    return extra("PIL.Image").fromarray((values >> 8).astype(np.uint8))


def _on_white(picture):
    """The picture without transparency."""
    if picture.mode not in ("LA", "La", "RGBA", "RGBa", "PA") and (
        "transparency" not in picture.info
    ):
        return picture
    drawn = picture.convert("RGBA")
    paper = extra("PIL.Image").new("RGBA", drawn.size, "white")
    paper.alpha_composite(drawn)
    return paper
