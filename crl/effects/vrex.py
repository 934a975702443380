"""Risk extrapolation: a predictor with the same risk in every environment.

Krueger, Caballero, Jacobsen, Zhang, Binas, Zhang, Le Priol and Courville, "Out-of-
distribution generalization via risk extrapolation" (ICML 2021), V-REx: mean risk plus the
variance of the risks R_e over environments.
"""

import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.effects.invariance import penalised, risks


def vrex(
    weight: float = 1000.0,
    depth: int = 0,
    width: int = 32,
    num_steps: int = 20_000,
    learning_rate: float = 0.01,
) -> Estimator:
    """Prediction of aux 'y' from x with equal risk in every environment, by V-REx.

    weight: of the variance of the risks against their mean, y in standard deviations; 0 is
    least squares over equal parts of all environments. May be traced, as learning_rate.
    depth: hidden layers of ``width`` units; 0 for a linear predictor.

    Identified: as for ``irm``, from one environment more, and only where y's noise has the
    same variance in all: elsewhere its causes predict it better here than there, and what
    evens that out is not invariant. With one environment it is least squares.

    Claims y, where linear other 'effect' (m, q), the coefficients, and diag 'penalty', of the
    rows fitted: where it is not small, no such predictor was found. Raises ValueError for
    options out of range and for missing or NaN y.
    """
    return penalised("vrex", variance, weight, depth, width, num_steps, learning_rate)


def variance(f: Array, y: Array, member: Array) -> Array:
    """Of the risks over environments, ()."""
    return jnp.var(risks(f, y, member))
