"""The module `cupy` of the stand-in: the part of CuPy's interface that is listed here, and no more.

A name that the library comes to need is entered if CuPy's reference has it.
"""

from types import ModuleType, SimpleNamespace

import cuda_host
import numpy as np

from fakecupy.array import function, ndarray, unwrapped, wrapped

UFUNCS = (
    *("abs", "add", "arctan2", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cos", "cosh"),
    *("divide", "equal", "exp", "exp2", "expm1", "floor", "fmax", "fmin", "greater"),
    *("greater_equal", "hypot", "invert", "isfinite", "isinf", "isnan", "less", "less_equal"),
    *("log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or"),
    *("logical_xor", "maximum", "minimum", "multiply", "negative", "not_equal", "power"),
    *("reciprocal", "remainder", "sign", "signbit", "sin", "sinh", "sqrt", "square", "subtract"),
    *("tan", "tanh", "true_divide"),
)
FUNCTIONS = (
    *("all", "allclose", "any", "arange", "argmax", "argmin", "argsort", "array_equal"),
    *("array_split", "atleast_1d", "atleast_2d", "broadcast_arrays", "broadcast_to", "clip"),
    *("concatenate", "copyto", "count_nonzero", "cumprod", "cumsum", "diag", "diagonal", "dot"),
    *("einsum", "expand_dims", "eye", "flip", "full", "full_like", "identity", "isclose"),
    *("linspace", "matmul", "max", "mean", "median", "min", "moveaxis", "nan_to_num"),
    *("nonzero", "ones", "ones_like", "outer", "pad", "prod", "ravel", "repeat", "reshape"),
    *("roll", "rollaxis", "sort", "split", "squeeze", "stack", "std", "sum", "swapaxes", "take"),
    *("take_along_axis", "tensordot", "tile", "trace", "transpose", "tril", "triu", "unique"),
    *("var", "vdot", "vstack", "where", "zeros", "zeros_like"),
)
CONSTANTS = (
    "bool_",
    "e",
    "float16",
    "float32",
    "float64",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
)
CONSTANTS += ("nan", "newaxis", "pi", "uint8", "uint32", "uint64")
CONSTANTS += ("dtype", "finfo", "iinfo", "issubdtype", "promote_types")


class CUDARuntimeError(RuntimeError):
    """CuPy's error for what CUDA refuses."""


class RawModule(cuda_host.RawModule):
    """CuPy's, run on the CPU."""

    def get_function(self, name):
        """The kernel of this name, for arrays of the stand-in."""
        launch = super().get_function(name)

        def call(grid, block, args, *, shared_mem=0):
            host = [unwrapped(arg, launch.name) for arg in args]
            launch(grid, block, host, shared_mem=shared_mem)

        return call


def asarray(value, dtype=None, order=None):
    """A NumPy array, numbers or lists on the device; a CuPy array as it is."""
    if isinstance(value, ndarray):
        same = np.asarray(value._host, dtype=dtype, order=order)
        return value if same is value._host else ndarray(same)
    return array(value, dtype, order)


def array(value, dtype=None, order=None):
    """A copy on the device."""
    if isinstance(value, list | tuple):
        value = [v.get() if isinstance(v, ndarray) else v for v in value]
    elif isinstance(value, ndarray):
        value = value._host
    return ndarray(np.array(value, dtype=dtype, order=order or "K"))


def asnumpy(value):
    """A copy in the host's memory."""
    return value.get() if isinstance(value, ndarray) else np.asarray(value)


def _as_the_device_has_it(out):
    """New memory, which on a device holds anything: full of NaN, or of −1."""
    out.reshape(-1, order="A").view(np.uint8)[...] = 1 if out.dtype == bool else cuda_host.NAN
    return ndarray(out)


def empty(shape, dtype=float, order="C"):
    """Memory for an array of this shape."""
    return _as_the_device_has_it(np.empty(shape, dtype, order))


def empty_like(a, dtype=None):
    """Memory for an array like `a`, its order of axes in memory included."""
    return _as_the_device_has_it(np.empty(a.shape, dtype or a.dtype, "F" if _is_f(a) else "C"))


def _is_f(a):
    return a.flags.f_contiguous and not a.flags.c_contiguous


def ascontiguousarray(a, dtype=None):
    """`a` in C order, copied only if need be."""
    return asarray(a, dtype, order="C")


def as_strided(x, shape, strides):
    """A view of x with these strides."""
    return wrapped(np.lib.stride_tricks.as_strided(x._host, shape, strides))


def solve(a, b):
    """CuPy's `linalg.solve`: leading axes do not broadcast, and a singular matrix is no error."""
    if a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M) or (..., M, K)")
    try:
        return wrapped(np.linalg.solve(unwrapped(a, "solve"), unwrapped(b, "solve")))
    except np.linalg.LinAlgError as error:
        if "Singular" not in str(error):
            raise
        return _as_the_device_has_it(np.empty(b.shape, b.dtype))


def get_array_module(*args):
    """cupy if one of the arguments is CuPy's, else numpy."""
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


def result_type(*arrays_and_dtypes):
    """The dtype of what is computed from these."""
    return np.result_type(*(getattr(a, "_host", a) for a in arrays_and_dtypes))


class _Ufunc:
    """One of CuPy's, with the `at` of those that have one."""

    def __init__(self, name):
        self.name, self.ufunc = name, getattr(np, name)
        self.compute = function(self.ufunc, name, operands=True)

    def __call__(self, *args, **kwargs):
        return self.compute(*args, **kwargs)

    def at(self, target, index, values):
        """target[index] = ufunc(target[index], values), one after another."""
        if self.name not in ("add", "maximum", "minimum"):
            raise NotImplementedError(f"CuPy has no {self.name}.at")
        if target.dtype.kind not in "iuf":
            raise TypeError(f"cupy.{self.name}.at: no {target.dtype}")
        self.ufunc.at(target._host, unwrapped(index, "at"), unwrapped(values, "at"))


class _Device:
    def synchronize(self):
        """Everything has been done already."""


class _Pool:
    def free_all_blocks(self):
        """There are none: NumPy's memory is the C library's."""

    def total_bytes(self):
        """None are kept."""
        return 0


def build() -> ModuleType:
    """A new module `cupy`."""
    cupy = ModuleType("cupy", __doc__)
    vars(cupy).update({name: _Ufunc(name) for name in UFUNCS})
    vars(cupy).update({name: function(getattr(np, name), name) for name in FUNCTIONS})
    vars(cupy).update({name: getattr(np, name) for name in CONSTANTS})
    own = (RawModule, array, asarray, ascontiguousarray, asnumpy, empty, empty_like)
    own += (get_array_module, ndarray, result_type)
    vars(cupy).update({item.__name__: item for item in own})
    tricks = SimpleNamespace(as_strided=as_strided)
    cupy.__version__ = "0 (a stand-in)"
    cupy.get_default_memory_pool = _Pool
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"none"},
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 0,
        CUDARuntimeError=CUDARuntimeError,
    )
    cupy.lib = SimpleNamespace(stride_tricks=tricks)
    cupy.linalg = SimpleNamespace(solve=solve)
    cupy.cuda = SimpleNamespace(runtime=runtime, Device=_Device)
    return cupy
