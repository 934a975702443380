"""What ``pytest --estimator`` collects: one test for each property of an estimator."""

import pytest

from crl.check import build
from crl.testing import easy_task
from crl.testing_properties import ESTIMATOR_PROPERTIES, trial


@pytest.fixture(scope="module")
def estimator_trial(request):
    """The estimator of ``--estimator`` on its task."""
    estimator = build(request.config.getoption("--estimator"))
    named = request.config.getoption("--task")
    return trial(estimator, build(named) if named else easy_task(estimator))


@pytest.mark.parametrize("holds", ESTIMATOR_PROPERTIES, ids=lambda f: f.__name__)
def test_estimator(holds, estimator_trial):
    """One property of ``crl.testing_properties``."""
    holds(estimator_trial)
