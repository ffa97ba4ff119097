"""The commands behind `scratchmeta`, a file each: its options, and `main(argv)`, which returns an
exit status."""

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = sorted(module.name for module in pkgutil.iter_modules(__path__))


def command(name: str) -> Callable[[Sequence[str]], int]:
    """The command of this name."""
    return import_module(f"{__name__}.{name}").main
