"""NVRTC, which CuPy compiles kernels with, called directly: it needs no GPU.

It accepts less than nvcc does: there are no headers, and so no INFINITY.
"""

import ctypes
import sysconfig
from collections.abc import Sequence
from pathlib import Path

# what CuPy adds to the options of a RawModule, for a Hopper card
OPTIONS = ("-ftz=true", "-arch=sm_90", "--device-as-default-execution-space")


def library() -> ctypes.CDLL | None:
    """The system's NVRTC or that of NVIDIA's wheels; None where there is neither."""
    wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/lib/libnvrtc.so.*")
    for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", *map(str, sorted(wheels))):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def compiled(code: str, names: Sequence[str], options: Sequence[str] = ()) -> bytes:
    """The machine code of the templates that `names` spells out, as `cupy.RawModule` has it made.

    Raises RuntimeError with the compiler's words where it refuses.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    try:
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        arguments = [option.encode() for option in (*options, *OPTIONS)]
        array = (ctypes.c_char_p * len(arguments))(*arguments)
        failed = nvrtc.nvrtcCompileProgram(program, len(arguments), array)
        size = ctypes.c_size_t()
        if failed:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(log.value.decode())
        lowered = ctypes.c_char_p()
        for name in names:
            if nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)):
                raise RuntimeError(f"NVRTC made nothing of {name}")
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, cubin)
        return cubin.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
