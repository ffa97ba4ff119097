"""What every CUDA kernel takes of a multiprocessor: registers, shared memory, spilled registers.

    python benchmarks/registers.py [sm_70 sm_90 ...] [--write FILE]

It compiles the kernels by NVRTC as CuPy does, which takes no GPU, and prints a table in Markdown of
what the assembler reports, a number for each architecture.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def table(architectures: list[str]) -> list[str]:
    """The lines of the table; raises RuntimeError where a kernel does not compile."""
    sys.path.insert(0, str(ROOT / "tests"))  # the emulation's way to NVRTC
    from cuda_host import nvrtc

    lines = [
        f"NVRTC {nvrtc.version()}, {' / '.join(architectures)}",
        "",
        "| file | kernel | registers of a thread | shared memory of a block | spilled |",
        "|---|---|---|---|---|",
    ]
    for source in sorted((ROOT / "kernels").glob("*.cu")):
        code = source.read_text(encoding="utf-8")
        kernels = re.findall(
            r"__global__\s+void\s+(?:__launch_bounds__\(.*?\)\s*)?(\w+)", code
        )  # as scratchmeta.kernels.runtime finds them
        names = [f"{kernel}<{real}>" for kernel in kernels for real in ("float", "double")]
        used = [nvrtc.compiled(code, names, name)[1] for name in architectures]
        for row in zip(*used, strict=True):
            registers, shared, spilled = (
                " / ".join(str(getattr(usage, what)) for usage in row)
                for what in ("registers", "shared", "spilled")
            )
            lines.append(
                f"| {source.name} | {row[0].kernel} | {registers} | {shared} | {spilled} |"
            )
    return lines


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("architectures", nargs="*", default=["sm_70", "sm_90"], metavar="sm_NN")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there as well")
    options = parser.parse_args(argv)
    text = "\n".join(table(options.architectures)) + "\n"
    print(text, end="")
    if options.write:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
