"""Small estimators whose every number is known, for the tests of fitting and devices."""

import jax
import jax.numpy as jnp

from crl.core import Data, Estimator, Readout


def as_data(x, num_envs=1):
    env = jnp.repeat(jnp.arange(num_envs, dtype=jnp.int32), x.shape[0] // num_envs)
    return Data(x, env, {})


def regression(num_steps, lr=0.1, tol=None):
    """Gradient descent on mean (x w - 1)^2; with tol it says when it has converged."""

    def loss(w, data):
        return jnp.mean((data.x @ w - 1) ** 2)

    def init(key, data):
        return jax.random.normal(key, (data.x.shape[1],), data.x.dtype)

    def step(key, w, data):
        value, grad = jax.value_and_grad(loss)(w, data)
        new = w - lr * grad + 1e-3 * jax.random.normal(key, w.shape, w.dtype) * (tol is None)
        info = {"loss": value}
        if tol is not None:
            info["converged"] = jnp.max(jnp.abs(new - w)) < tol
        return new, info

    def readout(w, data):
        return Readout(z=data.x @ w[:, None], y=data.x @ w[:, None])

    return Estimator(init, step, readout, num_steps)


def pca(num_latents):
    """The leading right singular vectors, found in ``finish``."""

    def init(key, data):
        del key
        return jnp.zeros((num_latents, data.x.shape[1]), data.x.dtype)

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
    """Counts its steps; where data.x[0, 0] > 0 the state is NaN from step ``at`` on."""

    def init(key, data):
        del key, data
        return jnp.zeros(())

    def step(key, count, data):
        bad = (data.x[0, 0] > 0) & (count >= at)
        return jnp.where(bad, jnp.nan, count + 1), {"loss": count}

    return Estimator(init, step, lambda count, data: Readout(z=data.x * count), num_steps)
