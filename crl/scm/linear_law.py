"""Linear laws with additive noise, x = b'c + s, of one variable given its parents.

The flexible maps of crl.scm.monotone predict as well against the direction of cause as along
it, where no change of the noise tells them apart, whatever the noise. Under a linear law with
independent noise s, here a mixture of Gaussians in each environment, the direction is
identified wherever the noise is not Gaussian (Shimizu et al., JMLR 2006); that s is
independent of c can be tested.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics import mixtures
from crl.numerics.independence import independence
from crl.numerics.linalg import dot
from crl.numerics.mixtures import Mixture
from crl.numerics.normality import jarque_bera
from crl.scm.monotone import Basis, Columns, Law, better, solve, solve_mixture

_GAUSSIAN_LEVEL = 0.05  # from this p-value on no mixture is tried


class LinearFit(NamedTuple):
    """A linear law, and whether its noise passes for independent of the parents."""

    law: Law
    loss: Array  # (n,) leave-one-out, in nats of standardised x
    p_value: Array  # () of the test, over all parents; 1 without any


def fit_linear(
    basis: Basis, columns: Columns, env: Array, node: Array, parents: Array, num_envs: int
) -> LinearFit:
    """Fit the linear law of variable ``node`` given ``parents``, (c,) int32 padded with d."""
    z, member = columns.z, jax.nn.one_hot(env, num_envs, dtype=columns.z.dtype)
    theta, loss, noise = solve_linear(columns, node, parents, member)
    num = 2 + basis.centre.shape[1]
    weight = jnp.zeros((basis.landmarks.shape[0], num), theta.dtype)
    constant = jnp.zeros(num, theta.dtype).at[:2].set(theta[jnp.array([0, -1])])
    law = Law(parents, weight, constant, theta[1:-1], noise)
    s = theta[0] + z[:, node] * theta[-1]
    s = s + dot(jnp.take(z, parents, axis=1, mode="fill", fill_value=0), theta[1:-1])
    s = mixtures.normal_score(noise, s, member)
    p_value = jax.vmap(lambda j: independence(s, columns.u[:, j], member))(parents)
    filled = parents < z.shape[1]
    p_value = jnp.min(jnp.where(filled, p_value, 1)) * jnp.maximum(jnp.sum(filled), 1)
    return LinearFit(law, loss, jnp.minimum(p_value, 1))


def solve_linear(
    columns: Columns, node: Array, parents: Array, member: Array
) -> tuple[Array, Array, Mixture]:
    """s = theta (1, c, x): parameters (2 + c,), leave-one-out losses (n,), law of s."""
    z = columns.z
    one = jnp.ones((len(z), 1), z.dtype)
    x_pa = jnp.take(z, parents, axis=1, mode="fill", fill_value=0)
    phi = jnp.concatenate([one, x_pa, z[:, node, None]], 1)
    ridge = jnp.full(phi.shape[1], 1e-3, z.dtype).at[1:-1].set(0.1)
    start = jnp.zeros_like(ridge).at[-1].set(1)
    theta, loss, *gaussian = solve(phi, one, ridge, member, start)
    fit = theta, loss, mixtures.normal(*gaussian)
    _, p_value = jarque_bera(dot(phi, theta)[:, None], member)
    return jax.lax.cond(
        p_value[0] > _GAUSSIAN_LEVEL,
        lambda: fit,
        lambda: better(fit, solve_mixture(phi, one, ridge, member, theta), 0.0),
    )
