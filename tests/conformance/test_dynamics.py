"""Every estimator, world and metric of dynamical systems keeps the contract."""

import functools

import jax
import jax.numpy as jnp
import pytest
from properties import dgps, estimators

from crl.core import Sample, Task, Truth, grouped
from crl.dgp.dynamics import linear_sde, tanh_sde
from crl.dynamics.stationary_diffusion import stationary_diffusion
from crl.metrics import dynamics
from crl.metrics.dynamics import weight_error
from crl.testing import check_metric


@functools.cache
def shifted_task(world=linear_sde) -> Task:
    """Three variables in a cycle or none, each shifted once."""
    return Task(world(3, 1.0), 200, 100, {"weight_error": weight_error})


few = functools.partial(stationary_diffusion, num_draws=200)
test_estimator = estimators({"stationary_diffusion": (few, shifted_task)})
kernel = functools.partial(few, "tanh", "gaussian", num_features=100)
neural_task = functools.partial(shifted_task, tanh_sde)
test_further_estimator = estimators(
    {"stationary_diffusion, kernel": (kernel, neural_task)}, fast=()
)
worlds = {
    "linear_sde": functools.partial(linear_sde, 3),
    "tanh_sde": functools.partial(tanh_sde, 3),
}
test_dgp = dgps(worlds, slow=True)  # two laws each, which compile for long


@pytest.mark.parametrize(
    "metric",
    [v for v in vars(dynamics).values() if hasattr(v, "best")],
    ids=lambda f: f.__name__,
)
def test_metric(metric):
    x = jax.random.normal(jax.random.key(0), (2, 40, 3))
    weights = jnp.array([[0, 1.0, 0], [0, 0, -2], [0, 0, 0]])
    graph = (weights != 0).astype(jnp.int32)
    # Draws next to the rows are at next to no distance from them.
    truth = Truth(graph=graph, other={"weights": weights, "draws": x + 1e-3})
    data = grouped(x.reshape(-1, 3), (40, 40), target=jnp.eye(2, 3, dtype=jnp.int32))
    check_metric(metric, Sample(data, truth))
