"""Random causal graphs. ``graph[i, j] = 1`` means i -> j; the causal order is random.

Each returns the graph of one draw, (d, d) int32, always acyclic; columns are in random
order, so that the position of a variable says nothing about its causes.
"""

import jax
import jax.numpy as jnp
from jax import Array


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


def _shuffled(key: Array, graph: Array) -> Array:
    order = jnp.argsort(jax.random.uniform(key, graph.shape[:1], jnp.float32))
    return graph[order][:, order].astype(jnp.int32)
