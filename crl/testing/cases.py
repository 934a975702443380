"""What ``pytest --estimator`` collects: one test for each property of an estimator."""

import functools

import pytest

from crl.names import build as built
from crl.names import parse_call, resolve
from crl.testing.estimators import FAST, SLOW, Trial
from crl.testing.tasks import easy_task


@pytest.fixture(scope="module")
def trial(request):
    """The estimator of ``--estimator`` on its task."""
    reference, options = parse_call(request.config.getoption("--estimator"))
    factory = functools.partial(resolve(reference), **options)
    named = request.config.getoption("--task")
    return Trial(factory, built(named) if named else easy_task(factory))


@pytest.mark.parametrize("holds", [*FAST, *SLOW], ids=lambda f: f.__name__)
def test_estimator(holds, trial):
    """One property of ``crl.testing.estimators``."""
    holds(trial)
