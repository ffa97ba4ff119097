"""Operations made of other operations, which name what they cannot work on as primitives do."""

import functools
import inspect
from typing import Any

from scratchmeta.core import explain


@functools.cache  # an operation of two names is one operation
def composite(f: Any) -> Any:
    """f; OperationError, not AttributeError or TypeError, for a list in an array's place."""
    names = list(inspect.signature(f).parameters)

    @functools.wraps(f)
    def op(*args, **kwargs):
        try:
            return f(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            raise explain(op, args, kwargs, error) from error

    made: Any = op
    made.names = names
    return made
