"""`--data omniglot`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from scratchmeta import data
from scratchmeta.fields import at_least
from scratchmeta.run.datasets import Images, root


@dataclass(frozen=True)
class Omniglot(Images):
    """Lake's handwritten characters."""

    on_disk: ClassVar[bool] = True
    image_channels = 1

    image_size: Annotated[int, at_least(16)] = 28
    """Side of the images in pixels."""
    resampling: Literal["antialiased", "nearest"] = "antialiased"
    """Grays, or black and white by nearest neighbours: the images of the authors' code."""
    split: Literal["lake", "vinyals"] = "lake"
    """Lake's background and evaluation alphabets, or the characters of Vinyals et al."""
    rotations: Literal["none", "classes", "class-episode", "episode"] = "none"
    """Quarter turns: none, as classes, drawn for each class of an episode, or once for all."""
    jitter: bool = False
    """Turn and shift every training image a little (MANN)."""
    affine: bool = False
    """Turn, shear, scale and shift every training image a little (Koch)."""
    upright_tests: bool = False
    """Test on characters as they are in Vinyals' split too, where otherwise all are turned."""

    @classmethod
    def recognised(cls, train: Any) -> "Omniglot | None":
        """Those of a `data.Omniglot` for training, in either split."""
        named = {"background-train": "lake", "train": "vinyals"}
        if type(train) is not data.Omniglot or train.split not in named:
            return None
        how: Any = train.resampling, named[train.split], train.rotations, train.jitter, train.affine
        return cls(train.image_shape[0], *how)

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """In Lake's split only training characters are turned, in Vinyals' all or these."""
        found = root("omniglot", data_dir, "images_background.zip and images_evaluation.zip")
        if self.split == "lake":  # augmented in training; tested on the characters as they are
            names, turns = ("background-train", "background-val", "evaluation"), "none"
        else:  # Vinyals et al. test on turned characters too
            names = ("train", "val", "test")
            turns = "none" if self.upright_tests else self.rotations
        looks: Any = {"resampling": self.resampling}
        size, changes = self.image_size, (self.rotations, self.jitter, self.affine)
        return data.Splits(
            data.Omniglot(found, names[0], size, *changes, **looks),
            *(data.Omniglot(found, name, size, turns, **looks) for name in names[1:]),
        )
