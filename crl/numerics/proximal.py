"""A smooth function plus an L1 penalty, minimised by proximal gradient steps.

Wright, Nowak and Figueiredo, "Sparse reconstruction by separable approximation" (IEEE TSP
2009), monotone: steps of Barzilai and Borwein's length, halved until the objective falls.
Entries become zero exactly, and a region where the function is infinite is never entered.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.numerics.fixed_point import iterate

DECREASE = 1e-2  # share of the predicted decrease that a step must bring
REACH = 0.05  # how far an entry may move in one step


class Point(NamedTuple):
    """Where the iteration stands."""

    x: Array
    value: Array  # () of the objective, penalty included
    grad: Array  # of the smooth part
    length: Array  # () of the next step, in the metric
    residual: Array  # () largest entry of the last step over its length: 0 at a minimum


def minimize(
    smooth: Callable[[Array], tuple[Array, Array]],
    start: Array,
    penalty: Array,
    metric: Array,
    tol: float,
    max_steps: int,
) -> Point:
    """A local minimum of smooth(x) + sum penalty |x|, downhill from ``start``.

    smooth: x -> (value (), gradient); the value is inf outside of its domain, in which the
    start lies. penalty: as x, nonnegative; inf keeps an entry at 0. metric: as x, roughly
    1 / curvature, so that entries move alike. tol: the residual at which it stops, in units
    of x. Steps are short (REACH), so that of several minima it finds the one whose valley
    the start is in.
    """
    eps = jnp.finfo(start.dtype).eps
    is_free = jnp.isfinite(penalty)

    def objective(x):
        value, grad = smooth(x)
        return value + jnp.sum(jnp.where(is_free, penalty * jnp.abs(x), 0)), grad

    def step(p):
        pull = jnp.where(is_free, metric * p.grad, 0)
        length = jnp.minimum(p.length, REACH / jnp.maximum(jnp.max(jnp.abs(pull)), eps))
        raw = p.x - length * pull
        x = jnp.sign(raw) * jnp.maximum(jnp.abs(raw) - length * metric * penalty, 0)
        x = jnp.where(is_free, x, 0)
        value, grad = objective(x)
        move = x - p.x
        square, curvature = jnp.sum(move**2 / metric), jnp.sum(move * (grad - p.grad))
        longer = jnp.where(curvature > 0, square / jnp.maximum(curvature, eps**2), 10 * length)
        slack = 4 * eps * jnp.abs(p.value)  # a difference is known to rounding
        falls = value <= p.value - DECREASE / (2 * length) * square + slack
        return Point(
            jnp.where(falls, x, p.x),
            jnp.where(falls, value, p.value),
            jnp.where(falls, grad, p.grad),
            jnp.where(falls, longer, length / 2),
            jnp.where(falls, jnp.max(jnp.abs(move)) / jnp.minimum(length, 1), jnp.inf),
        )

    def goes_on(_, p):
        return (p.residual > tol) & (p.length > eps**2)

    value, grad = objective(start)
    one = jnp.ones((), start.dtype)
    return iterate(step, Point(start, value, grad, one, one * jnp.inf), goes_on, max_steps)
