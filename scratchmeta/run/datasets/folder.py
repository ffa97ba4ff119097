"""`--data folder`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from scratchmeta import data
from scratchmeta.fields import Natural, Positive, at_least
from scratchmeta.run.datasets import Images


@dataclass(frozen=True)
class Folder(Images):
    """Your own pictures, a sub-folder for each class; see docs/data.md."""

    on_disk: ClassVar[bool] = True
    like: ClassVar[str] = "glyphs"
    # a dozen classes of five pictures will do
    training: ClassVar[dict[str, int]] = {
        "n_way": 3, "test_way": 3, "n_query": 4, "test_query": 4,
    }  # fmt: skip

    image_size: Annotated[int, at_least(16)] = 28
    """Side of the images in pixels; pictures of any shape are brought to it."""
    image_channels: Literal[1, 3] = 3
    """1 for gray, 3 for colour."""
    invert: bool = False
    """Make dark ink on white bright ink on black, as it is in Omniglot and glyphs."""
    shares: tuple[Positive, Positive, Positive] = (0.5, 0.25, 0.25)
    """Shares of the classes to train, validate and test on, where the folder does not say which."""
    split_seed: Natural = 0
    """Decides which classes those are."""
    rotations: Literal["none", "classes", "class-episode", "episode"] = "none"
    """Quarter turns in training: none, as classes, drawn for each class of an episode, or once for
    all."""

    @property
    def ink(self) -> bool:
        """Whether they are drawings with ink 1 on 0."""
        return self.invert

    @classmethod
    def recognised(cls, train: Any) -> "Folder | None":
        """Those of a `data.Folder` for training that is neither moved nor distorted."""
        if type(train) is not data.Folder or train.split != "train" or train.jitter or train.affine:
            return None
        looks = train.image_shape[0], train.image_shape[2], train.invert
        how: Any = train.shares, train.split_seed, train.rotations
        return cls(*looks, *how)

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Read from the folder itself; only training pictures are turned."""
        return data.Splits(*(self._part(data_dir, name) for name in ("train", "val", "test")))

    def elsewhere(self, data_dir: str | os.PathLike | None = None) -> Any:
        """All classes: none of them was trained on."""
        return self._part(data_dir, "all")

    def _part(self, root: str | os.PathLike | None, split: str) -> data.Folder:
        if not root:
            raise ValueError(
                "folder: where is it? --data-dir DIR names it, with a sub-folder a class"
            )
        turns = self.rotations if split == "train" else "none"
        looks = self.image_size, self.image_channels, self.invert
        return data.Folder(root, split, *looks, self.shares, self.split_seed, turns)
