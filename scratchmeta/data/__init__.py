"""Where tasks come from: handwritten characters, our own generated ones, sine waves."""

from scratchmeta.data.archive import DataError
from scratchmeta.data.glyphs import Glyphs
from scratchmeta.data.images import ImageDataset
from scratchmeta.data.omniglot import Omniglot
from scratchmeta.data.sequences import Shuffled
from scratchmeta.data.sinusoids import Sinusoids

__all__ = ["DataError", "Glyphs", "ImageDataset", "Omniglot", "Shuffled", "Sinusoids"]
