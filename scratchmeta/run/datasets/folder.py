"""`--data folder`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from scratchmeta import data
from scratchmeta.fields import Natural, Positive, at_least
from scratchmeta.run.datasets import Images, root


@dataclass(frozen=True)
class Folder(Images):
    """One's own pictures, a sub-folder for each class."""

    on_disk: ClassVar[bool] = True
    like: ClassVar[str | None] = "glyphs"

    image_size: Annotated[int, at_least(16)] = 84
    """Side of the images in pixels, to which pictures of any shape are brought."""
    image_channels: Literal[1, 3] = 3
    """1 for gray, 3 for colour."""
    invert: bool = False
    """Dark ink on white paper becomes 1 on 0, as it is in Omniglot."""
    shares: tuple[Positive, Positive, Positive] = (0.5, 0.25, 0.25)
    """Shares of the classes for training, validation and test, where the folder does not say."""
    split_seed: Natural = 0
    """Draws which classes are for which."""

    @property
    def ink(self) -> Any:
        """Whether they are drawings with ink 1 on 0."""
        return self.invert

    @classmethod
    def recognised(cls, train: Any) -> "Folder | None":
        """Those of a `data.Folder` for training that is neither turned nor distorted."""
        if type(train) is not data.Folder or train.split != "train":
            return None
        plain = train.rotations == "none" and not (train.jitter or train.affine)
        how = train.invert, tuple(train.shares), train.split_seed
        return cls(train.image_shape[0], train.image_shape[2], *how) if plain else None

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Read from folders, or drawn."""
        return data.Splits(*(self._part(data_dir, part) for part in ("train", "val", "test")))

    def elsewhere(self, data_dir: str | os.PathLike | None = None) -> Any:
        """All classes: none of them was trained on."""
        return self._part(data_dir, "all")

    def _part(self, data_dir: str | os.PathLike | None, part: str) -> Any:
        found = root("folder", data_dir, "a sub-folder with pictures for each class")
        return data.Folder(
            found,
            part,
            self.image_size,
            self.image_channels,
            self.invert,
            self.shares,
            self.split_seed,
        )
