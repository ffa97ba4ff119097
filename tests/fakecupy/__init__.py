"""A stand-in for CuPy that needs no GPU: `with install() as cupy: ...`.

Inside the block `import cupy` gives it. Its arrays refuse what CuPy's refuse (see `array`), its
RawModule runs CUDA kernels on the CPU (see `cuda_host`). Nothing of it stays behind. Where the
environment variable SCRATCHMETA_TEST_ON is "gpu", as in `make gpu`, the block gets CuPy itself, and
the same tests run on the hardware.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fakecupy.array import ndarray
from fakecupy.module import build
from scratchmeta import backend

ON_GPU = os.environ.get("SCRATCHMETA_TEST_ON") == "gpu"


@contextmanager
def install() -> Iterator[ModuleType]:
    """Puts the stand-in, or CuPy where there is a GPU to be tested, in the place of `cupy`."""
    if ON_GPU:
        import cupy

        yield cupy
        return
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = build()
    try:
        yield sys.modules["cupy"]
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
        backend._module_of_type.pop(ndarray, None)
        for name, module in sys.modules.items():
            source = getattr(module, "_cuda", None)
            if name.startswith("scratchmeta.kernels.") and source is not None:
                vars(source).pop("_module", None)
                source._functions.clear()
