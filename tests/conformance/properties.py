"""Tests of a family's estimators, DGPs and metrics, made from one line for each."""

import functools

import pytest

from crl.testing import check_dgp, check_metric, check_stability
from crl.testing.estimators import FAST, SLOW, Trial


def estimators(cases):
    """One test for each property of each case: name -> (factory, easy task).

    factory: an estimator's, with what it needs, ``functools.partial(fastica, 3)``. Those
    properties that compile programs of their own are slow.
    """
    # The properties of one estimator share its fit, so they follow one another.
    trial = functools.lru_cache(maxsize=1)(
        lambda name: Trial(cases[name][0], cases[name][1]())
    )
    marks = {False: [], True: [pytest.mark.slow]}

    @pytest.mark.parametrize(
        "name, holds",
        [
            pytest.param(
                name,
                holds,
                id=f"{name}-{holds.__name__}",
                marks=[*marks[holds in SLOW], pytest.mark.xdist_group(name)],
            )
            for name in cases
            for holds in (*FAST, *SLOW)
        ],
    )
    def test_estimator(name, holds):
        holds(trial(name))

    return test_estimator


def dgps(cases, noisy=(), slow=()):
    """One test for each case: name -> () -> DGP.

    noisy: names of those where x is not exactly mix(world, z). slow: of further settings of
    a factory that another case checks with all that it draws.
    """

    @pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in slow)) for n in cases]
    )
    def test_dgp(name):
        check_dgp(cases[name](), exact=name not in noisy)

    return test_dgp


def metrics(*functions):
    """One test for each metric, on a sample with all that a truth may hold."""

    @pytest.mark.parametrize("metric", functions, ids=lambda f: f.__name__)
    def test_metric(metric):
        check_metric(metric)

    return test_metric


def stability(*functions):
    """One test for each stability metric."""

    @pytest.mark.parametrize("metric", functions, ids=lambda f: f.__name__)
    def test_stability(metric):
        check_stability(metric)

    return test_stability
