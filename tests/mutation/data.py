"""Mutants of episodes and of what draws them."""

from mutation import Equivalent
from mutation._source import Source

EQUIVALENT: Equivalent = {
    ("data.alphabets.Pairs", "n_classes = 2 ** 62"): (
        "as many images as one likes: more than any memory holds, either way",
        {"n_classes = 2 ** 63", "n_classes = 3 ** 62"},
    ),
}

SUBJECT = Source(
    parts=[
        "scratchmeta.episodes",
        "scratchmeta.data.images",
        "scratchmeta.data.sequences",
        "scratchmeta.data.alphabets",
        "scratchmeta.data.described",
        "scratchmeta.data.sinusoids",
        "scratchmeta.data.algorithmic",
    ],
    tests=[
        ["tests/test_episodes.py"],
        ["tests/test_data_images.py", "tests/test_data_alphabets.py"],
        ["tests/test_data_sinusoids.py", "tests/test_mann.py", "-k", "not learns and not loops"],
        ["tests/test_zero_shot.py", "-k", "attributes or described or description"],
        ["tests/test_ntm.py", "-k", "copy_shows or recall or function_of or lengths"],
        ["tests/test_options.py", "-k", "data or trains"],
    ],
    equivalent=EQUIVALENT,
)
