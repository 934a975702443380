"""Invariant causal prediction: the causes of one variable, with a bound on wrong ones.

Peters, Buhlmann and Meinshausen, "Causal inference using invariant prediction" (JRSS B
2016), the second method of section 3.1: regress the target on a set of variables over all
environments; where the set holds all its causes, residuals have the same mean and variance
everywhere. What all sets that are not rejected have in common are causes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import betainc
from jax.scipy.stats import norm

from crl.check import check_options, is_concrete
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics.lasso import least_squares
from crl.numerics.linalg import dot
from crl.scm.linear import check_linear

MAX_COLUMNS = 13  # 4,096 sets
# Degrees of freedom from which on normal laws approximate t and F better than single
# precision evaluates the incomplete beta function.
FEW = 300


class Fitted(NamedTuple):
    """What the tests of all sets say."""

    is_cause: Array  # (d,) bool, of the target
    p_values: Array  # (d,) of the hypothesis that a variable is no cause
    num_accepted: Array  # () sets that are not rejected


class Groups(NamedTuple):
    """Moments of each of E groups of rows."""

    count: Array  # (E,)
    mean: Array  # (E, d)
    scatter: Array  # (E, d, d) sums of squares about the mean


def icp(target: int, alpha: float = 0.05) -> Estimator:
    """The causes of column ``target`` of x by invariance over environments.

    target: the column, in 0..d-1. alpha: a cause that is none is claimed with probability at
    most alpha, over datasets; in (0, 1), may be traced. All 2^(d - 1) sets of other columns
    are tested, at most 4,096, each by Welch's t and by F tests of every environment against
    the others, Bonferroni-corrected.

    Claims graph, the edges into the target alone, and edge_prob: for each of them 1 - p, p
    the level from which on it would not be claimed; diag num_accepted, the sets that are
    not rejected: where there are none, an assumption is violated, and nothing is claimed.
    A claimed edge is guaranteed at level alpha where the target's equation is linear with
    Gaussian noise, the same in every environment, and its causes are observed. Which causes
    are found depends on the environments: none, where they change nothing, and a cause for
    sure only where it or what it is confused with is changed. A target whose own noise or
    mechanism changes is the failure to look out for.

    Raises ValueError for a target or level out of range, more than 13 columns, one
    environment, environments of fewer than 3 rows, and columns as for ``direct_lingam``.
    """
    if not hasattr(target, "__index__") or target < 0:
        raise ValueError(f"icp needs target to be a column of x, 0, 1, ..., got {target!r}")
    check_options("icp", positive={"alpha": alpha})
    if is_concrete(alpha) and alpha >= 1:
        raise ValueError(f"icp needs alpha < 1, got {alpha!r}")

    def init(key, data):
        del key  # closed form
        d = data.x.shape[1]
        sets = subsets(d, target)
        groups = moments(data)
        p = jax.vmap(lambda members: invariance(groups, members, target))(jnp.asarray(sets))
        without = jnp.where(sets, 0, p[:, None])  # of the sets that lack a variable
        p_values = jnp.max(without, 0).at[target].set(1)
        num_accepted = jnp.sum(p > alpha)
        is_cause = (p_values <= alpha) & (num_accepted > 0)
        return Fitted(is_cause, p_values, num_accepted)

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def readout(fitted, data):
        del data
        into = jnp.zeros((len(fitted.is_cause),) * 2, jnp.int32)
        prob = jnp.where(fitted.num_accepted > 0, 1 - fitted.p_values, 0)
        return Readout(
            graph=into.at[:, target].set(fitted.is_cause.astype(jnp.int32)),
            edge_prob=into.astype(prob.dtype).at[:, target].set(prob),
            diag={"num_accepted": fitted.num_accepted},
        )

    return Estimator(init, step, readout, 0, validate=lambda data: check_icp(data, target))


def subsets(d: int, target: int) -> np.ndarray:
    """All sets of columns but the target, (2^(d - 1), d) bool."""
    bits = (np.arange(2 ** (d - 1))[:, None] >> np.arange(d - 1)) & 1
    return np.insert(bits.astype(bool), target, False, 1)


def moments(data: Data) -> Groups:
    """Of each environment, in standard deviations over all rows."""
    x = (data.x - jnp.mean(data.x, 0)) / jnp.std(data.x, 0)
    is_in = jax.nn.one_hot(data.env, num_envs(data), dtype=x.dtype)  # (n, E)
    count = jnp.sum(is_in, 0)
    mean = dot(is_in.T, x) / count[:, None]
    rest = x - dot(is_in, mean)
    scatter = jax.vmap(lambda of: dot((rest * of[:, None]).T, rest), 1)(is_in)
    return Groups(count, mean, scatter)


def invariance(groups: Groups, members: Array, target: int) -> Array:
    """The p value () of: given ``members`` (d,) bool, the target has one law everywhere."""
    count, total = groups.count, jnp.sum(groups.count)
    second = (
        groups.scatter + count[:, None, None] * groups.mean[:, :, None] * groups.mean[:, None]
    )
    covariance = jnp.sum(second, 0) / total  # columns have mean 0 over all rows
    slopes = least_squares(covariance, covariance[target], members)
    rest = -slopes.at[target].set(-1)  # residual = x . rest
    mean = dot(groups.mean, rest)  # (E,)
    squares = jnp.einsum("i,eij,j->e", rest, groups.scatter, rest, precision="highest")

    others = total - count
    mean_others = (jnp.sum(count * mean) - count * mean) / others
    between = count * mean**2
    raw = jnp.sum(squares + between) - squares - between
    squares_others = raw - others * mean_others**2
    variance, variance_others = squares / (count - 1), squares_others / (others - 1)

    t_test = welch(mean - mean_others, variance, count, variance_others, others)
    f_test = fisher(variance / variance_others, count - 1, others - 1)
    # Of two environments each is the others of the other: the same two tests twice.
    num_tests = 2 * len(count) if len(count) > 2 else 2
    return jnp.minimum(1, num_tests * jnp.minimum(jnp.min(t_test), jnp.min(f_test)))


def welch(gap: Array, var_a: Array, n_a: Array, var_b: Array, n_b: Array) -> Array:
    """Two-sided p values of Welch's t test for a difference ``gap`` of means."""
    a, b = var_a / n_a, var_b / n_b
    freedom = (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))
    square = gap**2 / (a + b)
    exact = betainc(freedom / 2, jnp.full_like(gap, 0.5), freedom / (freedom + square))
    z = jnp.sqrt(square / (1 + square / (2 * freedom))) * (1 - 1 / (4 * freedom))
    return jnp.where(freedom < FEW, exact, 2 * norm.sf(z))


def fisher(ratio: Array, freedom_a: Array, freedom_b: Array) -> Array:
    """Two-sided p values of the F test for a ratio of variances."""
    share = freedom_a * ratio / (freedom_a * ratio + freedom_b)
    below = betainc(freedom_a / 2, freedom_b / 2, share)
    above = betainc(freedom_b / 2, freedom_a / 2, 1 - share)
    # Wilson and Hilferty 1931: the cube root of a mean of squares is nearly normal.
    root, a, b = jnp.cbrt(ratio), 2 / (9 * freedom_a), 2 / (9 * freedom_b)
    z = ((1 - b) * root - (1 - a)) / jnp.sqrt(b * root**2 + a)
    exact = 2 * jnp.minimum(below, above)
    return jnp.where(jnp.minimum(freedom_a, freedom_b) < FEW, exact, 2 * norm.sf(jnp.abs(z)))


def check_icp(data: Data, target: int) -> None:
    """Raise a ValueError for data in which ``icp`` can test nothing."""
    d, count = data.x.shape[1], np.asarray(data.given["count"])
    if target >= d:
        raise ValueError(f"icp needs target in 0..{d - 1}, a column of x, got {target}")
    if d > MAX_COLUMNS:
        raise ValueError(
            f"icp needs at most {MAX_COLUMNS} columns, since it tests all sets of them, got "
            f"{d}: choose the candidates before"
        )
    if len(count) < 2 or count.min() < 3:
        raise ValueError(
            "icp needs two environments or more, of 3 rows at least, got rows "
            f"{count.tolist()}: pass env to crl.as_data"
        )
    check_linear("icp", data)
