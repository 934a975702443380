"""How well a causal graph is recovered. ``graph[i, j] = 1`` means i -> j.

An estimate may hold both i -> j and j -> i: an edge without orientation, as in a CPDAG.
Against an oriented edge it is wrong, and counts once. Undefined, NaN, are: a precision
without claimed edges, a recall without true ones, an F1 without either, an AUROC where
all pairs are edges or none is.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import rankdata

from crl.core import Readout, Sample, metric, need
from crl.numerics.graphs import order_mask


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
    pairs = np.nonzero(~np.eye(g0.shape[0], dtype=bool))
    score, edge = prob[pairs], g0[pairs] > 0
    num, other = jnp.sum(edge), jnp.sum(~edge)
    rank_sum = jnp.sum(jnp.where(edge, rankdata(score), 0))  # Mann and Whitney's U
    return _ratio(rank_sum - num * (num + 1) / 2, num * other)
