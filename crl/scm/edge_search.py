"""A search over graphs that looks for each edge's alternative before it trusts the edge.

It climbs greedily; up to ``EXACT`` variables it then searches all causal orders over the table
of scores and lets the table grow around the optimum until nothing changes. Last it probes the
edges: it looks for each at the best graph without it, has what lies around that one fitted,
and begins again where this finds anything new.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, num_envs
from crl.scm.evidence import excess
from crl.scm.monotone import Basis
from crl.scm.score_table import (
    EXACT,
    NOISE,
    Table,
    around,
    best_move,
    exact,
    flips,
    members,
    search_without,
)

_CLIMB, _REFINE, _PROBE, _DONE = np.arange(4, dtype=np.int32)  # phases of the search


class State(NamedTuple):
    """The search so far."""

    basis: Basis
    table: Table
    graph: Array  # (d, d) 0/1, the best known
    is_mixture: Array  # () bool: noise laws are mixtures, no longer Gaussian
    phase: Array  # () int32: _CLIMB, _REFINE, _PROBE or _DONE
    edge: Array  # () int32: which edge of the graph to probe next
    has_grown: Array  # () bool: probing the edges before it has fitted something new
    edge_gain: Array  # (E, d, d) see ``Fitted``
    edge_z: Array  # (d, d)
    is_turned: Array  # (d, d) bool: without the edge i -> j the best graph has j -> i


def begin(basis: Basis, table: Table, data: Data) -> State:
    """The search before its first step, with an empty table."""
    d = data.x.shape[1]
    none = jnp.zeros((d, d), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return State(
        *(basis, table, none, none[0, 0] > 0, zero + _CLIMB, zero, jnp.array(False)),
        jnp.zeros((num_envs(data), d, d), table.score.dtype),
        *(none.astype(table.score.dtype), none > 0),
    )


def is_done(state: State) -> Array:
    """Whether no edge has an alternative that is better or was never fitted, () bool."""
    return state.phase == _DONE


def edge_at(graph: Array, k: Array) -> tuple[Array, Array]:
    """The k-th edge of the graph: tail and head."""
    at = jnp.argmax(jnp.cumsum(graph.reshape(-1)) > k)
    return at // len(graph), at % len(graph)


def propose(state: State, penalty: float) -> tuple[Array, Array]:
    """A graph (d, d) to look at, and the codes (q, 1 + w) of the fits that a step wants."""
    centres = _centres(state, penalty)  # (2, d, d)
    wanted = jax.vmap(around)(centres)  # (2, d, d, 1 + w)
    wanted = jnp.where(_is_near(state, centres)[..., None], wanted, -1)
    return centres[0], wanted.reshape(-1, wanted.shape[-1])


def _centres(state: State, penalty: float) -> Array:
    """The two graphs (2, d, d) around whose parent sets a step looks, the first above all."""
    table, graph = state.table, state.graph
    d = len(graph)

    def climb():
        # Without any parents, and with one: an order needs them when a search begins again.
        return jnp.stack([graph, jnp.zeros_like(graph)])

    def refine():
        # The best graph of the table, and what each node would choose if there were no
        # cycles to avoid.
        node = table.code[:, 0] == jnp.arange(d)[:, None]
        free = jnp.argmin(jnp.where(node, table.score, jnp.inf), 1)
        free = members(table.code[free], d).T.astype(graph.dtype)
        return jnp.stack([exact(table, table.score, penalty, d), free])

    def probe():
        # The best graph without the edge, and that graph with the edge put back: a node that
        # has lost a parent and gained others may want both.
        edge = edge_at(graph, state.edge)
        other = search_without(table, graph, *edge, penalty)
        return jnp.stack([other, other.at[edge].set(1)])

    return jax.lax.switch(state.phase, [climb, refine if d <= EXACT else climb, probe, climb])


def _is_near(state: State, centres: Array) -> Array:
    """Which flips (2, d, d) of a parent of a node are worth a fit.

    All of them, but when an edge is probed: what it explained is then to be explained by
    others of the Markov blankets, in the graph with it or without.
    """
    both = jnp.maximum(centres, state.graph)  # (2, d, d)
    adjacent = both + jnp.swapaxes(both, 1, 2)
    spouses = jnp.einsum("cik,cjk->cij", both, both)
    return (adjacent + spouses > 0) | (state.phase != _PROBE)


def advance(state: State, table: Table, centre: Array, data: Data, penalty: float) -> State:
    """The state once the table holds all sets around the graph ``centre``.

    Climb while a move improves; search exactly while the table grows; then look for each edge
    at the best graph without it, and begin again where that finds a better graph, or new
    sets: a search that has never looked at the alternative to an edge cannot know its z.
    """
    graph, d = state.graph, len(state.graph)
    has_grown = table.size > state.table.size
    search_again = _REFINE if d <= EXACT else _CLIMB
    state = state._replace(table=table)

    def climb():
        moved, gain = best_move(graph, flips(table, graph, table.score), penalty)
        goes_on = gain > NOISE
        return state._replace(
            graph=jnp.where(goes_on, moved, graph),
            phase=jnp.where(goes_on, _CLIMB, _REFINE if d <= EXACT else _PROBE),
        )

    def refine():
        return state._replace(
            graph=centre, phase=jnp.where(has_grown, _REFINE, _PROBE), edge=0 * state.edge
        )

    def probe():
        tail, head = edge_at(graph, state.edge)
        gain, worse, z = excess(table, centre, graph, data, penalty)
        is_better = worse < -NOISE
        is_new = state.has_grown | has_grown
        is_last = state.edge + 1 >= jnp.sum(graph)
        begins_again = is_better | (is_last & is_new)
        phase = jnp.where(is_last, _DONE, _PROBE)
        return state._replace(
            graph=jnp.where(is_better, centre, graph),
            phase=jnp.where(begins_again, search_again, phase),
            edge=jnp.where(begins_again, 0, state.edge + 1),
            has_grown=is_new & ~begins_again,
            edge_gain=state.edge_gain.at[:, tail, head].set(gain),
            edge_z=state.edge_z.at[tail, head].set(z),
            is_turned=state.is_turned.at[tail, head].set(centre[head, tail] > 0),
        )

    def done():
        return state

    def tidy(state):
        # Of edges that the graph has lost nothing is known.
        is_edge = state.graph > 0
        return state._replace(
            edge_gain=jnp.where(is_edge, state.edge_gain, 0),
            edge_z=jnp.where(is_edge, state.edge_z, 0),
            is_turned=state.is_turned & is_edge,
        )

    return tidy(jax.lax.switch(state.phase, [climb, refine, probe, done]))


def with_mixtures(state: State) -> State:
    """The search from its beginning, with mixtures for the laws of the noises."""
    table = state.table._replace(
        code=jnp.full_like(state.table.code, -1),
        score=jnp.full_like(state.table.score, jnp.inf),
        size=jnp.zeros_like(state.table.size),
    )
    return state._replace(
        table=table,
        is_mixture=jnp.ones_like(state.is_mixture),
        phase=jnp.full_like(state.phase, _CLIMB),
        edge=jnp.zeros_like(state.edge),
    )
