"""Data sets as a configuration names them, a file each, found by itself: `mini_imagenet.py` is
`--data mini-imagenet`.

Its class has the options as fields, `splits(data_dir)`, and says what an example is: of images
`image_size` and `image_channels`.
"""

import os
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from scratchmeta.data import DataError, Splits
from scratchmeta.fields import check, choose

NAMES = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type["Data"]:
    """The class of the data set `name`."""
    module = import_module(f"{__name__}.{choose('data', name, NAMES).replace('-', '_')}")
    own = (v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Data))
    return next(v for v in own if v.__module__ == module.__name__)


class Data:
    """What a data set says of itself beside its options."""

    labels: ClassVar[str] = "classes"
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

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        raise TypeError(f"{type(self).__name__} does not say what an example is")


class Images(Data):
    """Data whose examples are images: a subclass has `image_size` and `image_channels`."""

    image_size: Any
    image_channels: Any = 1

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.image_size, self.image_size, self.image_channels


def root(name: str, data_dir: str | os.PathLike | None, content: str) -> Path:
    """The folder `name` in the folder of the data if there is one, else this folder itself."""
    given = data_dir or os.environ.get("SCRATCHMETA_DATA")
    if not given:
        raise ValueError(
            f"{name}: where is it? --data-dir DIR, or the environment variable SCRATCHMETA_DATA, "
            f"names the folder that holds {content}"
        )
    if not Path(given).is_dir():
        raise DataError(f"{name}: the folder {given} of the data does not exist")
    below = Path(given) / name
    return below if below.is_dir() else Path(given)
