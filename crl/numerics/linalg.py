"""Products in full precision, rows of unit length, norms of columns."""

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


def column_norms(a: Array) -> tuple[Array, Array]:
    """Norms (d,) of the centred columns of a (n, d), and which are constant to rounding."""
    scale = jnp.max(jnp.abs(a), 0)
    norms = jnp.linalg.norm(a - jnp.mean(a, 0), axis=0)
    # Rounding alone leaves a constant column an rms of about eps times its level.
    rms = norms / a.shape[0] ** 0.5
    return norms, rms <= 4 * jnp.finfo(norms.dtype).eps * scale


def sum_of_squares(x: Array) -> Array:
    """sum |x - mean|^2 over the rows of x (n, ...); NaN where all columns are constant.

    What is left unexplained is a fraction of it.
    """
    norms, is_constant = column_norms(x)
    return jnp.where(jnp.all(is_constant), jnp.nan, jnp.sum(norms**2))
