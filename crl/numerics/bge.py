"""The BGe score: the likelihood of a Gaussian network, its parameters integrated out.

Geiger and Heckerman (Annals of Statistics 2002), with the constants of Kuipers, Moffa and
Heckerman (2014): x ~ N(mu, W^-1) given a DAG, with a normal-Wishart prior. It is the same
for DAGs of one Markov equivalence class, and a sum over variables and their parents:

    log p(x_j | pa) = c(p) + (N + a + p) / 2 logdet R_pa - (N + a + p + 1) / 2 logdet R_pa,j

with p parents, a = 2 and R the posterior scatter matrix. Functions take masks, so that
every set of parents has one shape.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from crl.numerics.linalg import dot

# Of the normal-Wishart prior: rows that the mean is worth, and degrees of freedom beyond
# the number of variables. Those of the literature.
_MEAN_ROWS = 1.0
_FREEDOM = 2.0


class Scatter(NamedTuple):
    """What the score needs of rows x (n, d)."""

    matrix: Array  # (d, d) R, prior included
    mean: Array  # (d,) posterior mean
    scale: Array  # () of the prior scatter, t I
    rows: Array  # () n


def scatter(x: Array) -> Scatter:
    """The posterior scatter of x (n, d), whose columns should have unit variance."""
    n, d = x.shape
    mean = jnp.mean(x, 0)
    scale = _MEAN_ROWS * (_FREEDOM - 1) / (_MEAN_ROWS + 1)
    shrunk = n * _MEAN_ROWS / (n + _MEAN_ROWS)  # towards a prior mean of 0
    matrix = scale * jnp.eye(d, dtype=x.dtype) + dot((x - mean).T, x - mean)
    matrix = matrix + shrunk * jnp.outer(mean, mean)
    posterior_mean = n * mean / (n + _MEAN_ROWS)
    return Scatter(
        matrix, posterior_mean, jnp.asarray(scale, x.dtype), jnp.asarray(n, x.dtype)
    )


def local_score(s: Scatter, parents: Array, j: Array) -> Array:
    """log p(x_j | x_pa), (), of all rows in nats; parents (d,) bool, False at j."""
    a, p = _FREEDOM, jnp.sum(parents)
    log_pa, log_rest = _log_dets(s.matrix, parents, j)
    top = s.rows + a + p
    return (
        0.5 * jnp.log(_MEAN_ROWS / (s.rows + _MEAN_ROWS))
        - 0.5 * s.rows * jnp.log(jnp.pi)
        + gammaln((top + 1) / 2)
        - gammaln((a + p + 1) / 2)
        + (a + 2 * p + 1) / 2 * jnp.log(s.scale)
        - log_pa / 2
        - (top + 1) / 2 * log_rest
    )


def local_log_density(s: Scatter, parents: Array, j: Array, x: Array) -> Array:
    """log p(x_j | x_pa, rows), (n,), of new rows x (n, d): the posterior predictive law.

    It is the score of one row more less the score, a Student t.
    """
    top = s.rows + _FREEDOM + jnp.sum(parents)
    both = parents | (jnp.arange(len(parents)) == j)
    _, log_rest = _log_dets(s.matrix, parents, j)
    share = (s.rows + _MEAN_ROWS) / (s.rows + _MEAN_ROWS + 1)
    # As one batch: two batched solves side by side wait for each other's threads for ever
    # where a CPU has two (jaxlib 0.10).
    gain = jax.vmap(_gain, (None, 0, None, None))
    gain_pa, gain_both = gain(s, jnp.stack([parents, both]), x, share)
    return (
        0.5 * jnp.log(share / jnp.pi)
        + gammaln((top + 2) / 2)
        - gammaln((top + 1) / 2)
        - log_rest / 2
        + (top + 1) / 2 * gain_pa
        - (top + 2) / 2 * gain_both
    )


def _gain(s: Scatter, mask: Array, x: Array, share: Array) -> Array:
    """By how much a row of x raises logdet R of the masked variables, (n,)."""
    delta = jnp.where(mask, x - s.mean, 0)  # (n, d)
    return jnp.log1p(
        share * jnp.sum(delta * jnp.linalg.solve(_only(s.matrix, mask), delta.T).T, 1)
    )


def _log_dets(matrix: Array, parents: Array, j: Array) -> tuple[Array, Array]:
    """logdet R_pa and logdet R_pa,j - logdet R_pa, from one Cholesky factor."""
    column = jnp.where(parents, matrix[j], 0)[:, None]  # (d, 1)
    bordered = jnp.block(
        [[_only(matrix, parents), column], [column.T, matrix[j, j][None, None]]]
    )
    log_diagonal = 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(bordered)))
    return jnp.sum(log_diagonal[:-1]), log_diagonal[-1]


def _only(matrix: Array, mask: Array) -> Array:
    """The masked rows and columns of a matrix, those of the identity in place of others."""
    return jnp.where(mask[:, None] & mask, matrix, jnp.eye(len(mask), dtype=matrix.dtype))
