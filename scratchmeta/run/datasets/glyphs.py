"""`--data glyphs`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from scratchmeta import data
from scratchmeta.fields import at_least
from scratchmeta.run.datasets import Images


@dataclass(frozen=True)
class Glyphs(Images):
    """Procedural alphabets, embedded in the library."""

    image_channels = 1
    n_attributes: ClassVar[int] = len(data.Glyphs.attribute_names)

    image_size: Annotated[int, at_least(16)] = 28
    """Side of the images in pixels."""

    @classmethod
    def recognised(cls, train: Any) -> "Glyphs | None":
        """Those of a `data.Glyphs` for training that is neither turned nor distorted."""
        if type(train) is not data.Glyphs or (train.split, train.seed) != ("train", 0):
            return None
        plain = train.rotations == "none" and not (train.jitter or train.affine)
        return cls(train.image_shape[0]) if plain else None

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Generated, or read from the cache."""
        parts = ("train", "val", "test")
        return data.Splits(*(data.Glyphs(part, image_size=self.image_size) for part in parts))
