"""What the learners of linear SCMs share: x_j = mean_j + sum_i weights[i, j] x_i + z_j."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_variables
from crl.core import Data, Readout
from crl.numerics.entropy import GAUSSIAN, entropy
from crl.numerics.lasso import adaptive_lasso, least_squares
from crl.numerics.linalg import dot
from crl.scm.prior import Prior, check_prior


class Fitted(NamedTuple):
    """A linear SCM."""

    mean: Array  # (d,) of x
    weights: Array  # (d, d) weights[i, j]: effect of i on j
    graph: Array  # (d, d) int32
    order: Array  # (d,) int32, causes first
    diag: dict[str, Array]


def claims(fitted: Fitted, data: Data) -> Readout:
    """The graph, its order, the noises z of rows and other 'weights'."""
    centred = data.x - fitted.mean
    return Readout(
        z=centred - dot(centred, fitted.weights),
        graph=fitted.graph,
        order=fitted.order,
        diag=fitted.diag,
        other={"weights": fitted.weights},
    )


def standardised(x: Array) -> tuple[Array, Array]:
    """Columns of x (n, d) with mean 0 and variance 1, as rows (d, n); their scales (d,)."""
    rows = (x - jnp.mean(x, 0)).T
    scale = jnp.std(rows, 1)
    return rows / scale[:, None], scale


def in_order(x: Array, order: Array, known: Prior, diag: dict[str, Array]) -> Fitted:
    """The linear SCM of x (n, d) with the causal order (d,), pruned.

    To diag it adds second_negentropy, nats: the second smallest of the noises, of which
    LiNGAM asks that it be above 0; about 1 / n for Gaussian ones.
    """
    weights = weights_in_order(x, order, known)
    mean = jnp.mean(x, 0)
    noises, _ = standardised(x - mean - dot(x - mean, weights))
    negentropy = jnp.sort(GAUSSIAN - entropy(noises))[:2][-1]
    graph = ((weights != 0) | known.required).astype(jnp.int32)
    return Fitted(mean, weights, graph, order, {**diag, "second_negentropy": negentropy})


def weights_in_order(x: Array, order: Array, prior: Prior) -> Array:
    """Effects (d, d) of the variables before each in ``order`` (d,), pruned.

    x: (n, d). Regression on all that prior knowledge allows among those before; the adaptive
    lasso with BIC says which stay, beside the required ones; least squares their effects.
    """
    z, scale = standardised(x)
    n = x.shape[0]
    correlation = dot(z, z.T) / n  # (d, d)
    position = jnp.argsort(order)
    mask = prior.allowed & (position[:, None] < position)  # [i, j]: i may cause j

    def of_target(response, mask, required):
        support = adaptive_lasso(correlation, response, mask, n) | required
        return jnp.where(support, least_squares(correlation, response, support), 0)

    effects = jax.vmap(of_target, 1, 1)(correlation, mask, prior.required & mask)
    return effects * scale / scale[:, None]


def check_linear(who: str, data: Data) -> None:
    """Raise a ValueError for data from which no linear SCM can be regressed.

    That is as many columns as rows, constant ones, copies of one another and columns that
    others determine, up to rounding; and prior knowledge that contradicts itself.
    """
    x = np.asarray(data.x)
    n, d = x.shape
    if n <= d:
        raise ValueError(
            f"{who} needs more rows than columns, got x of shape {x.shape}: give more rows or "
            "fewer columns"
        )
    check_variables(who, x)
    eps = np.finfo(x.dtype).eps
    correlation = np.atleast_2d(np.corrcoef(x, rowvar=False, dtype=np.float64))
    if np.linalg.eigvalsh(correlation)[0] <= 4 * d * eps:
        raise ValueError(
            f"{who} needs linearly independent columns, got some that others determine (rank "
            f"{np.linalg.matrix_rank(correlation, 4 * d * eps)} of {d}): drop them"
        )
    check_prior(who, data)
