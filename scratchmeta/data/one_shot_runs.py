"""The one-shot classification runs of Lake et al. (2015), as published in all_runs.zip.

Each of 20 runs has 20 characters of one alphabet, drawn by one hand (training/class01.png ...
class20.png), and again by another (test/item01.png ... item20.png). class_labels.txt pairs them, a
line for each test picture: "run01/test/item01.png run01/training/class07.png". The task is to say
which training picture shows the character of a test picture; the published figure is the share of
errors in the 400 trials.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scratchmeta.data.archive import DataError, members
from scratchmeta.data.omniglot import MAX_BYTES, bits_of, resized

RUNS, WAYS = 20, 20
NUMBERS = [f"{k:02}" for k in range(1, WAYS + 1)]
FILE = re.compile(
    r"(?:.*/)?(run\d\d)/(class_labels\.txt|training/class\d\d\.png|test/item\d\d\.png)"
)
PAIR = re.compile(r"(?:(\S*)/)?test/item(\d\d)\.png\s+(?:(\S*)/)?training/class(\d\d)\.png")


class OneShotRuns(NamedTuple):
    """R = 20 runs of N = 20 training and 20 test pictures; ink is 255, background 0."""

    training: np.ndarray  # (R, N, H, W, 1) uint8
    test: np.ndarray  # (R, N, H, W, 1) uint8
    answers: np.ndarray  # (R, N) int64: which training picture shows the character of each test's


def read(path: str | Path, image_size: int = 105, resampling: str = "antialiased") -> OneShotRuns:
    """Read all_runs.zip, or the folder that it was extracted to, which holds run01 ... run20.

    Pictures are 105 × 105, resampled like those of `Omniglot` where another size is asked for.
    Raises DataError naming the file that is missing, damaged or says something else.
    """
    path = Path(path)
    content = _content(path)
    training, test, answers = [], [], []
    for run in (f"run{k:02}" for k in range(1, RUNS + 1)):

        def wanted(name, run=run):
            if (run, name) not in content:
                raise DataError(f"{path}: {run}/{name} is missing; is it the whole of all_runs?")
            return content[run, name]

        def pictures(pattern, run=run, wanted=wanted):
            names = [pattern.format(number) for number in NUMBERS]
            return [bits_of(wanted(name), f"{path}: {run}/{name}") for name in names]

        training.append(pictures("training/class{}.png"))
        test.append(pictures("test/item{}.png"))
        answers.append(_answers(wanted("class_labels.txt"), run, f"{path}: {run}/class_labels.txt"))
    bits = {"images": np.array([training, test]).reshape(2 * RUNS, WAYS, 105, 14)}
    if image_size == 105:
        images = np.unpackbits(bits["images"], axis=-1, count=105)[..., None] * np.uint8(255)
    else:
        images = resized(bits, image_size, resampling)["images"]
    return OneShotRuns(images[:RUNS], images[RUNS:], np.array(answers))


def _content(path: Path) -> dict[tuple[str, str], bytes]:
    """{(run, name in it): content} of all files that belong to a run."""
    if not path.exists():
        raise DataError(f"{path}: no such archive or folder")
    if path.is_dir():
        sources = [folder for folder in sorted(path.iterdir()) if folder.is_dir()]
    else:
        sources = [path]
    found: dict[tuple[str, str], bytes] = {}
    for source in sources:
        for name, content in members(source, MAX_BYTES):
            if match := FILE.fullmatch(name):
                if match.groups() in found:
                    raise DataError(f"{path}: {'/'.join(match.groups())} is in it twice")
                found[match[1], match[2]] = content
    return found


def _answers(text: bytes, run: str, name: str) -> np.ndarray:
    """The training picture (N,) for each test picture, both counted from 0."""
    try:
        lines = [line.strip() for line in text.decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: lines of ASCII text wanted, got {error}") from error
    pairs = {}
    for line in lines:
        match = PAIR.fullmatch(line)
        if not match or {match[1], match[3]} - {None, run}:
            raise DataError(
                f"{name}: lines like '{run}/test/item01.png {run}/training/class01.png' wanted, "
                f"got {line!r}"
            )
        pairs[match[2]] = match[4]
    if len(lines) != WAYS or sorted(pairs) != NUMBERS or sorted(pairs.values()) != NUMBERS:
        raise DataError(
            f"{name}: each of {WAYS} test pictures with a training picture of its own wanted, "
            f"got {len(lines)} lines that pair {len(pairs)} with {len(set(pairs.values()))}"
        )
    return np.array([int(pairs[number]) - 1 for number in NUMBERS])
