"""NoGAM: the causal order of a nonlinear additive model, whatever the law of the noise.

Montagna et al., "Causal discovery with score matching on additive models with arbitrary
noise" (CLeaR 2023). Of a leaf the score s_j = d log p / dx_j is a function of its noise
alone, and its noise is what regression on all others leaves of it. Of other variables s_j
depends on the noises of their effects as well.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.scm.additive import (
    by_leaves,
    gaussian_kernel,
    left_out_error,
    score,
    squared_distances,
)


def nogam(
    ridge: float = 0.01, shrinkage: float = 0.1, level: float = 1e-3, num_basis: int = 8
) -> Estimator:
    """A nonlinear SCM with additive noise by NoGAM; closed form.

    shrinkage: the ridge of both kernel regressions, of a variable on the others and of its
    score on what that leaves; their errors are those of leaving each row out in turn. It may
    be traced. ridge, level, num_basis, claims, prior knowledge, errors: as for
    ``score_matching``; time d^2 n^3.

    Identified: as there, the order and the edges, for additive noise of any law with a
    smooth density. Not for linear mechanisms with Gaussian noise.
    """
    check_options("nogam", positive={"shrinkage": shrinkage})

    def cost(z: Array, is_left: Array, num_left: Array) -> Array:
        squared = squared_distances(z, is_left)
        s = score(z, gaussian_kernel(squared, ridge))  # (d, n)
        left = jnp.argsort(~is_left)  # those that are left first

        def fill(k, errors):
            j = left[k]
            error = score_error(z[j], s[j] - jnp.mean(s[j]), squared, shrinkage)
            return errors.at[j].set(error)

        return jax.lax.fori_loop(0, num_left, fill, jnp.zeros(len(z), z.dtype))

    return by_leaves("nogam", cost, ridge, level, num_basis)


def score_error(z: Array, s: Array, squared: Array, shrinkage: float) -> Array:
    """The mean squared error of s (n,) by what the other variables do not explain of z (n,).

    squared: (n, n) distances between rows, of all variables left and this one.
    """
    others = squared - (z[:, None] - z) ** 2
    noise = left_out_error(gaussian_kernel(others, shrinkage), z)
    kernel = gaussian_kernel((noise[:, None] - noise) ** 2, shrinkage)
    return jnp.mean(left_out_error(kernel, s) ** 2)
