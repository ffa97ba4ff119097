"""`--data sinusoids`."""

import os
from dataclasses import dataclass
from typing import Any, ClassVar

from scratchmeta import data
from scratchmeta.run.datasets import Data


@dataclass(frozen=True)
class Sinusoids(Data):
    """MAML's regression tasks: y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]."""

    labels = "numbers"
    example_shape: ClassVar[tuple[int]] = (1,)

    @classmethod
    def recognised(cls, train: Any) -> "Sinusoids | None":
        """Those of MAML's sinusoids."""
        same = type(train) is data.Sinusoids and vars(train) == vars(data.Sinusoids())
        return cls() if same else None

    def splits(self, data_dir: str | os.PathLike | None = None) -> data.Splits:
        """The same three times: tasks are told apart by their numbers."""
        return data.Splits(data.Sinusoids(), data.Sinusoids(), data.Sinusoids())
