"""What the learners of linear SCMs by descent share: x_j = mean_j + sum_i W[i, j] x_i + z_j.

They minimise a score of the weights W, which sees the rows through their covariance alone,
plus an L1 penalty, where a smooth measure h of the cycles of W * W vanishes. The weights
start at 0; which score, which h and on which path to h = 0 is the method's own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.core import Data, Estimator, PyTree
from crl.numerics import proximal
from crl.numerics.linalg import dot
from crl.scm.linear import Fitted, check_linear, claims
from crl.scm.prior import Prior, graph_above, prior

TOL = 1e-3  # of a minimum, in units of the weights


class Moments(NamedTuple):
    """All that a squared loss sees of the rows, and what is known of the graph."""

    mean: Array  # (d,)
    covariance: Array  # (d, d)
    prior: Prior


class State(NamedTuple):
    """Between two steps on the path."""

    moments: Moments
    weights: Array  # (d, d)
    path: PyTree  # where the method stands on it


def by_descent(
    who: str,
    step: Callable,
    cycles: Callable,
    threshold: float,
    num_steps: int,
    path: Callable = lambda dtype: jnp.zeros((), jnp.int32),
    converged: Callable | None = None,
):
    """The estimator ``who`` of a linear SCM.

    step: (state) -> (state, info). cycles: h, W * W -> (value, gradient). threshold: of the
    weights that stay. path: (dtype) -> where it begins; by default it counts steps.
    """

    def init(key, data):
        del key  # starts at zero
        m = moments(data)
        return State(m, jnp.zeros_like(m.covariance), path(m.covariance.dtype))

    def onwards(key, state, batch):
        del key, batch  # its moments are in the state
        return step(state)

    def finish(key, state, data):
        del key, data
        h, _ = cycles(state.weights**2)
        return pruned(state.moments, state.weights, threshold, {"h": h})

    def validate(data):
        check_linear(who, data)

    return Estimator(init, onwards, claims, num_steps, finish, converged, validate=validate)


def moments(data: Data) -> Moments:
    """Of all rows; environments are pooled."""
    mean = jnp.mean(data.x, 0)
    centred = data.x - mean
    return Moments(mean, dot(centred.T, centred) / len(centred), prior(data))


def unexplained(weights: Array, covariance: Array) -> tuple[Array, Array]:
    """The variance of each noise z = x (I - W), (d,), and half its gradient (d, d) in W."""
    rest = jnp.eye(len(weights), dtype=weights.dtype) - weights
    spread = dot(covariance, rest)
    return jnp.sum(rest * spread, 0), -spread


def minimum(
    smooth: Callable, state: State, penalty: float, max_steps: int
) -> tuple[Array, Array]:
    """The weights (d, d) that minimise smooth(W) + penalty |W|_1 near the last; the value.

    smooth: W -> (value, gradient).
    """
    covariance = state.moments.covariance
    each = penalties(state.moments.prior, penalty, covariance.dtype)
    metric = jnp.ones_like(covariance) / jnp.diagonal(covariance)[:, None]
    point = proximal.minimize(smooth, state.weights, each, metric, TOL, max_steps)
    return point.x, point.value


def penalties(known: Prior, penalty: float, dtype) -> Array:
    """The L1 penalty of each weight (d, d): none if required, inf if it must be 0."""
    return jnp.where(known.allowed, jnp.where(known.required, 0, penalty), jnp.inf).astype(
        dtype
    )


def pruned(m: Moments, weights: Array, threshold: float, diag: dict[str, Array]) -> Fitted:
    """The linear SCM of the weights (d, d) above ``threshold`` in absolute value."""
    graph, order = graph_above(jnp.abs(weights), threshold, m.prior)
    weights = jnp.where(graph, weights, 0)
    return Fitted(m.mean, weights, graph.astype(jnp.int32), order, diag)
