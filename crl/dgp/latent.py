"""Independent sources, mixed: x = f(s)."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from crl.core import DGP, Data, Sample, Truth
from crl.dgp.mixings import Mixing
from crl.dgp.sources import Source


def mixed_sources(
    source: Source, mixing: Mixing, num_latents: int = 5, dtype: DTypeLike = jnp.float32
) -> DGP:
    """x = f(s), s with ``num_latents`` independent standardised entries from ``source``.

    Truth: z = s (n, d), x, and mixing A (p, d) where f is linear. One environment.
    """
    if num_latents < 1:
        raise ValueError(f"mixed_sources needs num_latents >= 1, got {num_latents}")

    def init(key):
        return mixing.init(key, num_latents, dtype)

    def sample(key, world, n):
        z = source.sample(key, (n, num_latents), dtype)  # (n, d)
        x = jax.vmap(mixing.forward, (None, 0))(world, z)  # (n, p)
        a = None if mixing.matrix is None else mixing.matrix(world)
        return Sample(Data(x, jnp.zeros(n, jnp.int32), {}), Truth(z=z, x=x, mixing=a))

    return DGP(init, sample, mixing.forward)
