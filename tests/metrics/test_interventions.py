import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mean_squared_error

from crl.core import Readout, Truth
from crl.metrics.interventions import counterfactual_rmse


def test_counterfactual_error_agrees_with_scikit_learn_on_scaled_columns():
    rng = np.random.default_rng(0)
    answer = rng.normal(size=(50, 3)) * [1, 10, 0.1]
    estimate = answer + rng.normal(size=(50, 3)) * [0.1, 1, 0.01]
    affected = rng.random((50, 3)) < 0.4
    out = counterfactual_rmse(
        Readout(counterfactual=jnp.array(estimate)),
        Truth(counterfactual=jnp.array(answer), affected=jnp.array(affected)),
    )
    a, b = answer / answer.std(0), estimate / answer.std(0)
    expected = mean_squared_error(a, b) ** 0.5
    np.testing.assert_allclose(out["all"], expected, rtol=1e-4)
    expected = mean_squared_error(a[affected], b[affected]) ** 0.5
    np.testing.assert_allclose(out["affected"], expected, rtol=1e-4)


def test_without_effects_the_error_of_effects_is_undefined():
    x = jnp.arange(6.0).reshape(3, 2)
    truth = Truth(counterfactual=x, affected=jnp.zeros((3, 2), bool))
    out = counterfactual_rmse(Readout(counterfactual=x + 1), truth)
    assert np.isnan(out["affected"]) and out["all"] > 0
    truth = Truth(counterfactual=jnp.ones((3, 2)), affected=jnp.ones((3, 2), bool))
    assert np.isnan(counterfactual_rmse(Readout(counterfactual=x), truth)["affected"])
