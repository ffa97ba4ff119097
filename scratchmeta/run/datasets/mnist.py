"""`--data mnist`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from scratchmeta import data
from scratchmeta.data import DataError
from scratchmeta.fields import at_least
from scratchmeta.run.datasets import Images, root


@dataclass(frozen=True)
class MNIST(Images):
    """Ten handwritten digits, to test what was trained elsewhere."""

    on_disk: ClassVar[bool] = True
    image_channels = 1

    image_size: Annotated[int, at_least(16)] = 28
    """Side of the images in pixels."""

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """Raises DataError: ten classes are too few to divide."""
        raise DataError("mnist: is for evaluate RUN --data mnist, of a run on other data")

    def elsewhere(self, data_dir: str | os.PathLike | None = None) -> Any:
        """The ten digits of the test set."""
        found = root("mnist", data_dir, "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz")
        return data.MNIST(found, "test", self.image_size)
