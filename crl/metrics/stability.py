"""Do fits on one world agree? Statistical identifiability, measured without the truth.

Stability metrics see the claims of all fits stacked, leaves (fits, ...), and look at nothing
of the sample. Stable is not right: fits can agree on a wrong answer. All are means over pairs
of fits, and NaN for a single one.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.metrics.dictionaries import match_atoms
from crl.metrics.latents import align, correlations, mean_matched
from crl.numerics.linalg import column_norms, sum_of_squares


def over_pairs(value: Callable, claims: Array) -> Array:
    """The mean of value(claims[i], claims[j]) over all i < j; NaN when there is only one."""
    pairs = jnp.asarray(list(itertools.combinations(range(len(claims)), 2)), jnp.int32)
    if not pairs.size:
        return jnp.full((), jnp.nan, claims.dtype)
    return jnp.mean(jax.lax.map(lambda pair: value(claims[pair[0]], claims[pair[1]]), pairs))


@metric(best=1.0)
def pairwise_mcc(claims: Readout, sample: Sample) -> Array:
    """The mean MCC of the latents of two fits, in [0, 1].

    claims.z: (fits, n, k). A latent that is dead in either fit counts as 0.
    """
    del sample

    def value(a, b):
        is_dead = column_norms(b)[1]
        return mean_matched(jnp.abs(jnp.where(is_dead, 0, correlations(a, b))))

    return over_pairs(value, need(claims, "z", "pairwise_mcc"))


@metric(best=0.0)
def pairwise_rigid(claims: Readout, sample: Sample) -> Array:
    """The mean distance of the latents of two fits after rigid alignment, in [0, sqrt 2].

    claims.z: (fits, n, k). Of centred fits A and B it is min ||A Q - B|| over orthogonal Q
    in units of the root mean square of ||A|| and ||B||: the residual of ``align`` where
    those are equal, and the same in both orders. sqrt 2 where one of the two is collapsed,
    NaN where both are.
    """
    del sample

    def value(a, b):
        # A collapsed fit has no variance but rounding.
        size = jnp.nan_to_num(jnp.stack([sum_of_squares(a), sum_of_squares(b)]))
        distance = jnp.linalg.norm(align("rigid", a, b)[0] - b)
        mean_size = jnp.mean(size)
        return jnp.where(mean_size > 0, distance / jnp.sqrt(mean_size), jnp.nan)

    return over_pairs(value, need(claims, "z", "pairwise_rigid"))


@metric(best=1.0)
def pw_mcc(claims: Readout, sample: Sample) -> Array:
    """The mean cosine of matched atoms of the dictionaries of two fits, <= 1.

    claims.dictionary: (fits, m, p). Chance is far from 0, see ``pw_mcc_above_chance``.
    Source: Song et al., arXiv 2505.20254.
    """
    del sample
    return over_pairs(_mean_cosine, need(claims, "dictionary", "pw_mcc"))


@metric(best=1.0)
def pw_mcc_above_chance(claims: Readout, sample: Sample) -> Array:
    """(pw_mcc - chance) / (1 - chance), chance being pw_mcc of random unit dictionaries.

    Chance is estimated from fixed random pairs, which leaves an error of standard deviation
    .05 / sqrt(m) or less for m atoms.
    """
    del sample
    atoms = need(claims, "dictionary", "pw_mcc_above_chance")  # (fits, m, p)
    m, p = atoms.shape[1:]
    # One pair has an error of about 2 / m: the fewer atoms, the more pairs.
    shape = 2, max(4, 2048 // m), m, p
    a, b = jax.random.normal(jax.random.key(0), shape, atoms.dtype)
    chance = jnp.mean(jax.vmap(_mean_cosine)(a, b))
    return (over_pairs(_mean_cosine, atoms) - chance) / (1 - chance)


def _mean_cosine(a: Array, b: Array) -> Array:
    return jnp.mean(match_atoms(a, b)[2])
