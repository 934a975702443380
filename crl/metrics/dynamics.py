"""How well a dynamical system is recovered, and the laws that it has under interventions.

``weights`` (d, d), in ``other`` of claims and truth, are signed strengths of i -> j.
``draws`` (E, s, p) are independent rows from the law of each environment of the sample.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.numerics.linalg import dot

NUM_DIRECTIONS = 64


@metric(best=0.0)
def weight_error(claims: Readout, sample: Sample) -> Array:
    """|W claimed - W| / |W|, Frobenius norms off the diagonal; claiming nothing scores 1.

    Undefined, NaN, where no variable affects another.
    """
    w = need(claims, "weights", "weight_error")
    w0 = need(sample.truth, "weights", "weight_error")
    off = 1 - jnp.eye(len(w0), dtype=w0.dtype)
    size = jnp.linalg.norm(off * w0)
    return jnp.where(size > 0, jnp.linalg.norm(off * (w - w0)) / size, jnp.nan)


@metric(best=1.0)
def weight_auprc(claims: Readout, sample: Sample) -> Array:
    """Average precision of |weights| as scores of the directed edges, cycles allowed.

    The mean, over true edges, of the share of true edges among the pairs that score as
    high or higher; knowing nothing scores the share of true edges among all pairs.
    Undefined, NaN, without edges.
    """
    weights = need(claims, "weights", "weight_auprc")
    graph = need(sample.truth, "graph", "weight_auprc")
    pairs = np.nonzero(~np.eye(len(graph), dtype=bool))
    score, edge = jnp.abs(weights[pairs]), graph[pairs] > 0  # (d (d - 1),)
    # Of edges, and of all pairs, how many score at least as high as each.
    hits = jnp.sum(edge) - jnp.searchsorted(jnp.sort(jnp.where(edge, score, jnp.inf)), score)
    claimed = len(score) - jnp.searchsorted(jnp.sort(score), score)
    precision = jnp.where(edge, hits / claimed, 0)
    return jnp.sum(precision) / jnp.sum(edge)


@metric(best=0.0)
def sliced_w2(claims: Readout, sample: Sample) -> Array:
    """Distance of the claimed laws from the rows, mean over the environments that intervene.

    Sliced Wasserstein-2: the root mean square, over directions and quantiles, of the
    difference of the projections' quantiles, in units of the rows' rms standard deviation.
    Two samples of one law are some way apart: see ``sliced_w2_to_floor``. All environments
    count where none intervenes.
    """
    return _mean_distance(need(claims, "draws", "sliced_w2"), sample)


@metric(best=1.0)
def sliced_w2_to_floor(claims: Readout, sample: Sample) -> Array:
    """``sliced_w2`` over what fresh rows of the true laws score: 1 is as good as the truth.

    Truth.other['draws'] are those rows; they should be as many as those claimed.
    """
    draws = need(claims, "draws", "sliced_w2_to_floor")
    floor = need(sample.truth, "draws", "sliced_w2_to_floor")
    return _mean_distance(draws, sample) / _mean_distance(floor, sample)


def _mean_distance(draws: Array, sample: Sample) -> Array:
    """The mean over environments of sliced W2 between draws (E, s, p) and their rows."""
    x, env, given = sample.data.x, sample.data.env, sample.data.given
    # Fixed directions: a metric is a function of claims and sample alone.
    p = x.shape[1]
    directions = np.random.default_rng(0).standard_normal((p, NUM_DIRECTIONS))
    directions = jnp.asarray(directions / np.linalg.norm(directions, axis=0), x.dtype)
    projected = dot(x, directions)  # (n, k)

    def distance(args):
        e, count, drawn = args
        own = (env == e)[:, None]
        mean = jnp.sum(jnp.where(own, x, 0), 0) / count
        variance = jnp.sum(jnp.where(own, (x - mean) ** 2, 0), 0) / count
        # The rows of other environments go last; those of this one are read at s quantiles.
        rows = jnp.sort(jnp.where(own, projected, jnp.inf), 0)
        level = (np.arange(len(drawn)) + 0.5) / len(drawn)
        index = jnp.minimum(jnp.asarray(level, x.dtype) * count, count - 1).astype(jnp.int32)
        gap = jnp.sort(dot(drawn, directions), 0) - rows[index]  # (s, k)
        return jnp.sqrt(jnp.mean(gap**2) / jnp.mean(variance))

    environments = jnp.arange(len(draws), dtype=env.dtype)
    distances = jax.lax.map(distance, (environments, given["count"], draws))  # (E,)
    target = given.get("target", jnp.zeros((len(draws), p)))
    intervenes = jnp.any(target > 0, 1)
    counts = jnp.where(jnp.any(intervenes), intervenes, True)
    return jnp.sum(jnp.where(counts, distances, 0)) / jnp.sum(counts)
