"""Every metric of crl.metrics keeps the contract."""

from properties import metrics, stability

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

test_metric = metrics(
    *(latents, graphs, dictionaries, geometry, interventions, likelihood),
    graph_posteriors,
)
test_stability = stability(stable)
