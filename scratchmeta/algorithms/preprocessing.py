"""Gradients made readable for networks (Andrychowicz et al., NIPS 2016, arXiv 1606.04474, appendix
A): what Meta Networks and the LSTM meta-learner share.
"""

import math
from typing import Any

from scratchmeta import ops
from scratchmeta.core import raw


def preprocess(x: Any, p: float) -> Any:
    """Magnitude and sign of every number, both of order one: (...) -> (..., 2).

    (log|x| / p, sign x)    where |x| ≥ e^−p
    (−1, e^p x)             elsewhere

    Both numbers are continuous at |x| = e^−p and have no derivative there: it is taken from the
    first line. The sign has slope 0, so only the logarithm passes on a gradient, 1 / (p x), of
    numbers that are not small, and only e^p that of small ones. p > 0 is 7 in Meta Networks, 10 in
    the LSTM meta-learner.
    """
    magnitude = ops.abs(x)
    large = raw(magnitude) >= math.exp(-p)
    logarithm = ops.log(ops.where(large, magnitude, 1.0)) / p
    first = ops.where(large, logarithm, -1.0)
    second = ops.where(large, ops.sign(x), math.exp(p) * x)
    return ops.stack([first, second], axis=-1)
