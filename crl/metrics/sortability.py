"""How much of the causal order the scales of the variables give away.

They judge a world with its data, not a claim: rankings of methods flip with them. 1: sorting
the variables by the score alone finds a causal order; 1/2: the score says nothing; 0: it
runs against the order. All rows count, whatever their environment. Undefined, NaN, without
edges.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.numerics.graphs import compose
from crl.numerics.linalg import column_norms

_TIE = 1e-5  # relative: columns of equal variance, in float32


@metric(best=None)
def varsortability(claims: Readout, sample: Sample) -> Array:
    """The share of directed paths along which the variance increases, in [0, 1].

    Near 1 in raw simulated data, where least squares with a penalty on edges (NOTEARS and
    its kin) then sorts by variance; chance on standardised data. Reisach et al. 2021.
    """
    del claims
    graph = _observed_graph(sample, "varsortability")
    norms, is_constant = column_norms(sample.data.x)
    return _sortability(graph, jnp.log(jnp.where(is_constant, jnp.nan, norms)))


@metric(best=None)
def r2_sortability(claims: Readout, sample: Sample) -> Array:
    """The share of directed paths along which the variables' R^2 increases, in [0, 1].

    R^2 of a variable is the share of its variance that a linear regression on all others
    explains; no rescaling of columns removes it. NaN where n <= d. Reisach et al. 2023.
    """
    del claims
    graph = _observed_graph(sample, "r2_sortability")
    return _sortability(graph, jnp.log(_inflation(sample.data.x)))


def _observed_graph(sample: Sample, who: str) -> Array:
    graph, d = need(sample.truth, "graph", who), sample.data.x.shape[1]
    if len(graph) != d:
        raise ValueError(
            f"{who} expected a graph over the {d} columns of x, got one over {len(graph)} "
            "variables: it judges worlds whose variables are observed"
        )
    return graph


def _inflation(x: Array) -> Array:
    """1 / (1 - R^2) of each column of x (n, d) on the others, (d,); NaN where undefined."""
    n, d = x.shape
    if n <= d:
        return jnp.full((d,), jnp.nan, x.dtype)
    norms, is_constant = column_norms(x)
    unit = (x - jnp.mean(x, 0)) / jnp.where(is_constant, jnp.nan, norms)
    # The diagonal of the inverse correlation matrix, by QR: near collinear columns the
    # correlations themselves would lose twice the digits.
    r = jnp.linalg.qr(unit, mode="r")
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(d, dtype=x.dtype))
    return jnp.sum(inverse**2, 1)


def _sortability(graph: Array, score: Array) -> Array:
    """The share of directed paths i -> ... -> j with score_i < score_j, ties at one half.

    score: logarithms. A pair counts once for every length at which a path joins it.
    """
    edge = graph.astype(bool)
    gap = score[None, :] - score[:, None]
    right = ((gap > _TIE).astype(score.dtype) + (gap >= -_TIE)) / 2

    def lengthen(paths, _):
        return compose(paths, edge), (jnp.sum(paths), jnp.sum(paths * right))

    _, (num, num_right) = jax.lax.scan(lengthen, edge, length=max(1, len(edge) - 1))
    share = jnp.sum(num_right) / jnp.sum(num)
    return jnp.where(jnp.all(jnp.isfinite(score)), share, jnp.nan)
