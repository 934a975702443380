"""Contrastive features are the statistics of sources whose modulation has full rank."""

import jax
import numpy as np
import pytest

import crl
from crl.core import Task, draw
from crl.dgp.mixings import leaky_relu_mlp, linear
from crl.dgp.segments import modulated_sources
from crl.dgp.sources import laplace
from crl.ica.modulation import least_modulation
from crl.ica.tcl import tcl
from crl.metrics.statistics import affine_r2_abs


def fitted(estimator, dgp, num_train, num_test):
    train, test = draw(Task(dgp, num_train, num_test, {}), jax.random.key(0))
    fit = crl.fit(estimator, jax.random.key(1), train.data)
    return fit, crl.readout(estimator, fit.state, test.data), test


def test_least_modulation_is_the_ratio_of_singular_values_of_the_logits():
    rng = np.random.default_rng(0)
    statistics, modulation = rng.exponential(size=(400, 3)), rng.normal(size=(6, 3))
    logits = statistics @ modulation.T + rng.normal(size=6)
    centred = (statistics - statistics.mean(0)) @ (modulation - modulation.mean(0)).T
    singular = np.linalg.svd(centred, compute_uv=False)
    offset = rng.normal(size=(400, 1))  # a softmax does not see it
    value = least_modulation((logits + offset).astype(np.float32), 3)
    np.testing.assert_allclose(value, singular[2] / singular[0], rtol=1e-3)
    modulation[:, 2] = modulation[:, 1]
    assert least_modulation((statistics @ modulation.T).astype(np.float32), 3) < 1e-3


def test_refuses_environments_too_few_for_the_rank_condition():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    data = crl.as_data(x, env=np.arange(60) // 15)
    tcl(3).validate(data)
    with pytest.raises(ValueError, match="at least 6 environments for num_latents=5"):
        tcl(5).validate(data)


@pytest.mark.slow
def test_classifier_is_as_good_as_that_of_scikit_learn_on_the_same_features():
    """The last layer is a multinomial regression, fitted here with the features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    estimator = tcl(2, width=16, depth=1, num_steps=1000)
    _, claims, test = fitted(estimator, modulated_sources(laplace(), linear(), 2, 6), 500, 500)
    h, env = np.asarray(claims.z, np.float64), np.asarray(test.data.env)
    peer = LogisticRegression(C=1e6, max_iter=1000).fit(h, env)
    best = log_loss(env, peer.predict_proba(h))
    assert (
        best < claims.diag["cross_entropy"] < best + 0.03
    )  # fitted on these rows, unlike ours


@pytest.mark.slow
@pytest.mark.parametrize("rank, low, high", [(None, 0.97, 1), (3, 0.55, 0.75)])
def test_finds_the_statistics_of_sources_but_only_sums_of_those_modulated_alike(
    rank, low, high
):
    """Rank 3 of 5: .65, since a sum of two |s| explains .565 of each over all segments."""
    dgp = modulated_sources(laplace(), leaky_relu_mlp(2), rank=rank)
    _, claims, test = fitted(tcl(5), dgp, 8000, 500)
    assert low < affine_r2_abs(claims, test) < high
    assert (claims.diag["least_modulation"] > 0.1) == (rank is None)
