"""`--data recall`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any

from scratchmeta import data
from scratchmeta.fields import Count, lengths
from scratchmeta.run.datasets import Data

Lengths = Annotated[tuple[int, int], lengths(2)]


@dataclass(frozen=True)
class Recall(Data):
    """Associative recall: which item came after this one?"""

    labels = "bits"

    bits: Count = 6
    """Bits of a vector."""
    vectors: Count = 3
    """Vectors of an item."""
    lengths: Lengths = (2, 6)
    """The fewest and the most items."""

    @classmethod
    def recognised(cls, train: Any) -> "Recall | None":
        """Those of a `data.Recall`."""
        made = type(train) is data.Recall
        return cls(train.bits, train.vectors, train.lengths) if made else None

    @property
    def example_shape(self) -> tuple[int]:
        """The inputs of a step: its bits and two delimiters."""
        return (self.bits + 2,)

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """The same three times: sequences are told apart by their numbers."""
        made = data.Recall(self.bits, self.vectors, self.lengths)
        return data.Splits(made, made, made)
