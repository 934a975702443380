"""DAGMA: a linear SCM by least squares, along a central path into the DAGs.

Bello, Aragam and Ravikumar, "DAGMA: learning DAGs via M-matrices and a log-determinant
acyclicity characterization" (NeurIPS 2022): minimise

    mu (tr (I - W)' S (I - W) / 2 + penalty |W|_1) + d log s - log det (s I - W * W)

for mu falling to 0, each time from the last solution, by Adam, whose even strides decide
which of the many local minima is found.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.adam import minimize
from crl.numerics.graphs import log_det_cycles
from crl.scm.descent import State, by_descent, penalties, unexplained

TOL = 1e-6  # relative change of the objective over ``EVERY`` descents that ends a step
EVERY = 300
MAX_DESCENTS = 30_000  # of one step
WIDEST, NARROWEST, NARROWING = 1.0, 0.6, 0.1  # s at the first step, at last, and less a step


def dagma(
    penalty: float = 0.03,
    threshold: float = 0.3,
    decay: float = 0.1,
    learning_rate: float = 0.001,
    num_steps: int = 5,
) -> Estimator:
    """A linear SCM with noises of equal variance, by DAGMA.

    penalty: of the absolute weights, in units of x^2. threshold: weights below it are
    dropped; then the weakest of every cycle. decay: of mu, 1 at the first step, from step to
    step. learning_rate: of Adam, halved where it would leave the domain of h. num_steps: of
    the central path. Floats may be traced. Prior knowledge: given 'required' (not penalised,
    never dropped), 'forbidden' and 'tier' (crl.scm.prior).

    Claims graph, order, z, other 'weights', and diag h, at s = 1 before edges are dropped:
    where it is not small, raise num_steps. Identified: as for ``notears``, the graph of a
    linear SCM whose noises have equal variances, in the units in which x comes; standardised
    columns take away what it reads the order from. Raises ValueError for options out of
    range and for what ``direct_lingam`` refuses.
    """
    who = "dagma"
    check_options(
        who,
        at_least_one={"num_steps": num_steps},
        positive={"decay": decay, "learning_rate": learning_rate},
        nonnegative={"penalty": penalty, "threshold": threshold},
    )

    def step(state):
        mu = decay ** state.path.astype(state.weights.dtype)
        weights, loss = descend(state, mu, penalty, learning_rate)
        h, _ = log_det_cycles(weights**2)
        return state._replace(weights=weights, path=state.path + 1), {"loss": loss, "h": h}

    return by_descent(who, step, log_det_cycles, threshold, num_steps)


def descend(
    state: State, mu: Array, penalty: float, learning_rate: float
) -> tuple[Array, Array]:
    """The next point of the path, (d, d), and its score: half the squares plus the penalty."""
    m, dtype = state.moments, state.weights.dtype
    each = penalties(m.prior, penalty, dtype)
    is_free = jnp.isfinite(each)
    each = jnp.where(is_free, each, 0)
    s = domain(state.weights, state.path)

    def score(weights):
        variances, half = unexplained(weights, m.covariance)
        value = jnp.sum(variances) / 2 + jnp.sum(each * jnp.abs(weights))
        return value, half + each * jnp.sign(weights)

    def objective(weights):
        (value, gradient), (h, slope) = score(weights), log_det_cycles(weights**2 / s)
        gradient = mu * gradient + 2 * weights / s * slope
        return mu * value + h, jnp.where(is_free, gradient, 0)

    rate = jnp.asarray(learning_rate, dtype)
    weights = minimize(objective, state.weights, rate, TOL, EVERY, MAX_DESCENTS)
    return weights, score(weights)[0]


def domain(weights: Array, time: Array) -> Array:
    """s of a step: that of the paper, or the least larger one in whose domain W lies."""
    dtype = weights.dtype
    least = jnp.maximum(WIDEST - NARROWING * time.astype(dtype), NARROWEST)
    larger = least + NARROWING * jnp.arange(5, dtype=dtype)
    is_inside = jax.vmap(lambda s: jnp.isfinite(log_det_cycles(weights**2 / s)[0]))(larger)
    return larger[jnp.argmax(is_inside)]
