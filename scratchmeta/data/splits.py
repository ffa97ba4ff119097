"""Three datasets with different classes."""

from typing import Any, NamedTuple


class Splits(NamedTuple):
    """Datasets with different classes to train, validate and test on."""

    train: Any
    validation: Any
    test: Any
