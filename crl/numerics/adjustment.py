"""Which sets of variables give the effect of one variable on another by adjustment."""

import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate
from crl.numerics.graphs import compose, transitive_closure


def is_valid_adjustment(graph: Array, sets: Array) -> Array:
    """Whether adjusting for a set gives the law of x_j under do(x_i): (d, d) bool [i, j].

    graph: (d, d) DAG. sets: (d, d), the set of each i in row i, without i itself. False for
    each j in the set. Sound and complete for all laws of the graph at once: a set may be
    right by accident of the parameters.

    A set is valid where it leaves every directed path i -> ... -> j open and blocks every
    other walk (the adjustment criterion, Shpitser et al. 2010, in the form of Henckel,
    Wuertzen and Weichwald 2024). Walks from all i are followed at once: d^3 operations a
    step, as many steps as the longest walk needs.
    """
    d = graph.shape[0]
    child = graph.astype(bool)
    parent, blocks, away = child.T, sets.astype(bool), ~jnp.eye(d, dtype=bool)

    # Row i: where walks from i that are open given its set, and not directed, have come to
    # along an edge into the variable (down) or out of it (up); causal: directed walks.
    def step(walks):
        up, down, causal = walks
        collides = (down | causal) & blocks
        back = compose((up & ~blocks) | collides, parent)
        on = compose((up | down) & ~blocks, child)
        return (
            (up | back) & away,  # no walk comes back to i
            (down | on) & away,
            (causal | compose(causal & ~blocks, child)) & away,
        )

    def moves(old, new):
        return jnp.any(jnp.stack(old) != jnp.stack(new))

    start = parent & away, jnp.zeros_like(child), child & away
    up, down, _ = iterate(step, start, moves, 2 * d)
    closure = transitive_closure(graph)
    cut = compose(closure & blocks, closure)  # a directed path leads through the set
    return ~(up | down | cut | blocks) & away
