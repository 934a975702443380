import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_squared_error, root_mean_squared_error

from crl.core import MissingClaim, Readout, Sample, Truth, grouped
from crl.metrics.interventions import counterfactual_rmse, counterfactual_rmse_all, y_rmse

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
