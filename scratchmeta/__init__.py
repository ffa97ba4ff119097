"""scratchmeta: meta-learning from scratch, on NumPy or CuPy.

Three doors: STUDY an algorithm as one short file, VERIFY every gradient numerically, RUN it.
Reading path: core -> ops/elementwise -> gradcheck -> algorithms/prototypical -> algorithms/maml.
"""

from scratchmeta import backend, ops, tree
from scratchmeta.core import (
    Tensor,
    grad,
    hvp,
    no_grad,
    stop_gradient,
    value_and_grad,
    vjp,
)

__version__ = "0.1.0"
