"""The graph behind Hessians of log density ratios, as the proof of two environments has it.

Montagna, arXiv 2510.13583. At the point x* where all noises have their mode the Hessian of
T_e = log p_e - log p_0 is H_e = J' diag(h_e) J, J = ds/dx the Jacobian of the noises, the
same in every environment. For one of them, r, that changes all noises,

    H_r^-1 H_e = J^-1 diag(h_e / h_r) J:

its eigenvectors are the columns of J^-1, up to order and scale, where the changes
(h_1i, h_2i, ...) of no two variables i are proportional. J is triangular in a causal order,
and one order of its rows alone leaves no zero on the diagonal.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, num_envs
from crl.numerics.assignment import assign
from crl.numerics.graphs import strongest_dag, topological_order
from crl.numerics.joint_eigenvectors import joint_eigenvectors
from crl.numerics.linalg import dot
from crl.scm.linear import check_linear


class Slopes(NamedTuple):
    """The derivatives of all mechanisms at one point, and how the noises change."""

    weights: Array  # (d, d) weights[i, j] = df_j / dx_i, diagonal 0
    changes: Array  # (E - 1, d) of the precision of each noise, as a share of that in env 0
    diag: dict[str, Array]  # what the theorem asks for; see ``slopes``


def slopes(hessians: Array, covariance: Array) -> Slopes:
    """The derivatives that Hessians (E - 1, d, d) of log density ratios have in common.

    covariance: (d, d) of x in the base environment; it sets units and no more. diag:
    ``complex_pairs``, which no such J can leave: above 0 the assumptions fail or rows are
    too few; ``ratio_gap``, the smallest angle between the changes of two noises, as its
    sine, in [0, 1]: at 0 these two are not told apart; ``least_change``, of the precision of
    any noise (for linear mechanisms; else of a direction), as a share, in the environment
    where it is largest: at 0 nothing follows; ``num_envs``.
    """
    num, d = hessians.shape[:2]
    eps = jnp.finfo(hessians.dtype).eps
    # In coordinates of unit covariance; there linear models have an orthogonal J.
    root = jnp.linalg.cholesky(covariance)  # (d, d) x = root u
    h = dot(dot(root.T, hessians), root)
    h = (h + jnp.swapaxes(h, 1, 2)) / 2
    values, axes = jnp.linalg.eigh(h)  # (num, d), (num, d, d)
    r = jnp.argmax(jnp.min(jnp.abs(values), 1))
    scale = jnp.where(jnp.abs(values[r]) > eps, values[r], eps)  # not of a change of nothing
    products = dot(dot(axes[r] / scale, axes[r].T), h)
    vectors, rest = joint_eigenvectors(products)
    jacobian = jnp.linalg.solve(root.T, jnp.linalg.inv(vectors).T).T  # rows in any order

    size = jnp.maximum(jnp.abs(jacobian), jnp.finfo(jacobian.dtype).tiny)
    row, variable = assign(jnp.log(size))
    of = jnp.zeros_like(row).at[variable].set(row)  # the row of each variable
    jacobian, vectors, rest = jacobian[of], vectors[:, of], rest[:, of][:, :, of]
    # s_i = (J x)_i with variance 1 in the base environment.
    own = jnp.sqrt(jnp.sum(dot(jacobian, root) ** 2, 1))
    changes = -jnp.einsum("ai,eab,bi->ei", vectors, h, vectors, precision="highest") * own**2
    weights = jnp.eye(d, dtype=h.dtype) - (jacobian / jnp.diagonal(jacobian)[:, None]).T

    length = jnp.linalg.norm(changes, axis=0)
    unit = changes / jnp.where(length > 0, length, 1)
    cross = unit[:, None, :, None] * unit[None, :, None, :]
    cross = cross - jnp.swapaxes(cross, 0, 1)  # (num, num, d, d)
    sine = jnp.sqrt(jnp.sum(cross**2, (0, 1)) / 2) + 2 * jnp.eye(d, dtype=h.dtype)
    ratio_gap = jnp.min(sine)
    diag = {
        "complex_pairs": jnp.max(complex_pairs(rest)),
        "ratio_gap": ratio_gap,
        "least_change": jnp.max(jnp.min(jnp.abs(values), 1)),
        "num_envs": jnp.asarray(num + 1, jnp.int32),
    }
    return Slopes(weights, changes, diag)


def complex_pairs(a: Array) -> Array:
    """How many 2 x 2 blocks of each a (k, d, d) have complex eigenvalues, beyond rounding."""
    diagonal = jnp.diagonal(a, axis1=1, axis2=2)
    gap = diagonal[:, :, None] - diagonal[:, None]
    both = jnp.triu(a, 1) * jnp.swapaxes(jnp.tril(a, -1), 1, 2)
    scale = jnp.max(jnp.abs(a), (1, 2), keepdims=True)
    return jnp.sum(gap**2 + 4 * both < -((1e-4 * scale) ** 2), (1, 2))


def graph_of(weights: Array, sd: Array, threshold: float) -> tuple[Array, Array]:
    """The graph (d, d) int32 and order (d,) of derivatives (d, d), the strongest first.

    An edge is one whose weight, in standard deviations sd (d,), exceeds threshold; what
    would close a cycle with stronger ones is error, and dropped. The order heeds the weaker
    ones, too.
    """
    strength = jnp.abs(weights) * sd[:, None] / sd
    order = topological_order(strongest_dag(strength))
    graph = strongest_dag(jnp.where(strength > threshold, strength, 0))
    return graph.astype(jnp.int32), order


def environment_moments(data: Data) -> tuple[Array, Array]:
    """Mean (E, d) and covariance (E, d, d) of x in each environment."""
    member = jnp.equal(data.env, jnp.arange(num_envs(data))[:, None]).astype(data.x.dtype)
    share = member / jnp.sum(member, 1, keepdims=True)  # (E, n)
    centre = jnp.mean(data.x, 0)
    x = data.x - centre
    mean = dot(share, x)
    rest = x - dot(member.T, mean)
    covariance = jnp.stack([dot((rest * s[:, None]).T, rest) for s in share])
    return centre + mean, covariance


def quadratic_hessians(covariance: Array) -> Array:
    """(E - 1, d, d) of Gaussian log density ratios: -(precision_e - precision_0)."""
    precision = jnp.linalg.inv(covariance)
    return precision[0] - precision[1:]


def check_auxiliary(who: str, data: Data) -> None:
    """Raise a ValueError for fewer than 3 environments, and what no precision has."""
    count, d = np.asarray(data.given["count"]), data.x.shape[1]
    if len(count) < 3:
        raise ValueError(
            f"{who} needs at least 3 environments, a base and two auxiliary ones, got "
            f"{len(count)}: pass env to crl.as_data, or use a method for fewer"
        )
    if d < 2:
        raise ValueError(f"{who} needs at least 2 columns, got {d}: one has no graph")
    if count.min() <= d:
        raise ValueError(
            f"{who} needs more rows than columns in each environment, got rows "
            f"{count.tolist()} of {d} columns: give more rows or fewer columns"
        )
    check_linear(who, data)
    x, ends = np.asarray(data.x), np.cumsum(count)
    for env, rows in enumerate(np.split(x, ends[:-1])):
        sd = rows.std(0, dtype=np.float64)
        rank = np.linalg.matrix_rank((rows - rows.mean(0)) / np.where(sd > 0, sd, 1))
        if rank < d:
            raise ValueError(
                f"{who} needs columns that vary independently in each environment, got "
                f"constant or dependent ones in environment {env}: drop them, or it"
            )
