"""What the rows say for and against the edges of a graph that was found."""

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Data, num_envs
from crl.numerics.graphs import cpdag
from crl.numerics.groups import centred, group_means
from crl.numerics.linalg import dot
from crl.numerics.normality import jarque_bera
from crl.scm.score_table import Table, entries, search

NUM_BLOCKS = 128  # of rows in an environment, whose losses are kept as sums
_CHANGED = 4.0  # a noise counts as changed between environments from this z on
# A skewness of .3 or an excess kurtosis of .6; of noises that are Gaussian, but for what the
# map cannot follow, the largest of ten was .05 to .09 at 1000 rows.
_SMALL_DEVIATION = 0.12


def blocks(data: Data) -> Array:
    """The block of each row, (n,): as many in each environment, of equal size to one row."""
    count = data.given["count"]
    rank = jnp.arange(len(data.env)) - (jnp.cumsum(count) - count)[data.env]
    return data.env * NUM_BLOCKS + rank * NUM_BLOCKS // count[data.env]


def block_sizes(data: Data) -> Array:
    """How many rows each block has, (b,)."""
    return jnp.zeros(num_envs(data) * NUM_BLOCKS, jnp.int32).at[blocks(data)].add(1)


def by_block(loss: Array, data: Data) -> Array:
    """Losses of rows (n,) summed over the blocks, (b,)."""
    total = num_envs(data) * NUM_BLOCKS
    return jax.ops.segment_sum(loss, blocks(data), total, indices_are_sorted=True)


def excess(
    table: Table, other: Array, graph: Array, data: Data, penalty: float
) -> tuple[Array, Array, Array]:
    """By how much the other graph is worse: nats a row in each environment (E,), the penalty
    apart; in all, with the penalty; and that in its standard errors."""
    loss = [jnp.sum(table.loss[entries(table, g)], 0) for g in (other, graph)]
    gap = loss[0] - loss[1]  # (b,)
    mean, error = mean_and_error(gap, data)
    worse = mean + penalty * (jnp.sum(other) - jnp.sum(graph))
    by_env = jnp.sum(gap.reshape(-1, NUM_BLOCKS), 1) / data.given["count"]
    return by_env, worse, worse / error


def mean_and_error(total: Array, data: Data) -> tuple[Array, Array]:
    """The mean over rows of what sums to ``total`` (b,) over blocks, and its standard error,
    from how blocks differ."""
    rows = block_sizes(data).astype(total.dtype)  # (b,)
    mean = jnp.sum(total) / jnp.sum(rows)
    error = jnp.sqrt(jnp.sum((total - mean * rows) ** 2)) / jnp.sum(rows)
    return mean, jnp.maximum(error, 1e-8)


def bootstrap(
    key: Array, table: Table, graph: Array, data: Data, num: int, penalty: float
) -> Array:
    """The share of ``num`` replicates whose best graph has an edge, (d, d).

    Bayesian bootstrap of the blocks of rows within environments (Rubin 1981). Every fit is
    kept; only its rows count differently, so that a replicate costs one search.
    """
    dtype = table.loss.dtype
    rows = block_sizes(data).astype(dtype).reshape(num_envs(data), -1)

    def replicate(t, count):
        weight = jax.random.exponential(jax.random.fold_in(key, t), rows.shape, dtype)
        weight /= jnp.sum(weight * rows, 1, keepdims=True)
        weight *= jnp.sum(rows, 1, keepdims=True) / jnp.sum(rows)
        score = dot(table.loss, weight.reshape(-1))
        score = jnp.where(jnp.isfinite(table.score), score, jnp.inf)
        return count + search(table, score, graph, penalty)

    count = jax.lax.fori_loop(0, num, replicate, jnp.zeros_like(graph))
    return count.astype(dtype) / num


def is_gaussian(s: Array, data: Data) -> Array:
    """Whether noises (n, d) pass for Gaussian in every environment, () bool.

    By skewness and excess kurtosis: not significant at .001 for all variables together, or
    too small to matter. A false alarm costs time, and edges too many where rows are few.
    """
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=s.dtype)
    size, p_value = jarque_bera(s, member)
    return jnp.all((p_value > 1e-3 / s.shape[1]) | (size < _SMALL_DEVIATION**2))


def is_carried(graph: Array, s: Array, data: Data) -> Array:
    """Which orientations (d, d) have a support beyond how well a flexible law fits.

    An edge that a Markov equivalent graph has the other way round owes its orientation to a
    change of the noise s (n, d) of one of its ends.
    """
    edge = graph > 0
    changed = change(s, data) > _CHANGED
    return ~(edge & cpdag(graph).T) | changed[:, None] | changed


def change(s: Array, data: Data) -> Array:
    """How clearly the law of each noise (n, d) changes between environments, z (d,).

    The largest over environments of the differences from the base in mean and in the log
    of the mean absolute deviation, over their standard errors.
    """
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=s.dtype)
    count = data.given["count"][:, None]  # (E, 1)
    mean = group_means(s, member)  # (E, d)
    size = jnp.abs(centred(s, member))
    spread, var = group_means(size, member), group_means(size**2, member)
    error = jnp.sqrt((var / spread**2 - 1) / count)
    by_spread = jnp.abs(jnp.log(spread / spread[0])) / jnp.sqrt(error**2 + error[0] ** 2)
    error = var / count
    by_mean = jnp.abs(mean - mean[0]) / jnp.sqrt(error + error[0])
    return jnp.max(jnp.maximum(by_spread, by_mean), 0)
