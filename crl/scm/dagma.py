"""DAGMA: a linear SCM by least squares, along a central path into the DAGs.

Bello, Aragam and Ravikumar, "DAGMA: learning DAGs via M-matrices and a log-determinant
acyclicity characterization" (NeurIPS 2022): minimise

    mu (tr (I - W)' S (I - W) / 2 + penalty |W|_1) + d log s - log det (s I - W * W)

for mu falling to 0, each time from the last solution, by Adam, whose even strides decide
which of the many local minima is found.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.graphs import log_det_cycles
from crl.scm.linear import (
    Moments,
    check_linear,
    claims,
    moments,
    penalties,
    pruned,
    unexplained,
)

BETAS = (0.99, 0.999)  # of Adam
TOL = 1e-6  # relative change of the objective over ``EVERY`` descents that ends a step
EVERY = 300
MAX_DESCENTS = 30_000  # of one step
WIDEST, NARROWEST, NARROWING = 1.0, 0.6, 0.1  # s at the first step, at last, and less a step


class State(NamedTuple):
    """A point of the central path."""

    moments: Moments
    weights: Array  # (d, d)
    time: Array  # () int32, steps done


class Adam(NamedTuple):
    """Descent in one step of the path."""

    weights: Array  # (d, d)
    before: Array  # (d, d) the weights before the last move, which were in the domain
    first: Array  # (d, d) moving average of the gradient
    second: Array  # (d, d) and of its square
    rate: Array  # ()
    count: Array  # () of gradients


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

    def init(key, data):
        del key  # starts at zero
        m = moments(data)
        return State(m, jnp.zeros_like(m.covariance), jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        del key, batch  # its moments are in the state
        mu = decay ** state.time.astype(state.weights.dtype)
        weights, loss = descend(state, mu, penalty, learning_rate)
        h, _ = log_det_cycles(weights**2)
        return State(state.moments, weights, state.time + 1), {"loss": loss, "h": h}

    def finish(key, state, data):
        del key, data
        h, _ = log_det_cycles(state.weights**2)
        return pruned(state.moments, state.weights, threshold, {"h": h})

    return Estimator(
        init,
        step,
        claims,
        num_steps,
        finish,
        validate=lambda data: check_linear(who, data),
    )


def descend(
    state: State, mu: Array, penalty: float, learning_rate: float
) -> tuple[Array, Array]:
    """The next point of the path, (d, d), and its score: half the squares plus the penalty."""
    covariance, dtype = state.moments.covariance, state.weights.dtype
    each = penalties(state.moments.prior, penalty, dtype)
    is_free = jnp.isfinite(each)
    each = jnp.where(is_free, each, 0)
    s = domain(state.weights, state.time)

    def objective(weights):
        variances, half = unexplained(weights, covariance)
        score = jnp.sum(variances) / 2 + jnp.sum(each * jnp.abs(weights))
        h, slope = log_det_cycles(weights**2 / s)
        gradient = mu * (half + each * jnp.sign(weights)) + 2 * weights / s * slope
        return score, h, jnp.where(is_free, gradient, 0)

    def move(_, a):
        _, h, gradient = objective(a.weights)
        count = a.count + 1
        first = BETAS[0] * a.first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * a.second + (1 - BETAS[1]) * gradient**2
        scale = jnp.sqrt(second / (1 - BETAS[1] ** count)) + 1e-8
        weights = a.weights - a.rate * first / (1 - BETAS[0] ** count) / scale
        onwards = Adam(weights, a.weights, first, second, a.rate, count)
        # Half of the last move back, from where h is infinite.
        back = a._replace(weights=(a.weights + a.before) / 2, rate=a.rate / 2)
        return jax.tree.map(lambda x, y: jnp.where(jnp.isfinite(h), x, y), onwards, back)

    def block(carry):
        a, old, _, num = carry
        a = jax.lax.fori_loop(0, EVERY, move, a)
        score, h, _ = objective(a.weights)
        value = mu * score + h
        return a, value, jnp.abs(value - old) > TOL * jnp.abs(old), num + 1

    def goes_on(carry):
        return carry[2] & (carry[3] * EVERY < MAX_DESCENTS)

    zero, w = jnp.zeros_like(state.weights), state.weights
    rate = jnp.asarray(learning_rate, dtype)
    start = Adam(w, w, zero, zero, rate, jnp.zeros((), dtype))
    # A finite value that no objective has: of inf a change has no size.
    far = jnp.asarray(jnp.finfo(dtype).max / 4, dtype)
    adam = jax.lax.while_loop(goes_on, block, (start, far, jnp.array(True), 0))[0]
    return adam.weights, objective(adam.weights)[0]


def domain(weights: Array, time: Array) -> Array:
    """s of a step: that of the paper, or the least larger one in whose domain W lies."""
    dtype = weights.dtype
    least = jnp.maximum(WIDEST - NARROWING * time.astype(dtype), NARROWEST)
    larger = least + NARROWING * jnp.arange(5, dtype=dtype)
    is_inside = jax.vmap(lambda s: jnp.isfinite(log_det_cycles(weights**2 / s)[0]))(larger)
    return larger[jnp.argmax(is_inside)]
