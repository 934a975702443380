"""Monotone rational-quadratic splines with linear tails.

Between two knots (x_k, y_k) and (x_k+1, y_k+1) with slopes d_k and d_k+1 the spline is a
ratio of two quadratics: increasing for any increasing knots and positive slopes, once
continuously differentiable, and inverted by the root of one quadratic (Gregory & Delbourgo
1982; Durkan, Bekasov, Murray & Papamakarios, Neural spline flows, NeurIPS 2019, equations
4 to 8). Below the first knot and above the last it goes on as a straight line.

Knots lie on the leading axis, so that what follows runs along memory over all points.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Knots(NamedTuple):
    """Where splines go through, and how steeply; leading axis the K + 1 knots."""

    x: Array  # (K + 1, ...) increasing
    y: Array  # (K + 1, ...) increasing
    slope: Array  # (K + 1, ...) positive


def knots(raw: Array, bound: float, smallest: float = 1e-3) -> Knots:
    """Knots within the box [-bound, bound]^2 from free parameters; zeros give the identity.

    raw: (3 K - 1, ...): logits of the K widths and heights, and the K - 1 inner slopes through
    a softplus. The slope is 1 at both ends, so that the tails are the identity. smallest: of
    slopes, and of widths and heights in units of the mean one.
    """
    num = (raw.shape[0] + 1) // 3
    softplus_one = jnp.log(jnp.expm1(jnp.asarray(1 - smallest, raw.dtype)))
    inner = smallest + jax.nn.softplus(raw[2 * num :] + softplus_one)
    end = jnp.ones_like(raw[:1])
    slope = jnp.concatenate([end, inner, end])

    def positions(logits):
        share = smallest / num + (1 - smallest) * jax.nn.softmax(logits, axis=0)
        inner = bound * (2 * jnp.cumsum(share[:-1], axis=0) - 1)
        return jnp.concatenate([-bound * end, inner, bound * end])

    return Knots(positions(raw[:num]), positions(raw[num : 2 * num]), slope)


def spline(points: Array, through: Knots) -> tuple[Array, Array]:
    """The values of splines at ``points`` (...), and the logarithm of their slopes (...)."""
    x, y, slope = through
    x0, width, y0, height, d0, d1 = _bin(points, x, x, y, slope)
    s = height / width
    # Outside the knots t is 0 or 1, and the line goes on from there.
    inside = jnp.clip(points, x[0], x[-1])
    t = jnp.clip((inside - x0) / width, 0, 1)
    u = t * (1 - t)
    denominator = s + (d0 + d1 - 2 * s) * u
    value = y0 + height * (s * t * t + d0 * u) / denominator
    derivative = s * s * (d1 * t * t + 2 * s * u + d0 * (1 - t) ** 2) / denominator**2
    return value + derivative * (points - inside), jnp.log(derivative)


def inverse_spline(values: Array, through: Knots) -> Array:
    """The points (...) at which splines take ``values`` (...)."""
    x, y, slope = through
    x0, width, y0, height, d0, d1 = _bin(values, y, x, y, slope)
    s = height / width
    inside = jnp.clip(values, y[0], y[-1])
    r = inside - y0
    curvature = d0 + d1 - 2 * s
    a = height * (s - d0) + r * curvature
    b = height * d0 - r * curvature
    c = -s * r
    # The root in [0, 1], in the form that does not cancel.
    root = 2 * c / (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0)))
    tail = jnp.where(values < y[0], slope[0], slope[-1])
    return x0 + jnp.clip(root, 0, 1) * width + (values - inside) / tail


def through_quantiles(sample: Array, num: int, reach: float = 2.5) -> Knots:
    """Knots of splines that make the columns of ``sample`` (n, d) normal, (num + 1, 1, d).

    They map the quantiles of each column to those of the standard normal law, at equal
    distances from -reach to reach. A column of few values gets steep steps between them.
    """
    y = jnp.linspace(-reach, reach, num + 1, dtype=sample.dtype)
    x = jnp.quantile(sample, jax.scipy.stats.norm.cdf(y), axis=0)[:, None]  # (num + 1, 1, d)
    span = jnp.maximum(x[-1] - x[0], jnp.finfo(x.dtype).tiny)
    width = jnp.maximum(jnp.diff(x, axis=0), 1e-4 * span)
    x = jnp.concatenate([x[:1], x[0] + jnp.cumsum(width, axis=0)])
    secant = jnp.log((2 * reach / num) / width)
    inner = jnp.exp((secant[1:] + secant[:-1]) / 2)
    slope = jnp.concatenate([jnp.exp(secant[:1]), inner, jnp.exp(secant[-1:])])
    return Knots(x, jnp.broadcast_to(y[:, None, None], x.shape), slope)


def _bin(points, edges, x, y, slope):
    """Of the bin that each point lies in: corner, width, corner, height and both slopes.

    A sum over bins with one term each: a gather's gradient is a scatter, which is slow. In
    the tails it is the bin at that end.
    """
    above = points >= edges[1:-1]  # (K - 1, ...)
    one = jnp.ones_like(above[:1])
    chosen = jnp.concatenate([one, above]) & ~jnp.concatenate([above, ~one])  # (K, ...)

    def pick(a):
        return jnp.sum(jnp.where(chosen, a, 0), axis=0)

    return (
        pick(x[:-1]),
        pick(x[1:] - x[:-1]),
        pick(y[:-1]),
        pick(y[1:] - y[:-1]),
        pick(slope[:-1]),
        pick(slope[1:]),
    )
