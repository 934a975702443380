"""Whether two columns are independent within groups of rows."""

import jax.numpy as jnp
import jax.scipy.special as special
from jax import Array

from crl.numerics.groups import standardised
from crl.numerics.linalg import dot


def independence(s: Array, c: Array, member: Array) -> Array:
    """p-value of a test that s (n,) is independent of c (n,) within every environment.

    s and c are about standard normal; n times the squared correlations of s, s^2 and |s|
    with c, c^2 and |c|, what is common to a square and a size counted once, summed over the
    environments: chi-squared with nine degrees of freedom for each of them, a few less
    where s has been fitted to c.
    """

    def standard(a):
        return standardised(a, member)[0]

    def functions(a):
        a = standard(a)
        # cov(|a|, a^2) / var(a^2) = .4 under the normal law.
        return standard(a), standard(a**2), standard(jnp.abs(a) - 0.4 * a**2)

    products = jnp.stack([a * b for a in functions(s) for b in functions(c)])  # (9, n)
    statistic = jnp.sum(dot(products, member) ** 2 / jnp.sum(member, 0))
    return special.gammaincc(4.5 * member.shape[1], statistic / 2).astype(s.dtype)
