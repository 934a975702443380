"""my_ica: independent components by relative gradient steps. Replace it by your method."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from crl.core import Estimator, Readout


class State(NamedTuple):
    mean: Array  # (p,)
    unmixing: Array  # (d, p)


def my_ica(num_latents, lr=0.2, num_steps=300) -> Estimator:
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
