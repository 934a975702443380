"""How well the law of the observations is predicted."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need


@metric(best=jnp.inf)
def held_out_log_prob(claims: Readout, sample: Sample) -> Array:
    """The mean log density that the fit gives to the rows judged, in nats per row.

    On rows that no step saw it ranks models of one law, as a score of ``restarts`` does; it
    says nothing of what the latents mean.
    """
    del sample
    return jnp.mean(need(claims, "log_prob", "held_out_log_prob"))


@metric(best=0.0)
def log_prob_gap(claims: Readout, sample: Sample) -> Array:
    """How far the fit's mean log density stays below the true one, in nats per row.

    An estimate of the Kullback-Leibler divergence of the fit from the truth: at least 0 up to
    sampling, and large where a search has ended in a local maximum.
    """
    true = need(sample.truth, "log_prob", "log_prob_gap")
    return jnp.mean(true - need(claims, "log_prob", "log_prob_gap"))
