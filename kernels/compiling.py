"""How kernels are compiled: where they are first used, which takes seconds, and kept on disk.

Importing this raises ImportError where Numba is told not to compile.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

import numba
from numba.core import event

# Reassociation lets sums be vectorised and contraction lets products be fused into them; neither
# assumes that NaN and ∞ do not occur.
FASTMATH = {"reassoc", "contract", "nsz"}

PATIENCE = 1.0  # seconds of compiling, one kernel after the other, that pass without a word

_SOURCES = tuple(
    (source.name, source.stat().st_mtime, source.stat().st_size)
    for source in sorted(Path(__file__).parent.glob("*.py"))
)

if numba.config.DISABLE_JIT:
    raise ImportError(
        "kernels: NUMBA_DISABLE_JIT is set, so that Numba cannot compile them; "
        "unset it, or turn kernels off (scratchmeta.backend.use_kernels(False))"
    )


def kernel(function):
    """`function` compiled, now or by an earlier process: the result is kept on disk.

    Numba compiles again what has changed in the function's own file; here, what has changed in any
    of the kernels' files, whose functions call one another.
    """
    compiled = numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")(function)
    compiled._cache._cache_file._source_stamp = _SOURCES
    return compiled


class Announcement(event.Listener):
    """Hears of all that Numba compiles, and says on standard error when the kernels keep it busy.

    What is read from Numba's cache is not heard of. Numba compiles in one thread at a time, and
    what a function calls within the function's own time.
    """

    def __init__(self) -> None:
        self.depth, self.spent, self.said = 0, 0.0, False

    def on_start(self, event) -> None:
        """A function's compilation begins."""
        if self.depth == 0:
            module = event.data["dispatcher"].py_func.__module__
            self.ours = module.startswith("scratchmeta.kernels")
            self.began = time.monotonic()
        self.depth += 1
        self._look(time.monotonic() - self.began)

    def on_end(self, event) -> None:
        """A function's compilation has ended."""
        self.depth -= 1
        took = time.monotonic() - self.began
        self._look(took)
        if self.depth == 0 and self.ours:
            self.spent += took

    def _look(self, took: float) -> None:
        if not self.said and self.ours and self.spent + took > PATIENCE:
            self.said = True
            if sys.stderr is not None:  # closed
                with suppress(OSError):  # nobody reads it
                    print("compiling kernels, once ...", file=sys.stderr, flush=True)


announcement = Announcement()
event.register("numba:compile", announcement)
