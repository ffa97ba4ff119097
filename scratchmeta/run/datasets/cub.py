"""`--data cub`."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from scratchmeta import data
from scratchmeta.run.datasets import Data, root


@dataclass(frozen=True)
class CUB(Data):
    """Birds: 312 attributes of each class, 1024 features of each image."""

    on_disk: ClassVar[bool] = True
    example_shape: ClassVar[tuple[int]] = (data.cub.FEATURES,)
    n_attributes: ClassVar[int] = data.cub.ATTRIBUTES

    @classmethod
    def recognised(cls, train: Any) -> "CUB | None":
        """Those of a `data.CUB` for training, all crops of it."""
        made = type(train) is data.CUB
        return cls() if made and (train.split, train.crops) == ("train", "random") else None

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Trained on all crops of an image, tested on the middle one."""
        content = "classes.txt, attributes/, features/ and lists of classes"
        found = root("cub", data_dir, content)
        train = data.CUB(found, "train", crops="random")
        return data.Splits(train, data.CUB(found, "val"), data.CUB(found, "test"))
