"""Sources whose law changes from segment to segment, mixed: the world of TCL and iVAE.

    s_i = mean_ei + scale_ei u_i   in segment e,      x = f(s),

with standardised u_i of one law, all independent. The segment label is the environment.
For Laplace u and mean 0 it is an exponential family of order one, with the statistic |s_i|
and the natural parameter -sqrt 2 / scale_ei; for Gaussian u the statistics are s_i and
s_i^2, with parameters mean_ei / scale_ei^2 and -1 / (2 scale_ei^2). What identifies the
sources is that the parameters, as differences to segment 0, span the space of statistics:
the modulation matrix (E - 1, d k) must have rank d k (k statistics a source). ``rank``
breaks that.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from crl.core import DGP, Sample, Truth, grouped
from crl.dgp.mixings import Mixing
from crl.dgp.sources import Source


def modulated_sources(
    source: Source,
    mixing: Mixing,
    num_latents: int = 5,
    num_segments: int = 40,
    min_scale: float = 0.5,
    max_scale: float = 3.0,
    max_mean: float = 0.0,
    rank: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> DGP:
    """x = f(s), the scales and means of s drawn anew in each segment.

    scale_ei ~ U(min_scale, max_scale), mean_ei ~ U(-max_mean, max_mean); then each source is
    standardised over all segments together. rank: number of distinct modulations; source i
    has that of source i modulo rank. None: each its own.

    Environments: the segments, n rows each. Truth: z = s (E n, d), mixing A (p, d) where f is
    linear, and, in ``other``, scale and mean (E, d). The same key draws the same mixing,
    whatever the modulation.

    Defaults as in Khemakhem et al. (2020): with a ``max_mean`` of 5 their uncentred data.
    Raises ValueError for fewer segments than rank + 1, where the modulation cannot have
    that rank.
    """
    rank = num_latents if rank is None else rank
    if not 1 <= rank <= num_latents or num_segments < rank + 1:
        raise ValueError("todo")

    def modulation(key):
        """Scales and means (E, d) of standardised sources."""
        key_scale, key_mean = jax.random.split(key)
        shape = (num_segments, rank)
        scale = jax.random.uniform(key_scale, shape, dtype, min_scale, max_scale)
        mean = max_mean * jax.random.uniform(key_mean, shape, dtype, -1, 1)
        mean = mean - jnp.mean(mean, 0)
        total = jnp.sqrt(jnp.mean(scale**2 + mean**2, 0))  # of equally long segments
        shared = jnp.arange(num_latents) % rank
        return (scale / total)[:, shared], (mean / total)[:, shared]

    def init(key):
        key_mixing, key_modulation = jax.random.split(key)
        return mixing.init(key_mixing, num_latents, dtype), *modulation(key_modulation)

    def sample(key, world, n):
        params, scale, mean = world
        u = source.sample(key, (num_segments, n, num_latents), dtype)
        z = (mean[:, None] + scale[:, None] * u).reshape(-1, num_latents)  # (E n, d)
        x = jax.vmap(mixing.forward, (None, 0))(params, z)  # (E n, p)
        a = None if mixing.matrix is None else mixing.matrix(params)
        truth = Truth(z=z, mixing=a, other={"scale": scale, "mean": mean})
        return Sample(grouped(x, [n] * num_segments), truth)

    return DGP(init, sample, lambda world, z: mixing.forward(world[0], z))
