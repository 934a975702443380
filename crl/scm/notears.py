"""NOTEARS: a linear SCM by least squares over DAGs, as a smooth constraint.

Zheng, Aragam, Ravikumar and Xing, "DAGs with NO TEARS" (NeurIPS 2018): minimise
tr (I - W)' S (I - W) / 2 + penalty |W|_1 subject to tr exp(W * W) = d by the augmented
Lagrangian; weights below a threshold are dropped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.graphs import exponential_cycles
from crl.scm.descent import State, by_descent, minimum, unexplained

PROGRESS = 0.25  # a smaller h than this share of the last one is asked of each step
GROWTH = 10.0  # of rho where it is not
MAX_INNER = 3000  # descents of one step


class Multiplier(NamedTuple):
    """Of the augmented Lagrangian."""

    h: Array  # () tr exp(W * W) - d of the last step that was taken
    alpha: Array  # ()
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

    def step(state):
        weights, loss = minimum(lagrangian(state), state, penalty, MAX_INNER)
        h, _ = exponential_cycles(weights**2)
        last, alpha, rho = state.path
        falls = h <= PROGRESS * last
        path = Multiplier(
            jnp.where(falls, h, last),
            jnp.where(falls, alpha + rho * h, alpha),
            jnp.where(falls, rho, GROWTH * rho),
        )
        weights = jnp.where(falls, weights, state.weights)
        return state._replace(weights=weights, path=path), {"loss": loss, "h": h}

    def path(dtype):
        return Multiplier(*jnp.array([jnp.inf, 0, 1], dtype))

    def converged(state):
        return state.path.h <= h_tol

    return by_descent(who, step, exponential_cycles, threshold, num_steps, path, converged)


def lagrangian(state: State) -> Callable:
    """Half the squares, alpha h + rho h^2 / 2: W -> (value, gradient)."""
    _, alpha, rho = state.path

    def smooth(weights):
        variances, half = unexplained(weights, state.moments.covariance)
        h, slope = exponential_cycles(weights**2)
        value = jnp.sum(variances) / 2 + (alpha + rho * h / 2) * h
        return value, half + (alpha + rho * h) * 2 * weights * slope

    return smooth
