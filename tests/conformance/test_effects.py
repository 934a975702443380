"""Every estimator of crl.effects keeps the contract, and so do their worlds and metrics."""

from functools import cache, partial

import jax
import pytest
from properties import dgps, estimators

from crl.core import Task
from crl.dgp.anchors import shifted_anchors
from crl.dgp.instruments import augmented_regression, linear_instruments
from crl.dgp.spurious import spurious_effects
from crl.effects.anchor_regression import anchor_regression
from crl.effects.irm import irm
from crl.effects.liml import liml
from crl.effects.two_stage_least_squares import two_stage_least_squares
from crl.effects.vrex import vrex
from crl.metrics.effects import causal_excess_risk, effect_error
from crl.testing import check_metric


@cache
def instruments_task():
    return Task(linear_instruments(), 500, 100, {"effect_error": effect_error})


@cache
def anchors_task():
    return Task(shifted_anchors(), 500, 100, {"effect_error": effect_error})


@cache
def spurious_task():
    dgp = spurious_effects(1)
    return Task(dgp, 500, 100, {"effect_error": effect_error})


test_estimator = estimators(
    {
        "two_stage_least_squares": (two_stage_least_squares, instruments_task),
        "liml": (liml, instruments_task),
        "anchor_regression": (anchor_regression, anchors_task),
        "irm": (partial(irm, num_steps=1000), spurious_task),
        "vrex": (partial(vrex, num_steps=1000), spurious_task),
    }
)
test_dgp = dgps(
    {
        "linear_instruments": linear_instruments,
        "augmented_regression": partial(augmented_regression, 4),
        "shifted_anchors": shifted_anchors,
        "spurious_effects": spurious_effects,
    }
)


@pytest.mark.parametrize("metric", [effect_error, causal_excess_risk])
def test_metric(metric):
    world = linear_instruments().init(jax.random.key(0))
    check_metric(metric, linear_instruments().sample(jax.random.key(1), world, 64))
