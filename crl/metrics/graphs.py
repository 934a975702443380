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

from crl.core import Readout, Truth, need
from crl.numerics.graphs import order_mask


def _pair(readout: Readout, truth: Truth, who: str) -> tuple[Array, Array]:
    return need(readout, "graph", who).astype(bool), need(truth, "graph", who).astype(bool)


def _off_diagonal(graph: Array) -> Array:
    return graph & ~jnp.eye(graph.shape[0], dtype=bool)


def shd(readout: Readout, truth: Truth) -> Array:
    """Structural Hamming distance: the number of pairs of variables joined wrongly.

    A missing, an extra and a reversed edge count 1 each. Tsamardinos et al. 2006, on DAGs.
    """
    g, g0 = _pair(readout, truth, "shd")
    differ = _off_diagonal(g != g0)
    return jnp.sum(jnp.triu(differ | differ.T))


def shd_double(readout: Readout, truth: Truth) -> Array:
    """The distance that counts a reversed edge twice, as one missing and one extra."""
    g, g0 = _pair(readout, truth, "shd_double")
    return jnp.sum(_off_diagonal(g != g0))


def skeleton_shd(readout: Readout, truth: Truth) -> Array:
    """The number of pairs joined in one graph only, orientations ignored."""
    g, g0 = _pair(readout, truth, "skeleton_shd")
    return jnp.sum(jnp.triu((g | g.T) != (g0 | g0.T), 1))


def edge_scores(readout: Readout, truth: Truth) -> dict[str, Array]:
    """precision, recall and f1 of the directed edges, in [0, 1]; see above for NaN.

    An edge without orientation counts as two claims, of which one is right at best.
    """
    g, g0 = (_off_diagonal(a) for a in _pair(readout, truth, "edge_scores"))
    hit, claimed, true = jnp.sum(g & g0), jnp.sum(g), jnp.sum(g0)
    return {
        "precision": _ratio(hit, claimed),
        "recall": _ratio(hit, true),
        "f1": _ratio(2 * hit, claimed + true),
    }


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b > 0, a / jnp.maximum(b, 1), jnp.nan)


def order_divergence(readout: Readout, truth: Truth) -> Array:
    """The number of true edges that run against the claimed causal order.

    0 means that pruning alone could still find the graph. Rolland et al. 2022.
    """
    order = need(readout, "order", "order_divergence")
    g0 = need(truth, "graph", "order_divergence").astype(bool)
    return jnp.sum(g0 & ~order_mask(order))


def edge_auroc(readout: Readout, truth: Truth) -> Array:
    """Area under the ROC curve of edge_prob over ordered pairs: the chance that a true
    edge has a higher probability than a pair that is none, ties at one half."""
    prob = need(readout, "edge_prob", "edge_auroc")
    g0 = need(truth, "graph", "edge_auroc")
    pairs = np.nonzero(~np.eye(g0.shape[0], dtype=bool))
    score, edge = prob[pairs], g0[pairs] > 0
    num, other = jnp.sum(edge), jnp.sum(~edge)
    rank_sum = jnp.sum(jnp.where(edge, rankdata(score), 0))  # Mann and Whitney's U
    return _ratio(rank_sum - num * (num + 1) / 2, num * other)
