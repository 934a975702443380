"""Random causal graphs. ``graph[i, j] = 1`` means i -> j; the causal order is random.

Each returns the graph of one draw, (d, d) int32, always acyclic; columns are in random
order, so that the position of a variable says nothing about its causes. ``graph_law`` reads
the options of a factory.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options, is_concrete
from crl.numerics.graphs import is_acyclic


def erdos_renyi(key: Array, num_nodes: int, edges_per_node: float = 1.0) -> Array:
    """Every pair is joined independently with probability min(1, 2k / (d - 1)).

    So k d edges are expected, at most all d (d - 1) / 2 of them.
    """
    key_edges, key_order = jax.random.split(key)
    p = jnp.minimum(1, 2 * edges_per_node / max(1, num_nodes - 1)).astype(jnp.float32)
    edges = jax.random.bernoulli(key_edges, p, (num_nodes, num_nodes))
    return _shuffled(key_order, jnp.triu(edges, 1))


def scale_free(key: Array, num_nodes: int, edges_per_node: int = 1) -> Array:
    """Preferential attachment: each new variable takes m parents among those before it.

    edges_per_node: m, a nonnegative integer; the first m variables have fewer to choose.
    A parent is chosen in proportion to its degree plus one, without replacement
    (Barabasi and Albert 1999), so that hubs are sources.
    """
    key_edges, key_order = jax.random.split(key)

    def attach(graph, step):
        j, key = step
        degree = jnp.sum(graph, 0) + jnp.sum(graph, 1)
        before = jnp.arange(num_nodes) < j
        # The largest Gumbel-perturbed log weights are a draw without replacement.
        score = jnp.log(jnp.float32(1) + degree) + jax.random.gumbel(
            key, (num_nodes,), jnp.float32
        )
        score = jnp.where(before, score, -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-score))
        parents = before & (rank < edges_per_node)
        return graph.at[:, j].set(parents.astype(graph.dtype)), None

    steps = (jnp.arange(num_nodes), jax.random.split(key_edges, num_nodes))
    empty = jnp.zeros((num_nodes, num_nodes), jnp.int32)
    graph, _ = jax.lax.scan(attach, empty, steps)
    return _shuffled(key_order, graph)


def stochastic_block(key: Array, num_nodes: int, edges_per_node: float = 1.0) -> Array:
    """Communities: pairs within a block are joined ten times as often as pairs across.

    Variables fall into round(d^(1/2)) blocks of equal size up to one. k d edges are expected
    as long as no probability has to be cut at 1.
    """
    d = num_nodes
    key_edges, key_order = jax.random.split(key)
    block = np.random.default_rng(0).permutation(d) % max(1, round(d**0.5))
    rate = np.triu(np.where(block[:, None] == block, 1.0, 0.1), 1)
    p = jnp.minimum(1, rate * (edges_per_node * d / max(rate.sum(), 1)))
    edges = jax.random.bernoulli(key_edges, p.astype(jnp.float32))
    return _shuffled(key_order, edges)


def chain(key: Array, num_nodes: int) -> Array:
    """a -> b -> c -> ..., through all variables."""
    return _shuffled(key, jnp.eye(num_nodes, k=1))


def fork(key: Array, num_nodes: int) -> Array:
    """One variable causes all others."""
    return _shuffled(key, jnp.zeros((num_nodes, num_nodes)).at[0, 1:].set(1))


def collider(key: Array, num_nodes: int) -> Array:
    """All other variables cause one."""
    return _shuffled(key, jnp.zeros((num_nodes, num_nodes)).at[:-1, -1].set(1))


_RANDOM = {
    "erdos_renyi": erdos_renyi,
    "scale_free": scale_free,
    "stochastic_block": stochastic_block,
}
_FIXED = {"chain": chain, "fork": fork, "collider": collider}


def graph_law(
    who: str, graph: str | Array, num_nodes: int, edges_per_node: float
) -> Callable[[Array], Array]:
    """(key) -> graph (d, d) int32, as the options of the factory ``who`` say.

    graph: the name of a law of this file, or a fixed DAG. edges_per_node is read by
    'erdos_renyi', 'scale_free' and 'stochastic_block'. Raises ValueError for names, rates
    and graphs that make no such law.
    """
    if not isinstance(graph, str):
        fixed = np.asarray(graph)
        _check_graph(fixed, num_nodes)
        return lambda key: jnp.asarray(fixed, jnp.int32)
    check_options(who, one_of={"graph": (graph, (*_RANDOM, *_FIXED))})
    if graph in _FIXED:
        return functools.partial(_FIXED[graph], num_nodes=num_nodes)
    if graph == "scale_free" and is_concrete(edges_per_node) and edges_per_node % 1:
        raise ValueError(
            f"expected an integer edges_per_node for scale_free, got {edges_per_node}: each "
            "variable takes that many parents; erdos_renyi takes fractions"
        )
    return functools.partial(
        _RANDOM[graph], num_nodes=num_nodes, edges_per_node=edges_per_node
    )


def _shuffled(key: Array, graph: Array) -> Array:
    order = jnp.argsort(jax.random.uniform(key, graph.shape[:1], jnp.float32))
    return graph[order][:, order].astype(jnp.int32)


def _check_graph(graph: np.ndarray, num_nodes: int) -> None:
    if graph.shape != (num_nodes, num_nodes):
        raise ValueError(
            f"expected a graph of shape {(num_nodes,) * 2}, got {graph.shape}: pass one row "
            "and one column per variable"
        )
    if not np.isin(graph, (0, 1)).all():
        raise ValueError(
            f"expected a graph of 0 and 1, got {graph.tolist()}: graph[i, j] = 1 means i -> j"
        )
    with jax.ensure_compile_time_eval():  # also where a world is made inside jit
        acyclic = bool(is_acyclic(graph))
    if not acyclic:
        raise ValueError(
            f"expected a graph without cycles and self-loops, got {graph.tolist()}: remove "
            "edges until a causal order exists"
        )
