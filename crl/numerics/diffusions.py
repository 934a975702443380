"""Stationary laws of stochastic differential equations, exact or at the end of paths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


def lyapunov(a: Array, q: Array) -> Array:
    """The symmetric X (d, d) with a X + X a' + q = 0, for stable a (d, d) and symmetric q.

    Smith's iteration, doubled: the Cayley transform c of a makes it X = c X c' + r, whose
    series is summed 2^k terms at a time. Not finite where a is far from stable.
    """
    h = 1 / jnp.linalg.norm(a)
    eye = jnp.eye(a.shape[0], dtype=a.dtype)
    inverse = jnp.linalg.inv(eye - h * a)
    c = dot(inverse, eye + h * a)
    r = 2 * h * dot(dot(inverse, q), inverse.T)

    def double(carry, _):
        x, c = carry
        return (x + dot(dot(c, x), c.T), dot(c, c)), None

    (x, _), _ = jax.lax.scan(double, (r, c), length=20)
    return (x + x.T) / 2


def simulate(
    key: Array,
    force: Callable[[Array], Array],
    leak: Array,
    noise: Array,
    start: Array,
    num_steps: int,
    dt: Array,
) -> Array:
    """The end points (n, d) of paths of dx = (force(x) - leak x) dt + sqrt(noise) dW.

    force: (n, d) -> (n, d). noise: (d,) variance per unit of time. start: (n, d). The leak
    and the noise are integrated exactly, the force by Heun's rule, of second order for the
    law of x: time steps of .1 / leak will do for forces with slopes of order 1.
    """
    decay = jnp.exp(-leak * dt)
    gain = (1 - decay) / leak
    sd = jnp.sqrt(noise * (1 - decay**2) / (2 * leak))

    def step(x, key):
        f = force(x)
        kick = decay * x + sd * jax.random.normal(key, x.shape, x.dtype)
        ahead = kick + gain * f
        return kick + gain * (f + force(ahead)) / 2, None

    x, _ = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    return x
