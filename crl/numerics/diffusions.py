"""Stationary laws of stochastic differential equations, exact or at the end of paths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


def spectral_abscissa(a: Array) -> Array:
    """The largest real part of the eigenvalues of a (d, d), to about 1e-5 of its norm.

    f(t) / t with f(t) = log |exp(t a)| at t = 2^20 / |a| by repeated squaring: products only,
    where a general eigenvalue problem runs on few accelerators. Where a is defective, as that
    of an acyclic graph is, exp(t a) grows by a power of t beside the exponential, and squaring
    ends when what it stands on underflows; then f(t) - 2 f(t / 2) + f(t / 4), which no power
    of t moves, tells the rate to about 5e-3.
    """
    num = 20
    norm = jnp.linalg.norm(a)
    unit = a / jnp.where(norm > 0, norm, 1)
    eye = jnp.eye(len(a), dtype=a.dtype)
    exponential = eye
    for k in range(8, 0, -1):  # the Taylor series, to 1 / 9!
        exponential = eye + dot(unit, exponential) / k

    def square(power, _):
        power = dot(power, power)
        size = jnp.linalg.norm(power)
        return power / jnp.where(size > 0, size, 1), size

    first = jnp.linalg.norm(exponential)
    _, size = jax.lax.scan(square, exponential / first, length=num)
    is_sound = jnp.cumprod(size > 1e-15)  # the smallest that counts is next to its square
    growth = jnp.log(jnp.where(is_sound, size, 1))  # f(2 t) - 2 f(t)
    rate = jnp.log(first) + jnp.cumsum(growth / 2.0 ** jnp.arange(1, num + 1))
    last = jnp.sum(is_sound) - 1
    defective = rate[last - 2] + growth[last] / 2.0 ** (last - 1)
    return norm * jnp.where(last == num - 1, rate[-1], defective)


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
