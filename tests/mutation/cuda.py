"""Mutants of the CUDA kernels: what goes wrong at the edges of blocks, tiles, arrays and numbers.

A .cu file is text here. In every line of code one thing is changed at a time: a comparison takes in
its end or leaves it out, or a bound is not looked at; an integer is one larger; a sum is a
difference; a size, an axis or a thread's place is taken for its neighbour; a barrier or an early
return is left out. The emulation compiles each, in a cache of its own, and runs the kernels' tests.
"""

import atexit
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutation import Equivalent
from mutation._source import REPOSITORY, passes

FOLDER = REPOSITORY / "kernels"
TESTS = {  # -k of the tests in which a file's kernels run
    "attention": [["tests/test_kernels_attention.py", "-k", "cuda"]],
    "conv": [["tests/test_kernels_conv.py", "-k", "cuda"]],
    "lstm": [["tests/test_kernels_lstm.py", "-k", "cuda"]],
    "norm_pool": [["tests/test_kernels_norm_pool.py", "-k", "cuda"]],
    "pairwise": [["tests/test_kernels_pairwise.py", "-k", "cuda"]],
    "unit": [["tests/test_kernels_parts.py", "-k", "cuda"]],
}
for _stem, _tests in TESTS.items():
    _tests.append(["tests/test_cuda_host.py", "-k", f"computes_what_numba_does and {_stem}"])

ALIKE = [
    *({"Q", "N"}, {"D", "V"}, {"N", "M"}, {"H", "W"}, {"OH", "OW"}, {"kh", "kw"}, {"C", "F"}),
    *({"top", "left"}, {"high", "wide"}, {"threadIdx.x", "threadIdx.y"}, {"rows", "columns"}),
]
TERM = r"[\w.\[\]]+(?:\([\w, ]*\))?"
OPERAND = rf"{TERM}(?: [+*] {TERM})*"
COMPARISONS = {"<": "<=", ">": ">=", "<=": "<", ">=": ">", "==": "!=", "!=": "=="}


@dataclass(frozen=True)
class Mutant:
    """A .cu file with one mistake in it."""

    stem: str
    name: str  # "attention.cu add_dots"
    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"kernels/{self.stem}.cu:{self.line} {self.name}: {self.before}  ->  {self.after}"

    def put(self) -> None:
        """In the file's place, for this process; what is compiled goes where it is thrown away."""
        os.environ["SCRATCHMETA_CACHE"] = str(_cache())
        file, unchanged = (FOLDER / f"{self.stem}.cu").resolve(), Path.read_text

        def read_text(path, *args, **kwargs):
            return self.text if path.resolve() == file else unchanged(path, *args, **kwargs)

        Path.read_text = read_text


@functools.cache
def _cache() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder))
    return folder


def mutants(stem: str) -> Iterator[Mutant]:
    """Every mutant of a file."""
    lines = (FOLDER / f"{stem}.cu").read_text(encoding="utf-8").splitlines()
    words = set(re.findall(r"[\w.]+", " ".join(line.partition("//")[0] for line in lines)))
    name = ""
    for i, line in enumerate(lines):
        code, slashes, comment = line.partition("//")
        if found := re.search(r"(\w+)\((?:const )?\w+.*(?:\)|,|\{)(?: const)? *\{?$", code):
            is_function = line[:1] not in (" ", "/") or "__device__" in code
            name = found[1] if is_function and "__global__ void __launch" not in code else name
        parameters = re.search(r"(const T\*|long long [A-Z]|int [A-Z]\w*),", code)
        if not code.strip() or parameters or re.match(r"#|template|constexpr|struct|__", code):
            continue
        for changed in sorted(set(_changes(code, words)) - {code}):
            whole = [*lines[:i], changed + slashes + comment, *lines[i + 1 :], ""]
            before, after = code.strip(), changed.strip()
            yield Mutant(stem, f"{stem}.cu {name}", i + 1, before, after, "\n".join(whole))


def _changes(code: str, words: set[str]) -> Iterator[str]:
    def each(pattern, *replacements):
        for found in re.finditer(pattern, code):
            for new in replacements:
                yield code[: found.start()] + found.expand(new) + code[found.end() :]

    for sign, other in COMPARISONS.items():
        yield from each(rf"(?<= ){sign}(?= )", other)
    if not re.match(r"\s*for ", code):
        yield from each(rf"(?<![\w.]){OPERAND} (?:<|>=|<=|>) {OPERAND}", "true")
    yield from each(r" && ", " || ")
    yield from each(r"(?<= )\+(?= )", "-")
    yield from each(r"(?<= )-(?= )", "+")
    yield from each(r"(?<= )/(?= )", "*")
    yield from each(r"(?<= )%(?= )", "/")
    yield from each(r"(?<![\w.\"])\d+(?![\w.\"])", r"(\g<0> + 1)")
    for group in ALIKE:
        for one in group:
            for other in (group - {one}) & words:
                yield from each(rf"(?<![\w.]){re.escape(one)}(?!\w|\()", other)
    yield from each(r"__syncthreads\(\);", "")
    yield from each(r"if \(.*\) return.*?;", "")


class Cuda:
    """The subject: all .cu files."""

    def __init__(self, equivalent: Equivalent):
        self.equivalent = equivalent

    def mutants(self) -> list[Mutant]:
        """Every mutant of every file."""
        return [mutant for stem in TESTS for mutant in mutants(stem)]

    def passes(self) -> bool:
        """Whether all tests pass without a mistake."""
        return all(passes(None, tests) for of in TESTS.values() for tests in of)

    def is_killed(self, mutant: Mutant) -> bool:
        """Whether some test of the file fails with it."""
        return any(not passes(mutant, tests) for tests in TESTS[mutant.stem])


_INSIDE = "s[j][i] = inside ? p * (gp[j][i] - delta[row]) : T({});"
_CHUNKS = "for (long long d0 = 0; d0 {} D; d0 += CHUNK) {{"
EQUIVALENT: Equivalent = {
    ("attention.cu attention_backward_keys", _INSIDE.format("0")): (
        "past the last query it is multiplied by a row of zeros, and past the last key not stored",
        {_INSIDE.format("(0 + 1)")},
    ),
    ("pairwise.cu distances", _CHUNKS.format("<")): (
        "one chunk more, where D is a multiple of it, is one of zeros, which adds nothing",
        {_CHUNKS.format("<=")},
    ),
}

SUBJECT = Cuda(EQUIVALENT)
