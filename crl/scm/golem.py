"""GOLEM: a linear Gaussian SCM by its likelihood, with soft penalties for edges and cycles.

Ng, Ghassami and Zhang, "On the role of sparsity and DAG constraints for learning linear
DAGs" (NeurIPS 2020): minus the log-likelihood of x = x W + z, with its log |det (I - W)|,
needs no hard constraint where the noises have equal variances.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.graphs import exponential_cycles
from crl.numerics.proximal import minimize
from crl.scm.linear import (
    Moments,
    check_linear,
    claims,
    moments,
    penalties,
    pruned,
    unexplained,
)

TOL = 1e-3  # of the minimum, in units of the weights
MAX_INNER = 10_000
EQUAL_PENALTY = 0.02  # of the start of a fit with variances of their own, as in the paper


class State(NamedTuple):
    """The weights, and which likelihood they minimise next."""

    moments: Moments
    weights: Array  # (d, d)
    time: Array  # () int32, steps done


def golem(
    equal_variances: bool = True,
    penalty: float | None = None,
    cycle_penalty: float = 5.0,
    threshold: float = 0.3,
) -> Estimator:
    """A linear Gaussian SCM by penalised likelihood, GOLEM-EV or GOLEM-NV.

    equal_variances: whether the noises have one variance; if not, the fit with one is where
    it starts. penalty: of the absolute weights, nats; None: the paper's, .02 and .002.
    cycle_penalty: of tr exp(W * W) - d. threshold: weights below it are dropped; then the
    weakest of every cycle. Floats may be traced. Prior knowledge: given 'required' (not
    penalised, never dropped), 'forbidden' and 'tier' (crl.scm.prior).

    Claims graph, order, z, other 'weights', and diag h, of cycles before edges are dropped.
    Identified: with equal variances the graph, in the units in which x comes, as for
    ``notears``; on columns brought to the same variance that assumption is wrong, and so is
    the graph. With variances of their own the Markov equivalence class alone, and the
    search, which starts from equal ones, often misses it. Raises ValueError for options out
    of range and for what ``direct_lingam`` refuses.
    """
    who = "golem"
    if penalty is None:
        penalty = EQUAL_PENALTY if equal_variances else 0.002
    check_options(
        who,
        nonnegative={
            "penalty": penalty,
            "cycle_penalty": cycle_penalty,
            "threshold": threshold,
        },
    )

    def init(key, data):
        del key  # starts at zero
        m = moments(data)
        return State(m, jnp.zeros_like(m.covariance), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        del key, batch  # its moments are in the state
        is_equal = jnp.asarray(equal_variances) | (state.time == 0)
        first = penalty if equal_variances else EQUAL_PENALTY
        each = jnp.where(state.time == 0, first, penalty)
        weights, loss = descend(state, is_equal, each, cycle_penalty)
        return State(state.moments, weights, state.time + 1), {"loss": loss}

    def finish(key, state, data):
        del key, data
        h, _ = exponential_cycles(state.weights**2)
        return pruned(state.moments, state.weights, threshold, {"h": h})

    return Estimator(
        init,
        step,
        claims,
        1 if equal_variances else 2,
        finish,
        validate=lambda data: check_linear(who, data),
    )


def descend(
    state: State, is_equal: Array, penalty: Array, cycle_penalty: float
) -> tuple[Array, Array]:
    """A minimum (d, d) of the penalised likelihood near the present weights; its value."""
    covariance = state.moments.covariance
    d = len(covariance)

    def smooth(weights):
        variances, half = unexplained(weights, covariance)
        total = jnp.sum(variances)
        fit = jnp.where(is_equal, d * jnp.log(total), jnp.sum(jnp.log(variances))) / 2
        slope = half * jnp.where(is_equal, d / total, 1 / variances)
        rest = jnp.eye(d, dtype=weights.dtype) - weights
        log_det, inverse = jnp.linalg.slogdet(rest)[1], jnp.linalg.inv(rest)
        h, turn = exponential_cycles(weights**2)
        value = fit - log_det + cycle_penalty * h
        slope = slope + inverse.T + cycle_penalty * 2 * weights * turn
        return jnp.where(jnp.isfinite(value), value, jnp.inf), slope

    each = penalties(state.moments.prior, penalty, covariance.dtype)
    metric = jnp.ones_like(covariance) / jnp.diagonal(covariance)[:, None]
    point = minimize(smooth, state.weights, each, metric, TOL, MAX_INNER)
    return point.x, point.value
