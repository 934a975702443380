"""Symmetric decorrelation: the nearest orthogonal matrix."""

import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate
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

    def step(carry):
        w, gram = carry
        w = 1.5 * w - 0.5 * dot(gram, w)
        return w, dot(w, w.T)

    def is_far(_, carry):
        return jnp.max(jnp.abs(carry[1] - jnp.eye(d, dtype=w.dtype))) > tol

    return iterate(step, (w, dot(w, w.T)), is_far, max_steps)[0]
