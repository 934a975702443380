"""How well a pointwise statistic of the latents is recovered, where they are not."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.metrics.latents import linear_r2, mean_correlation


@metric(best=1.0)
def affine_r2_abs(claims: Readout, sample: Sample) -> Array:
    """R^2 of |latent| predicted by an affine map of the claimed z, held out; see linear_r2.

    What contrastive learning of Laplace sources that differ in scale identifies. 1 is
    perfect, noise scores a little below 0.
    """
    z = jnp.abs(need(sample.truth, "z", "affine_r2_abs"))
    return linear_r2(need(claims, "z", "affine_r2_abs"), z)


@metric(best=1.0)
def mcc_abs(claims: Readout, sample: Sample) -> Array:
    """``mcc`` of the claimed z with |latent|, in [0, 1]: each statistic by one claim."""
    z = jnp.abs(need(sample.truth, "z", "mcc_abs"))
    return mean_correlation(need(claims, "z", "mcc_abs"), z)
