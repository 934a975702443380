"""Exact search over causal orders, by dynamic programming over subsets of variables.

The local scores are given for a table of (node, parent set) entries; parent sets are
bitmasks. f(U) = min_i f(U \\ i) + best(i, U \\ i) is the least total of a DAG on the
variables U, where best(i, V) is the least score of i over the entries with parents
inside V (Silander and Myllymaki 2006). Time O(d^2 2^d), memory
d 2^(d-1) floats, twice: d <= 20 or so.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate


class OptimalDag(NamedTuple):
    """The best DAG that can be put together from a table."""

    entry: Array  # (d,) int32: the entry of the table each node uses
    order: Array  # (d,) int32: a causal order of it, causes first
    total: Array  # () its score


def optimal_dag(node: Array, parents: Array, score: Array, num_nodes: int) -> OptimalDag:
    """The DAG with the least sum of local scores, exact over the entries given.

    node: (m,) int32, out of 0..d-1 for an unused entry. parents: (m,) int32 bitmask, bit
    j for parent j. score: (m,), inf for a forbidden entry; every node needs a finite
    entry without parents, else the total is inf. Duplicate entries are allowed.
    """
    d, full = num_nodes, 2**num_nodes - 1
    # best[i, V] of sets V of the other nodes: bit i is cut out of V.
    below = (1 << node) - 1
    others = (parents & below) | (parents >> 1 & ~below)
    best = jnp.full((d, 2 ** (d - 1)), jnp.inf, score.dtype)
    best = best.at[node, others].min(score, mode="drop")

    def over_subsets(row):
        for j in range(d - 1):  # a set may use every entry of its subsets
            cube = row.reshape(-1, 2, 2**j)
            row = jnp.stack([cube[:, 0], jnp.min(cube, 1)], 1).reshape(-1)
        return row

    best = jax.lax.map(over_subsets, best)  # row by row, for each fits into a cache

    def sweep(f):
        new = f
        for i in range(d):
            cube = new.reshape(-1, 2, 2**i)
            with_i = jnp.minimum(cube[:, 1], cube[:, 0] + best[i].reshape(-1, 2**i))
            # A stack is one pass over memory, where .at[:, 1].set would be three.
            new = jnp.stack([cube[:, 0], with_i], 1).reshape(2**d)
        return new

    # A sweep settles every set whose best order is ascending, and each further sweep one
    # more descent of it: at most d, and about half of that until nothing changes.
    start = jnp.full(2**d, jnp.inf, score.dtype).at[0].set(0)
    f = iterate(sweep, start, lambda old, new: jnp.any(new < old), d + 1)

    def remove_last(rest, _):
        i = jnp.arange(d, dtype=jnp.int32)
        bit = 1 << i
        before = rest & ~bit
        cut = (before & (bit - 1)) | (before >> 1 & ~(bit - 1))
        total = jnp.where(rest & bit, f[before] + best[i, cut], jnp.inf)
        # Among the nodes still there even where all totals are inf.
        i = jnp.argmin(jnp.where(rest & bit, jnp.minimum(total, 1e30), jnp.inf))
        usable = (node == i) & (parents & ~before[i] == 0)
        entry = jnp.argmin(jnp.where(usable, score, jnp.inf))
        return before[i], (i, entry)

    _, (nodes, entries) = jax.lax.scan(remove_last, jnp.int32(full), None, length=d)
    entry = jnp.zeros(d, jnp.int32).at[nodes].set(entries.astype(jnp.int32))
    return OptimalDag(entry, nodes[::-1].astype(jnp.int32), f[full])
