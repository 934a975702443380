"""A table of local scores, and the search over graphs that can be put together from it.

The score of a DAG is the sum over its nodes of a local score of the node given its parents,
and a penalty for each edge. Local scores are dear, so that only those are computed that a
search looks at: it climbs greedily, one edge added, removed or turned a move, up to 20
variables searches all causal orders exactly over the table, and lets the table ``grow``
around what it finds. Parent sets are bitmasks of 30 bits a word.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import PyTree
from crl.numerics.fixed_point import iterate
from crl.numerics.graphs import indirect_paths, transitive_closure
from crl.numerics.order_search import optimal_dag

EXACT = 20  # variables up to which all orders can be searched: seconds there, and 95 MB
_EXACT_OFTEN = 13  # and up to which that costs no more than a climb
NOISE = 1e-5  # nats; scores are means of rows in float32, with errors near 1e-6
_WORD = 30  # bits of a set kept in one int32
_ACCELERATOR_BATCH = 64


class Table(NamedTuple):
    """The local fits made so far, in the order in which they were asked for."""

    code: Array  # (m, 1 + w) int32: node, -1 where unused; bitmask of its parents in w words
    score: Array  # (m,) mean loss in nats, without penalty; inf where unused
    loss: Array  # (m, b) its sums over blocks of rows
    law: PyTree  # (m, ...) what else a fit returns
    rank: Array  # (m,) int32 the entries by code in lexicographic order
    size: Array  # () entries used


def empty_table(num_nodes: int, num_blocks: int, law: PyTree, dtype) -> Table:
    """A table without entries; law: what a fit returns, arrays or their shapes."""
    # All sets there are, up to a bound: on sparse graphs a climb with e edges and the
    # searches after it asked for about d^2 + 35 e sets.
    d = num_nodes
    m = d * min(20 * d, 2 ** min(d - 1, 11))
    return Table(
        jnp.full((m, 1 + -(-d // _WORD)), -1, jnp.int32),
        jnp.full(m, jnp.inf, dtype),
        jnp.zeros((m, num_blocks), dtype),
        jax.tree.map(lambda a: jnp.zeros((m, *a.shape), a.dtype), law),
        jnp.arange(m, dtype=jnp.int32),
        jnp.zeros((), jnp.int32),
    )


def is_full(table: Table) -> Array:
    """Whether a set may have been asked for in vain, () bool."""
    m, d = len(table.code), jnp.max(table.code[:, 0]) + 1
    return (table.size == m) & (m < d * 2.0 ** (d - 1))


def grow(fit: Callable, table: Table, wanted: Array, max_parents: int) -> Table:
    """The table with the fits ``wanted``, (q, 1 + w) codes, that it lacked; -1 for none.

    fit: (code (1 + w,)) -> law, loss (b,), score ().
    """
    missing = (wanted[:, 0] >= 0) & (num_parents(wanted) <= max_parents)
    missing &= find(table, wanted) < 0
    order = jnp.lexsort(wanted.T[::-1])
    twin = jnp.all(wanted[order[1:]] == wanted[order[:-1]], -1)
    missing &= ~jnp.zeros_like(missing).at[order[1:]].set(twin)

    def on(apply, batch):
        return lambda table, missing: _fill(apply, batch, fit, table, wanted, missing)

    table = jax.lax.platform_dependent(
        table,
        missing,
        cpu=on(jax.lax.map, 1),
        default=on(lambda f, xs: jax.vmap(f)(xs), min(_ACCELERATOR_BATCH, len(wanted))),
    )
    return table._replace(rank=jnp.lexsort(table.code.T[::-1]).astype(jnp.int32))


def _fill(
    apply: Callable, batch: int, fit: Callable, table: Table, wanted: Array, missing: Array
) -> Table:
    """Fits what is missing, ``batch`` codes at a time, while the table has room."""
    num, capacity = len(wanted), len(table.code)

    def more(carry):
        table, missing = carry
        return jnp.any(missing) & (table.size < capacity)

    def body(carry):
        table, missing = carry
        # Unused places of a batch point past the end and are dropped.
        at = jnp.nonzero(missing, size=batch, fill_value=num)[0]
        code = jnp.take(wanted, at, axis=0, mode="fill", fill_value=0)
        law, loss, score = apply(fit, code)
        used = at < num
        place = jnp.where(used, table.size + jnp.arange(batch), capacity)

        def put(old, new):
            return old.at[place].set(jnp.nan_to_num(new), mode="drop")

        # A fit that failed is a set of parents that nobody will choose.
        score = jnp.where(jnp.isfinite(score), score, jnp.inf)
        table = table._replace(
            code=put(table.code, code),
            score=table.score.at[place].set(score, mode="drop"),
            loss=put(table.loss, loss),
            law=jax.tree.map(put, table.law, law),
            size=jnp.minimum(table.size + jnp.sum(used, dtype=jnp.int32), capacity),
        )
        return table, missing.at[at].set(False, mode="drop")

    return jax.lax.while_loop(more, body, (table, missing))[0]


def find(table: Table, code: Array) -> Array:
    """Where each code (..., 1 + w) is in the table, -1 where it is not."""
    flat, m = code.reshape(-1, code.shape[-1]), len(table.code)
    ranked = table.code[table.rank]

    def halve(_, ends):  # a binary search for the first that is not less
        low, high = ends
        middle = (low + high) // 2
        less, tied = jnp.zeros(len(flat), bool), jnp.ones(len(flat), bool)
        for word in range(flat.shape[1]):
            a, b = ranked[middle, word], flat[:, word]
            less, tied = less | (tied & (a < b)), tied & (a == b)
        less &= low < high
        return jnp.where(less, middle + 1, low), jnp.where(less, high, middle)

    ends = jnp.zeros(len(flat), jnp.int32), jnp.full(len(flat), m, jnp.int32)
    at = jnp.minimum(jax.lax.fori_loop(0, m.bit_length(), halve, ends)[0], m - 1)
    found = jnp.all(ranked[at] == flat, -1)
    return jnp.where(found, table.rank[at], -1).reshape(code.shape[:-1])


def entries(table: Table, graph: Array) -> Array:
    """The entry (d,) of each node's parent set."""
    node = jnp.arange(len(graph), dtype=jnp.int32)[:, None]
    return find(table, jnp.concatenate([node, _pack(graph.T > 0)], -1))


def laws(table: Table, graph: Array) -> PyTree:
    """What fits left of the variables (d, ...) given their parents in a graph of the table."""
    used = entries(table, graph)
    return jax.tree.map(lambda a: a[used], table.law)


def around(graph: Array) -> Array:
    """Codes (d, d, 1 + w): [i, j] is the parent set of i with j flipped; [i, i] as it is."""
    d = len(graph)
    eye = jnp.eye(d, dtype=bool)
    member = (graph.T[:, None] > 0) ^ (eye & ~eye[:, None])  # (node, flipped, parent)
    node = jnp.broadcast_to(jnp.arange(d, dtype=jnp.int32)[:, None, None], (d, d, 1))
    return jnp.concatenate([node, _pack(member)], -1)


def _pack(member: Array) -> Array:
    """Sets as bitmasks: (..., d) bool to (..., w) int32."""
    d = member.shape[-1]
    padded = jnp.pad(member, [(0, 0)] * (member.ndim - 1) + [(0, -d % _WORD)])
    words = padded.reshape(*member.shape[:-1], -1, _WORD).astype(jnp.int32)
    return jnp.sum(words << jnp.arange(_WORD, dtype=jnp.int32), -1, dtype=jnp.int32)


def members(code: Array, d: int) -> Array:
    """The parents in codes (..., 1 + w), (..., d) bool."""
    j = jnp.arange(d)
    return (code[..., 1 + j // _WORD] >> (j % _WORD)) & 1 > 0


def parents_in(code: Array, d: int, slots: int) -> Array:
    """The parents in a code (1 + w,) as indices (slots,), padded with d."""
    return jnp.nonzero(members(code, d), size=slots, fill_value=d)[0].astype(jnp.int32)


def num_parents(code: Array) -> Array:
    """How many parents codes (..., 1 + w) hold, (...)."""
    return jnp.sum(jax.lax.population_count(code[..., 1:]), -1)


def flips(table: Table, graph: Array, score: Array) -> Array:
    """Scores (d, d): [i, j] of node i with parent j flipped, [i, i] as in the graph.

    score: (m,) of the entries; inf for what the table lacks.
    """
    entry = find(table, around(graph))
    return jnp.where(entry >= 0, score[entry], jnp.inf)


def best_move(graph: Array, score: Array, penalty: float) -> tuple[Array, Array]:
    """The best addition, removal or reversal of one edge, and by how much it improves.

    score: (d, d) as of ``flips``.
    """
    d, edge = graph.shape[0], graph.astype(bool)
    change = (score - jnp.diagonal(score)[:, None]).T  # [j, i]: flip the edge j -> i
    closure = transitive_closure(graph)
    add = jnp.where(~edge & ~closure.T & ~jnp.eye(d, dtype=bool), change + penalty, jnp.inf)
    remove = jnp.where(edge, change - penalty, jnp.inf)
    # Both flips must have been fitted; then the penalty stays the same.
    turn = jnp.where(edge & ~indirect_paths(graph, closure), change + change.T, jnp.inf)
    moves = jnp.stack([add, remove, turn])
    moves = jnp.where(jnp.isnan(moves), jnp.inf, moves)
    best = jnp.argmin(moves)
    kind, j, i = jnp.unravel_index(best, moves.shape)
    moved = graph.at[j, i].set((kind == 0).astype(graph.dtype))
    return moved.at[i, j].add((kind == 2).astype(graph.dtype)), -jnp.min(moves)


def climb(table: Table, score: Array, graph: Array, penalty: float) -> Array:
    """Greedy moves from ``graph`` among the parent sets of the table."""

    def move(graph):
        moved, gain = best_move(graph, flips(table, graph, score), penalty)
        return jnp.where(gain > NOISE, moved, graph)

    return iterate(move, graph, lambda old, new: jnp.any(old != new), len(table.code))


def exact(table: Table, score: Array, penalty: float, d: int) -> Array:
    """The best of all graphs (d, d) that the table holds, d <= ``EXACT``."""
    penalized = score + penalty * num_parents(table.code)
    node = jnp.where(table.code[:, 0] < 0, d, table.code[:, 0])
    entry = optimal_dag(node, table.code[:, 1], penalized, d).entry
    return members(table.code[entry], d).T.astype(jnp.int32)


def search(table: Table, score: Array, graph: Array, penalty: float) -> Array:
    """The best graph at these scores: exact where that is cheap, else by climbing."""
    if len(graph) <= _EXACT_OFTEN:
        return exact(table, score, penalty, len(graph))
    return climb(table, score, graph, penalty)


def search_without(
    table: Table, graph: Array, tail: Array, head: Array, penalty: float
) -> Array:
    """The best graph of the table in which tail -> head is no edge."""
    has_edge = (table.code[:, 0] == head) & members(table.code, len(graph))[:, tail]
    score = jnp.where(has_edge, jnp.inf, table.score)
    return search(table, score, graph.at[tail, head].set(0), penalty)
