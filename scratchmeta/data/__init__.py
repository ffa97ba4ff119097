"""Where tasks come from: handwritten characters, generated ones, photographs, sine waves, bits."""

from scratchmeta.data.algorithmic import Copy, Recall
from scratchmeta.data.alphabets import Pairs, WithinAlphabet
from scratchmeta.data.archive import DataError
from scratchmeta.data.glyphs import Glyphs
from scratchmeta.data.images import ImageDataset
from scratchmeta.data.mini_imagenet import MiniImageNet
from scratchmeta.data.omniglot import Omniglot
from scratchmeta.data.sequences import Shuffled
from scratchmeta.data.sinusoids import Sinusoids

__all__ = [
    "Copy",
    "DataError",
    "Glyphs",
    "ImageDataset",
    "MiniImageNet",
    "Omniglot",
    "Pairs",
    "Recall",
    "Shuffled",
    "Sinusoids",
    "WithinAlphabet",
]
