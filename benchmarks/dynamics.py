"""Stationary diffusions from shifted environments, judged on pairs of shifts never seen.

crl run benchmarks/dynamics.py --workdir results/dynamics
"""

from ml_collections import ConfigDict

from benchmarks.peers.additive_shifts import additive_shifts
from crl.bench.run.suite import at_least, at_most, spec
from crl.dgp.dynamics import linear_sde, tanh_sde
from crl.dynamics.stationary_diffusion import stationary_diffusion
from crl.metrics.dynamics import sliced_w2, sliced_w2_to_floor, weight_auprc, weight_error

SYSTEM = [weight_error, weight_auprc]
LAWS = [*SYSTEM, sliced_w2, sliced_w2_to_floor]


def _linear(num_nodes: int, error: float) -> dict:
    """Every variable shifted once, in environments of 1,000 rows."""
    recovers = {"weight_error": at_most(error), "weight_auprc": at_least(0.995)}
    return {
        "dgp": spec(linear_sde, num_nodes=num_nodes),
        "num_train": 1000,
        "num_test": 1000,
        "metrics": LAWS,
        "estimators": {
            "moments": spec(stationary_diffusion),
            "kernel": spec(stationary_diffusion, kernel="gaussian"),
            "responses of the means (control)": spec(additive_shifts),
        },
        "expect": {
            "moments": {**recovers, "sliced_w2_to_floor": at_most(1.5)},
            "kernel": {**recovers, "sliced_w2_to_floor": at_most(1.5)},
            "responses of the means (control)": {"weight_auprc": at_most(0.97)},
        },
        "worlds": 8,
        "note": "Means add up under a linear drift: the control predicts the laws and not W.",
    }


def _one_environment(num_nodes: int) -> dict:
    """Control: the covariance of one environment leaves W open."""
    fails = {"weight_error": at_least(0.6), "weight_auprc": at_most(0.85)}
    return {
        "dgp": spec(linear_sde, num_nodes=num_nodes, num_shifted=0),
        "num_train": 10_000,
        "num_test": 1000,
        "metrics": SYSTEM,
        "estimators": {
            "moments": spec(stationary_diffusion),
            "kernel": spec(stationary_diffusion, kernel="gaussian"),
        },
        "expect": {"moments": fails, "kernel": fails},
        "worlds": 8,
        "note": "Control: d (d + 1) / 2 equations for d^2 unknowns.",
    }


def _tanh(num_nodes: int, error: float) -> dict:
    """Every variable shifted once, in environments of 2,000 rows."""
    within = {
        "weight_error": at_most(error),
        "weight_auprc": at_least(0.99),
        "sliced_w2_to_floor": at_most(1.5),
    }
    fails = {"sliced_w2_to_floor": at_least(2.0)}
    options = {"num_draws": 2000}
    return {
        "dgp": spec(tanh_sde, num_nodes=num_nodes),
        "num_train": 2000,
        "num_test": 2000,
        "metrics": LAWS,
        "estimators": {
            "kernel": spec(stationary_diffusion, drift="tanh", kernel="gaussian", **options),
            "moments": spec(stationary_diffusion, drift="tanh", **options),
            "linear drift (control)": spec(stationary_diffusion, **options),
            "additive shifts (control)": spec(additive_shifts, **options),
            "no effect (control)": spec(additive_shifts, no_effect=True, **options),
        },
        "expect": {
            "kernel": within,
            "moments": within,
            "linear drift (control)": fails,
            "additive shifts (control)": fails,
            "no effect (control)": fails,
        },
        "worlds": 8,
        "note": "sliced_w2_to_floor: 1 is what fresh rows of the true law score.",
    }


def _saturated(num_nodes: int) -> dict:
    """Control: variables that stay where tanh is flat."""
    blurred = {"weight_error": at_least(0.2), "sliced_w2_to_floor": at_most(1.5)}
    options = {"drift": "tanh", "kernel": "gaussian", "num_draws": 2000}
    return {
        "dgp": spec(tanh_sde, num_nodes=num_nodes, bias=3.0),
        "num_train": 2000,
        "num_test": 2000,
        "metrics": LAWS,
        "estimators": {"kernel": spec(stationary_diffusion, **options)},
        "expect": {"kernel": blurred},
        "worlds": 8,
        "note": "Control: a flat tanh passes little on: laws are predicted, weights are not.",
    }


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "suite": "dynamics",
            "tasks": {
                "linear_5": _linear(5, 0.05),
                "linear_10": _linear(10, 0.07),
                "linear_20": _linear(20, 0.10),
                "linear_5_one_environment": _one_environment(5),
                "linear_10_one_environment": _one_environment(10),
                "linear_20_one_environment": _one_environment(20),
                "tanh_5": _tanh(5, 0.08),
                "tanh_10": _tanh(10, 0.12),
                "tanh_10_saturated": _saturated(10),
            },
        }
    )
