"""Claims to judge a metric or an estimator by: perfect ones, and what knowing nothing says.

Whoever knows nothing of a world can still know what such worlds look like. So its claims
are the truth itself with rows, nodes or coordinates permuted, which keeps the number of
edges, the law of the latents and the angles between atoms; or the best constant: the empty
graph, the mean; or latents that are random linear maps of x, since those of an estimator
that learnt nothing are still made of x. An estimator has learnt something when it beats all.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import MissingClaim, Readout, Sample, Truth, merit
from crl.numerics.graphs import topological_order
from crl.numerics.linalg import dot
from crl.testing.tools import stacked

NUM_GUESSES = 8  # of a kind: one guess at a small graph may be right; eight are not on average


class Scale(NamedTuple):
    """A metric's merit (larger is better) at both ends of what can be claimed."""

    nothing: float  # of the best kind of guess, on average over guesses of a kind
    perfect: float


def scale(metric, sample: Sample, key: Array) -> Scale:
    """Between which merits claims about a sample lie; AssertionError where it cannot tell."""
    try:
        values = _values(metric, sample, jax.random.split(key, NUM_GUESSES))
    except MissingClaim as error:
        raise AssertionError(f"the truth of this world has no answer: {error}") from error
    best, *guesses = (_mean(np.asarray(merit(metric, v), float)) for v in values)
    return Scale(max(guesses), best)


@functools.partial(jax.jit, static_argnums=0)
def _values(metric, sample: Sample, keys: Array) -> list[Array]:
    """What the metric says of each kind of claims, the perfect ones first."""
    perfect = perfect_claims(sample)
    shuffled = jax.vmap(lambda key: permuted(key, perfect))(keys)
    linear = jax.vmap(lambda key, each: encoded(key, each, sample))(keys, shuffled)
    single = [perfect, *constants(sample, perfect)]
    claims = jax.tree.map(lambda *a: jnp.concatenate(a), stacked(single), shuffled, linear)
    values = jax.vmap(metric, in_axes=(0, None))(claims, sample)
    return [*values[:3, None], values[3:-NUM_GUESSES], values[-NUM_GUESSES:]]


def _mean(merits: np.ndarray) -> float:
    """Of those that are defined; the least there is where none is."""
    defined = merits[~np.isnan(merits)]
    return float(np.mean(defined)) if len(defined) else -np.inf


def perfect_claims(sample: Sample) -> Readout:
    """The readout that claims exactly the truth."""
    data, truth = sample
    shared = {f: getattr(truth, f) for f in set(Readout._fields) & set(Truth._fields)}
    shared["x"] = data.x
    if truth.graph is not None:
        shared["order"] = topological_order(truth.graph)
        shared["edge_prob"] = truth.graph.astype(data.x.dtype)
        shared["graph_samples"] = truth.graph[None]
    if truth.mixing is not None:
        shared["unmixing"] = jnp.linalg.pinv(truth.mixing)
    return Readout(**shared)


def permuted(key: Array, claims: Readout) -> Readout:
    """Claims of what such worlds look like, but not of this one."""
    keys = jax.random.split(key, 3)
    order = {}

    def shuffle(a, *axes, kind):
        for axis in axes:
            if (kind, a.shape[axis]) not in order:
                k = jax.random.fold_in(keys[kind], a.shape[axis])
                order[kind, a.shape[axis]] = jax.random.permutation(k, a.shape[axis])
            a = jnp.take(a, order[kind, a.shape[axis]], axis=axis)
        return a

    ROW, NODE, COLUMN = range(3)
    change = {
        **dict.fromkeys(("z", "x", "y", "codes", "counterfactual"), ([0], ROW)),
        **dict.fromkeys(("graph", "edge_prob", "graph_samples"), ([-2, -1], NODE)),
        **dict.fromkeys(("order", "targets"), ([-1], NODE)),
        **dict.fromkeys(("dictionary", "unmixing"), ([-1], COLUMN)),
        "jacobian": ([1], COLUMN),
    }
    found = {
        f: shuffle(getattr(claims, f), *axes, kind=kind)
        for f, (axes, kind) in change.items()
        if getattr(claims, f) is not None
    }
    if claims.log_prob is not None:  # a mean over rows does not see their order
        found["log_prob"] = jnp.full_like(claims.log_prob, jnp.nan)
    if claims.other is not None:
        found["other"] = {
            k: shuffle(v, *range(v.ndim), kind=NODE) for k, v in claims.other.items()
        }
    return claims._replace(**found)


def encoded(key: Array, claims: Readout, sample: Sample) -> Readout:
    """The claims with latents, if any, that are a random linear map of x."""
    if claims.z is None:
        return claims
    x = sample.data.x.reshape(len(sample.data.x), -1)
    weights = jax.random.normal(key, (x.shape[1], claims.z.shape[1]), x.dtype)
    # Orthogonal where that can be: such latents look more like the truth.
    weights = jnp.linalg.qr(weights)[0] if len(weights) >= len(weights.T) else weights
    return claims._replace(z=dot(x, weights))


def constants(sample: Sample, like: Readout) -> tuple[Readout, Readout]:
    """Two claims that hold the same whatever the data: nothing anywhere, all everywhere."""
    x, low, high = sample.data.x, {}, {}
    for field, value in like._asdict().items():
        if value is None or field == "diag":
            continue
        if field in ("x", "y", "counterfactual"):
            low[field] = jnp.broadcast_to(jnp.mean(value, 0), value.shape)
            high[field] = low[field]
        elif field in ("dictionary", "unmixing", "jacobian"):
            one = jnp.eye(*value.shape[-2:], dtype=value.dtype)
            low[field] = high[field] = jnp.broadcast_to(one, value.shape)
        elif field == "order":  # every order is some world's right one
            low[field] = high[field] = value[::-1]
        elif field == "log_prob":
            z = (x - jnp.mean(x, 0)) / jnp.std(x, 0)
            each = jax.scipy.stats.norm.logpdf(z) - jnp.log(jnp.std(x, 0))
            low[field] = high[field] = jnp.sum(each.reshape(len(x), -1), 1)
        else:
            low[field] = jax.tree.map(jnp.zeros_like, value)
            high[field] = jax.tree.map(jnp.ones_like, value)
    if like.counterfactual is not None and like.counterfactual.shape == x.shape:
        high["counterfactual"] = x  # an intervention changes nothing
    return Readout(**low), Readout(**high)
