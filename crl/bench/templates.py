"""The files that ``crl new-estimator`` writes; NAME stands for the name."""

ESTIMATOR = '''\
"""NAME: independent components by relative gradient steps. Replace it by your method."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.core import Estimator, Readout


class State(NamedTuple):
    mean: Array  # (p,)
    unmixing: Array  # (d, p)


def NAME(num_latents, lr=0.2, num_steps=300):
    """Linear ICA for sparse sources; identifies them up to order, sign and scale."""

    def init(key, data):
        mean = data.x.mean(0)
        _, s, vt = jnp.linalg.svd(data.x - mean, full_matrices=False)
        # Whitening to start with: what is left to find is a rotation.
        return State(mean, len(data.x) ** 0.5 * vt[:num_latents] / s[:num_latents, None])

    def step(key, state, data):
        z = (data.x - state.mean) @ state.unmixing.T  # (n, d)
        # Zero where tanh(z_i) and z_j are uncorrelated for i != j and scales are settled.
        gap = jnp.eye(num_latents, dtype=z.dtype) - jnp.tanh(z).T @ z / len(z)
        unmixing = state.unmixing + lr * gap @ state.unmixing
        return State(state.mean, unmixing), {"loss": jnp.sum(gap**2)}

    def readout(state, data):
        return Readout(z=(data.x - state.mean) @ state.unmixing.T, unmixing=state.unmixing)

    return Estimator(init, step, readout, num_steps)
'''

TEST = '''\
"""NAME keeps the contracts: jit, vmap, resume, dtypes, and better than random claims."""

from NAME import NAME

from crl.core import Task
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.sources import laplace
from crl.metrics.latents import mcc
from crl.testing import check_estimator


def test_NAME_keeps_the_contracts():
    dgp = mixed_sources(laplace(), linear(), num_latents=3)
    task = Task(dgp, num_train=512, num_test=256, metrics={"mcc": mcc}, stability={})
    check_estimator(NAME(num_latents=3), task)
'''

SUITE = '''\
"""NAME beside FastICA on the same worlds: crl run suite_NAME.py"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "suite": "NAME",
            "estimators": {
                "NAME": {"factory": "NAME:NAME", "num_latents": 5},
                "fastica": {"factory": "crl.ica.fastica:fastica", "num_latents": 5},
            },
            "tasks": {
                "laplace": {
                    "dgp": {
                        "factory": "crl.dgp.latent:mixed_sources",
                        "source": {"factory": "crl.dgp.sources:laplace"},
                        "mixing": {"factory": "crl.dgp.mixings:linear"},
                        "num_latents": 5,
                    },
                    "num_train": 2000,
                    "num_test": 1000,
                    "metrics": {"mcc": "crl.metrics.latents:mcc"},
                    "estimators": ["NAME", "fastica"],
                    "worlds": 8,
                    "note": "Laplace sources: both should reach an MCC near 1.",
                },
            },
        }
    )
'''

TEMPLATES = {"{name}.py": ESTIMATOR, "test_{name}.py": TEST, "suite_{name}.py": SUITE}
