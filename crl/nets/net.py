"""A network as two pure functions, whatever library it was written in."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen


class Net(NamedTuple):
    """``init(key, x) -> params`` and ``apply(params, x) -> y``, on batches of rows."""

    init: Callable
    apply: Callable


def from_linen(module: linen.Module) -> Net:
    """A flax module without mutable collections as a Net."""
    return Net(module.init, module.apply)
