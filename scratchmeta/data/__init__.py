"""Where tasks come from: characters, photographs, birds, sine waves, bits."""

from scratchmeta.data.algorithmic import Copy, Recall
from scratchmeta.data.alphabets import Pairs, WithinAlphabet
from scratchmeta.data.archive import DataError
from scratchmeta.data.cub import CUB
from scratchmeta.data.described import Described
from scratchmeta.data.folder import Folder
from scratchmeta.data.glyphs import Glyphs
from scratchmeta.data.images import ImageDataset, InChannels, Numbered
from scratchmeta.data.mini_imagenet import MiniImageNet
from scratchmeta.data.mnist import MNIST
from scratchmeta.data.omniglot import Omniglot
from scratchmeta.data.sequences import Shuffled
from scratchmeta.data.sinusoids import Sinusoids
from scratchmeta.data.splits import Splits

__all__ = [
    "CUB",
    "MNIST",
    "Copy",
    "DataError",
    "Described",
    "Folder",
    "Glyphs",
    "ImageDataset",
    "InChannels",
    "MiniImageNet",
    "Numbered",
    "Omniglot",
    "Pairs",
    "Recall",
    "Shuffled",
    "Sinusoids",
    "Splits",
    "WithinAlphabet",
]
