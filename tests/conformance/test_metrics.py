"""Every metric of crl.metrics keeps the contract."""

import jax
import jax.numpy as jnp
import pytest
from properties import metrics, stability

from crl.core import Sample, Truth, grouped
from crl.metrics import (
    dictionaries,
    geometry,
    graph_posteriors,
    graphs,
    interventions,
    latents,
    likelihood,
)
from crl.metrics import stability as stable
from crl.metrics.coverage import counterfactual_coverage
from crl.metrics.decisions import false_decisions, hidden_cause_auroc
from crl.metrics.sortability import r2_sortability, varsortability
from crl.testing import check_metric

test_metric = metrics(
    *(latents, graphs, dictionaries, geometry, interventions, likelihood),
    graph_posteriors,
)
test_stability = stability(stable)


@pytest.mark.parametrize(
    "metric",
    [
        counterfactual_coverage,
        false_decisions,
        hidden_cause_auroc,
        varsortability,
        r2_sortability,
    ],
    ids=lambda f: f.__name__,
)
def test_metric_of_observed_variables(metric):
    x = jax.random.normal(jax.random.key(0), (40, 3))
    interval = jnp.stack([x - 1, x + 1])
    graph = jnp.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    hidden = jnp.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    truth = Truth(
        graph=graph,
        counterfactual=x,
        affected=x > 0,
        other={
            "counterfactual_interval": interval,
            "decided": graph,
            "hidden_z": hidden,
            "confounded": hidden,
        },
    )
    check_metric(metric, Sample(grouped(x), truth))
