"""Graph algebra on adjacency matrices, jit-compiled and vmappable.

Convention everywhere: ``graph[i, j] = 1`` means i -> j.
"""

import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


def transitive_closure(graph: Array) -> Array:
    """Which variables can be reached: closure[i, j] = 1 when a path i -> ... -> j exists.

    graph: (d, d) 0/1. Returns (d, d) bool; the diagonal is True on cycles only.
    """
    d = graph.shape[0]
    reach = graph.astype(bool)
    for _ in range(max(1, (d - 1).bit_length())):  # paths of length 1, 2, 4, ...
        reach = reach | _compose(reach, reach)
    return reach


def is_acyclic(graph: Array) -> Array:
    """Whether a (d, d) graph is a DAG, () bool."""
    return ~jnp.any(jnp.diagonal(transitive_closure(graph)))


def topological_order(graph: Array) -> Array:
    """A causal order of a DAG, causes first, (d,) int32. Meaningless for a cyclic graph.

    An ancestor has strictly fewer ancestors than its descendant, so counting them sorts.
    """
    return jnp.argsort(jnp.sum(transitive_closure(graph), axis=0)).astype(jnp.int32)


def order_mask(order: Array) -> Array:
    """The edges that an order allows: mask[i, j] is True when i comes before j.

    order: (d,) permutation, causes first. Returns (d, d) bool.
    """
    position = jnp.argsort(order)
    return position[:, None] < position[None, :]


def indirect_paths(graph: Array, closure: Array) -> Array:
    """Paths of length two or more: (d, d) bool, given the transitive closure of graph.

    Reversing the edge i -> j of a DAG keeps it acyclic exactly where this is False.
    """
    return _compose(graph.astype(bool), closure)


def _compose(a: Array, b: Array) -> Array:
    # Counts up to d are exact in float32, and a float product is a GEMM on every device.
    return dot(a.astype(jnp.float32), b.astype(jnp.float32)) > 0.5
