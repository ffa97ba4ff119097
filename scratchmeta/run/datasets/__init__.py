"""Data sets as a configuration names them, a file each, found by itself: `mini_imagenet.py` is
`--data mini-imagenet`.

Its class has the options as fields, `splits(data_dir)`, and says what an example is: of images
`image_size` and `image_channels`.
"""

import os
import pkgutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from scratchmeta.data import DataError, Splits
from scratchmeta.fields import check, choose

PYTHON = "python"  # the name of data that a script made
NAMES = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type["Data"]:
    """The class of the data set `name`, or of what a script made."""
    if name == PYTHON:
        return InPython
    module = import_module(f"{__name__}.{choose('data', name, NAMES).replace('-', '_')}")
    own = (v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Data))
    return next(v for v in own if v.__module__ == module.__name__)


class Data:
    """What a data set says of itself beside its options."""

    labels: Any = "classes"
    """What is predicted: "classes", "numbers" or "bits"."""
    on_disk: ClassVar[bool] = False
    """Whether it is read from a folder, which may not be there."""
    like: ClassVar[str | None] = None
    """The data set whose presets are taken, where an algorithm has none for this one."""
    training: ClassVar[dict[str, Any]] = {}
    """Options of training that are others than in these presets."""

    def __post_init__(self) -> None:
        check(self)

    def splits(self, data_dir: str | os.PathLike | None = None) -> Splits:
        """The datasets to train, validate and test on; raises DataError where one is not there."""
        raise TypeError(f"{type(self).__name__} does not say what its splits are")

    def elsewhere(self, data_dir: str | os.PathLike | None = None) -> Any:
        """What a run is tested on that was trained on another data set: the test classes."""
        return self.splits(data_dir).test

    @classmethod
    def recognised(cls, train: Any) -> "Data | None":
        """The options whose training data this dataset is, or None if it is none's."""
        return None

    @property
    def example_shape(self) -> Any:
        """The shape of one example."""
        raise TypeError(f"{type(self).__name__} does not say what an example is")


class Images(Data):
    """Data whose examples are images: a subclass has `image_size` and `image_channels`."""

    image_size: Any
    image_channels: Any = 1
    resampling: Any = "antialiased"
    """How pictures are brought to their size, one of `data.pictures.RESAMPLINGS`."""

    @property
    def ink(self) -> bool | None:
        """Whether they are drawings with ink 1 on 0; None where that is not known."""
        return True

    @property
    def example_shape(self) -> Any:
        """(H, W, C)."""
        return self.image_size, self.image_size, self.image_channels


@dataclass(frozen=True)
class InPython(Data):
    """Data that a script made, of which a run knows what an example is."""

    shape: tuple[int, ...] = ()
    labels: Literal["classes", "numbers", "bits"] = "classes"
    said: str = ""
    """What the dataset said of itself."""

    resampling: ClassVar[str] = "antialiased"
    ink: ClassVar[bool | None] = None

    @property
    def example_shape(self) -> Any:
        """The shape of one example."""
        return self.shape

    @property
    def image_size(self) -> int:
        """Of square images."""
        if len(self.shape) == 3 and self.shape[0] == self.shape[1]:
            return self.shape[0]
        raise AttributeError("image_size")

    @property
    def image_channels(self) -> int:
        """Of images."""
        if len(self.shape) == 3:
            return self.shape[2]
        raise AttributeError("image_channels")

    def splits(self, data_dir: str | os.PathLike | None = None) -> Splits:
        """Raises DataError: no name leads to it."""
        raise DataError(
            f"{self.said}: this run was trained on a dataset that a script made: evaluate it with "
            "--data, resume it with sm.train(..., resume=True)"
        )


def given_folder(name: str, data_dir: str | os.PathLike | None, content: str) -> Path:
    """The folder of the data, in which `name` wants this content; raises where there is none."""
    given = data_dir or os.environ.get("SCRATCHMETA_DATA")
    if not given:
        raise ValueError(
            f"{name}: where is it? --data-dir DIR, or the environment variable SCRATCHMETA_DATA, "
            f"names the folder that holds {content}"
        )
    if not Path(given).is_dir():
        raise DataError(f"{name}: the folder {given} of the data does not exist")
    return Path(given)


def root(name: str, data_dir: str | os.PathLike | None, content: str) -> Path:
    """The folder `name` in the folder of the data if there is one, else this folder itself."""
    given = given_folder(name, data_dir, content)
    return given / name if (given / name).is_dir() else given
