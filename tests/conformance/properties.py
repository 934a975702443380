"""Tests of a family's estimators, DGPs and metrics, made from one line for each."""

import functools

import pytest

from crl.testing import check_dgp, check_metric, check_stability
from crl.testing.estimators import FAST, SLOW, Trial

slow_lane = pytest.mark.slow


def estimators(cases, *, fast=FAST):
    """One test for each property of each case: name -> (factory, easy task).

    factory: an estimator's, with what it needs, ``functools.partial(fastica, 3)``. fast: the
    properties that stand in the fast lane: ``SHAPES`` where one fit takes more than 5 CPU
    seconds to compile; those that compile programs of their own never do.
    """
    # The properties of one estimator share its fit: they follow one another in one process.
    trial = functools.lru_cache(maxsize=1)(
        lambda name: Trial(cases[name][0], cases[name][1]())
    )

    def case(name, holds):
        marks = [pytest.mark.xdist_group(name)]
        marks += [slow_lane] * (holds not in fast)
        return pytest.param(name, holds, id=f"{name}-{holds.__name__}", marks=marks)

    @pytest.mark.parametrize(
        "name, holds", [case(name, holds) for name in cases for holds in (*FAST, *SLOW)]
    )
    def test_estimator(name, holds):
        holds(trial(name))

    return test_estimator


def dgps(cases, *, noisy=(), slow=False):
    """One test for each case: name -> () -> DGP; noisy: where x is not mix(world, z)."""

    @pytest.mark.parametrize("name", cases)
    def test_dgp(name):
        check_dgp(cases[name](), exact=name not in noisy)

    return slow_lane(test_dgp) if slow else test_dgp


def metrics(*modules):
    """One test for each metric of the modules, on a sample with all that a truth may hold."""

    @pytest.mark.parametrize("metric", _marked(modules), ids=lambda f: f.__name__)
    def test_metric(metric):
        check_metric(metric)

    return test_metric


def stability(*modules):
    """One test for each stability metric of the modules."""

    @pytest.mark.parametrize("metric", _marked(modules), ids=lambda f: f.__name__)
    def test_stability(metric):
        check_stability(metric)

    return test_stability


def _marked(modules):
    """The functions of modules that ``crl.metric`` marks."""
    mine = [(m.__name__, v) for m in modules for v in vars(m).values()]
    return [v for name, v in mine if hasattr(v, "best") and v.__module__ == name]
