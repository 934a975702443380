"""Whether two variables have a cause in common that nobody sees.

Noises s_i = e_i + l_i u and s_j = e_j + l_j u of variables that share the hidden cause u have
the covariance l_i l_j var(u). Where u keeps its law it is the same in every environment,
however much e_i and e_j change. Along an edge i -> j it is not the covariance that stays the
same but the law of j given i. So the two can be told apart by likelihood as one direction of
an edge can from the other, and by the same changes. A shared map as flexible as that of
crl.scm.monotone follows much of what a hidden cause does (in one variable the size of i tells
the environment), which is why tests of its noises for independence see little.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, num_envs
from crl.numerics.groups import group_means, standardised
from crl.numerics.linalg import dot
from crl.scm.evidence import by_block, mean_and_error
from crl.scm.score_table import Table, around, entries, find

_NUM_LEVELS = 201  # of the covariance, up to that of a correlation of .98


def common_cause(
    table: Table, graph: Array, s: Array, without: Callable, data: Data, penalty: float
) -> Array:
    """z (d, d), symmetric, by which a common cause explains a pair better than the graph does.

    s: (n, d) noises of the graph. without: (head, entry) -> noise (n,) of the head by the law
    of that entry of the table, given its parents but the tail. Along an edge, a common cause
    in its place; elsewhere in addition, at the price of an edge. 0 on the diagonal, and where
    the table lacks the parents without the tail.
    """
    d = len(graph)
    entry = entries(table, graph)
    flipped = find(table, around(graph))  # [i, j]: parents of i with j flipped

    def compare(pair):
        i, j = pair
        forward, backward = graph[i, j] > 0, graph[j, i] > 0
        tail, head = jnp.where(backward, j, i), jnp.where(backward, i, j)
        is_edge = forward | backward
        other = flipped[head, tail]
        effect = jax.lax.cond(is_edge, lambda: without(head, other), lambda: s[:, head])
        gain = by_block(_gain(s[:, tail], effect, data), data)
        lost = jnp.where(is_edge, table.loss[other] - table.loss[entry[head]], 0)
        mean, error = mean_and_error(gain - lost, data)
        z = (mean - jnp.where(is_edge, 0, penalty)) / error
        return jnp.where(is_edge & (other < 0), 0, z)

    first, second = np.triu_indices(d, 1)
    pairs = jnp.asarray(first), jnp.asarray(second)
    z = jnp.zeros((d, d), s.dtype).at[pairs].set(jax.lax.map(compare, pairs))
    return z + z.T


def _gain(a: Array, b: Array, data: Data) -> Array:
    """Log likelihood (n,) that noises a and b gain by one covariance in all environments.

    Gaussian, their means and variances in each environment as they are.
    """
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=a.dtype)
    count = jnp.sum(member, 0)
    (a, sd_a), (b, sd_b) = standardised(a, member), standardised(b, member)
    scale = sd_a * sd_b
    most = 0.98 * jnp.min(scale)
    rho = most * jnp.linspace(-1, 1, _NUM_LEVELS, dtype=a.dtype)[:, None] / scale  # (l, E)
    r = group_means(a * b, member)

    def log_ratio(rho, squares, product):
        rest = 1 - rho**2
        return -jnp.log(rest) / 2 - (rho**2 * squares - 2 * rho * product) / (2 * rest)

    best = rho[jnp.argmax(jnp.sum(count * log_ratio(rho, 2.0, r), 1))]  # (E,)
    return log_ratio(dot(member, best), a**2 + b**2, a * b)
