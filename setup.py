"""Packaging of scratchmeta: the top-level folder kernels/ installs as scratchmeta.kernels."""

from setuptools import setup

setup(
    packages=[
        "scratchmeta",
        "scratchmeta.algorithms",
        "scratchmeta.analysis",
        "scratchmeta.data",
        "scratchmeta.kernels",
        "scratchmeta.ops",
        "scratchmeta.presets",
        "scratchmeta.run",
        "scratchmeta.run.commands",
        "scratchmeta.run.datasets",
        "scratchmeta.run.sweeps",
        "scratchmeta.verify",
        "scratchmeta.verify.cases",
        "scratchmeta.verify.conformance",
    ],
    package_dir={"scratchmeta": "scratchmeta", "scratchmeta.kernels": "kernels"},
    package_data={"scratchmeta": ["py.typed"], "scratchmeta.kernels": ["*.cu"]},
)
