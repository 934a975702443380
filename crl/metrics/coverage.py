"""How often claimed intervals hold the truth."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need


@metric(best=None)
def counterfactual_coverage(claims: Readout, sample: Sample) -> Array:
    """The share of affected entries whose true answer lies in the claimed interval, in [0, 1].

    The interval is other['counterfactual_interval'] (2, n, p), lower and upper end. Right is
    the level that the method promises, .9 of 90 % intervals: beyond it they are too wide.
    NaN where no entry is affected.
    """
    who = "counterfactual_coverage"
    low, high = need(claims, "counterfactual_interval", who)
    answer = need(sample.truth, "counterfactual", who)
    affected = need(sample.truth, "affected", who)
    inside = (low <= answer) & (answer <= high)
    count = jnp.sum(affected)
    share = jnp.sum(inside & affected) / jnp.maximum(count, 1)
    return jnp.where(count > 0, share, jnp.nan)
