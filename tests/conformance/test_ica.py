"""Every estimator of crl.ica keeps the contract, alone and behind another."""

from functools import partial

import jax.numpy as jnp
from properties import estimators

from crl.combinators import then
from crl.core import Sample, Task
from crl.dgp.mixings import linear
from crl.dgp.segments import modulated_sources
from crl.dgp.sources import laplace
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.ica.ivae import ivae
from crl.ica.tcl import tcl
from crl.metrics.latents import affine_r2, mcc
from crl.testing.estimators import SHAPES
from crl.testing.tasks import sources_task

small = partial(isometric_autoencoder, 3, width=16, depth=1)

few = dict(width=16, depth=1, num_steps=300, batch_size=128)


def segments_task():
    """Three sources whose scales differ between sixteen segments."""
    return Task(modulated_sources(laplace(), linear(), 3, 16), 256, 64, {"mcc": mcc})


def statistics_task():
    """Two such sources, of which |s| can be found."""
    dgp = modulated_sources(laplace(), linear(), 2, 8)

    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        return Sample(data, truth._replace(z=jnp.abs(truth.z)))

    return Task(dgp._replace(sample=sample, mix=None), 256, 64, {"affine_r2": affine_r2})


test_estimator = estimators(
    {
        "fastica": (partial(fastica, 3), sources_task),
        "isometric_autoencoder": (partial(small, num_steps=500), sources_task),
        "tcl": (partial(tcl, 2, **few), statistics_task),
    }
)


def behind_an_autoencoder():
    return then(small(num_steps=20), fastica(3))


test_combined = estimators({"then": (behind_an_autoencoder, sources_task)}, fast=())
# It takes 1500 steps before its latents are those of the world.
model = dict(width=32, depth=1, num_steps=1500, batch_size=256)
test_heavy = estimators(
    {"ivae": (partial(ivae, 3, "scale", **model), segments_task)}, fast=SHAPES
)
