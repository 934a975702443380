"""Every metric and claim of ours keeps the contract."""

import jax
import pytest

from crl import testing


@pytest.mark.parametrize("name", testing.METRICS)
def test_metric(name):
    testing.check_metric(*testing.METRICS[name])


@pytest.mark.parametrize("name", testing.STABILITY)
def test_stability(name):
    testing.check_stability(*testing.STABILITY[name])


@pytest.mark.slow  # test_notebooks.py checks them at the same size
@pytest.mark.parametrize("name", testing.CLAIMS)
def test_claim(name):
    testing.check_claim(testing.CLAIMS[name](), jax.random.key(0))
