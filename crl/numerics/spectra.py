"""What the spectrum of a general matrix says of its powers, by products alone."""

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


def spectral_radius(a: Array) -> Array:
    """The largest absolute value of an eigenvalue of a (m, m): lim |A^k|^(1 / k)."""
    squarings = 20

    def square(_, carry):
        a, log_size = carry
        size = jnp.linalg.norm(a)
        a = a / size
        return dot(a, a), 2 * (log_size + jnp.log(size))

    a, log_size = jax.lax.fori_loop(0, squarings, square, (a, jnp.zeros((), a.dtype)))
    return jnp.exp((log_size + jnp.log(jnp.linalg.norm(a))) / 2**squarings)
