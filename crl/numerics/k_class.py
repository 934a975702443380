"""The k-class of linear estimators in canonical coordinates.

With P the projection onto the instruments and M = I - P, all columns centred,

    beta = argmin  a |P (y - X beta)|^2 + b |M (y - X beta)|^2

is ordinary least squares for a = b, two-stage least squares for b = 0, the k-class
estimator for a = 1, b = 1 - k, and anchor regression for a = gamma, b = 1. No normal
equations are formed: with X = Q R and the instruments' basis B, the singular values c of
B'Q = U diag(c) V' are the canonical correlations between X and the instruments (Bjorck and
Golub 1973), and in the coordinates V' R beta the problem is diagonal,

    (a c^2 + b (1 - c^2)) V' R beta  =  a c U'B'y + b V'Q'M y.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import column_norms, dot


class Canonical(NamedTuple):
    """A linear problem with instruments, reduced to what every a and b need of it."""

    r: Array  # (m, m) upper triangular, R'R = X'X
    v: Array  # (m, m) orthogonal; its columns are the canonical directions of Q
    c: Array  # (m,) canonical correlations, descending; 0 in directions without instrument
    inside: Array  # (m, q) U'B'y
    outside: Array  # (m, q) V'Q'M y


def basis(a: Array) -> tuple[Array, Array]:
    """An orthonormal basis of the centred columns of a (n, k), and their rank.

    Returns (n, min(n, k)), with zero columns beyond the rank, and the rank (), to the
    rounding of a: columns far from zero hold fewer digits of how they vary.
    """
    norms, is_constant = column_norms(a)
    unit = jnp.where(is_constant, 0, (a - jnp.mean(a, 0)) / jnp.where(is_constant, 1, norms))
    q, r = jnp.linalg.qr(unit)
    u, s, _ = jnp.linalg.svd(r, full_matrices=False)
    level = jnp.max(jnp.abs(a), 0) * a.shape[0] ** 0.5
    level = jnp.max(jnp.where(is_constant, 1, level / jnp.where(is_constant, 1, norms)))
    is_kept = s > 4 * jnp.finfo(a.dtype).eps * a.shape[1] * level * s[0]
    return dot(q, jnp.where(is_kept, u, 0)), jnp.sum(is_kept)


@jax.jit
def ranks(x: Array, z: Array) -> tuple[Array, Array, Array]:
    """Ranks of x (n, m), of the instruments z (n, k), and of what z moves in x."""
    (bx, rank_x), (bz, rank_z) = basis(x), basis(z)
    c = jnp.linalg.svd(dot(bz.T, bx), compute_uv=False)  # canonical correlations
    return rank_x, rank_z, jnp.sum(c > 16 * jnp.finfo(c.dtype).eps)


def canonical(x: Array, y: Array, z: Array) -> Canonical:
    """Reduce centred x (n, m) and y (n, q), and instruments z (n, k), in any number."""
    m = x.shape[1]
    q, r = jnp.linalg.qr(x)  # (n, m), (m, m)
    b, _ = basis(z)  # (n, k)
    bq, by = dot(b.T, q), dot(b.T, y)  # (k, m), (k, q)
    missing = max(0, m - len(bq))  # fewer instruments than columns: pad with zero rows
    bq, by = (jnp.pad(a, ((0, missing), (0, 0))) for a in (bq, by))
    u, c, vt = jnp.linalg.svd(bq, full_matrices=False)
    rest = y - dot(b, by[: b.shape[1]])  # (n, q) M y
    return Canonical(r, vt.T, jnp.minimum(c, 1), dot(u.T, by), dot(vt, dot(q.T, rest)))


def solve(problem: Canonical, inside: Array | float, outside: Array | float) -> Array:
    """The coefficients (m, q) with weights a = ``inside`` on P and b = ``outside`` on M."""
    c = problem.c[:, None]
    weight = inside * c**2 + outside * (1 - c**2)
    right = inside * c * problem.inside + outside * problem.outside
    return jax.scipy.linalg.solve_triangular(problem.r, dot(problem.v, right / weight))


def liml_k(x: Array, y: Array, z: Array) -> Array:
    """The k of limited-information maximum likelihood, () >= 1, for one outcome y (n, 1).

    x and y are centred. The least of |W v|^2 / |M W v|^2 over v, with W = [y, x]: it is
    1 / (1 - c^2), c the smallest canonical correlation between W and the instruments, which
    is 0 when there are no more instruments than columns of x.
    """
    w = jnp.concatenate([y, x], 1)
    c = canonical(w, y, z).c[-1]
    return 1 / (1 - c**2)
