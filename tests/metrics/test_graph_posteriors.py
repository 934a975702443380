import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.graph_posteriors import expected_shd, sample_auroc

D = 4


def test_metrics_of_draws_are_means_over_them():
    rng = np.random.default_rng(0)
    true = np.triu(rng.random((D, D)) < 0.5, 1).astype(int)
    draws = (rng.random((6, D, D)) < 0.4) & ~np.eye(D, dtype=bool)
    sample = Sample(grouped(jnp.zeros((2, D))), Truth(graph=true))
    claims = Readout(graph_samples=draws.astype(int))
    wrong = (draws != true) | (draws != true).swapaxes(1, 2)
    expected = np.triu(wrong, 1).sum((1, 2)).mean()
    np.testing.assert_allclose(expected_shd(claims, sample), expected, rtol=1e-6)
    off = ~np.eye(D, dtype=bool)
    auroc = roc_auc_score(true[off], draws.mean(0)[off])
    np.testing.assert_allclose(sample_auroc(claims, sample), auroc, rtol=1e-6)
    assert expected_shd(Readout(graph_samples=true[None]), sample) == 0
    assert sample_auroc(Readout(graph_samples=true[None]), sample) == 1
