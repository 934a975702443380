"""Linear SCMs from the precisions of three environments, in closed form.

The proof of Montagna (arXiv 2510.13583) that two auxiliary environments are enough, for
linear mechanisms: x = B x + s, with noises s of variance sd_ei^2 in environment e, has the
precision (I - B)' diag(sd_e^-2) (I - B). Differences to the base are Hessians of log density
ratios (crl.scm.hessians), and their generalised eigenvectors hold B.
"""

import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Data, Estimator
from crl.scm.hessians import (
    check_auxiliary,
    environment_moments,
    graph_of,
    quadratic_hessians,
    slopes,
)
from crl.scm.linear import Fitted, claims

# Standard errors above 0. Noises that so many tell apart are mixed up by about their inverse.
_CLEARLY = 8.0


def precision_ratio(threshold: float = 0.15) -> Estimator:
    """A linear SCM from a base and at least two auxiliary environments; closed form.

    threshold: an edge is a weight above it in absolute value, in standard deviations of its
    ends in the base environment; may be traced. Weights that close a cycle with stronger
    ones are dropped.

    Claims graph, order, z, other 'weights', and diag: ``identified``, whether the three
    conditions of the theorem hold by a clear margin, no ``complex_pairs`` and a
    ``ratio_gap`` and ``least_change`` (crl.scm.hessians) above 8 sqrt(2 / n), n the rows of
    the smallest environment; ``num_envs``. Read it before the graph, which is claimed
    regardless. Identified, whatever the law of the noises and their means: graph and
    weights of a linear acyclic SCM, the same in all environments, without hidden causes,
    where one environment changes the variance of every noise and the changes of precision
    of no two noises are proportional over the environments. So it is not where all variances
    grow alike, nor where one environment's changes are a multiple of the other's.

    Errors of the weights fall with 1 / sqrt(n), and grow as the ratios of changes come close,
    which they do among many variables. What it does not use: a linear SCM follows from two
    environments alone, from the precisions themselves rather than their differences. On
    nonlinear mechanisms the precisions describe no Hessian, and more rows do not mend it.

    Raises ValueError for fewer than 3 environments, environments of no more rows than
    columns, columns that are constant or dependent in one, and what ``direct_lingam`` refuses.
    """
    check_options("precision_ratio", nonnegative={"threshold": threshold})

    def init(key, data):
        del key  # closed form
        scale = jnp.std(data.x, 0)
        _, covariance = environment_moments(data._replace(x=data.x / scale))
        found = slopes(quadratic_hessians(covariance), covariance[0])
        sd = jnp.sqrt(jnp.diagonal(covariance[0]))
        graph, order = graph_of(found.weights, sd, threshold)
        weights = jnp.where(graph > 0, found.weights, 0) * scale / scale[:, None]
        diag = found.diag | {"identified": is_identified(found.diag, data)}
        return Fitted(jnp.mean(data.x, 0), weights, graph, order, diag)

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def validate(data):
        check_auxiliary("precision_ratio", data)

    return Estimator(init, step, claims, 0, validate=validate)


def is_identified(diag: dict[str, Array], data: Data) -> Array:
    """() bool: what the theorem asks for stands above the errors of rows drawn at random."""
    # The standard error of a log variance, and about that of a change as a share.
    error = jnp.sqrt(2 / jnp.min(data.given["count"]).astype(data.x.dtype))
    least = jnp.minimum(diag["ratio_gap"], diag["least_change"])
    return (diag["complex_pairs"] == 0) & (least > _CLEARLY * error)
