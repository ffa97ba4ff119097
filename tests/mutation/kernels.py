"""Mutants of the kernels in Numba, compiled anew; those in CUDA are in `cuda`.

What comes from Numba's cache is not the mutant, which it would take for the original: functions of
a mutated module, and of those that call it, are neither read from there nor kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from mutation import Equivalent
from mutation import _source as source

PREFIX = "scratchmeta.kernels."
# a module -> those whose compiled functions are made of its own, and the tests of both
CALLERS = {
    "attention": ["attention"],
    "conv": ["conv"],
    "elementary": ["attention", "lstm"],
    "lstm": ["lstm"],
    "norm_pool": ["norm_pool"],
    "pairwise": ["pairwise"],
    "product": ["attention", "conv", "pairwise"],
    "threads": [],
    "unit": ["unit", "attention"],
}
TESTS = {
    "attention": ["tests/test_kernels_attention.py", "-k", "not cuda"],
    "conv": ["tests/test_kernels_conv.py", "-k", "not cuda"],
    "elementary": ["tests/test_kernels_parts.py", "-k", "elementary"],
    "lstm": ["tests/test_kernels_lstm.py", "-k", "not cuda"],
    "norm_pool": ["tests/test_kernels_norm_pool.py", "-k", "not cuda"],
    "pairwise": ["tests/test_kernels_pairwise.py", "-k", "not cuda"],
    "product": ["tests/test_kernels_parts.py", "-k", "sums_of_terms or products"],
    "threads": ["tests/test_threads.py", "-k", "parts or wrong"],
    "unit": ["tests/test_kernels_parts.py", "-k", "(unit or shortest or cotangent) and not cuda"],
}


@dataclass(frozen=True)
class Mutant(source.Mutant):
    """A module of kernels with one mistake in it."""

    def put(self) -> None:
        """In its module's place, for this process, with all that calls it."""
        super().put()
        from numba.core.caching import FunctionCache

        load, save = FunctionCache.load_overload, FunctionCache.save_overload
        changed = {PREFIX + caller for caller in CALLERS[self.stem]}

        def load_overload(cache, signature, target):
            if cache._py_func.__module__ not in changed:
                return load(cache, signature, target)

        def save_overload(cache, signature, data):
            if cache._py_func.__module__ not in changed:
                save(cache, signature, data)

        FunctionCache.load_overload, FunctionCache.save_overload = load_overload, save_overload

    @property
    def stem(self) -> str:
        """The module's last name."""
        return self.module.removeprefix(PREFIX)


def tests(stem: str) -> list[Sequence[str]]:
    """A module's own tests, then those of what calls it."""
    return [TESTS[stem], *(TESTS[caller] for caller in CALLERS[stem] if caller != stem)]


class Kernels:
    """The subject: all modules of kernels."""

    def __init__(self, equivalent: Equivalent):
        self.equivalent = equivalent

    def mutants(self) -> list[Mutant]:
        """Every mutant of every module, but of what holds for CUDA alone."""
        made = (m for stem in CALLERS for m in source._mutants(PREFIX + stem))
        names = [field.name for field in fields(Mutant)]
        return [
            Mutant(*(getattr(m, name) for name in names))
            for m in made
            if "cuda" not in m.name + m.before.lower() and "_launch" not in m.name
        ]

    def passes(self) -> bool:
        """Whether all tests pass without a mistake."""
        return all(source.passes(None, of) for of in TESTS.values())

    def is_killed(self, mutant: Mutant) -> bool:
        """Whether some test fails with it."""
        return any(not source.passes(mutant, of) for of in tests(mutant.stem))


EQUIVALENT: Equivalent = {}

SUBJECT = Kernels(EQUIVALENT)
