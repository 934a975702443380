"""Eigenvectors that real matrices have in common, on any device.

The norm-reducing method of Eberlein (J. SIAM 1962), for one matrix or several: rotations
diagonalise the symmetric parts, shears make the matrices normal. No Schur form is needed,
nor LAPACK, which alone knows the eigenvectors of a matrix that is not symmetric.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from crl.numerics.fixed_point import iterate
from crl.numerics.linalg import dot

MAX_SWEEPS = 60  # 4 to 10 suffice where eigenvalues are real and distinct


def joint_eigenvectors(a: Array) -> tuple[Array, Array]:
    """V (d, d) that makes V^-1 a_k V as diagonal as it can be, for a (k, d, d) real.

    Returns V, of determinant 1 up to sign, and the matrices (k, d, d) V^-1 a_k V. Of one
    matrix with real eigenvalues, or of several that share their eigenvectors and are
    told apart by one of them at least, these are diagonal. A complex pair p +- qi leaves
    [[p, q], [-q, p]]: blocks with equal diagonals, whose off-diagonal entries have opposite
    signs. Of several matrices without common eigenvectors the rest is small, not least.
    """
    d = a.shape[-1]
    pairs = jnp.asarray(np.argwhere(np.triu(np.ones((d, d)), 1)), jnp.int32)
    tol = 8 * jnp.finfo(a.dtype).eps

    def sweep(carry):
        def one(k, carry):
            return _turn(*carry, *pairs[k])

        a, v, _ = carry
        return lax.fori_loop(0, len(pairs), one, (a, v, jnp.zeros((), a.dtype)))

    start = a, jnp.eye(d, dtype=a.dtype), jnp.ones((), a.dtype)
    a, v, _ = iterate(sweep, start, lambda _, new: new[2] > tol, MAX_SWEEPS)
    return v, a


def _turn(a: Array, v: Array, moved: Array, p: Array, q: Array) -> tuple[Array, Array, Array]:
    """One rotation and one shear of the coordinates p and q; the largest tangent so far."""
    # The blocks [[., b], [c, .]] as half a difference, sum and antisymmetric part.
    gap, both = a[:, p, p] - a[:, q, q], a[:, p, q] + a[:, q, p]
    on, off = jnp.sum(gap**2 - both**2), 2 * jnp.sum(gap * both)
    angle = 0.5 * jnp.arctan2(off, on + jnp.hypot(on, off))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, v = _similar(a, v, p, q, jnp.array([[cos, -sin], [sin, cos]]))

    # The shear [[cosh y, sinh y], [sinh y, cosh y]] changes the sum of squares, up to a
    # constant, to G cosh 2y - 2 K sinh 2y + ((D^2 + E^2) cosh 4y + 2 D E sinh 4y) / 2: a
    # Newton step from y = 0.
    gap, skew = a[:, p, p] - a[:, q, q], a[:, p, q] - a[:, q, p]
    others = (jnp.arange(a.shape[-1]) != p) & (jnp.arange(a.shape[-1]) != q)
    row_p, row_q = a[:, p] * others, a[:, q] * others
    column_p, column_q = a[:, :, p] * others, a[:, :, q] * others
    k = jnp.sum(row_p * row_q - column_p * column_q)
    g = jnp.sum(row_p**2 + row_q**2 + column_p**2 + column_q**2)
    down, size = k - jnp.sum(gap * skew), g + 2 * jnp.sum(gap**2 + skew**2)
    tangent = down / jnp.where(size > 0, size, 1)
    cosh = 1 / jnp.sqrt(1 - tangent**2)
    sinh = tangent * cosh
    a, v = _similar(a, v, p, q, jnp.array([[cosh, sinh], [sinh, cosh]]))
    return a, v, jnp.maximum(moved, jnp.maximum(jnp.abs(jnp.tan(angle)), jnp.abs(tangent)))


def _similar(a: Array, v: Array, p: Array, q: Array, t: Array) -> tuple[Array, Array]:
    """T^-1 a_k T and v T for the T of determinant 1 that is t (2, 2) in p and q."""
    at = jnp.stack([p, q])
    back = jnp.array([[t[1, 1], -t[0, 1]], [-t[1, 0], t[0, 0]]])
    a = a.at[:, :, at].set(dot(a[:, :, at], t))
    a = a.at[:, at].set(dot(back, a[:, at]))
    return a, v.at[:, at].set(dot(v[:, at], t))
