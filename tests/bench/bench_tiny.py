"""Factories small enough to run a whole sweep in a test: named by the suites there."""

import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import DGP, Estimator, Readout, Sample, Truth, grouped, metric, need


def rotated(num_latents=3) -> DGP:
    """Laplace sources of unequal scales under a rotation: PCA finds them."""
    scales = 3.0 ** jnp.arange(num_latents, dtype=jnp.float32)

    def init(key):
        return jnp.linalg.qr(jax.random.normal(key, (num_latents, num_latents)))[0]

    def sample(key, world, n):
        z = jax.random.laplace(key, (n, num_latents)) * scales
        x = z @ world.T
        return Sample(grouped(x), Truth(z=z))

    return DGP(init, sample, lambda world, z: world @ z)


class State(NamedTuple):
    components: Array  # (d, p)


def oja(num_latents=3, lr=0.3, num_steps=20, explode_below=0.0) -> Estimator:
    """Subspace iteration by orthogonalised gradient steps; may be made to diverge.

    explode_below: a fit whose first entry starts under it turns to NaN at once.
    """
    check_options("oja", at_least_one={"num_latents": num_latents}, positive={"lr": lr})

    def init(key, data):
        return State(jax.random.normal(key, (num_latents, data.x.shape[1])))

    def step(key, state, data):
        w = state.components
        cov = data.x.T @ data.x / len(data.x)
        q = jnp.linalg.qr((w + lr * w @ cov).T)[0].T
        loss = -jnp.trace(q @ cov @ q.T)
        started = jnp.abs(jnp.sum(w[0] ** 2) - 1) < 1e-3  # orthonormal from then on
        bad = (jnp.abs(w[0, 0]) < explode_below) & ~started
        return State(jnp.where(bad, jnp.nan, q)), {"loss": loss}

    def readout(state, data):
        rank = jnp.sum(jnp.var(data.x, 0) > 1e-6)
        return Readout(z=data.x @ state.components.T, diag={"effective_rank": rank})

    return Estimator(init, step, readout, num_steps)


@metric(best=0.0)
def graphless_metric(claims, sample):
    """Needs a graph, which nobody here claims."""
    return jnp.sum(need(claims, "graph", "shd") != 0)


@metric(best=0.0)
def truthless_metric(claims, sample):
    """Needs a graph, which no world here has."""
    return jnp.sum(need(sample.truth, "graph", "shd"))


@metric(best=1.0)
def corr(claims, sample):
    """Mean of the best |corr| per source."""
    z = need(claims, "z", "corr")
    a, b = (v - v.mean(0) for v in (z, sample.truth.z))
    a, b = (v / jnp.linalg.norm(v, axis=0) for v in (a, b))
    return jnp.abs(a.T @ b).max(0).mean()


@metric(best=0.0)
def undefined(claims, sample):
    """A number that is undefined."""
    return jnp.zeros(()) / jnp.zeros(())


@metric(best=None)
def agreement(claims, sample):
    """Mean |cos| between the first columns of z of the first fit and the others."""
    z = need(claims, "z", "agreement")[..., 0]  # (fits, n)
    z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
    return jnp.abs(z[1:] @ z[0]).mean()


def needs_pairs() -> Estimator:
    """Says of the data what it misses; its init stumbles over it."""

    def validate(data):
        if "pair" not in data.aux:
            raise ValueError("needs_pairs needs aux['pair']")

    ours = oja()
    init = lambda key, data: ours.init(key, data._replace(x=data.aux["pair"]))  # noqa: E731
    return ours._replace(init=init, validate=validate)


def numpy_pca(num_latents=3):
    """The host peer: principal components by numpy."""

    def fit(key, train, test):
        mean = train.x.mean(0)
        _, _, vt = np.linalg.svd(train.x - mean, full_matrices=False)
        return Readout(z=(test.x - mean) @ vt[:num_latents].T)

    return fit


def paused_pca(num_latents=3):
    """numpy_pca that takes as many seconds as the environment says."""
    fit = numpy_pca(num_latents)

    def paused(key, train, test):
        time.sleep(float(os.environ.get("CRL_TEST_PAUSE", "0")))
        return fit(key, train, test)

    return paused


def paused(inner, seconds):
    """What it was given."""
    return inner, seconds


def broken_peer():
    """A host peer that raises."""

    def fit(key, train, test):
        raise RuntimeError("<b>peer</b> fell over")

    return fit
