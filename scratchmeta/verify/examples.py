"""One check: a function and inputs at which its derivatives are compared with numerical ones."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from scratchmeta import backend, core, tree
from scratchmeta.core import primitive
from scratchmeta.verify.gradcheck import Report, gradcheck


class Example(NamedTuple):
    """One check of a row: function(*inputs, **options)."""

    function: Callable
    inputs: tuple
    options: dict
    order: int

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs, **self.options)

    def check(self, name: str, **settings: Any) -> Report:
        """gradcheck of this example; a GPU may add in another order each time."""
        f = functools.partial(self.function, **self.options) if self.options else self.function
        settings.setdefault("nondet_tol", 1e-12 if backend.current() == "cupy" else 0.0)
        return gradcheck(f, *self.inputs, name=name, order=self.order, **settings)


def call(function: Callable, *inputs: Any, order: int = 2, **options: Any) -> Example:
    """An example: function(*inputs, **options), checked up to `order`."""
    return Example(function, inputs, options, order)


def task_losses(algorithm, params, episodes, **settings):
    """The losses of every task, as the algorithm computes them, to any order."""
    return call(lambda params: algorithm.task_losses(params, episodes), params, **settings)


def meta_gradient(algorithm, params, episodes, loss=None):
    """The gradient that the algorithm's `meta_gradient` returns, against its loss.

    `loss` is the function of the parameters that this is to be the gradient of; without one, the
    mean of the tasks' losses, if there are any, else the loss that `meta_gradient` returns.
    """
    _, treedef = tree.flatten(params)

    def rule(g, y, *leaves):
        params = tree.unflatten(treedef, [core.raw(leaf) for leaf in leaves])
        return [g * x for x in tree.flatten(algorithm.meta_gradient(params, episodes)[1])[0]]

    @primitive(joint=rule)
    def value(*leaves):
        params = tree.unflatten(treedef, list(leaves))
        if loss is not None:
            return loss(params)
        if not hasattr(algorithm, "task_losses"):
            return algorithm.meta_gradient(params, episodes)[0]
        live = tree.map(core.Tensor, params)  # the inner loop differentiates
        return core.raw(algorithm.task_losses(live, episodes)).mean()

    return call(lambda params: value(*tree.flatten(params)[0]), params, order=1)
