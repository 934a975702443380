"""Iteration until nothing moves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import PyTree


def iterate(
    step: Callable[[PyTree], PyTree],
    start: PyTree,
    moves: Callable[[PyTree, PyTree], Array],
    max_steps: int,
) -> PyTree:
    """``step`` applied to ``start`` until ``moves(old, new)`` is False, max_steps at most."""

    def body(carry):
        count, old, _ = carry
        new = step(old)
        return count + 1, new, moves(old, new)

    def goes_on(carry):
        count, _, is_moving = carry
        return is_moving & (count < max_steps)

    return jax.lax.while_loop(goes_on, body, (0, start, jnp.ones((), bool)))[1]


def fixed_point(g: Callable[[Array], Array], z: Array, max_steps: int = 500) -> Array:
    """The fixed point of a contraction ``g``, from the start ``z`` (d,), to rounding.

    Stops when a step no longer moves z by more than a few units in the last place; with
    contraction factor c that takes about log(eps) / log(c) steps.
    """
    tol = 4 * jnp.finfo(z.dtype).eps

    def moves(old, new):
        return jnp.max(jnp.abs(new - old)) > tol * (1 + jnp.max(jnp.abs(new)))

    return iterate(g, z, moves, max_steps)
