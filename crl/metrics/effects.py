"""How near an estimated effect comes to the causal one."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need


@metric(best=0.0)
def effect_error(claims: Readout, sample: Sample) -> Array:
    """|b - beta|, the distance of the claimed 'effect' (m, q) from the true one."""
    return jnp.linalg.norm(_difference(claims, sample, "effect_error"))


@metric(best=0.0)
def causal_excess_risk(claims: Readout, sample: Sample) -> Array:
    """e / (e + |beta|^2) with e = |b - beta|^2: 0 for the effect, 1/2 for claiming none.

    The normalised causal excess risk of Akbar et al. (NeurIPS 2025), of x with unit
    covariance under do(x); below 1.
    """
    e = jnp.sum(_difference(claims, sample, "causal_excess_risk") ** 2)
    return e / (e + jnp.sum(need(sample.truth, "effect", "causal_excess_risk") ** 2))


def _difference(claims: Readout, sample: Sample, who: str) -> Array:
    return need(claims, "effect", who) - need(sample.truth, "effect", who)
