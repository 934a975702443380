"""Moments of rows within the groups, such as environments, to which they belong.

x: (n,) or (n, d). member: (n, E), 1 where a row belongs to a group, 0 elsewhere; no group is
empty.
"""

import jax.numpy as jnp
from jax import Array

from crl.numerics.linalg import dot


def group_means(x: Array, member: Array) -> Array:
    """The mean of x in each group, (E,) or (E, d)."""
    total = dot(member.T, x)
    count = jnp.sum(member, 0)
    return total / count.reshape(-1, *[1] * (x.ndim - 1))


def centred(x: Array, member: Array) -> Array:
    """x less the mean of its group."""
    return x - dot(member, group_means(x, member))


def standardised(x: Array, member: Array) -> tuple[Array, Array]:
    """x with mean 0 and variance 1 in each group, and its standard deviations there.

    What is constant in a group, or nearly so (variance 1e-9), stays near 0.
    """
    x = centred(x, member)
    sd = jnp.sqrt(group_means(x**2, member) + 1e-9)
    return x / dot(member, sd), sd
