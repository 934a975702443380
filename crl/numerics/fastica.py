"""The iteration of FastICA: the rotation of whitened data that makes rows independent.

Hyvarinen, "Fast and robust fixed-point algorithms for independent component analysis" (IEEE
TNN 1999), symmetric: all rows at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.decorrelation import polar
from crl.numerics.fixed_point import iterate
from crl.numerics.linalg import dot
from crl.numerics.whitening import Whitening


def _logcosh(y):
    g = jnp.tanh(y)
    return g, 1 - jnp.mean(g * g, -1)


def _exp(y):
    e = jnp.exp(-y * y / 2)
    return y * e, jnp.mean((1 - y * y) * e, -1)


def _cube(y):
    return y**3, 3 * jnp.mean(y * y, -1)


# Of a contrast G: its derivative g, and the mean of g' over the last axis.
NONLINEARITIES = {"logcosh": _logcosh, "exp": _exp, "cube": _cube}


def whitened(white: Whitening, x: Array) -> Array:
    """z (d, n) of x (n, p), with the latents in rows: reductions then run along memory.

    One product that depends on no iteration, so that XLA hoists it out of the loop.
    """
    return dot(white.whitener, (x - white.mean).T)


def fixed_point(derivatives: Callable, w: Array, z: Array) -> tuple[Array, Array]:
    """E[g(y) z'] - E[g'(y)] w for y = w z, rows w (k, d) and z (d, n); and tau (k,)."""
    g, mean_slope = derivatives(dot(w, z))
    new = dot(g, z.T) / z.shape[1] - mean_slope[:, None] * w
    return new, jnp.sum(new * w, 1)


def improve(
    derivatives: Callable, old: Array, last_delta: Array, z: Array
) -> tuple[Array, Array, Array]:
    """One symmetric iteration: the rotation (d, d), its delta (), and tau (d,)."""
    new, tau = fixed_point(derivatives, old, z)
    new, delta = follow(polar(new), old)
    # A step that moves no less than the one before may be half of a 2-cycle; the midpoint
    # breaks it and changes no fixed point. Of 50 samples of 60 rows, 29 converged without
    # it and all do with it, in a quarter of the steps.
    new = jax.lax.cond(delta < last_delta, lambda w: w, lambda w: polar(w + old), new)
    return new, delta, tau


def converge(
    derivatives: Callable, rotation: Array, z: Array, tol: float, num_steps: int
) -> Array:
    """The rotation at which symmetric iterations stop to move by ``tol`` or more."""

    inf = jnp.full((), jnp.inf, rotation.dtype)
    return iterate(
        lambda old: improve(derivatives, *old, z)[:2],
        (rotation, inf),
        lambda old, new: new[1] >= tol,
        num_steps,
    )[0]


def follow(new: Array, old: Array) -> tuple[Array, Array]:
    """Unit rows ``new`` with the signs of ``old``, and max_i 1 - |<new_i, old_i>|."""
    sign = jnp.where(jnp.sum(new * old, 1, keepdims=True) < 0, -1, 1)
    new = new * sign.astype(new.dtype)
    # For unit vectors 1 - cos is half the squared distance, which float32 resolves.
    return new, jnp.max(jnp.sum((new - old) ** 2, 1)) / 2
