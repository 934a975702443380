"""Every estimator of crl.effects, its worlds and metrics keep the contract."""

import functools

import jax
import jax.numpy as jnp
import pytest
from properties import dgps, estimators

from crl.core import Sample, Task, Truth, grouped
from crl.dgp.anchors import shifted_anchors
from crl.dgp.instruments import augmented_regression, linear_instruments
from crl.effects.anchor_regression import anchor_regression
from crl.effects.liml import liml
from crl.effects.two_stage_least_squares import two_stage_least_squares
from crl.metrics import effects
from crl.metrics.interventions import y_rmse
from crl.testing import check_metric


@functools.cache
def instruments_task() -> Task:
    """Two confounded treatments and four instruments."""
    return Task(linear_instruments(), 1000, 200, {"effect_error": effects.effect_error})


@functools.cache
def anchors_task() -> Task:
    """Two treatments under stronger anchors than those seen."""
    return Task(shifted_anchors(), 1000, 200, {"y_rmse": y_rmse})


test_estimator = estimators(
    {
        "two_stage_least_squares": (two_stage_least_squares, instruments_task),
        "liml": (liml, instruments_task),
        "anchor_regression": (anchor_regression, anchors_task),
    }
)
worlds = {
    "linear_instruments": linear_instruments,
    "augmented_regression": augmented_regression,
    "shifted_anchors": shifted_anchors,
}
test_dgp = dgps(worlds)


@pytest.mark.parametrize("metric", [effects.effect_error, effects.causal_excess_risk])
def test_metric(metric):
    x = jax.random.normal(jax.random.key(0), (100, 2))
    effect = jnp.array([[1.0], [-2.0]])
    truth = Truth(y=x @ effect, other={"effect": effect})
    check_metric(metric, Sample(grouped(x, aux={"y": x @ effect}), truth))
