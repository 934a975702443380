"""The Gaussian kernel as an average over random cosines, with the derivatives of each.

k(x, y) = exp(-|x - y|^2 / (2 bw^2)) is E h(x) h(y) for h(x) = sqrt(2) cos(w'x + phi), w from
N(0, I / bw^2) and phi from U(0, 2 pi) (Rahimi and Recht 2007). For a linear operator A, the
double mean E_x E_y A_x A_y k(x, y) is then the mean of (E A h)^2 over features, whose cost
is linear in the number of rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


class Fourier(NamedTuple):
    """m random features: k(x, y) is about the mean over j of h_j(x) h_j(y)."""

    frequency: Array  # (m, d) w
    phase: Array  # (m,) phi


def gaussian_features(
    key: Array, num_features: int, num_dims: int, bandwidth: Array, dtype=jnp.float32
) -> Fourier:
    """Features of the Gaussian kernel; bandwidth: its standard deviation, in units of x."""
    key_frequency, key_phase = jax.random.split(key)
    w = jax.random.normal(key_frequency, (num_features, num_dims), dtype) / bandwidth
    return Fourier(w, jax.random.uniform(key_phase, (num_features,), dtype, 0, 2 * jnp.pi))


def values(features: Fourier, x: Array) -> Array:
    """h_j(x_i) (n, m) for rows x (n, d)."""
    angle = dot(x, features.frequency.T) + features.phase
    return 2**0.5 * jnp.cos(angle)


def slopes(features: Fourier, x: Array) -> Array:
    """h_j'(x_i) (n, m) along the angle: grad h_j(x) = slope w_j; Hessian: -h_j(x) w_j w_j'."""
    angle = dot(x, features.frequency.T) + features.phase
    return -(2**0.5) * jnp.sin(angle)
