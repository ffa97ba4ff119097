"""CUDA kernels run on the CPU: `RawModule` in place of CuPy's, for NumPy arrays.

The text of a .cu file is compiled by g++ as it is, with cuda_on_host.h before it, into a shared
library that is kept in the user's cache. A launch works on copies of its arrays, once with the
threads in order and the arrays' ends at a protected page, once in reverse order with their
beginnings at one, and raises `LaunchError` where

  - an argument is not what the kernel's parameter wants (a GPU would take the bytes as they are)
  - the header finds barriers that diverge, shuffles without a partner, indices out of bounds
  - something is read or written outside of the arrays: behind the end or before the beginning
  - the two orders give different results: threads race.
"""

import ctypes
import fcntl
import hashlib
import itertools
import mmap
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scratchmeta.data.cache import folder

HEADER = Path(__file__).with_name("cuda_on_host.h")
COMPILER = shutil.which("g++")
# Bounds are checked by functions of the header. Names of static variables are not shared between
# libraries; setjmp may go to another stack.
FLAGS = (
    *("-O2", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"),
    *("-fsanitize=bounds", "-U_FORTIFY_SOURCE", "-ffp-contract=off"),
)
MOST_THREADS, MOST_SHARED_BYTES = 1024, 48 * 1024
LARGEST_BLOCK, LARGEST_GRID = (1024, 1024, 64), (2**31 - 1, 65535, 65535)
GUARD = 256 * mmap.PAGESIZE  # protected bytes before and after an array's pages
NAN = 0xFF  # a byte; of these consist a NaN of any width and the integer −1


class CompileError(RuntimeError):
    """g++ does not accept the source."""


class LaunchError(RuntimeError):
    """A launch that CUDA would refuse, or that would go wrong on a GPU."""


class RawModule:
    """The kernels of a CUDA source; `get_function(name)` gives one to launch.

    Names are `name_expressions`, and those of the kernels that are extern "C". Compiled on first
    use, as by CuPy. Raises ValueError where templates are wanted without a C++ standard.
    """

    def __init__(self, *, code: str, options: tuple = (), name_expressions: Sequence[str] = ()):
        self.standard = next((o for o in options if o.lstrip("-").startswith("std=")), None)
        if name_expressions and not self.standard:
            raise ValueError("RawModule: name_expressions want an option -std=c++..., got none")
        bounds = r"(?:__launch_bounds__\(.*?\)\s*)?"
        plain = re.findall(rf'extern\s+"C"\s+__global__\s+void\s+{bounds}(\w+)', code)
        self.names = [*name_expressions, *plain]
        self.code = code
        self._library = None

    def get_function(self, name: str) -> "Function":
        """The kernel of this name; raises CompileError or, for an unknown name, LookupError."""
        if name not in self.names:
            raise LookupError(f"RawModule: wanted one of {', '.join(self.names)}, got {name!r}")
        if self._library is None:
            self._library = ctypes.CDLL(str(_compiled(self._source(), self.standard)))
        return Function(self._library, self.names.index(name), name)

    def _source(self) -> str:
        # The address of dynamic shared memory is known when a kernel runs, not when it is linked.
        code = re.sub(
            r"extern\s+__shared__\s+([\w\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;",
            r"\1* \2 = (\1*)cuda_host::machine->dynamic_shared.data();",
            self.code,
        )
        entries = "\n".join(f"ENTRY({i}, {name})" for i, name in enumerate(self.names))
        return f'#include "{HEADER.name}"\n#line 1 "kernel.cu"\n{code}\n{entries}\n'


def _compiled(source: str, standard: str | None) -> Path:
    """The shared library made of this C++ text."""
    if COMPILER is None:
        raise CompileError("g++ is not installed")
    command = [COMPILER, standard or "-std=c++17", *FLAGS]
    version = subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout
    parts = [source.encode(), HEADER.read_bytes(), version, " ".join(command).encode()]
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    place = folder() / "cuda_on_host"
    place.mkdir(parents=True, exist_ok=True)
    library = place / f"{name}.so"
    with open(place / f"{name}.lock", "w") as lock:  # one of several processes compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            made = [place / f"{name}.{ending}" for ending in ("cpp", "o", "partial")]
            made[0].write_text(source, encoding="utf-8")
            # linked without the sanitizer's library
            compile_ = [*command, "-I", HEADER.parent, "-c", made[0], "-o", made[1]]
            for step in (compile_, [COMPILER, "-shared", made[1], "-o", made[2]]):
                done = subprocess.run(step, capture_output=True, text=True)
                if done.returncode:
                    raise CompileError(done.stderr)
            os.replace(made[2], library)
            for path in made[:2]:
                path.unlink()
    return library


class Function:
    """A kernel: `function(grid, block, args, shared_mem=0)`, as CuPy's.

    Arguments are NumPy arrays, C-contiguous, and scalars, of which a Python int counts as int64 and
    a float as float64; None is the null pointer.
    """

    def __init__(self, library: ctypes.CDLL, number: int, name: str):
        self.name = name
        self._launch = library[f"launch_{number}"]
        self._launch.restype = ctypes.c_char_p
        signature = library[f"signature_{number}"]
        signature.restype = ctypes.c_char_p
        self.parameters = signature().decode().split()

    def __call__(self, grid: tuple, block: tuple, args: Sequence, *, shared_mem: int = 0) -> None:
        sizes = self._sizes("grid", grid, LARGEST_GRID), self._sizes("block", block, LARGEST_BLOCK)
        if np.prod(sizes[1]) > MOST_THREADS:
            raise LaunchError(
                f"{self.name}: at most {MOST_THREADS} threads in a block, got {block}"
            )
        if shared_mem > MOST_SHARED_BYTES:
            raise LaunchError(
                f"{self.name}: at most {MOST_SHARED_BYTES} bytes of shared memory, got {shared_mem}"
            )
        if len(args) != len(self.parameters):
            raise LaunchError(
                f"{self.name}: wanted {len(self.parameters)} arguments, got {len(args)}"
            )
        args = [self._checked(i, arg) for i, arg in enumerate(args)]
        arrays = self._distinct([a for a in args if isinstance(a, np.ndarray)])
        forward, atomic = self._run(*sizes, args, arrays, shared_mem, False)
        backward, _ = self._run(*sizes, args, arrays, shared_mem, True)
        for array, one, other in zip(arrays, forward, backward, strict=True):
            self._compare(args, array, one, other, atomic)
            if array.tobytes() != one.tobytes():  # a read-only array is only refused if written to
                array[...] = one

    # --- arguments --------------------------------------------------------------------------------

    def _sizes(self, what: str, sizes: tuple, most: tuple) -> tuple:
        """Three sizes, those not given and 0 as 1, as CuPy has it."""
        if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
            raise TypeError(f"{self.name}: wanted {what} as a tuple of 1 to 3 sizes, got {sizes!r}")
        sizes = tuple(max(1, int(n)) for n in (*sizes, 1, 1)[:3])
        if any(n > m for n, m in zip(sizes, most, strict=True)):
            raise LaunchError(f"{self.name}: {what} at most {most}, got {sizes}")
        return sizes

    def _checked(self, i: int, arg):
        """The argument as a NumPy array or scalar, or None."""
        wanted = self.parameters[i]
        if wanted.startswith("*") and arg is None:
            return None
        if not isinstance(arg, np.ndarray | np.generic):
            arg = {int: np.int64, bool: np.int64, float: np.float64}[type(arg)](arg)
        is_array = isinstance(arg, np.ndarray)
        got = ("*" if is_array else "") + arg.dtype.kind + str(arg.dtype.itemsize)
        if _bits(wanted) != _bits(got):
            raise LaunchError(f"{self.name}: argument {i}: wanted {wanted}, got {got}")
        if is_array and not arg.flags.c_contiguous:
            raise LaunchError(f"{self.name}: argument {i}: wanted a C-contiguous array")
        return arg

    def _distinct(self, arrays: list) -> list:
        """The arrays without those that are given twice; none may overlap another in part."""
        places = {(a.ctypes.data, a.nbytes): a for a in arrays}
        ends = sorted((start, start + size) for start, size in places if size)
        for (_, end), (start, _) in itertools.pairwise(ends):
            if start < end:
                raise LaunchError(f"{self.name}: arguments overlap in part")
        return list(places.values())

    # --- a launch ---------------------------------------------------------------------------------

    def _run(self, grid, block, args, arrays, shared_mem, is_reversed):
        """The arrays after the launch, and whether numbers were added in no fixed order."""
        copies = {(a.ctypes.data, a.nbytes): Copy(a, at_end=not is_reversed) for a in arrays}
        values, guards = [], []
        for i, arg in enumerate(args):
            if isinstance(arg, np.ndarray):
                copy = copies[arg.ctypes.data, arg.nbytes]
                values.append(np.array(copy.edges[1], np.uintp))
                guards.append(Guard(*copy.edges, i))
            elif arg is None:
                values.append(np.array(0, np.uintp))
                guards.append(Guard(0, 0, 0, mmap.PAGESIZE, i))
            else:
                values.append(np.array(arg))
        atomic = ctypes.c_bool()
        error = self._launch(
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_size_t(shared_mem),
            (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values)),
            (Guard * len(guards))(*guards),
            ctypes.c_int(len(guards)),
            ctypes.c_bool(is_reversed),
            ctypes.byref(atomic),
        )
        if error:
            raise LaunchError(error.decode())
        results = []
        for array, copy in zip(arrays, copies.values(), strict=True):
            if (copy.rest != NAN).any():
                i = next(i for i, arg in enumerate(args) if arg is array)
                raise LaunchError(f"{self.name}: argument {i}: written outside of the array")
            results.append(copy.inside.view(array.dtype).reshape(array.shape))
        return results, atomic.value

    def _compare(self, args, array, one, other, atomic):
        """Raises LaunchError unless both orders gave the same array."""
        if atomic:  # sums in another order
            eps = np.finfo(array.dtype).eps if array.dtype.kind == "f" else 0
            same = np.isclose(one, other, rtol=1e3 * eps, atol=1e3 * eps, equal_nan=True)
        else:
            same = one == other
            same |= (one != one) & (other != other)
        if not same.all():
            i = next(i for i, arg in enumerate(args) if arg is array)
            at = tuple(int(n[0]) for n in np.nonzero(~same))
            raise LaunchError(
                f"{self.name}: threads race: argument {i} at {at} is {one[at]} or, with threads in "
                f"reverse order, {other[at]}"
            )


def _bits(parameter: str) -> str:
    """A parameter's kind with all integers and booleans as one."""
    return re.sub("[iub]", "i", parameter)


class Guard(ctypes.Structure):
    """The header's struct of this name."""

    _fields_ = (*((name, ctypes.c_void_p) for name in ("before", "first", "end", "behind")),)
    _fields_ += (("argument", ctypes.c_int),)


class Copy:
    """The array's bytes in pages of their own, the rest NaN, with protected pages on either side.

    The bytes are at the pages' end or at their beginning, hence aligned as the numbers want it, if
    not as well as device memory is.
    """

    def __init__(self, array: np.ndarray, at_end: bool):
        size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, size + 2 * GUARD, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(memory, np.uint8)
        pages, before = whole[GUARD : GUARD + size], whole.ctypes.data
        first = size - array.nbytes if at_end else 0
        self.inside = pages[first : first + array.nbytes]
        self.inside[...] = array.reshape(-1).view(np.uint8)
        self.rest = pages[:first] if at_end else pages[array.nbytes :]
        self.rest[...] = NAN
        start = before + GUARD + first
        self.edges = before, start, start + array.nbytes, before + 2 * GUARD + size
        for page in (before, before + GUARD + size):
            if _C.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(GUARD), _NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")


_C = ctypes.CDLL(None, use_errno=True)
_NO_ACCESS = 0  # PROT_NONE, of sys/mman.h
