"""`scratchmeta conformance`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchmeta.run import datasets
from scratchmeta.run.options import Names, at_least, parse
from scratchmeta.run.progress import Progress
from scratchmeta.verify import conformance


@dataclass(frozen=True)
class ConformanceOptions:
    """Measure the weights that authors of papers published, in our classes, beside their numbers.

    What there are no files for is said. The exit status is 1 when ours and their forward, written
    anew in NumPy, do not agree.
    """

    names: Names = ()
    """Systems: prototypical, matching, relation, maml, reptile, ntm, ntm-lasagne; else all."""
    data_dir: Path | None = None
    """The folder that holds authors/ and omniglot/ (or SCRATCHMETA_DATA)."""
    episodes: int = 600
    """Test episodes, or sequences, of each line."""
    json: bool = False
    """Print one JSON object: passed, and rows, one for each line."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; the exit status."""
    options = parse(ConformanceOptions, argv, "conformance")
    at_least(2, "episodes", options.episodes)
    chosen = [c for name in options.names or (None,) for c in conformance.claims(name)]
    data = datasets.given_folder("conformance", options.data_dir, "authors/ and omniglot/")
    rows = []
    with Progress("conformance", len(chosen)) as bar:
        for system, claim in chosen:
            rows.append(conformance.row(system, claim, data, options.episodes))
            bar.update(len(rows), f"{system} {claim.what}")
    passed = all(row.passed for row in rows)
    if options.json:
        print(json.dumps({"passed": passed, "rows": [row.as_dict() for row in rows]}))
    else:
        print(conformance.table(rows))
    return 0 if passed else 1
