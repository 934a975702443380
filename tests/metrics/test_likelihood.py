import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from crl.core import MissingClaim, Readout, Sample, Truth, grouped, merit
from crl.metrics.likelihood import held_out_log_prob

X = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
SAMPLE = Sample(grouped(jnp.asarray(X)), Truth())


def test_log_likelihood_is_the_mean_over_rows_in_nats():
    claims = Readout(log_prob=stats.norm.logpdf(X[:, 0]))
    expected = -0.5 * (np.mean(X**2) + np.log(2 * np.pi))
    assert held_out_log_prob(claims, SAMPLE) == pytest.approx(expected, rel=1e-5)


def test_the_model_that_gives_the_rows_more_density_has_more_merit():
    wide, right = (Readout(log_prob=stats.norm.logpdf(X[:, 0], scale=s)) for s in (9, 1))
    good, bad = (held_out_log_prob(claims, SAMPLE) for claims in (right, wide))
    assert merit(held_out_log_prob, good) > merit(held_out_log_prob, bad)


def test_a_fit_without_a_density_is_named():
    with pytest.raises(MissingClaim, match=r"held_out_log_prob needs readout\.log_prob"):
        held_out_log_prob(Readout(), SAMPLE)
