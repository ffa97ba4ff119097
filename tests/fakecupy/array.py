"""`ndarray`: an array that behaves as CuPy's where CuPy's differs from NumPy's.

The numbers lie in a NumPy array, but nothing gets at them without `get()`: NumPy's functions and
arrays are refused, in operators, as arguments, indices and values; results are 0-dimensional
arrays where NumPy's would be scalars; there are no methods and flags but CuPy's. It is stricter
than CuPy, which takes a NumPy array as the value in x[i] = value, wraps indices that are out of
bounds, and is called when NumPy's functions get its arrays: code that runs here relies on none of
that.
"""

import operator
from types import SimpleNamespace

import numpy as np

METHODS = (
    *("all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum"),
    *("diagonal", "dot", "fill", "flatten", "max", "mean", "min", "nonzero", "prod", "ravel"),
    *("repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace"),
    *("transpose", "var", "view"),
)
BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
IN_PLACE = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


class ndarray:
    """An array on the pretended device."""

    __slots__ = ("_host",)
    __hash__ = None
    __array_ufunc__ = None  # NumPy's scalars leave operators to this class

    def __init__(self, host: np.ndarray):
        self._host = host

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    T = property(lambda self: ndarray(self._host.T))
    real = property(lambda self: ndarray(self._host.real))
    imag = property(lambda self: ndarray(self._host.imag))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))

    @property
    def flags(self):
        """CuPy's three flags; it has no others."""
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    # --- to the host ------------------------------------------------------------------------------

    def get(self) -> np.ndarray:
        """A copy in the host's memory."""
        return self._host.copy()

    def item(self):
        """The only number, as Python's."""
        return self._host.item()

    def tolist(self):
        """The numbers in lists, as Python's."""
        return self._host.tolist()

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} was given a CuPy array: use CuPy's")

    def __bool__(self):
        return bool(self._host)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        return operator.index(self._host)

    def __repr__(self):
        return repr(self._host)

    # --- indices ----------------------------------------------------------------------------------

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return wrapped(self._host[_index(index)])

    def __setitem__(self, index, value):
        self._host[_index(index)] = _operand(value, "x[index] = value")


def _index(index):
    """The index for the NumPy array; TypeError for what CuPy does not take, or would copy."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, ndarray):
        return index._host
    if index is None or index is Ellipsis or isinstance(index, slice):
        return index
    if isinstance(index, list) and all(isinstance(i, int) for i in index):
        return index
    if isinstance(index, np.ndarray):
        raise TypeError(f"index: Unsupported type {np.ndarray}")
    return operator.index(index)


# --- between the two kinds of array ---------------------------------------------------------------


def wrapped(value):
    """A result of NumPy's as CuPy has it: every array and scalar an `ndarray`."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return type(value)(map(wrapped, value))
    return value


def unwrapped(value, where: str):
    """An argument for NumPy; raises TypeError where a NumPy array is in it."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"{where}: Unsupported type {np.ndarray}")
    if type(value) in (tuple, list):
        return type(value)(unwrapped(v, where) for v in value)
    return value


def _operand(value, where: str):
    """A CuPy array or a scalar, for NumPy; raises TypeError for anything else."""
    if isinstance(value, ndarray | np.generic | int | float | complex):
        return unwrapped(value, where)
    raise TypeError(f"{where}: Unsupported type {type(value)}")


def function(f, where: str, operands: bool = False):
    """NumPy's function for CuPy arrays; `operands` says that no lists are taken for arrays."""
    takes = _operand if operands else unwrapped

    def call(*args, **kwargs):
        kwargs = {name: unwrapped(value, where) for name, value in kwargs.items()}
        return wrapped(f(*(takes(a, where) for a in args), **kwargs))

    call.__name__ = where
    return call


# --- methods and operators ------------------------------------------------------------------------


def _is_for_arrays(other):
    """Whether an operator is this class's: a Tensor, of higher priority, has its own."""
    return isinstance(other, ndarray) or getattr(other, "__array_priority__", 0) <= 100


def _power(a, p):
    """As CuPy has it: of complex numbers by the logarithm."""
    if "c" in (np.asarray(a).dtype.kind, np.asarray(p).dtype.kind):
        return np.exp(p * np.log(np.asarray(a, complex)))
    return a**p


def _operator(name, reflected=False):
    compute = getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))
    compute = _power if name == "pow" else compute

    def call(self, other):
        if not _is_for_arrays(other):
            return NotImplemented
        pair = self._host, _operand(other, f"operator {name}")
        return wrapped(compute(*pair[::-1]) if reflected else compute(*pair))

    return call


def _in_place(name, ufunc):
    def call(self, other):
        if not _is_for_arrays(other):
            return NotImplemented
        ufunc(self._host, _operand(other, f"operator {name}"), out=self._host)
        return self

    return call


for _name in METHODS:
    setattr(ndarray, _name, function(getattr(np.ndarray, _name), _name))
for _name in BINARY:
    setattr(ndarray, f"__{_name}__", _operator(_name))
    setattr(ndarray, f"__r{_name}__", _operator(_name, reflected=True))
for _name, _ufunc in IN_PLACE.items():
    setattr(ndarray, f"__i{_name}__", _in_place(_name, _ufunc))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _operator(_name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", function(getattr(operator, _name), f"operator {_name}"))
