"""Independent sources, mixed: x = f(s)."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.dgp.mixings import Mixing
from crl.dgp.sources import Source


def mixed_sources(
    source: Source, mixing: Mixing, num_latents: int = 5, dtype: DTypeLike = jnp.float32
) -> DGP:
    """x = f(s), s with ``num_latents`` independent standardised entries from ``source``.

    Truth: z = s (n, d), and mixing A (p, d) where f is linear. One environment.
    """
    check_options("mixed_sources", at_least_one={"num_latents": num_latents})

    def init(key):
        return mixing.init(key, num_latents, dtype)

    def sample(key, world, n):
        z = source.sample(key, (n, num_latents), dtype)  # (n, d)
        x = jax.vmap(mixing.forward, (None, 0))(world, z)  # (n, p)
        a = None if mixing.matrix is None else mixing.matrix(world)
        return Sample(grouped(x), Truth(z=z, mixing=a))

    return DGP(init, sample, mixing.forward)
