"""Tasks on binary vectors whose answer an algorithm gives (Graves, Wayne & Danihelka 2014).

An episode shows T sequences in its support and asks for the answers in its query. All of one batch
have the same length, which is drawn for each index; that makes them arrays.
"""

import numpy as np

from scratchmeta.episodes import Episode


class Copy:
    """Copy (section 4.1): a sequence of random bit vectors is shown, then asked for.

    Inputs have a channel for every bit, one for the delimiter that comes before the sequence and
    one for the delimiter after it; while the answer is asked for they are 0. `lengths` are the
    shortest and the longest sequence.
    """

    n_classes = 1
    n_drawings = 2  # a sequence and its answer

    def __init__(self, bits: int = 8, lengths: tuple[int, int] = (1, 20)) -> None:
        self.bits, self.lengths = bits, _range("lengths", lengths, 1)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of inputs and of answers."""
        return self.bits + 2, self.bits

    def of_length(self, length: int) -> "Copy":
        """The same with sequences of this length only."""
        return Copy(self.bits, (length, length))

    def episode(self, rng: np.random.Generator, tasks: int) -> Episode:
        """T sequences of one length L.

        support_x (T, L + 2, bits + 2), query_x (T, L, bits + 2) float32; query_y (T, L, bits) bool.
        """
        length = _drawn(rng, self.lengths)
        shown = _bits(rng, tasks, length, self.bits)
        sequence = np.concatenate([_delimiter(shown, 0), _padded(shown), _delimiter(shown, 1)], 1)
        return _asked(sequence, shown)

    def __repr__(self) -> str:
        return f"Copy(bits={self.bits}, lengths={self.lengths})"


class Recall:
    """Associative recall (section 4.3): items are shown, then one of them; its successor is asked.

    An item is `vectors` bit vectors with a delimiter before it; the item that is shown again stands
    between delimiters of another kind. `lengths` are the smallest and the largest number of items.
    """

    n_classes = 1
    n_drawings = 2

    def __init__(self, bits: int = 6, vectors: int = 3, lengths: tuple[int, int] = (2, 6)) -> None:
        self.bits, self.vectors, self.lengths = bits, vectors, _range("lengths", lengths, 2)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of inputs and of answers."""
        return self.bits + 2, self.bits

    def of_length(self, length: int) -> "Recall":
        """The same with this number of items only."""
        return Recall(self.bits, self.vectors, (length, length))

    def episode(self, rng: np.random.Generator, tasks: int) -> Episode:
        """T sequences of one number of items n; V vectors each.

        support_x (T, (n + 1) (V + 1) + 1, bits + 2), query_x (T, V, bits + 2) float32; query_y (T,
        V, bits) bool.
        """
        n = _drawn(rng, self.lengths)
        items = _bits(rng, tasks, n * self.vectors, self.bits).reshape(
            tasks, n, self.vectors, self.bits
        )
        cue = np.minimum((rng.random(tasks) * (n - 1)).astype(int), n - 2)
        everyone = np.arange(tasks)
        again, answer = items[everyone, cue], items[everyone, cue + 1]
        parts = []
        for i in range(n):
            parts += [_delimiter(answer, 0), _padded(items[:, i])]
        parts += [_delimiter(answer, 1), _padded(again), _delimiter(answer, 1)]
        return _asked(np.concatenate(parts, axis=1), answer)

    def __repr__(self) -> str:
        return f"Recall(bits={self.bits}, vectors={self.vectors}, lengths={self.lengths})"


def _range(name: str, bounds: tuple[int, int], lowest: int) -> tuple[int, int]:
    low, high = bounds
    if not lowest <= low <= high:
        raise ValueError(f"{name}: wanted {lowest} <= shortest <= longest, got {low}, {high}")
    return low, high


def _drawn(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return min(high, low + int(rng.random() * (high - low + 1)))


def _bits(rng: np.random.Generator, tasks: int, length: int, bits: int) -> np.ndarray:
    return rng.random((tasks, length, bits)) < 0.5


def _padded(bits: np.ndarray) -> np.ndarray:
    """Bits (T, L, B) as inputs (T, L, B + 2): no delimiter."""
    return np.pad(bits, ((0, 0), (0, 0), (0, 2))).astype(np.float32)


def _delimiter(like: np.ndarray, kind: int) -> np.ndarray:
    """One step (T, 1, B + 2) with the delimiter 0 or 1."""
    step = np.zeros((len(like), 1, like.shape[-1] + 2), np.float32)
    step[..., like.shape[-1] + kind] = 1
    return step


def _asked(sequence: np.ndarray, answer: np.ndarray) -> Episode:
    """The episode that shows a sequence, for which nothing is to be answered, and then asks."""
    tasks, steps, _ = sequence.shape
    silence = np.zeros((tasks, steps, answer.shape[-1]), bool)
    return Episode(sequence, silence, np.zeros_like(_padded(answer)), answer)
