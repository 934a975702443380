"""Invariant risk minimisation: a predictor that no environment wants to rescale.

Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant risk minimization"
(arXiv 1907.02893), the penalty IRMv1 with square loss, R_e the risk in environment e:

    sum_e |d R_e(w f) / dw at w = 1|^2,    d R_e / dw = -2 E_e[(y - f) f].
"""

import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.effects.invariance import penalised
from crl.numerics.linalg import dot


def irm(
    weight: float = 1000.0,
    depth: int = 0,
    width: int = 32,
    num_steps: int = 20_000,
    learning_rate: float = 0.01,
) -> Estimator:
    """Prediction of aux 'y' from x, at its best scale in every environment, by IRMv1.

    weight: of the mean squared slope over environments against the mean risk, y in standard
    deviations; 0 is least squares over equal parts of all environments. May be traced, as
    learning_rate. depth: hidden layers of ``width`` units; 0 for a linear predictor.

    Identified, linear: the coefficients of y's causes, all observed, where its equation is
    the same in every environment but for the variance of its noise, and what it causes
    changes in more environments, in general position, than x has columns: a condition of
    one number an environment. With no more of them than columns that y causes, a predictor
    that uses these satisfies it at less risk (Rosenfeld et al., ICLR 2021); with one
    environment least squares does. Of networks nothing is promised: they satisfy it in more
    ways than one, and a longer fit may lose what a shorter one had.

    Claims y, where linear other 'effect' (m, q), the coefficients, and diag 'penalty', of the
    rows fitted: where it is not small, no such predictor was found. Raises ValueError for
    options out of range and for missing or NaN y.
    """
    return penalised("irm", slopes, weight, depth, width, num_steps, learning_rate)


def slopes(f: Array, y: Array, member: Array) -> Array:
    """The mean over environments of the squared derivative by the scale of f, ()."""
    return jnp.mean(jnp.sum(2 * dot(member.T, (f - y) * f), 1) ** 2)
