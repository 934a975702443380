"""The adaptive lasso along its whole path, with the point that BIC prefers.

Zou, "The adaptive lasso and its oracle properties" (JASA 2006); the path by the homotopy of
Osborne, Presnell and Turlach (2000), which is LARS with removals (Efron et al. 2004). Works
on correlations alone, so that rows cost nothing, and vmaps over targets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate
from crl.numerics.linalg import dot


class Knot(NamedTuple):
    """A point of the path at which a variable enters or leaves."""

    penalty: Array  # () decreasing to 0
    coefficients: Array  # (d,)
    sign: Array  # (d,) of those that move, 0 for the others
    has_left: Array  # (d,) bool, at this knot
    best: Array  # () the lowest score so far
    support: Array  # (d,) bool, the variables that it has


def least_squares(correlation: Array, response: Array, mask: Array) -> Array:
    """Coefficients (d,) of the variables in ``mask`` (d,), 0 for the others.

    correlation: (d, d) of all variables. response: (d,), of each with the target.
    """
    inside = mask[:, None] & mask
    eye = jnp.eye(len(mask), dtype=correlation.dtype)
    factor = jnp.linalg.cholesky(jnp.where(inside, correlation, eye))
    return jax.scipy.linalg.cho_solve((factor, True), jnp.where(mask, response, 0))


def adaptive_lasso(correlation: Array, response: Array, mask: Array, n: int) -> Array:
    """The variables with an effect on a target, (d,) bool, among those in ``mask`` (d,).

    correlation, response: as in ``least_squares``, from n rows, so that the penalty of each
    coefficient is over the absolute value of its least squares estimate. Of the models on
    the path the one of lowest BIC, with the noise's variance from least squares.
    """
    d, eps = len(mask), jnp.finfo(correlation.dtype).eps
    full = least_squares(correlation, response, mask)
    weight = jnp.abs(full)
    unexplained = jnp.maximum(1 - dot(response, full), eps)
    noise = unexplained * n / jnp.maximum(n - jnp.sum(mask) - 1, 1)

    def score(coefficients, support):
        gap = coefficients - full
        excess = dot(gap, dot(correlation, gap))  # of the residual variance
        return n * excess / noise + jnp.log(n) * jnp.sum(support)

    def step(knot):
        moving = knot.sign != 0
        slope = jnp.where(moving, knot.sign / jnp.where(weight > 0, weight, 1), 0)
        pace = least_squares(correlation, slope, moving)
        # As the penalty falls by t, coefficients grow by t pace and the weighted correlation
        # of the residual with a variable falls by t fall; where it meets the penalty, the
        # variable enters.
        pull = weight * (response - dot(correlation, knot.coefficients))
        fall = weight * dot(correlation, pace)
        is_candidate = mask & ~moving & ~knot.has_left

        def meets(distance, speed):
            time = jnp.maximum(distance, 0) / jnp.where(speed > eps, speed, 1)
            return jnp.where(is_candidate & (speed > eps), time, jnp.inf)

        above = meets(knot.penalty - pull, 1 - fall)
        below = meets(knot.penalty + pull, 1 + fall)
        enters = jnp.minimum(above, below)
        is_shrinking = moving & (knot.coefficients * pace < 0)
        leaves = jnp.where(is_shrinking, -knot.coefficients / pace, jnp.inf)
        time = jnp.minimum(jnp.minimum(jnp.min(enters), jnp.min(leaves)), knot.penalty)

        has_left = leaves <= time
        coefficients = jnp.where(has_left, 0, knot.coefficients + time * pace)
        value = score(coefficients, moving & ~has_left)
        new = jnp.where(above <= below, 1, -1).astype(knot.sign.dtype)
        sign = jnp.where(enters <= time, new, jnp.where(has_left, 0, knot.sign))
        is_better = value < knot.best
        support = jnp.where(is_better, moving & ~has_left, knot.support)
        best = jnp.minimum(value, knot.best)
        return Knot(knot.penalty - time, coefficients, sign, has_left, best, support)

    none, zero = jnp.zeros(d, bool), jnp.zeros(d, correlation.dtype)
    pull = jnp.where(mask, weight * response, 0)
    first = jnp.argmax(jnp.abs(pull))
    sign = zero.at[first].set(jnp.sign(pull[first]))
    start = Knot(jnp.abs(pull[first]), zero, sign, none, score(zero, none), none)
    return iterate(step, start, lambda _, knot: knot.penalty > 0, 4 * d).support
