"""Every estimator, DGP, metric and claim of ours keeps the contract."""

import jax
import pytest

from crl import testing
from crl.testing_properties import ESTIMATOR_PROPERTIES, trial


@pytest.fixture(scope="module", params=testing.ESTIMATORS)
def estimator_trial(request):
    return trial(*testing.ESTIMATORS[request.param]())


@pytest.mark.parametrize("holds", ESTIMATOR_PROPERTIES, ids=lambda f: f.__name__)
def test_estimator(estimator_trial, holds):
    holds(estimator_trial)


@pytest.mark.parametrize("name", testing.DGPS)
def test_dgp(name):
    testing.check_dgp(testing.DGPS[name](), exact=not name.endswith("noise"))


@pytest.mark.parametrize("name", testing.METRICS)
def test_metric(name):
    testing.check_metric(*testing.METRICS[name])


@pytest.mark.parametrize("name", testing.STABILITY)
def test_stability(name):
    testing.check_stability(*testing.STABILITY[name])


@pytest.mark.parametrize("name", testing.CLAIMS)
def test_claim(name):
    testing.check_claim(testing.CLAIMS[name](), jax.random.key(0))
