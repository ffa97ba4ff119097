"""`--data mini-imagenet`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from scratchmeta import data
from scratchmeta.fields import at_least
from scratchmeta.run.datasets import Images, root


@dataclass(frozen=True)
class MiniImageNet(Images):
    """Colour photographs in the split of Ravi & Larochelle."""

    on_disk: ClassVar[bool] = True
    image_channels = 3

    image_size: Annotated[int, at_least(16)] = 84
    """Side of the images in pixels."""

    resampling = "lanczos"

    @property
    def ink(self) -> bool:
        """Photographs have none."""
        return False

    @classmethod
    def recognised(cls, train: Any) -> "MiniImageNet | None":
        """Those of a `data.MiniImageNet` for training."""
        same = type(train) is data.MiniImageNet and train.split == "train"
        return cls(train.image_shape[0]) if same else None

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Read from train.csv, val.csv, test.csv and images/."""
        found = root("mini-imagenet", data_dir, "train.csv, val.csv, test.csv and images/")
        parts = ("train", "val", "test")
        return data.Splits(*(data.MiniImageNet(found, part, self.image_size) for part in parts))
