"""Symmetric decorrelation: the nearest orthogonal matrix."""

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


def polar(w: Array, max_steps: int = 60) -> Array:
    """The orthogonal polar factor (w w')^(-1/2) w of a square matrix w (d, d).

    Newton-Schulz iteration: matrix products alone, so that it batches and runs on any
    device, and no loss from the squared condition number that an eigendecomposition of w w'
    has. Quadratic convergence after about log(condition) / log(1.5) steps; for a singular w
    the null directions stay as they are.
    """
    d = w.shape[0]

    # Converges for singular values below sqrt 3. ||w w'||_F^(1/2) bounds them; where they
    # are equal, as at a fixed point of FastICA with equal sources, the rms is exact.
    gram = dot(w, w.T)
    rms = jnp.sqrt(jnp.trace(gram) / d)
    scale = jnp.maximum(rms, jnp.sqrt(jnp.linalg.norm(gram)) / 1.6)
    w = w / jnp.where(scale > 0, scale, 1)
    tol = 8 * jnp.finfo(w.dtype).eps

    def body(carry):
        i, w, gram, _ = carry
        w = 1.5 * w - 0.5 * dot(gram, w)
        gram = dot(w, w.T)
        return i + 1, w, gram, jnp.max(jnp.abs(gram - jnp.eye(d, dtype=w.dtype)))

    def is_far(carry):
        i, _, _, error = carry
        return (i < max_steps) & (error > tol)

    start = (0, w, dot(w, w.T), jnp.full((), jnp.inf, w.dtype))
    return jax.lax.while_loop(is_far, body, start)[1]
