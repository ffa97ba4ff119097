"""`--data copy`."""

import os
from dataclasses import dataclass
from typing import Annotated, Any

from scratchmeta import data
from scratchmeta.fields import Count, lengths
from scratchmeta.run.datasets import Data

Lengths = Annotated[tuple[int, int], lengths(1)]


@dataclass(frozen=True)
class Copy(Data):
    """Sequences of random bits to be copied."""

    labels = "bits"

    bits: Count = 8
    """Bits of a vector."""
    lengths: Lengths = (1, 20)
    """Vectors in the shortest and in the longest sequence."""

    @classmethod
    def recognised(cls, train: Any) -> "Copy | None":
        """Those of a `data.Copy`."""
        return cls(train.bits, train.lengths) if type(train) is data.Copy else None

    @property
    def example_shape(self) -> tuple[int]:
        """The inputs of a step: its bits and two delimiters."""
        return (self.bits + 2,)

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """The same three times: sequences are told apart by their numbers."""
        made = data.Copy(self.bits, self.lengths)
        return data.Splits(made, made, made)
