"""How well a posterior over causal graphs is recovered, from draws graph_samples (s, d, d)."""

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.metrics.graphs import edge_auroc, shd


@metric(best=0.0)
def expected_shd(claims: Readout, sample: Sample) -> Array:
    """The mean structural Hamming distance of the draws to the true graph; see ``shd``."""
    draws = need(claims, "graph_samples", "expected_shd")
    return jnp.mean(jax.vmap(lambda graph: shd(Readout(graph=graph), sample))(draws))


@metric(best=1.0)
def sample_auroc(claims: Readout, sample: Sample) -> Array:
    """``edge_auroc`` of the share of draws that hold an edge. NaN: no edge, or all."""
    draws = need(claims, "graph_samples", "sample_auroc")
    return edge_auroc(Readout(edge_prob=jnp.mean(draws.astype(float), 0)), sample)
