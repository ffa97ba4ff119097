"""NVRTC, which CuPy compiles kernels with, called directly: it needs no GPU.

It accepts less than nvcc does: there are no headers, and so no INFINITY.
"""

import ctypes
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# what the library asks for, what CuPy adds to that, and a report of what the assembler made
OPTIONS = (
    *("-std=c++17", "-ftz=true", "--device-as-default-execution-space"),
    "--ptxas-options=-v",
)


class Usage(NamedTuple):
    """What one kernel takes of a multiprocessor, as the assembler reports it."""

    kernel: str  # as its template is spelled out: "unit<float>"
    registers: int  # of a thread
    shared: int  # bytes of a block
    spilled: int  # bytes that a thread stores for want of registers, and loads again


def library() -> ctypes.CDLL | None:
    """The system's NVRTC or that of NVIDIA's wheels; None where there is neither."""
    wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/lib/libnvrtc.so.*")
    for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", *map(str, sorted(wheels))):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def version() -> str:
    """NVRTC's, as 12.9."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def architectures() -> list[str]:
    """What it compiles for, as sm_90; none where there is no NVRTC."""
    if library() is None:
        return []
    size = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(size))
    numbers = (ctypes.c_int * size.value)()
    library().nvrtcGetSupportedArchs(numbers)
    return [f"sm_{number}" for number in numbers]


def compiled(code: str, names: Sequence[str], architecture: str) -> tuple[bytes, list[Usage]]:
    """The machine code of the templates that `names` spells out, as `cupy.RawModule` has it made,
    and what each of them uses.

    Raises RuntimeError with the compiler's words where it refuses.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    try:
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        arguments = [option.encode() for option in (*OPTIONS, f"-arch={architecture}")]
        array = (ctypes.c_char_p * len(arguments))(*arguments)
        failed = nvrtc.nvrtcCompileProgram(program, len(arguments), array)
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed:
            raise RuntimeError(log.value.decode())
        lowered, spelled = ctypes.c_char_p(), {}
        for name in names:
            if nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)):
                raise RuntimeError(f"NVRTC made nothing of {name}")
            spelled[lowered.value.decode()] = name
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, cubin)
        return cubin.raw, _usage(log.value.decode(), spelled)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _usage(log: str, spelled: dict[str, str]) -> list[Usage]:
    """The assembler's report on every kernel, in the order of `spelled`."""
    found = {}
    for report in log.split("Compiling entry function '")[1:]:
        name = spelled[report.partition("'")[0]]
        shared = re.search(r"(\d+) bytes smem", report)
        found[name] = Usage(
            name,
            int(re.search(r"Used (\d+) registers", report)[1]),
            int(shared[1]) if shared else 0,
            int(re.search(r"(\d+) bytes spill stores", report)[1]),
        )
    return [found[name] for name in spelled.values()]
