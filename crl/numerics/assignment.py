"""Linear sum assignment, jit-compiled and vmappable."""

import jax.numpy as jnp
import optax
from jax import Array


def assign(score: Array) -> tuple[Array, Array]:
    """The one-to-one assignment of rows to columns with the largest total score.

    score: (a, b), any sizes, finite. Returns (rows, columns), each (min(a, b),) int, by
    increasing row. O(min(a, b)^2 max(a, b)); the Hungarian algorithm of optax.
    """
    rows, columns = optax.assignment.hungarian_algorithm(-score)
    order = jnp.argsort(rows)
    return rows[order], columns[order]
