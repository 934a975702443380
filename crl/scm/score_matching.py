"""SCORE: the causal order of a nonlinear additive model with Gaussian noise.

Rolland et al., "Score matching enables causal discovery of nonlinear additive noise models"
(ICML 2022). x_j enters log p through the noise of x_j and through those of its effects. For
a leaf there are no effects: with Gaussian noise d^2 log p / dx_j^2 is the same everywhere,
-1 / variance, and for a variable with a nonlinear effect it is not.
"""

import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.scm.additive import by_leaves, gaussian_kernel, score_slope, squared_distances


def score_matching(ridge: float = 0.01, level: float = 1e-3, num_basis: int = 8) -> Estimator:
    """A nonlinear SCM with additive Gaussian noise by SCORE; closed form.

    ridge: on the diagonal of the kernel matrix of Stein's estimate. level: of the F test
    that keeps an edge, in (0, 1). num_basis: functions of each cause in the regression that
    it tests. ridge and level may be traced. Claims graph and order. Prior knowledge: given
    'required', 'forbidden' and 'tier' (crl.scm.prior). Environments are pooled. Memory n^2,
    time d n^3.

    Identified: the order, when every mechanism is additive, f(x_pa) + z, with z Gaussian and
    f linear in no cause, and all causes are observed. The edges moreover ask that the effect
    of each cause show without the others: f is regressed as a sum over causes. With linear
    mechanisms, or with noise that is not Gaussian (``nogam``), the order is wrong without a
    sign.

    Units say nothing: columns are standardised. In theory the criterion needs no units, a
    leaf's being 0 in all of them; its estimate, in units of x_j^-4, would call leaf what is
    measured in small ones.

    Raises ValueError for no more rows than 1 + num_basis (d - 1), columns that are constant
    or that others determine, and prior knowledge that contradicts itself.
    """

    def cost(z: Array, is_left: Array, num_left: Array) -> Array:
        del num_left
        kernel = gaussian_kernel(squared_distances(z, is_left), ridge)
        return jnp.var(score_slope(z, kernel), 1)

    return by_leaves("score_matching", cost, ridge, level, num_basis)
