"""How well a dynamical system is recovered, and the laws that it has under interventions.

``weights`` (d, d), in ``other`` of claims and truth, are signed strengths of i -> j.
``draws`` (E, s, p) are independent rows from the law of each environment of the sample.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.metrics.graphs import average_precision
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

    Knowing nothing scores the share of true edges among all pairs. Undefined, NaN, without
    edges.
    """
    weights = need(claims, "weights", "weight_auprc")
    return average_precision(jnp.abs(weights), need(sample.truth, "graph", "weight_auprc"))


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


@metric(best=0.0)
def mmd(claims: Readout, sample: Sample) -> Array:
    """Maximum mean discrepancy of the claimed laws from the rows, over the same environments.

    The root of mean k(y, y') + mean k(x, x') - 2 mean k(x, y) over draws y and rows x, with
    a Gaussian kernel whose bandwidth is their median distance; in [0, sqrt 2]. Each
    environment's s draws are compared with s of its rows, evenly spaced; s draws of the true
    law are about s^(-1/2) away. Gretton et al. 2012.
    """
    draws = need(claims, "draws", "mmd")
    x, count = sample.data.x, sample.data.given["count"]
    level = (np.arange(draws.shape[1]) + 0.5) / draws.shape[1]

    def distance(args):
        start, count, drawn = args
        index = jnp.minimum(jnp.asarray(level, x.dtype) * count, count - 1)
        return _mmd(drawn, x[start + index.astype(jnp.int32)])

    distances = jax.lax.map(distance, (jnp.cumsum(count) - count, count, draws))  # (E,)
    return _mean_intervened(distances, sample)


def _mmd(a: Array, b: Array) -> Array:
    """The discrepancy between two samples (s, p)."""
    both = jnp.concatenate([a, b])
    both = both - jnp.mean(both, 0)
    norms = jnp.sum(both**2, 1)
    square = jnp.maximum(norms[:, None] + norms - 2 * dot(both, both.T), 0)  # (2 s, 2 s)
    bandwidth = jnp.median(square[np.triu_indices(len(both), 1)])
    kernel = jnp.exp(-square / (2 * bandwidth))
    sign = np.repeat([1, -1], len(a))
    total = jnp.sum(kernel * (sign[:, None] * sign)) / len(a) ** 2
    return jnp.sqrt(jnp.maximum(total, 0))


def _mean_distance(draws: Array, sample: Sample) -> Array:
    """The mean over environments of sliced W2 between draws (E, s, p) and their rows."""
    x, env = sample.data.x, sample.data.env
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

    count = sample.data.given["count"]
    environments = jnp.arange(len(draws), dtype=env.dtype)
    distances = jax.lax.map(distance, (environments, count, draws))  # (E,)
    return _mean_intervened(distances, sample)


def _mean_intervened(distances: Array, sample: Sample) -> Array:
    """The mean (E,) -> () over the environments that intervene; over all where none does."""
    target = sample.data.given.get("target", jnp.zeros((len(distances), 1)))
    intervenes = jnp.any(target > 0, 1)
    counts = jnp.where(jnp.any(intervenes), intervenes, True)
    return jnp.sum(jnp.where(counts, distances, 0)) / jnp.sum(counts)
