import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_squared_error, root_mean_squared_error

from crl.core import MissingClaim, Readout, Sample, Truth, grouped
from crl.metrics.coverage import counterfactual_coverage
from crl.metrics.interventions import (
    counterfactual_rmse,
    counterfactual_rmse_all,
    target_accuracy,
    target_f1,
    y_rmse,
)

RNG = np.random.default_rng(0)


def answered(answer, affected):
    truth = Truth(counterfactual=jnp.array(answer), affected=jnp.array(affected))
    return Sample(grouped(jnp.array(answer)), truth)


def test_counterfactual_error_agrees_with_scikit_learn_on_scaled_columns():
    answer = RNG.normal(size=(50, 3)) * [1, 10, 0.1]
    estimate = answer + RNG.normal(size=(50, 3)) * [0.1, 1, 0.01]
    affected = RNG.random((50, 3)) < 0.4
    both = Readout(counterfactual=jnp.array(estimate)), answered(answer, affected)
    a, b = answer / answer.std(0), estimate / answer.std(0)
    expected = mean_squared_error(a, b) ** 0.5
    np.testing.assert_allclose(counterfactual_rmse_all(*both), expected, rtol=1e-4)
    expected = mean_squared_error(a[affected], b[affected]) ** 0.5
    np.testing.assert_allclose(counterfactual_rmse(*both), expected, rtol=1e-4)


def test_without_effects_the_error_of_effects_is_undefined():
    x = np.arange(6.0).reshape(3, 2)
    both = Readout(counterfactual=x + 1), answered(x, np.zeros((3, 2), bool))
    assert np.isnan(counterfactual_rmse(*both)) and counterfactual_rmse_all(*both) > 0


def outcomes(observed=None, truth=None):
    aux = {} if observed is None else {"y": jnp.asarray(observed)}
    return Sample(grouped(jnp.zeros((50, 1)), aux=aux), Truth(y=truth))


def test_error_of_the_outcome_is_that_of_scikit_learn_against_the_noise_free_one():
    clean = RNG.normal(size=(50, 2)) * [1, 10]
    noisy = clean + RNG.normal(size=(50, 2))
    claims = Readout(y=clean + 0.5)
    assert y_rmse(claims, outcomes(noisy, clean)) == pytest.approx(0.5, rel=1e-5)
    expected = root_mean_squared_error(noisy.ravel(), claims.y.ravel())
    assert y_rmse(claims, outcomes(noisy)) == pytest.approx(expected, rel=1e-5)


def test_outcomes_that_are_missing_or_of_another_shape_are_refused():
    with pytest.raises(MissingClaim, match=r"y_rmse needs truth\.y"):
        y_rmse(Readout(y=np.zeros((50, 1))), outcomes())
    with pytest.raises(
        ValueError, match=r"readout\.y of shape \(50, 1\), like y, got \(50,\)"
    ):
        y_rmse(Readout(y=np.zeros(50)), outcomes(np.zeros((50, 1))))


def test_coverage_counts_affected_answers_between_both_ends():
    answer, affected = RNG.normal(size=(50, 3)), RNG.random((50, 3)) < 0.4
    middle = answer + RNG.normal(size=(50, 3))
    interval = jnp.array([middle - 1, middle + 1.5])
    claims = Readout(other={"counterfactual_interval": interval})
    error = (answer - middle)[affected]
    want = np.mean((error >= -1) & (error <= 1.5))
    found = counterfactual_coverage(claims, answered(answer, affected))
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert np.isnan(counterfactual_coverage(claims, answered(answer, 0 * affected > 0)))


def test_targets_are_judged_in_auxiliary_environments_alone():
    true, claimed = RNG.random((2, 6, 4)) < 0.4
    sample = Sample(grouped(jnp.zeros((6, 4)), [1] * 6), Truth(targets=jnp.array(true)))
    claims = Readout(targets=jnp.array(claimed))
    a, b = true[1:].ravel(), claimed[1:].ravel()
    np.testing.assert_allclose(target_accuracy(claims, sample), np.mean(a == b), rtol=1e-6)
    np.testing.assert_allclose(target_f1(claims, sample), f1_score(a, b), rtol=1e-6)
    base_only = Sample(sample.data, Truth(targets=jnp.array(true[:1])))
    one = Readout(targets=jnp.array(claimed[:1]))
    assert np.isnan(target_accuracy(one, base_only)) and np.isnan(target_f1(one, base_only))
    with pytest.raises(ValueError, match="one row for each environment, base included"):
        target_accuracy(one, sample)
