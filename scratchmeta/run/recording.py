"""The way back from experiment.py: from the objects a script trains with to a configuration.

So a run that `sm.train` wrote is one that the command line reads. What no name leads to, such as a
lambda in a network, is said in the record ("unnamed"); then `sm.load(RUN, algorithm=...)` reads it.
"""

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from scratchmeta import backend, episodes, presets
from scratchmeta.data import Splits
from scratchmeta.fields import fields as fields_of
from scratchmeta.fields import options
from scratchmeta.run import datasets, experiment, outside, structure
from scratchmeta.run.config import LAYOUT, Config, Training
from scratchmeta.run.hardware import hardware
from scratchmeta.run.networks import Layers, NoNetwork

PYTHON = datasets.PYTHON  # the name of data and presets that a script made


def record(algorithm: Any, dataset: Any, validation: Any, settings: Training) -> dict[str, Any]:
    """What config.json is to say of a run with these."""
    from scratchmeta import __version__  # which imports this

    cls: Any = type(algorithm)
    name, (data, section, root) = _name(cls), _dataset(algorithm, dataset, validation, settings)
    try:
        outside.note(cls)
        method = _method(algorithm)
        config = Config(name, data, PYTHON, section, _network(algorithm), method, settings)
        _refuse_another(algorithm, experiment.algorithm(config))
        made = config.as_dict()
    except (ValueError, TypeError, AttributeError) as error:
        sections: dict[str, Any] = {"dataset": section, "training": settings}
        made = {
            "layout": LAYOUT, "algorithm": name, "data": data, "preset": PYTHON,
            **{part: {"type": type(x).__name__, **asdict(x)} for part, x in sections.items()},
            "unnamed": f"{name}: {error}",
        }  # fmt: skip
    return {
        **made,
        "validated": validation is not None,
        "version": __version__,
        "backend": backend.current(),
        "hardware": hardware(),
        "data_dir": root and str(Path(root).resolve()),
    }


def resumed(
    path: str | os.PathLike, was: dict, algorithm: Any, dataset: Any, validation: Any,
    settings: Training,
) -> dict[str, Any]:  # fmt: skip
    """What config.json of the run in `path` is to say from now on; `was` is what it says.

    Raises ValueError if the run was begun with other options of the algorithm or other data.
    """
    now = json.loads(json.dumps(record(algorithm, dataset, validation, settings)))
    for part in ("method", "dataset"):
        before, after = was.get(part), now.get(part)
        if before is None or after is None:
            continue
        # None is filled in by the algorithm as it is made
        known = {k: v for k, v in before.items() if v is not None}
        if {k: after.get(k) for k in known} != known:
            raise ValueError(f"{path}: resume: the run has {part} {known}, got {after}")
    return {**was, "training": now["training"]} if "training" in was else now


# --- the parts of a configuration ---------------------------------------------------------------


def _name(cls: type) -> str:
    """The name of a class in the library, or its own."""
    if not structure.is_of_library(cls):
        return cls.__name__
    names = [name for name in presets.OWN if presets.REGISTRY[name].algorithm is cls]
    return min(names, key=len) if names else cls.__name__  # maml, not fomaml


def _method(algorithm: Any) -> Any:
    cls: Any = type(algorithm)
    made = options(cls)
    return made(**{f.name: getattr(algorithm, f.name) for f in fields(made)})


def _network(algorithm: Any) -> Any:
    """The options that its networks are built of: by their structure, or a class from outside."""
    cls: Any = type(algorithm)
    given = [f.name for f in fields_of(cls) if f.given]
    found = {name: getattr(algorithm, name, None) for name in given}
    found = {name: value for name, value in found.items() if hasattr(value, "init")}
    if not found:
        return NoNetwork()
    one, *others = found.values()
    if structure.is_of_library(type(one)) or others:
        return Layers(structure.written(found))
    outside.note(type(one))
    return _method(one)


def _refuse_another(algorithm: Any, rebuilt: Any) -> None:
    """Raises ValueError if what the configuration leads to is not this algorithm."""
    cls: Any = type(algorithm)
    for f in fields_of(cls):
        if not f.given or f.name == "task_chunk":  # which changes no more than rounding
            continue
        wanted, got = (structure.written(getattr(a, f.name)) for a in (algorithm, rebuilt))
        if wanted != got:
            raise ValueError(f"{f.name}: {got:.80} follows from the data, got {wanted:.80}")


def _dataset(
    algorithm: Any, dataset: Any, validation: Any, settings: Training
) -> tuple[str, datasets.Data, Any]:
    """The name, the options and the folder of a data set for training."""
    inner, checked = (getattr(x, "dataset", x) for x in (dataset, validation))
    if validation is None or type(checked) is type(inner):
        for name in datasets.NAMES:
            section = datasets.find(name).recognised(inner)
            if section is not None and repr(_wrapped(algorithm, inner)) == repr(dataset):
                return name, section, getattr(inner, "root", None)
    batch = episodes.sample(dataset, *settings.shape, seed=settings.seed)
    labels: Any = {"i": "classes", "f": "numbers", "b": "bits"}[batch.query_y.dtype.kind]
    return PYTHON, datasets.InPython(batch.query_x.shape[2:], labels, repr(dataset)[:200]), None


def _wrapped(algorithm: Any, dataset: Any) -> Any:
    """What the algorithm trains on where this is the data."""
    if not hasattr(algorithm, "datasets"):
        return dataset
    try:
        return algorithm.datasets(Splits(dataset, dataset, dataset)).train
    except (ValueError, AttributeError):  # it wants other data
        return None
