"""The presets: complete configurations of each algorithm, in a file of its own.

A file in this folder is found by itself: `meta_lstm.py` is `scratchmeta train meta-lstm`. It says

    ALGORITHM       the class
    PAPER, FAMILY   what `scratchmeta list` shows
    PRESETS         {(data, preset): Preset(method, dataset, network, training)}, `quick` ones first
    small(rng)      a small instance for the checks: the algorithm, its parameters, episodes
    examples(rng)   may be left out: what `scratchmeta check` verifies in place of small's gradient

`quick` learns in minutes on two cores, `paper` is what the paper reports, `author-code` what its
authors' code does where the two differ. Of Omniglot these two have the images of the authors' code,
black and white (`resampling="nearest"`), at 28 x 28. Sources: the papers named in each algorithm's
module.
"""

import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from scratchmeta.fields import check_types, choose, options
from scratchmeta.run import datasets, outside
from scratchmeta.run.config import LAYOUT, SECTIONS, Config, Preset, Training
from scratchmeta.run.networks import Layers, NoNetwork

OWN = sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


class Entry(NamedTuple):
    """What is known of an algorithm by its name."""

    name: str
    algorithm: type
    paper: str
    family: str
    presets: dict[tuple[str, str], Preset]
    small: Callable | None = None  # None where the class says no small instance of itself
    examples: Callable | None = None


class _Registry(Mapping):
    """{name: Entry} of the library's algorithms and of what installed packages bring."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*OWN, *outside.brought()}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> Entry:
        if name in OWN:
            m = import_module(f"{__name__}.{name.replace('-', '_')}")
            examples = getattr(m, "examples", None)
            return Entry(name, m.ALGORITHM, m.PAPER, m.FAMILY, m.PRESETS, m.small, examples)
        if name in (others := outside.brought()):
            return described(outside.load(outside.ALGORITHM, others[name]), name)
        raise KeyError(name)


REGISTRY = _Registry()


def entry(name: str) -> Entry:
    """The algorithm of this name, or of this file or module (see scratchmeta.run.outside).

    Raises ValueError for an unknown one.
    """
    if outside.is_outside(name):
        return described(outside.load(outside.ALGORITHM, name))
    return REGISTRY[choose("algorithm", name, REGISTRY)]


def described(cls: type, name: str = "") -> Entry:
    """A class from outside, with what its module says of it as the library's presets do."""
    said = vars(sys.modules[cls.__module__])
    paper = said.get("PAPER") or (cls.__doc__ or "").strip().partition("\n")[0]
    table = said.get("PRESETS") or _usual(cls)
    family, checked = said.get("FAMILY", "outside"), (said.get("small"), said.get("examples"))
    return Entry(name or cls.__name__, cls, paper, family, table, *checked)


def _usual(cls: type) -> dict[tuple[str, str], Preset]:
    """Presets for a class that brings none."""
    from scratchmeta.presets import maml, prototypical

    like = maml if getattr(cls, "head", False) else prototypical
    return {key: preset._replace(method=options(cls)()) for key, preset in like.PRESETS.items()}


def lookup(algorithm: str, data: str | None = None, preset: str = "quick") -> Config:
    """The configuration of a preset; `data` None is the first that has a preset of this name.

    Data without presets of its own takes those of the data that it is `like`. Raises ValueError for
    unknown names and for combinations without a preset.
    """
    found = entry(algorithm)
    table, name = found.presets, found.name
    if data is None:
        choose(f"preset of {name}", preset, dict.fromkeys(p for _, p in table))
        data = next(d for d, p in table if p == preset)
    known = dict.fromkeys(d for d, _ in table)
    brought = datasets.find(data) if data not in known and data in datasets.NAMES else None
    like = brought.like if brought and brought.like in known else data
    choose(f"data for {name}", like, known)
    choose(f"preset of {name} on {data}", preset, [p for d, p in table if d == like])
    chosen = table[like, preset]
    if brought:
        chosen = chosen._replace(dataset=brought()).trained(**brought.training)
    return Config(name, data, preset, **chosen._asdict())


def by_data(table: Mapping) -> dict[str, list[str]]:
    """{data: names of its presets}."""
    return {data: [p for d, p in table if d == data] for data, _ in table}


# --- config.json --------------------------------------------------------------------------------


def from_dict(
    recorded: dict,
    folder: str | os.PathLike = os.devnull,
    named: Mapping[str, str | None] | None = None,
    resume: bool = False,
    algorithm: Any = None,
) -> Config:
    """The configuration `Config.as_dict` recorded; raises ValueError naming what cannot be read.

    What came from outside the library is loaded as scratchmeta.run.outside says: `folder` is the
    run's, `named` {"algorithm": ..., "network": ...} what the command line names in its place.
    `algorithm` is the class that was trained, or an object of it: then method and network are None.
    """
    named, loaded = dict(named or {}), recorded.get("loaded", {})
    name = str(recorded["algorithm"])
    data: Any = recorded.get("data")
    given = algorithm is not None and not isinstance(algorithm, type)
    if "unnamed" in recorded and not given:
        raise ValueError(
            f"a script trained it with what no name leads to ({recorded['unnamed']}); "
            "sm.load(RUN, algorithm=...) reads it with the algorithm itself"
        )
    if algorithm is not None:
        found = described(type(algorithm) if given else algorithm, name)
    elif "algorithm" in loaded or named.get("algorithm"):
        how = named.get("algorithm"), resume
        cls = outside.load_again(outside.ALGORITHM, loaded.get("algorithm"), folder, *how)
        found = described(cls, name)
    else:
        found = REGISTRY[choose("algorithm", name, REGISTRY)]
    for key in ("data", "preset"):
        if key not in recorded:
            raise ValueError(f"configuration: cannot read {key!r}")
    made = datasets.find(choose("data", str(data), [*datasets.NAMES, datasets.PYTHON]))
    like = made.like if data not in by_data(found.presets) else data
    networks = {type(p.network) for (d, _), p in found.presets.items() if d == like}
    if recorded["preset"] == datasets.PYTHON:
        networks = {Layers, NoNetwork}
    if "network" in loaded or named.get("network"):
        how = named.get("network"), resume
        networks = {
            network_options(
                outside.load_again(outside.NETWORK, loaded.get("network"), folder, *how)
            )
        }
    types: dict[str, set[Any]] = {"dataset": {made}, "training": {Training}}
    if not given:
        types |= {"network": networks, "method": {options(found.algorithm)}}
    read: dict[str, Any] = dict.fromkeys(SECTIONS)
    read |= {s: _section(recorded, s, kinds) for s, kinds in types.items()}
    return Config(name, data, recorded["preset"], **read)


def network_options(cls: type) -> type:
    """What a configuration holds of a network: a class that is built later, else its options."""
    return cls if hasattr(cls, "build") else options(cls)


def _section(recorded: dict, name: str, types: set[type]) -> Any:
    try:
        values = dict(recorded[name])
        kind = values.pop("type")
        fitting = {t.__name__: t for t in types}
        if kind not in fitting:
            raise ValueError(
                f"wanted {' or '.join(sorted(fitting))} for {recorded['algorithm']} on "
                f"{recorded['data']}, got {kind}"
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        check_types(fitting[kind], values)
        return fitting[kind](**values)
    except (KeyError, TypeError, ValueError) as error:
        old = "" if recorded.get("layout") == LAYOUT else "; an older scratchmeta wrote this folder"
        raise ValueError(f"configuration: cannot read {name!r} ({error}){old}") from error
