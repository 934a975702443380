"""What methods that live on a modulated law ask of the environments."""

import jax.numpy as jnp
from jax import Array

from crl.core import Data, num_envs
from crl.numerics.linalg import dot


def check_modulation(who: str, data: Data, num_latents: int, num_statistics: int) -> None:
    """Raise a ValueError where there are too few environments for the rank condition.

    With k = num_statistics a latent, the differences of E - 1 environments to the first must
    span d k dimensions, which takes E >= d k + 1.
    """
    if data.x.ndim != 2 or data.x.shape[1] < num_latents:
        raise ValueError(
            f"{who} expected x of shape (n, p) with p >= num_latents = {num_latents}, got "
            f"{data.x.shape}: flatten the rows, or lower num_latents"
        )
    least = num_latents * num_statistics + 1
    if num_envs(data) < least:
        raise ValueError(
            f"{who} needs at least {least} environments for num_latents={num_latents} with "
            f"{num_statistics} statistics each, got {num_envs(data)}: no smaller number can "
            "tell the latents apart; lower num_latents"
        )


def least_modulation(logits: Array, rank: int) -> Array:
    """How evenly the environments move the statistics, in [0, 1]; 0 where they span too few.

    logits: (n, E) log p(environment | row), up to a constant in each row. They are affine in
    the statistics, so that their covariance has the rank of the modulation: the ``rank``-th
    singular value of it over the first.
    """
    logits = logits - jnp.mean(logits, 1, keepdims=True)
    logits = logits - jnp.mean(logits, 0)
    variances = jnp.linalg.eigvalsh(dot(logits.T, logits))[::-1]  # (E,) decreasing
    return jnp.sqrt(jnp.maximum(variances[rank - 1], 0) / variances[0])
