"""Every estimator of ours keeps the contract."""

import jax.numpy as jnp
import pytest

from crl import testing
from crl.combinators import best_checkpoint, restarts, then
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.testing_properties import ESTIMATOR_PROPERTIES, replicas_equal_a_loop, trial


@pytest.fixture(scope="module", params=testing.ESTIMATORS)
def estimator_trial(request):
    return trial(*testing.ESTIMATORS[request.param]())


# Compiles the fit anew for each backend, a minute in all.
SLOW = {replicas_equal_a_loop}


@pytest.mark.parametrize(
    "holds",
    [
        pytest.param(holds, id=holds.__name__, marks=[pytest.mark.slow] * (holds in SLOW))
        for holds in ESTIMATOR_PROPERTIES
    ],
)
def test_estimator(estimator_trial, holds):
    holds(estimator_trial)


def test_replicas_equal_a_loop():
    replicas_equal_a_loop(trial(*testing.ESTIMATORS["fastica"]()))


def smallness(out, held):
    return -jnp.mean(jnp.abs(out.z))


COMBINED = {  # the autoencoder is a minibatch already
    "then": lambda: then(isometric_autoencoder(3, num_steps=20), fastica(3)),
    "restarts": lambda: restarts(fastica(3), 2, smallness),
    "best_checkpoint": lambda: best_checkpoint(fastica(3), smallness, 5),
}


@pytest.mark.slow  # 137 CPU s in all with a cold cache
@pytest.mark.parametrize("name", COMBINED)
def test_combined_estimator(name):
    testing.check_estimator(COMBINED[name](), testing.sources_task())
