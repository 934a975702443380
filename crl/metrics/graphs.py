"""How well a causal graph is recovered. ``graph[i, j] = 1`` means i -> j.

An estimate may hold both i -> j and j -> i: an edge without orientation, as in a CPDAG.
Against an oriented edge it is wrong, and counts once. Undefined, NaN, are: a precision
without claimed edges, a recall without true ones, an F1 without either, an AUROC where
all pairs are edges or none is, an average precision without edges; a structural
intervention distance unless both graphs are DAGs, an adjustment identification distance
where a claimed arrow lies on a cycle.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import rankdata

from crl.core import Readout, Sample, metric, need
from crl.numerics.adjustment import is_valid_adjustment
from crl.numerics.fixed_point import iterate
from crl.numerics.graphs import compose, cpdag, is_acyclic, order_mask, transitive_closure


def _graphs(claims: Readout, sample: Sample, who: str) -> tuple[Array, Array]:
    """The claimed and the true graph, (d, d) bool."""
    g, g0 = (need(record, "graph", who) for record in (claims, sample.truth))
    return g.astype(bool), g0.astype(bool)


def _off_diagonal(graph: Array) -> Array:
    return graph & ~jnp.eye(graph.shape[0], dtype=bool)


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.maximum(b, 1), jnp.nan)


@metric(best=0.0)
def shd(claims: Readout, sample: Sample) -> Array:
    """Structural Hamming distance: the number of pairs of variables joined wrongly.

    A missing, an extra and a reversed edge count 1 each. Tsamardinos et al. 2006, on DAGs.
    """
    g, g0 = _graphs(claims, sample, "shd")
    differ = _off_diagonal(g != g0)
    return jnp.sum(jnp.triu(differ | differ.T))


@metric(best=0.0)
def shd_double(claims: Readout, sample: Sample) -> Array:
    """The distance that counts a reversed edge twice, as one missing and one extra."""
    g, g0 = _graphs(claims, sample, "shd_double")
    return jnp.sum(_off_diagonal(g != g0))


@metric(best=0.0)
def skeleton_shd(claims: Readout, sample: Sample) -> Array:
    """The number of pairs joined in one graph only, orientations ignored."""
    g, g0 = _graphs(claims, sample, "skeleton_shd")
    return jnp.sum(jnp.triu((g | g.T) != (g0 | g0.T), 1))


@metric(best=0.0)
def cpdag_shd(claims: Readout, sample: Sample) -> Array:
    """``shd`` between the Markov equivalence classes of the claimed and the true graph.

    What data from one environment can say of a linear Gaussian SCM. The claim is a DAG or
    a CPDAG; each pair of variables that is joined otherwise counts 1.
    """
    g, g0 = _graphs(claims, sample, "cpdag_shd")
    differ = cpdag(g) != cpdag(g0)
    return jnp.sum(jnp.triu(differ | differ.T, 1))


@metric(best=0.0)
def sid(claims: Readout, sample: Sample) -> Array:
    """Structural intervention distance: the number of effects that are read off wrongly.

    Of the d (d - 1) ordered pairs, those for which adjusting for the claimed parents of i
    does not give the true law of x_j under do(x_i): where j is a claimed parent, that x_i
    has no effect. 0 for every DAG that contains the true one: an edge too many costs
    nothing. NaN unless both graphs are DAGs. Peters and Buehlmann 2015.
    """
    g, g0 = _graphs(claims, sample, "sid")
    wrong = jnp.where(g.T, transitive_closure(g0), ~is_valid_adjustment(g0, g.T))
    defined = is_acyclic(g) & is_acyclic(g0)
    return jnp.where(defined, jnp.sum(_off_diagonal(wrong)).astype(float), jnp.nan)


@metric(best=0.0)
def ancestor_aid(claims: Readout, sample: Sample) -> Array:
    """Ancestor adjustment identification distance: the share of effects read off wrongly.

    Of the d (d - 1) ordered pairs, those where the claim says wrongly that x_i has no effect
    on x_j, j no possible descendant of i; where it leaves open what the effect is, the
    claim being a CPDAG; and else where adjusting for the claimed ancestors of i does not
    give the true law of x_j under do(x_i). In [0, 1]; the empty graph scores the share of
    ancestral pairs. Unlike ``sid`` it judges the order rather than the edges: ancestors stay
    valid where edges between them are wrong. Henckel, Wuertzen and Weichwald, UAI 2024.
    """
    g, g0 = _graphs(claims, sample, "ancestor_aid")
    d, reach = len(g), transitive_closure(g)
    arrow = g & ~g.T
    ancestors = _off_diagonal(transitive_closure(arrow)).T
    effect, valid = transitive_closure(g0), is_valid_adjustment(g0, ancestors)
    wrong = jnp.where(reach, _left_open(g) | ~valid, effect)
    share = jnp.sum(_off_diagonal(wrong)) / max(1, d * (d - 1))
    # Neither a DAG nor a CPDAG has an arrow on a cycle.
    defined = is_acyclic(g0) & ~jnp.any(arrow & reach.T) & ~jnp.any(jnp.diagonal(g))
    return jnp.where(defined, share, jnp.nan)


def _left_open(g: Array) -> Array:
    """Whether j may be reached from i, not through i, by a path that begins with i - k."""
    away = ~jnp.eye(len(g), dtype=bool)
    start = g & g.T & away

    def moves(old, new):
        return jnp.any(old != new)

    return iterate(lambda open_: (open_ | compose(open_, g)) & away, start, moves, len(g))


def _edge_counts(claims: Readout, sample: Sample, who: str) -> tuple[Array, Array, Array]:
    """The number of directed edges that are right, that are claimed, that are true."""
    g, g0 = (_off_diagonal(graph) for graph in _graphs(claims, sample, who))
    return jnp.sum(g & g0), jnp.sum(g), jnp.sum(g0)


@metric(best=1.0)
def edge_precision(claims: Readout, sample: Sample) -> Array:
    """The share of claimed directed edges that are true, in [0, 1].

    An edge without orientation counts as two claims, of which one is right at best.
    """
    right, claimed, _ = _edge_counts(claims, sample, "edge_precision")
    return _ratio(right, claimed)


@metric(best=1.0)
def no_false_edge(claims: Readout, sample: Sample) -> Array:
    """1 where every claimed directed edge is true, also where none is claimed; else 0.

    Its mean over worlds is the coverage that invariant causal prediction promises.
    """
    right, claimed, _ = _edge_counts(claims, sample, "no_false_edge")
    return (right == claimed).astype(jnp.float32)


@metric(best=1.0)
def edge_recall(claims: Readout, sample: Sample) -> Array:
    """The share of true directed edges that are claimed, in [0, 1]."""
    right, _, true = _edge_counts(claims, sample, "edge_recall")
    return _ratio(right, true)


@metric(best=1.0)
def edge_f1(claims: Readout, sample: Sample) -> Array:
    """The harmonic mean of ``edge_precision`` and ``edge_recall``, in [0, 1]."""
    right, claimed, true = _edge_counts(claims, sample, "edge_f1")
    return _ratio(2 * right, claimed + true)


@metric(best=0.0)
def order_divergence(claims: Readout, sample: Sample) -> Array:
    """The number of true edges that run against the claimed causal order.

    0 means that pruning alone could still find the graph. Rolland et al. 2022.
    """
    order = need(claims, "order", "order_divergence")
    g0 = need(sample.truth, "graph", "order_divergence").astype(bool)
    return jnp.sum(g0 & ~order_mask(order))


@metric(best=1.0)
def edge_auroc(claims: Readout, sample: Sample) -> Array:
    """Area under the ROC curve of edge_prob over ordered pairs: the chance that a true
    edge has a higher probability than a pair that is none, ties at one half."""
    prob = need(claims, "edge_prob", "edge_auroc")
    g0 = need(sample.truth, "graph", "edge_auroc")
    score, edge = _pairs(prob), _pairs(g0) > 0
    num, other = jnp.sum(edge), jnp.sum(~edge)
    rank_sum = jnp.sum(jnp.where(edge, rankdata(score), 0))  # Mann and Whitney's U
    return _ratio(rank_sum - num * (num + 1) / 2, num * other)


@metric(best=1.0)
def edge_auprc(claims: Readout, sample: Sample) -> Array:
    """Average precision of edge_prob over ordered pairs; see ``average_precision``.

    Unlike ``edge_auroc`` it does not praise a sparse guess for the many pairs that are none:
    knowing nothing scores the share of edges among all pairs.
    """
    prob = need(claims, "edge_prob", "edge_auprc")
    return average_precision(prob, need(sample.truth, "graph", "edge_auprc"))


def average_precision(score: Array, graph: Array) -> Array:
    """The mean, over the edges of graph, of the share of edges among the pairs (d, d) that
    score as high or higher. NaN without edges."""
    score, edge = _pairs(score), _pairs(graph) > 0
    # Of edges, and of all pairs, how many score at least as high as each.
    hits = jnp.sum(edge) - jnp.searchsorted(jnp.sort(jnp.where(edge, score, jnp.inf)), score)
    claimed = len(score) - jnp.searchsorted(jnp.sort(score), score)
    precision = jnp.where(edge, hits / claimed, 0)
    return _ratio(jnp.sum(precision), jnp.sum(edge))


def _pairs(a: Array) -> Array:
    """The entries of a (d, d) off the diagonal, (d (d - 1),)."""
    return a[np.nonzero(~np.eye(len(a), dtype=bool))]
