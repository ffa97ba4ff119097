"""scratchmeta: meta-learning from scratch, on NumPy or CuPy.

Three doors: STUDY an algorithm as one short file, VERIFY every gradient numerically, RUN it.
Reading path: core -> ops/elementwise -> gradcheck -> algorithms/prototypical -> algorithms/maml ->
ops/fused -> kernels/pairwise.
"""

from scratchmeta import algorithms, backend, data, episodes, losses, nn, ops, optim, tree
from scratchmeta.core import (
    Tensor,
    grad,
    hvp,
    no_grad,
    primitive,
    stop_gradient,
    value_and_grad,
    vjp,
)
from scratchmeta.graph import graph
from scratchmeta.ops.fused import fused
from scratchmeta.run.config import Training
from scratchmeta.run.evaluation import evaluate
from scratchmeta.run.experiment import saved as load
from scratchmeta.run.sweeps import sweep
from scratchmeta.run.training import train
from scratchmeta.verify.gradcheck import GradientError, NonSmoothPoint, gradcheck

__version__ = "0.1.0"

__all__ = [
    "GradientError",
    "NonSmoothPoint",
    "Tensor",
    "Training",
    "algorithms",
    "backend",
    "data",
    "episodes",
    "evaluate",
    "fused",
    "grad",
    "gradcheck",
    "graph",
    "hvp",
    "load",
    "losses",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "primitive",
    "stop_gradient",
    "sweep",
    "train",
    "tree",
    "value_and_grad",
    "vjp",
]
