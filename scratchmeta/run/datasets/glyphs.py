"""`--data glyphs`."""

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar

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

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Generated, or read from the cache."""
        parts = ("train", "val", "test")
        return data.Splits(*(data.Glyphs(part, image_size=self.image_size) for part in parts))
