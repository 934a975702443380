"""Whitening that survives float32: centred, scaled by singular values, with its rank."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


class Whitening(NamedTuple):
    """Principal components of x scaled to unit variance: z = (x - mean) whitener'."""

    mean: Array  # (p,)
    whitener: Array  # (d, p), K
    dewhitener: Array  # (p, d), x - mean = z dewhitener' + what the other components hold
    scales: Array  # (p,) standard deviations along the principal axes, decreasing
    effective_rank: Array  # () int, how many scales stand above rounding


def whiten(x: Array, num_components: int) -> Whitening:
    """Whiten onto the first ``num_components`` principal axes.

    x: (n, p), n > p. A Gram matrix alone loses all directions below sqrt(eps) of the
    largest, in float32 at condition number 3e3. So there are two passes, as in CholeskyQR2:
    the first, floored at sqrt(eps), leaves data whose Gram matrix is well conditioned; the
    second corrects it. Cost 6 n p^2 flops in matrix products, no factorisation of anything
    with n rows. Directions beyond the effective rank are scaled by the floor, not blown up.
    """
    eps = jnp.finfo(x.dtype).eps
    mean = jnp.mean(x, 0)
    # The mean of what is left repairs the rounding of the first, where |mean| >> scale.
    mean = mean + jnp.mean(x - mean, 0)
    centred = x - mean

    def gram(a):
        return dot(a.T, a) / x.shape[0]

    variance, axes = jnp.linalg.eigh(gram(centred))
    rough = jnp.sqrt(jnp.maximum(variance, 10 * eps * variance[-1]))
    rough = jnp.where(rough > 0, rough, 1)  # x is constant
    half = dot(centred, axes / rough)
    variance, turn = jnp.linalg.eigh(gram(half))
    # cov(x) = r' r, and the singular values of r resolve eps where cov(x) resolves sqrt(eps).
    r = jnp.sqrt(jnp.maximum(variance, 0))[:, None] * turn.T
    r = dot(r * rough, axes.T)
    _, scales, axes = jnp.linalg.svd(r)
    # The data come rounded to eps of their level, which is where directions end.
    level = jnp.sqrt(jnp.mean(mean**2)) + scales[0]
    floor = 4 * eps * level + jnp.finfo(x.dtype).tiny
    kept = jnp.maximum(scales[:num_components], floor)
    axes = axes[:num_components]
    # LAPACK leaves signs to rounding; fixed ones make the same data the same coordinates.
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), 1)[:, None], 1)
    axes = jnp.where(largest < 0, -axes, axes)
    rank = jnp.sum(scales > floor)
    return Whitening(mean, axes / kept[:, None], axes.T * kept, scales, rank)
