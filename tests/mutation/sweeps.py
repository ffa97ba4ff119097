"""Mutants of sweeps: what is run, what is not again, and what the table says of it."""

from mutation._source import Source

SUBJECT = Source(
    parts=[
        "scratchmeta.run.sweeps.intervals",
        "scratchmeta.run.sweeps.plan",
        "scratchmeta.run.sweeps.tables",
        "scratchmeta.run.sweeps.job",
    ],
    tests=[
        [
            "tests/test_sweep.py",
            "-k",
            "not dask and not killed and not process and not signal and not nineteen",
        ],
    ],
    equivalent={},
)
