"""Sources whose law changes from segment to segment, mixed: the world of TCL and iVAE.

    s_i = mean_ei + scale_ei u_i   in segment e,      x = f(s),

with standardised u_i of one law, all independent; segments are the environments. It is an
exponential family in the statistics |s_i| for Laplace u without means, with the parameters
-sqrt 2 / scale_ei; and in s_i and s_i^2 for Gaussian u, with mean_ei / scale_ei^2 and
-1 / (2 scale_ei^2). The sources are identified where these parameters, as differences to
segment 0, have full rank: (E - 1, d k) with k statistics a source. ``rank`` breaks that.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from crl.check import check_options, is_concrete
from crl.core import DGP, PyTree, Sample, Truth, grouped
from crl.dgp.mixings import Mixing, xtanh_mlp
from crl.dgp.sources import Source, gaussian


class World(NamedTuple):
    """A mixing, and how each segment modulates the sources."""

    mixing: PyTree
    scale: Array  # (E, d)
    mean: Array  # (E, d)


def modulated_sources(
    source: Source,
    mixing: Mixing,
    num_latents: int = 5,
    num_segments: int = 40,
    *,
    min_scale: float = 0.5,
    max_scale: float = 3.0,
    max_mean: float = 0.0,
    rank: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> DGP:
    """x = f(s) with scales and means of the independent s drawn anew for each segment.

    scale_ei ~ U(min_scale, max_scale) and mean_ei ~ U(-max_mean, max_mean); then each source
    is standardised over all segments together. rank: how many sources have a modulation of
    their own; source i shares that of source i modulo rank, so that of their statistics
    only the sum can be found. None: all d.

    ``n`` rows in each segment. Truth: z = s (E n, d), mixing A (p, d) where f is linear, and
    ``other``: scale and mean (E, d). The same key draws the same mixing for every rank.

    Raises ValueError unless num_segments > rank, without which the modulation cannot have
    that rank, and for 0 < min_scale <= max_scale violated.
    """
    sizes = {"num_latents": num_latents, "num_segments": num_segments}
    rank = num_latents if rank is None else rank
    check_options(
        "modulated_sources",
        at_least_one={**sizes, "rank": rank},
        positive={"min_scale": min_scale, "max_scale": max_scale},
        nonnegative={"max_mean": max_mean},
    )
    if rank > num_latents or num_segments <= rank:
        raise ValueError(
            f"modulated_sources needs rank <= num_latents and num_segments > rank, got rank="
            f"{rank}, num_latents={num_latents}, num_segments={num_segments}"
        )
    if is_concrete(min_scale) and is_concrete(max_scale) and min_scale > max_scale:
        raise ValueError(
            f"modulated_sources needs min_scale <= max_scale, got {min_scale} > {max_scale}"
        )

    def init(key):
        key_mixing, key_scale, key_mean = jax.random.split(key, 3)
        shape = (num_segments, rank)
        # Drawn on the unit interval, so that the bounds may be traced.
        width = max_scale - min_scale
        scale = min_scale + width * jax.random.uniform(key_scale, shape, dtype)
        mean = max_mean * jax.random.uniform(key_mean, shape, dtype, -1, 1)
        owner = jnp.arange(num_latents) % rank
        params = mixing.init(key_mixing, num_latents, dtype)
        return World(params, *(a[:, owner] for a in standardised(scale, mean)))

    def sample(key, world, n):
        u = source.sample(key, (num_segments, n, num_latents), dtype)
        z = world.mean[:, None] + world.scale[:, None] * u
        z = z.reshape(-1, num_latents)  # (E n, d)
        x = jax.vmap(mixing.forward, (None, 0))(world.mixing, z)  # (E n, p)
        a = None if mixing.matrix is None else mixing.matrix(world.mixing)
        other = {"scale": world.scale, "mean": world.mean}
        return Sample(grouped(x, [n] * num_segments), Truth(z=z, mixing=a, other=other))

    return DGP(init, sample, lambda world, z: mixing.forward(world.mixing, z))


def standardised(scale: Array, mean: Array) -> tuple[Array, Array]:
    """Scales and means (E, d) that leave mean 0, variance 1 over segments of equal size."""
    mean = mean - jnp.mean(mean, 0)
    total = jnp.sqrt(jnp.mean(scale**2 + mean**2, 0))
    return scale / total, mean / total


def ivae_sources(dtype: DTypeLike = jnp.float32) -> DGP:
    """40 segments of 5 Gaussian sources that differ in scale, through 3 layers of xtanh.

    The synthetic data of Khemakhem et al. (2020), with 1000 rows in each segment, but for
    the standardisation of the sources.
    """
    return modulated_sources(gaussian(), xtanh_mlp(), dtype=dtype)
