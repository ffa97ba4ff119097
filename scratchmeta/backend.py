"""NumPy or CuPy: the only file that knows there are two.

Code below the training loop never asks which backend is in use. It asks an array,
`xp(array).exp(array)`, and so follows the arrays it is given. The switch, `use("cupy")`, decides
only where new arrays are born: parameters, episodes.
"""

import os
import sys
from types import ModuleType
from typing import Any, Literal

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray, whichever the caller uses

Name = Literal["numpy", "cupy"]
NAMES = ("numpy", "cupy")


class BackendError(RuntimeError):
    """The backend that was asked for cannot be used on this machine."""


def _import_cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise BackendError(
            "backend 'cupy' was asked for, but CuPy is not installed: "
            "pip install 'scratchmeta[cupy]', or 'scratchmeta[cupy-cuda13]' where nvidia-smi says "
            "CUDA 13"
        ) from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"backend 'cupy' was asked for, but CUDA answered: {error}") from error
    if devices == 0:
        raise BackendError("backend 'cupy' was asked for, but this machine has no GPU")
    return cupy


# --- which module an array belongs to -------------------------------------------------------------

_module_of_type: dict[type, ModuleType] = {np.ndarray: np}


def xp(*arrays: Array) -> ModuleType:
    """The module, `numpy` or `cupy`, that the first array among the arguments belongs to.

    Python and NumPy scalars belong to no module in particular; alone they give `numpy`.

    >>> xp(np.zeros(3)).__name__, xp(2.0, np.zeros(3)).__name__
    ('numpy', 'numpy')
    """
    for array in arrays:
        module = _module_of_type.get(type(array))
        if module is not None:
            return module
        cupy = sys.modules.get("cupy")  # an array of CuPy's cannot exist before CuPy is imported
        if cupy is not None and isinstance(array, cupy.ndarray):
            _module_of_type[type(array)] = cupy
            return cupy
    return np


def is_array(value: object) -> bool:
    """Whether `value` is an array or scalar of NumPy's or CuPy's, as opposed to a Python object."""
    return isinstance(value, (np.ndarray, np.generic)) or xp(value) is not np


def plain(value: object) -> object:
    """`value` itself; TypeError where it is an array that is more than one, as a masked array or
    np.matrix is: the mask would be lost on the way, and a product be another one."""
    if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
        raise TypeError(f"wanted plain arrays, got a {type(value).__name__}")
    return value


# --- where new arrays are born --------------------------------------------------------------------


class _Switch:
    """Sets a module-level choice; as a context manager, puts the old one back on leaving."""

    def __init__(self, variable: str, value: object) -> None:
        self.variable = variable
        self.previous = globals()[variable]
        globals()[variable] = value

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        globals()[self.variable] = self.previous


def _named(name: str) -> ModuleType:
    if name not in NAMES:
        raise BackendError(f"backend: wanted one of {', '.join(NAMES)}, got {name!r}")
    return np if name == "numpy" else _import_cupy()


_name: Any = os.environ.get("SCRATCHMETA_BACKEND", "numpy")  # a Name, once it was used
_kernels: bool = True


def use(name: str) -> _Switch:
    """Makes `name`, "numpy" or "cupy", the backend of arrays made from now on.

    `with use("cupy"): ...` puts the previous one back afterwards. The environment variable
    SCRATCHMETA_BACKEND gives the first choice. Raises BackendError for an unknown name, and where
    CuPy or a GPU is missing.
    """
    _named(name)
    return _Switch("_name", name)


def current() -> Name:
    """The name of the backend in use."""
    return _name


def use_kernels(on: bool) -> _Switch:
    """Turns the hand-written kernels on or off; off, their references answer instead.

    `with use_kernels(False): ...` puts the previous choice back afterwards.
    """
    return _Switch("_kernels", bool(on))


def kernels_enabled() -> bool:
    """Whether fused operations run their kernels."""
    return _kernels


# --- moving and making arrays ---------------------------------------------------------------------


def asarray(value: object, dtype: object = None) -> Array:
    """`value` on the backend in use, copied only where the dtype or the device differs."""
    module = _named(_name)
    if module is np:
        value = to_numpy(value)
    return module.asarray(value, dtype=dtype)


def to_numpy(array: Array) -> np.ndarray:
    """`array` in the host's memory, as NumPy's."""
    module = xp(array)
    return np.asarray(array) if module is np else module.asnumpy(array)


def scatter_add(target: Array, index: object, values: Array) -> None:
    """target[index] += values in place, where an index that occurs twice adds twice."""
    module = xp(target)
    if module is not np and target.dtype.kind == "c":  # CuPy adds atomically, and so no pairs
        scatter_add(target.real, index, values.real)
        scatter_add(target.imag, index, values.imag)
        return
    module.add.at(target, index, values)


_BROADCAST: Any = ["multi_index", "refs_ok", "zerosize_ok"]


def power(a: Array, p: Array) -> Array:
    """aᵖ.

    CuPy takes powers of complex numbers by the logarithm, whose rounding hides the tiny imaginary
    part that the complex step looks for: whole powers are products there.
    """
    if (
        type(a) is np.ndarray
        or xp(a) is np
        or a.dtype.kind != "c"
        or not isinstance(p, int | float)
    ):
        return a**p
    if p != int(p):
        return a**p
    product = xp(a).ones_like(a)
    for _ in range(abs(int(p))):
        product = product * a
    return 1 / product if p < 0 else product


def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x as a read-only view of this shape, copied along new leading axes and those of length 1.

    NumPy's own, but without its preparations in Python, which take twice as long as the rest.
    """
    if type(x) is np.ndarray and shape and min(shape) >= 0:
        it = np.nditer((x,), _BROADCAST, [["readonly"]], itershape=shape, order="C")
        return it.itviews[0]
    return xp(x).broadcast_to(x, shape)


def add_rows(x: Array) -> Array:
    """Σ of the rows of matrices (..., n, m): (..., m).

    On NumPy a product with ones, which BLAS computes up to nine times as fast as `sum` adds.
    """
    if type(x) is np.ndarray and x.dtype.char in "fd":
        return (np.ones((1, x.shape[-2]), x.dtype) @ x)[..., 0, :]
    return x.sum(axis=-2)


def solve(a: Array, b: Array) -> Array:
    """x of a x = b for matrices (..., n, n) and (..., n, k), whose leading axes broadcast.

    CuPy's own wants them alike.
    """
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (broadcast_to(m, (*lead, *m.shape[-2:])) for m in (a, b))
    return xp(a).linalg.solve(a, b)


def synchronize() -> None:
    """Waits until the device has finished what it was given; NumPy always has."""
    if _name == "cupy":
        _import_cupy().cuda.Device().synchronize()
