"""Products in full precision, rows of unit length."""

import jax.numpy as jnp
from jax import Array


def dot(a: Array, b: Array) -> Array:
    """``a @ b`` in the precision of its arguments, also where hardware rounds to less.

    Accelerators multiply float32 in bfloat16 or TF32 by default: three digits, too few for
    covariances, projections and whatever is inverted or compared with a threshold.
    """
    return jnp.matmul(a, b, precision="highest")


def unit_rows(a: Array) -> Array:
    """a (m, p) with rows scaled to norm 1; a zero row stays zero."""
    norm = jnp.linalg.norm(a, axis=1, keepdims=True)
    return a / jnp.where(norm > 0, norm, 1)
