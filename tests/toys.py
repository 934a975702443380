"""Small estimators whose every number is known, for the tests of fitting and devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import (
    PER_ROW,
    Estimator,
    Readout,
    Sample,
    Truth,
    grouped,
    num_envs,
    take_rows,
)


def as_data(x, num_envs=1):
    """A Data of environments of one size; maps under vmap."""
    return grouped(x, [len(x) // num_envs] * num_envs)


def parts(sample, num_train):
    """The first rows of each environment of a sample, and the others: one draw for both."""
    n = len(sample.data.x) // num_envs(sample.data)

    def part(rows):
        index = (n * np.arange(num_envs(sample.data))[:, None] + rows).ravel()
        own = {
            f: v[index] if f in PER_ROW and v is not None else v
            for f, v in sample.truth._asdict().items()
        }
        return Sample(take_rows(sample.data, index), Truth(**own))

    return part(np.arange(num_train)), part(np.arange(num_train, n))


class State(NamedTuple):
    """Of ``regression``; its fitted state is w."""

    w: Array  # (p,)
    moved: Array  # () largest change of an entry in the last step


def regression(num_steps, lr=0.1, tol=None, **options):
    """Gradient descent on mean (x w - 1)^2; with tol it says when it has converged.

    Without tol every step adds a little noise, so that no two are alike.
    """

    def loss(w, data):
        return jnp.mean((data.x @ w - 1) ** 2)

    def init(key, data):
        w = jax.random.normal(key, (data.x.shape[1],), data.x.dtype)
        return State(w, jnp.full((), jnp.inf, data.x.dtype))

    def step(key, state, data):
        value, grad = jax.value_and_grad(loss)(state.w, data)
        w = state.w - lr * grad
        if tol is None:
            w += 1e-3 * jax.random.normal(key, w.shape, w.dtype)
        return State(w, jnp.max(jnp.abs(w - state.w))), {"loss": value}

    def finish(key, state, data):
        return state.w

    def readout(w, data):
        return Readout(z=data.x @ w[:, None], y=data.x @ w[:, None])

    def converged(state):
        return state.moved < tol

    options = {"finish": finish, "converged": None if tol is None else converged, **options}
    return Estimator(init, step, readout, num_steps, **options)


def pca(num_latents):
    """The leading right singular vectors, found in ``finish``."""

    def init(key, data):
        del key, data
        return jnp.zeros(())

    def finish(key, state, data):
        del key, state
        x = data.x - data.x.mean(0)
        return jnp.linalg.svd(x, full_matrices=False)[2][:num_latents]

    def readout(v, data):
        z = data.x @ v.T
        return Readout(z=z, x=z @ v, unmixing=v, jacobian=v.T[None], diag={"rank": len(v)})

    def step(key, state, data):
        return state, {}

    return Estimator(init, step, readout, 0, finish)


def explode(num_steps, at):
    """Counts its steps; where data.x[0, 0] > 0 the loss and state are NaN from ``at`` on."""

    def init(key, data):
        del key, data
        return jnp.zeros(())

    def step(key, count, data):
        bad = (data.x[0, 0] > 0) & (count >= at)
        return jnp.where(bad, jnp.nan, count + 1), {"loss": jnp.where(bad, jnp.nan, count)}

    return Estimator(init, step, lambda count, data: Readout(z=data.x * count), num_steps)
