"""`scratchmeta list`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scratchmeta.presets import REGISTRY, by_data
from scratchmeta.run.options import parse


@dataclass(frozen=True)
class ListOptions:
    """List the algorithms: name, paper, family, and the data they have presets for."""

    json: bool = False
    """Print a JSON list of objects."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(ListOptions, argv, "list")
    rows = [
        {
            "name": name,
            "paper": entry.paper,
            "family": entry.family,
            "presets": by_data(entry.presets),
        }
        for name, entry in REGISTRY.items()
    ]
    if options.json:
        print(json.dumps(rows))
        return 0
    width = max(map(len, REGISTRY)) + 2
    for row in rows:
        print(f"{row['name']:<{width}}{row['family']:<15}{row['paper']}")
        for data, names in row["presets"].items():
            print(f"{'':<{width}}{data:<15}{', '.join(names)}")
    return 0
