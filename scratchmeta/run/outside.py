"""Classes from outside the library: an algorithm or a network of one's own.

    ./my_algorithm.py:MyMethod        a file, whose content's SHA-256 is recorded with the run
    package.module:Class              a module that is installed
    name                              an installed package's, by the entry point group
                                      scratchmeta.algorithms

A run folder may come from a stranger, and reading it must not run a stranger's code. So what
config.json names is loaded only if it is a file outside the folder, named by its whole path, with
the content that was recorded, or what an entry point of an installed package names, with that
content too. Anything else is loaded only when it is named again on the command line.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from scratchmeta.algorithms import METHODS, is_algorithm

GROUP = "scratchmeta.algorithms"


class OutsideError(ValueError):
    """Code from outside the library cannot, or may not, be loaded."""


@dataclass(frozen=True)
class Kind:
    """What may come from outside."""

    what: str
    follows: Callable[[Any], bool]
    protocol: str


def _is_network(value: Any) -> bool:
    return isinstance(value, type) and (
        callable(getattr(value, "build", None))
        or (callable(getattr(value, "init", None)) and "__call__" in dir(value))
    )


ALGORITHM = Kind("algorithm", is_algorithm, ", ".join(METHODS))
NETWORK = Kind("network", _is_network, "init and __call__")

_source: dict[type, dict[str, str]] = {}  # of every class that was loaded


def source(cls: type) -> dict[str, str] | None:
    """{"name": where a class was loaded from, "sha256": of its source}; None for the library's."""
    return _source.get(cls)


def note(cls: type) -> None:
    """Notes where a class comes from that was imported, not loaded: its module, or the file that is
    run as a script. Neither is loaded again without being named again."""
    place, name = sys.modules.get(cls.__module__), cls.__qualname__
    file = getattr(place, "__file__", None)
    if cls in _source or cls.__module__.partition(".")[0] == "scratchmeta" or "<" in name:
        return
    if file is not None and Path(file).is_file():
        module = Path(file).name if cls.__module__ == "__main__" else cls.__module__
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        _source[cls] = {"name": f"{module}:{name}", "sha256": digest}


def is_outside(name: str) -> bool:
    """Whether a name is that of a file or module with a class, FILE.py:Class or module:Class."""
    return ":" in name


def brought() -> dict[str, str]:
    """{name: "package.module:Class"} of the algorithms that installed packages bring."""
    from importlib.metadata import entry_points  # takes longer to import than all else here

    found = entry_points(group=GROUP)
    return {point.name: point.value.replace(" ", "") for point in found}


def load(kind: Kind, name: str) -> type:
    """The class FILE.py:Class or package.module:Class; OutsideError says what is wrong with it."""
    place, _, attribute = name.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        content = _read(kind, path)
        module, name = _executed(path, content), f"{path}:{attribute}"
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise OutsideError(f"{kind.what}: {name}: {error}") from error
        content = _read(kind, Path(getattr(module, "__file__", None) or place))
    cls: Any = getattr(module, attribute, None)
    if not kind.follows(cls):
        got = "no such name" if cls is None else f"one of {type(cls).__name__}"
        raise OutsideError(
            f"{kind.what}: {name}: wanted a class with {kind.protocol}, got "
            f"{got if not isinstance(cls, type) else 'one without'}"
        )
    _source[cls] = {"name": name, "sha256": hashlib.sha256(content).hexdigest()}
    return cls


def load_again(
    kind: Kind, recorded: Any, folder: str | os.PathLike, named: str | None, resume: bool
) -> type:
    """The class that a run in `folder` recorded, {"name": ..., "sha256": ...}.

    `named` is what the command line says in its place. To `resume`, it must have the recorded
    content.
    """
    if not isinstance(recorded, dict) or not all(
        isinstance(recorded.get(key), str) for key in ("name", "sha256")
    ):
        raise OutsideError(f"{kind.what}: wanted name and sha256 of what was loaded")
    name = recorded["name"]
    if named is None:
        _refuse_strangers(kind, recorded, Path(folder).resolve())
    cls = load(kind, named or name)
    now: Any = source(cls)
    if resume and now["sha256"] != recorded["sha256"]:
        raise OutsideError(
            f"{kind.what}: {now['name']}: is not what the run was trained with (another "
            "SHA-256), so it cannot be resumed"
        )
    return cls


def _refuse_strangers(kind: Kind, recorded: dict, folder: Path) -> None:
    """Raises OutsideError unless what is recorded may be loaded without being named again."""
    name = recorded["name"]
    place = name.rpartition(":")[0]
    option = f"to load it all the same, name it: --{kind.what} {name}"
    if not place.endswith(".py"):
        if name not in brought().values():
            raise OutsideError(f"{kind.what}: {name}: no installed package brings it; {option}")
        path = _file(kind, name, place)
    else:
        path = Path(place)
        if not path.is_absolute() or path.resolve().is_relative_to(folder):
            raise OutsideError(
                f"{kind.what}: {name}: is no whole path out of the run folder; {option}"
            )
    if hashlib.sha256(_read(kind, path.resolve())).hexdigest() != recorded["sha256"]:
        raise OutsideError(
            f"{kind.what}: {name}: is not what the run was trained with (another SHA-256); {option}"
        )


def _file(kind: Kind, name: str, module: str) -> Path:
    """The file of a module, which is not run for that (the packages that it is in are)."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError as error:
        raise OutsideError(f"{kind.what}: {name}: {error}") from error
    if spec is None or spec.origin is None:
        raise OutsideError(f"{kind.what}: {name}: No module named {module!r}")
    return Path(spec.origin)


def _read(kind: Kind, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutsideError(f"{kind.what}: {path}: {error.strerror}") from error


def _executed(path: Path, content: bytes) -> ModuleType:
    """The module that a file's content makes; the same one for the same content."""
    digest = hashlib.sha256(str(path).encode() + content).hexdigest()
    name = f"scratchmeta_outside_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for the types of fields
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise OutsideError(f"{path}: {type(error).__name__}: {error}") from error
    return module
