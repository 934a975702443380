"""Graph algebra on adjacency matrices, jit-compiled and vmappable.

Convention everywhere: ``graph[i, j] = 1`` means i -> j.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate
from crl.numerics.linalg import dot


def transitive_closure(graph: Array) -> Array:
    """Which variables can be reached: closure[i, j] = 1 when a path i -> ... -> j exists.

    graph: (d, d) 0/1. Returns (d, d) bool; the diagonal is True on cycles only.
    """
    d = graph.shape[0]
    reach = graph.astype(bool)
    for _ in range(max(1, (d - 1).bit_length())):  # paths of length 1, 2, 4, ...
        reach = reach | compose(reach, reach)
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
    return compose(graph.astype(bool), closure)


def cpdag(graph: Array) -> Array:
    """The Markov equivalence class of a DAG: (d, d) bool, both [i, j] and [j, i] for i - j.

    An edge keeps its orientation where every DAG with the same skeleton and the same
    v-structures has it: the v-structures, and what Meek's rules 1 to 3 (1995) orient from
    them. The CPDAG of a CPDAG is itself.
    """
    d = graph.shape[0]
    edge = graph.astype(bool)
    joined = edge | edge.T
    apart = ~joined & ~jnp.eye(d, dtype=bool)
    arrow = edge & ~edge.T
    # i -> j of a v-structure i -> j <- k, with i and k apart.
    collider = arrow & compose(apart, arrow)

    def orient(arrow):
        line = joined & ~arrow & ~arrow.T
        away = compose(arrow.T, apart)  # rule 1: k -> i - j with k and j apart
        ahead = compose(arrow, arrow)  # rule 2: i -> k -> j
        # Rule 3: i - k -> j <- l - i with k and l apart.
        through = line[:, :, None] & arrow[None]  # (i, k, j)
        between = compose(apart[None], through)
        fork = jnp.any(through & between, 1)
        return arrow | (line & (away | ahead | fork))

    def moves(old, new):
        return jnp.any(old != new)

    arrow = iterate(orient, collider, moves, d * d)
    return joined & ~(arrow.T & ~arrow)


def strongest_dag(score: Array) -> Array:
    """The edges with score (d, d) > 0, strongest first, but those that close a cycle.

    (d, d) bool; all of them where they form no cycle.
    """
    d = score.shape[0]
    node = jnp.arange(d)

    def add(carry, edge):
        graph, reach = carry  # reach[i, j]: there is a path from i to j
        i, j = edge // d, edge % d
        is_added = (score[i, j] > 0) & (i != j) & ~reach[j, i]
        before, after = reach[:, i] | (node == i), reach[j] | (node == j)
        reach = reach | (is_added & before[:, None] & after)
        return (graph.at[i, j].set(is_added), reach), None

    none = jnp.zeros((d, d), bool)
    return jax.lax.scan(add, (none, none), jnp.argsort(-score.ravel()))[0][0]


# --- how far nonnegative weights are from a DAG: 0 if and only if no cycle has weight --------


def cycles(a: Array) -> Array:
    """tr (I + A / d)^d - d of a (d, d) >= 0 (Yu et al. 2019).

    With the probabilities of independent edges the expected number of simple cycles of a
    random graph is their number in A: nothing needs to be sampled.
    """
    d = a.shape[-1]
    power = jnp.linalg.matrix_power(jnp.eye(d, dtype=a.dtype) + a / d, d)
    return jnp.trace(power) - d


def exponential_cycles(a: Array) -> tuple[Array, Array]:
    """tr e^A - d of a (d, d) >= 0, and its gradient (d, d) (Zheng et al. 2018).

    e^A - I by squaring, in sums of nonnegative terms alone: where the value is 1e-8, single
    precision still has it to six digits.
    """
    squarings, order = 8, 6
    part = a / 2**squarings
    power = part
    for k in range(order, 1, -1):  # Taylor's series of e^part - I
        power = part + dot(part, power) / k
    for _ in range(squarings):
        power = 2 * power + dot(power, power)
    return jnp.trace(power), power.T + jnp.eye(len(a), dtype=a.dtype)


def log_det_cycles(a: Array) -> tuple[Array, Array]:
    """-log det (I - A) of a (d, d) >= 0, and its gradient (d, d) (Bello et al. 2022).

    Finite where the spectral radius is below 1, inf elsewhere. By elimination in sums of
    nonnegative terms (Kleene's algorithm): as precise as ``exponential_cycles``.
    """

    def eliminate(k, carry):
        paths, value = carry  # paths[i, j]: sum of weights of paths through variables < k
        pivot = paths[k, k]
        value = jnp.where(pivot < 1, value - jnp.log1p(-pivot), jnp.inf)
        return paths + paths[:, k, None] * (paths[k] / (1 - pivot)), value

    zero = jnp.zeros((), a.dtype)
    paths, value = jax.lax.fori_loop(0, len(a), eliminate, (a, zero))
    return value, paths.T + jnp.eye(len(a), dtype=a.dtype)


def compose(a: Array, b: Array) -> Array:
    """The product of two relations (..., d, d): [i, j] where a[i, k] and b[k, j] for a k."""
    # Counts up to d are exact in float32, and a float product is a GEMM on every device.
    return dot(a.astype(jnp.float32), b.astype(jnp.float32)) > 0.5
