"""NOTEARS: a linear SCM by least squares over DAGs, as a smooth constraint.

Zheng, Aragam, Ravikumar and Xing, "DAGs with NO TEARS" (NeurIPS 2018): minimise
tr (I - W)' S (I - W) / 2 + penalty |W|_1 subject to tr exp(W * W) = d by the augmented
Lagrangian; weights below a threshold are dropped.
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

PROGRESS = 0.25  # a smaller h than this share of the last one is asked of each step
GROWTH = 10.0  # of rho where it is not
MAX_INNER = 3000  # descents of one step
TOL = 1e-3  # of the inner minimum, in units of the weights


class State(NamedTuple):
    """Between two steps of the augmented Lagrangian."""

    moments: Moments
    weights: Array  # (d, d)
    h: Array  # () tr exp(W * W) - d
    multiplier: Array  # () alpha
    rho: Array  # ()


def notears(
    penalty: float = 0.1,
    threshold: float = 0.3,
    h_tol: float = 1e-6,
    num_steps: int = 40,
) -> Estimator:
    """A linear SCM with noises of equal variance, by NOTEARS.

    penalty: of the absolute weights, in units of x^2. threshold: weights below it are
    dropped; then the weakest of every cycle. h_tol: a step with tr exp(W * W) - d below it
    is the last. num_steps: of the augmented Lagrangian, each a whole descent; a step whose h
    does not fall to a quarter is taken again with ten times its weight. Floats may be traced.
    Prior knowledge: given 'required' (not penalised, never dropped), 'forbidden', 'tier'
    (crl.scm.prior).

    Claims graph, order, z, other 'weights', and diag h, before edges are dropped. Identified:
    the graph of a linear SCM whose noises all have the same variance, in the units in which
    x comes (Loh and Buhlmann 2014). It reads the order from variances, which grow along edges
    there: on columns brought to the same variance it does no better than chance orientation
    (Reisach et al. 2021). The problem has many local minima, of which others find others.

    Raises ValueError for options out of range and for what ``direct_lingam`` refuses.
    """
    who = "notears"
    check_options(
        who,
        at_least_one={"num_steps": num_steps},
        positive={"h_tol": h_tol},
        nonnegative={"penalty": penalty, "threshold": threshold},
    )

    def init(key, data):
        del key  # starts at zero
        m = moments(data)
        weights = jnp.zeros_like(m.covariance)
        one = jnp.ones((), weights.dtype)
        return State(m, weights, jnp.inf * one, 0 * one, one)

    def step(key, state, batch):
        del key, batch  # its moments are in the state
        weights, loss = descend(state, penalty)
        h, _ = exponential_cycles(weights**2)
        falls = h <= PROGRESS * state.h
        new = state._replace(
            weights=jnp.where(falls, weights, state.weights),
            h=jnp.where(falls, h, state.h),
            multiplier=jnp.where(falls, state.multiplier + state.rho * h, state.multiplier),
            rho=jnp.where(falls, state.rho, GROWTH * state.rho),
        )
        return new, {"loss": loss, "h": h}

    def converged(state):
        return state.h <= h_tol

    def finish(key, state, data):
        del key, data
        return pruned(state.moments, state.weights, threshold, {"h": state.h})

    return Estimator(
        init,
        step,
        claims,
        num_steps,
        finish,
        converged,
        validate=lambda data: check_linear(who, data),
    )


def descend(state: State, penalty: float) -> tuple[Array, Array]:
    """A minimum (d, d) of the augmented Lagrangian near the last one, and its value."""
    covariance = state.moments.covariance

    def smooth(weights):
        variances, half = unexplained(weights, covariance)
        h, slope = exponential_cycles(weights**2)
        value = jnp.sum(variances) / 2 + (state.multiplier + state.rho * h / 2) * h
        return value, half + (state.multiplier + state.rho * h) * 2 * weights * slope

    each = penalties(state.moments.prior, penalty, covariance.dtype)
    metric = jnp.ones_like(covariance) / jnp.diagonal(covariance)[:, None]
    point = minimize(smooth, state.weights, each, metric, TOL, MAX_INNER)
    return point.x, point.value
