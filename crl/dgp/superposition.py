"""Sparse codes in superposition: more dictionary atoms than dimensions, few active at once.

The world of sparse autoencoders and dictionary learning: x = z D + mean + noise, with unit
atoms in the rows of D and k-sparse nonnegative codes z. With generic atoms, exactly sparse
codes and enough rows, D and z are identified up to a permutation of the atoms when every
2k atoms are linearly independent (Hillar and Sommer, arXiv 1106.3616); with nonnegative
codes and unit atoms neither sign nor scale is left open.

Presets: ``song`` (Song et al., arXiv 2505.20254), ``s1`` and ``z1``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import DGP, Sample, Truth, grouped
from crl.names import nearest
from crl.numerics.linalg import dot, unit_rows

AMPLITUDES: dict[str, Callable] = {
    "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, 0.5, 1.5),
    "half_normal": lambda key, shape, dtype: jnp.abs(jax.random.normal(key, shape, dtype)),
    "exponential": jax.random.exponential,
}


class World(NamedTuple):
    """One dictionary, with the offset of x and the rates at which its atoms fire."""

    dictionary: Array  # (m, p) unit-norm atoms in rows
    mean: Array  # (p,)
    log_weight: Array  # (m,) log of the relative firing rate


def superposition(
    num_dims: int,
    num_atoms: int,
    k: int,
    *,
    amplitude: str = "uniform",
    zipf: float = 0.0,
    pairing: float = 0.0,
    mean_norm: float = 0.0,
    noise: float = 0.0,
    dtype=jnp.float32,
) -> DGP:
    """A DGP of exactly k-sparse nonnegative codes times a random unit dictionary.

    num_dims: p, columns of x. num_atoms: m, atoms drawn uniformly on the sphere.
    k: atoms active in each row, 1 <= k <= m, drawn without replacement.
    amplitude: law of the active codes: "uniform" on [0.5, 1.5), "half_normal" |N(0, 1)|,
    "exponential" with mean 1. zipf: atom j fires with weight (j + 1)^-zipf. pairing:
    share of rows in which the first atom drawn brings its partner along (atoms 2i and
    2i + 1 are partners; needs k >= 2). mean_norm: norm of a fixed random offset of x.
    noise: standard deviation of Gaussian noise on each column.

    The truth holds ``dictionary`` (m, p) and ``codes`` = ``z`` (n, m). One environment.
    Raises ValueError for sizes and rates out of range.
    """
    check_options(
        "superposition",
        at_least_one={"num_dims": num_dims},
        nonnegative={"zipf": zipf, "mean_norm": mean_norm, "noise": noise},
    )
    if not 1 <= k <= num_atoms:
        raise ValueError(
            f"superposition needs 1 <= k <= num_atoms, got k={k}, num_atoms={num_atoms}"
        )
    if amplitude not in AMPLITUDES:
        raise ValueError(nearest(amplitude, AMPLITUDES, "amplitude"))
    if is_concrete(pairing) and not (0 <= pairing <= 1 and (pairing == 0 or k > 1)):
        raise ValueError(
            f"superposition needs 0 <= pairing <= 1, and k >= 2 where it is positive, got "
            f"pairing={pairing}, k={k}"
        )

    def init(key):
        key_atoms, key_mean = jax.random.split(key)
        atoms = unit_rows(jax.random.normal(key_atoms, (num_atoms, num_dims), dtype))
        mean = jax.random.normal(key_mean, (num_dims,), dtype)
        mean *= mean_norm / jnp.linalg.norm(mean)
        return World(atoms, mean, -zipf * jnp.log(jnp.arange(1, num_atoms + 1, dtype=dtype)))

    def mix(world, codes):
        return dot(codes, world.dictionary) + world.mean

    def sample(key, world, n):
        key_support, key_pair, key_amplitude, key_noise = jax.random.split(key, 4)
        # Gumbel top-k: k draws without replacement, by weight.
        score = world.log_weight + jax.random.gumbel(key_support, (n, num_atoms), dtype)
        if k > 1:  # room for a partner
            is_paired = jax.random.bernoulli(key_pair, jnp.float32(pairing), (n,))
            score = _bring_partner(score, is_paired)
        _, support = jax.lax.top_k(score, k)  # (n, k)
        values = AMPLITUDES[amplitude](key_amplitude, (n, k), dtype)
        codes = jnp.zeros((n, num_atoms), dtype)
        codes = codes.at[jnp.arange(n)[:, None], support].set(values)  # (n, m)
        x = mix(world, codes)  # (n, p)
        x += noise * jax.random.normal(key_noise, x.shape, dtype)
        return Sample(grouped(x), Truth(z=codes, dictionary=world.dictionary, codes=codes))

    return DGP(init, sample, mix)


def _bring_partner(score: Array, is_paired: Array) -> Array:
    """The score (n, m) with the partner of each largest entry at inf, in the rows paired."""
    n, m = score.shape
    partner = jnp.minimum(jnp.argmax(score, axis=1) ^ 1, m - 1)  # an odd last one has none
    boost = jnp.where(is_paired, jnp.inf, -jnp.inf).astype(score.dtype)
    return score.at[jnp.arange(n), partner].max(boost)


def song(dtype=jnp.float32) -> DGP:
    """32 atoms in 16 dimensions, 3 active, |N(0, 1)| amplitudes (Song et al., sec. 4).

    Amplitudes near 0 make many active atoms invisible: a one-shot encoder cannot find them.
    """
    return superposition(16, 32, 3, amplitude="half_normal", dtype=dtype)


def s1(dtype=jnp.float32) -> DGP:
    """128 atoms in 64 dimensions, 4 active, amplitudes in [0.5, 1.5): the clean case."""
    return superposition(64, 128, 4, dtype=dtype)


def z1(dtype=jnp.float32) -> DGP:
    """``s1`` with Zipf(0.8) frequencies, 30 % of rows with a pair, and noise 0.05."""
    return superposition(64, 128, 4, zipf=0.8, pairing=0.3, noise=0.05, dtype=dtype)
