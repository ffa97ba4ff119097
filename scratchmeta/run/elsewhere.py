"""A run on what it was not trained with: another data set, or pictures in files.

Images are brought to the run's size, and drawings to the run's ink, which is 1 on 0 where the data
of training has it so.
"""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scratchmeta.data import DataError, InChannels, folder, pictures
from scratchmeta.fields import choose
from scratchmeta.run import datasets
from scratchmeta.run.saved import Saved

Ink = Literal["dark", "bright"]
CHANNELS = {1: "gray", 3: "colour"}


# --- another data set -----------------------------------------------------------------------------


def dataset(
    run: Saved,
    name: str,
    data_dir: str | os.PathLike | None = None,
    ink: Ink = "dark",
    convert: bool = False,
) -> Any:
    """The test classes of the data set `name`, as the run wants its examples.

    That of the run's own name has the options of training. Pictures in a folder have `ink` dark on
    white or bright on black. With `convert`, images of other channels than the run's are
    converted. Raises ValueError naming both where examples do not fit.
    """
    own: Any = run.config.dataset
    cls: Any = datasets.find(choose("data", name, datasets.NAMES))
    if hasattr(run.algorithm, "attribute_network"):
        raise ValueError(f"data: {run.config.algorithm} knows the attributes of its own data only")
    if name == run.config.data:
        made = own
    else:
        options = {f.name for f in dataclasses.fields(cls)}
        fitting = {
            "image_size": getattr(own, "image_size", None),
            "image_channels": getattr(own, "image_channels", None),
            "invert": bool(getattr(own, "ink", False)) and ink == "dark",
        }
        made = cls(**{k: v for k, v in fitting.items() if k in options and v is not None})
    if made.labels != own.labels or made.labels == "bits":
        raise ValueError(
            f"data: wanted {own.labels} of examples as in {run.config.data}, got {name}"
        )
    wanted, got = run.example_shape, tuple(made.example_shape)
    if wanted[:-1] != got[:-1] or (wanted != got and len(wanted) != 3):
        raise ValueError(
            f"data: wanted examples of {_shape(wanted)} as in {run.config.data}, "
            f"got {_shape(got)} of {name}"
        )
    if wanted != got and not convert:
        raise ValueError(
            f"data: wanted {CHANNELS[wanted[-1]]} images as in {run.config.data}, got "
            f"{CHANNELS[got[-1]]} of {name}; --convert converts them"
        )
    found = made.elsewhere(data_dir)
    return found if wanted == got else InChannels(found, wanted[-1])


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape))


# --- pictures -------------------------------------------------------------------------------------


def refuse_without_images(run: Saved, command: str) -> None:
    """Raises ValueError for a run that was not trained on images."""
    if run.config.dataset.labels != "classes" or len(run.example_shape) != 3:
        raise ValueError(f"{command}: wanted a run on images of classes, got {run.config.data}")


def files(paths: Sequence[Path]) -> list[Path]:
    """The pictures that are named, and those in folders that are named, sorted."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.is_file() and pictures.is_picture(p))
        if not inside:
            raise DataError(f"{path}: no pictures in it")
        found += inside
    if not found:
        raise DataError("wanted pictures, got none")
    return found


def support(root: Path) -> tuple[list[str], list[Path], np.ndarray]:
    """The names of the classes in a folder, their pictures, and the class of each (S,)."""
    classes = folder.classes(root)
    if len(classes) < 2:
        raise DataError(f"{root}: sub-folders with the pictures of two classes wanted, got one")
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in classes.values()])
    return list(classes), [file for found in classes.values() for file in found], labels


def read(run: Saved, paths: Sequence[Path], ink: Ink | None = None) -> np.ndarray:
    """Pictures as the run's data set reads its own: uint8 (M, H, W, channels).

    Warns of a picture that looks as if its ink were the other one.
    """
    how: Any = run.config.dataset
    invert = inverts(run, ink)
    size, channels = how.image_size, how.image_channels
    x = np.stack([pictures.read(p, size, channels, invert, how.resampling) for p in paths])
    if how.ink:  # most of a drawing is paper
        for path, image in zip(paths, x, strict=True):
            if np.median(image) > 170:
                was, other = ("bright", "bright") if invert else ("dark", "dark")
                warnings.warn(
                    f"{path}: looks like {was} ink on paper of the other kind; --ink {other} says "
                    "so of all pictures",
                    stacklevel=2,
                )
                break
    return x


def inverts(run: Saved, ink: Ink | None) -> bool:
    """Whether pictures are inverted: dark ink becomes 1 on 0, as drawings are in training.

    `ink` None is dark for a run on drawings, and leaves others as they are. Raises ValueError where
    it is said of photographs.
    """
    drawings = run.config.dataset.ink
    if drawings is False and ink is not None:
        raise ValueError(f"ink: goes with runs on drawings, not on {run.config.data}")
    return ink == "dark" or (ink is None and drawings is True)


def said(run: Saved, ink: Ink | None) -> str:
    """How pictures are read, in a line."""
    how: Any = run.config.dataset
    made = "dark ink on white made 1 on 0" if inverts(run, ink) else "brightness as it is"
    kind, size = CHANNELS.get(how.image_channels, how.image_channels), how.image_size
    return f"pictures are read as in {run.config.data}: {kind}, {size} × {size}, {made}"
