"""Whether rows come from a normal law."""

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.groups import centred, group_means
from crl.numerics.linalg import dot


def jarque_bera(x: Array, member: Array) -> tuple[Array, Array]:
    """Skewness and excess kurtosis of columns x (n, d) within environments, member (n, E).

    Returns the size of the deviation (d,), skewness^2 / 6 + excess^2 / 24 as a mean over
    environments, and its p-value (d,), asymptotic in the rows of each (Jarque & Bera 1987).
    """
    x = centred(x, member)
    var, third, fourth = (group_means(x**k, member) for k in (2, 3, 4))  # (E, d)
    size = third**2 / var**3 / 6 + (fourth / var**2 - 3) ** 2 / 24
    statistic = dot(jnp.sum(member, 0), size)
    p_value = jax.scipy.special.gammaincc(1.0 * len(size), statistic / 2)
    return jnp.mean(size, 0), p_value.astype(x.dtype)
