"""What a sweep runs: each algorithm with every combination of the options it has."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from scratchmeta import episodes, presets
from scratchmeta.fields import check_types
from scratchmeta.fields import fields as options_of
from scratchmeta.run import experiment
from scratchmeta.run.config import SECTIONS, Config


def plan(
    algorithms: Sequence[str], data: str, preset: str, vary: Mapping[str, Sequence[Any]]
) -> dict[str, Config]:
    """{name: configuration} of every algorithm with every combination of the options it has.

    Raises ValueError for an option that none of them has, and for two rows of one name.
    """
    cells: dict[str, Config] = {}
    unknown = dict.fromkeys(vary)
    if "seed" in vary:
        raise ValueError("vary: wanted an option other than seed, which has one of its own: seeds")
    if not algorithms:
        raise ValueError("algorithms: wanted at least one, got none")
    for algorithm in algorithms:
        config = presets.lookup(algorithm, data, preset)
        own = {option: vary[option] for option in vary if _section(config, option)}
        for option in own:
            unknown.pop(option, None)
            if not own[option]:
                raise ValueError(f"vary: {option}: wanted at least one value, got none")
        for values in itertools.product(*own.values()):
            chosen = dict(zip(own, values, strict=True))
            shown = [f"{o}={_plain(v)}" for o, v in chosen.items() if len(own[o]) > 1]
            name = ",".join([config.algorithm, *shown])
            if name in cells:
                raise ValueError(f"sweep: wanted rows of different names, got {name} twice")
            cells[name] = with_options(config, chosen)
    if unknown:
        raise ValueError(
            f"vary: {next(iter(unknown))}: is an option of none of {', '.join(algorithms)}"
        )
    return cells


def _section(config: Config, option: str) -> str | None:
    """The section of a configuration that an option is in."""
    for section in SECTIONS:
        if option in {f.name for f in fields(getattr(config, section))}:
            return section
    return None


def hint(config: Config, option: str) -> Any:
    """The type of an option of a configuration; None if it has no such option."""
    section = _section(config, option)
    if section is None:
        return None
    of: Any = type(getattr(config, section))
    return next(f.hint for f in options_of(of) if f.name == option)


def with_options(config: Config, chosen: Mapping[str, Any]) -> Config:
    """The configuration with other options, whichever sections they are in; checks their types."""
    changes: dict[str, dict] = {}
    for option, value in chosen.items():
        section = _section(config, option)
        if section is None:
            raise ValueError(f"{option}: is no option of {config.algorithm}")
        changes.setdefault(section, {})[option] = tuple(value) if type(value) is list else value
    for section, own in changes.items():
        check_types(type(getattr(config, section)), own)
    return replace(
        config,
        **{section: replace(getattr(config, section), **own) for section, own in changes.items()},
    )


def _plain(value: Any) -> str:
    """A value in a folder's name."""
    parts = value if isinstance(value, tuple | list) else [value]
    return "x".join(re.sub(r"[^\w.+-]", "_", str(part)) for part in parts)


def seeded(config: Config, seed: int) -> Config:
    """The configuration with another seed."""
    return replace(config, training=replace(config.training, seed=seed))


def tests(
    configs: Mapping[str, Config], shape: tuple[int | None, ...], count: int, seed: int
) -> dict[str, dict[str, int]]:
    """{name: what test.json is to say of its episodes}; None in `shape` is as in validation.

    Raises ValueError for what an algorithm cannot do.
    """
    if count < 2:
        raise ValueError(f"episodes: wanted at least 2, got {count}")
    made = {}
    for name, config in configs.items():
        n_way, k_shot, n_query = (
            usual if wanted is None else wanted
            for usual, wanted in zip(config.training.test_shape, shape, strict=True)
        )
        experiment.refuse_other_ways(config, n_way)
        sizes = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query}
        made[name] = {**sizes, "episodes": count, "seed": seed}
    return made


def try_data(configs: Mapping[str, Config], test: Mapping[str, dict], data_dir: Any) -> None:
    """Draws a test episode of each row: what is wrong with data or sizes is raised here, and what
    is to be cached is cached once, before many want it."""
    for name, config in configs.items():
        splits, sizes = experiment.splits(config, data_dir), test[name]
        episodes.sample(splits.test, sizes["n_way"], sizes["k_shot"], sizes["n_query"])
