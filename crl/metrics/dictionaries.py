"""How well a dictionary and its codes are recovered, and how stable they are across fits.

Atoms are compared by signed cosine: with nonnegative codes the sign of an atom is not free.
Atoms of norm 0 have cosine 0 with everything. Metrics that match atoms solve an assignment
problem, O(m^3) for m atoms, on the device: made for m up to a few thousand.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Truth, need
from crl.metrics.latents import over_pairs
from crl.numerics.assignment import assign
from crl.numerics.linalg import dot, sum_of_squares, unit_rows


def cosines(a: Array, b: Array) -> Array:
    """Signed cosine of each row of a (k, p) with each row of b (m, p), (k, m) in [-1, 1]."""
    return jnp.clip(dot(unit_rows(a), unit_rows(b).T), -1, 1)


def match_atoms(atoms: Array, true_atoms: Array) -> tuple[Array, Array, Array]:
    """The one-to-one matching of atoms (k, p) to true_atoms (m, p) of largest total cosine.

    Returns rows, columns and their cosines, each (min(k, m),).
    """
    cosine = cosines(atoms, true_atoms)
    rows, columns = assign(jnp.nan_to_num(cosine))
    return rows, columns, cosine[rows, columns]


def dictionary_mcc(readout: Readout, truth: Truth) -> dict[str, Array]:
    """Recovery of the dictionary up to the order of its atoms.

    ``mcc``: the mean cosine of matched atoms, <= 1; a true atom without a match counts as
    0. ``share_above_95``: the share of true atoms matched with a cosine above 0.95.
    """
    atoms = need(readout, "dictionary", "dictionary_mcc")
    true_atoms = need(truth, "dictionary", "dictionary_mcc")
    _, _, cosine = match_atoms(atoms, true_atoms)
    m = true_atoms.shape[0]
    above = jnp.where(jnp.isnan(cosine), jnp.nan, cosine > 0.95)
    return {"mcc": jnp.sum(cosine) / m, "share_above_95": jnp.sum(above) / m}


def support_f1(readout: Readout, truth: Truth) -> dict[str, Array]:
    """Whether the right atoms are active in each row, after matching atoms by cosine.

    ``f1``, ``precision`` and ``recall`` pool all rows and atoms; an active code of an
    atom without a match is a false positive. Active means other than 0.
    NaN: precision when nothing is active, recall when nothing is in truth.
    """
    atoms, true_atoms = (need(r, "dictionary", "support_f1") for r in (readout, truth))
    claimed, active = (need(r, "codes", "support_f1") != 0 for r in (readout, truth))
    rows, columns, _ = match_atoms(atoms, true_atoms)
    dtype = true_atoms.dtype
    hits = jnp.sum(claimed[:, rows] & active[:, columns], dtype=dtype)
    num_claimed, num_active = jnp.sum(claimed, dtype=dtype), jnp.sum(active, dtype=dtype)
    return {
        "f1": 2 * hits / (num_claimed + num_active),
        "precision": hits / num_claimed,
        "recall": hits / num_active,
    }


def fvu(readout: Readout, truth: Truth) -> Array:
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2, >= 0.

    The mean is that of the rows judged. A good score says nothing about recovery: a wrong
    dictionary can reconstruct better than the true one. NaN where all columns of x are
    constant to rounding.
    """
    x, estimate = need(truth, "x", "fvu"), need(readout, "x", "fvu")
    return jnp.sum((x - estimate) ** 2) / sum_of_squares(x)


def l0(readout: Readout, truth: Truth) -> Array:
    """Mean number of active (nonzero) codes in a row."""
    del truth
    codes = need(readout, "codes", "l0")
    return jnp.mean(jnp.sum(codes != 0, axis=1), dtype=codes.dtype)


def dead_fraction(readout: Readout, truth: Truth) -> Array:
    """Share of atoms that are active in none of the rows, in [0, 1].

    An atom that should fire at rate r is silent in n rows with probability (1 - r)^n.
    """
    del truth
    codes = need(readout, "codes", "dead_fraction")
    return jnp.mean(jnp.all(codes == 0, axis=0), dtype=codes.dtype)


def coherence(readout: Readout, truth: Truth) -> dict[str, Array]:
    """Cosines between different atoms of the dictionary, in absolute value.

    ``max``: the mutual coherence. ``mean``. ``welch_excess``: mean squared cosine less the
    least value that m unit vectors in p dimensions can have, (m - p) / (p (m - 1)), or 0
    for m <= p (Welch 1974); 0 for a unit-norm tight frame. NaN for a single atom.
    """
    del truth
    atoms = need(readout, "dictionary", "coherence")
    m, p = atoms.shape
    if m < 2:
        undefined = jnp.full((), jnp.nan, atoms.dtype)
        return {"max": undefined, "mean": undefined, "welch_excess": undefined}
    cosine = jnp.abs(cosines(atoms, atoms)) * (1 - jnp.eye(m, dtype=atoms.dtype))
    num_pairs = m * (m - 1)
    floor = max(0, m - p) / (p * (m - 1))
    return {
        "max": jnp.max(cosine),
        "mean": jnp.sum(cosine) / num_pairs,
        "welch_excess": jnp.sum(cosine**2) / num_pairs - floor,
    }


def pw_mcc(readouts: Readout) -> dict[str, Array]:
    """Stability of the dictionary: MCC between the dictionaries of all pairs of fits.

    readouts.dictionary: (fits, m, p). ``pw_mcc``: the mean over pairs, <= 1.
    ``above_chance``: (pw_mcc - chance) / (1 - chance), where chance is the expectation of
    the same for random unit dictionaries; it is far from 0 (0.30 for 128 atoms in 64
    dimensions). It is estimated from fixed random pairs, which leaves above_chance an error
    of standard deviation .05 / sqrt(m) or less (measured for m = 3 to 512).
    Stable is not right: fits can agree on a wrong dictionary. NaN for a single fit.
    Source: Song et al., arXiv 2505.20254.
    """
    atoms = need(readouts, "dictionary", "pw_mcc")  # (fits, m, p)

    def matched(a, b):
        return jnp.mean(match_atoms(a, b)[2])

    mean = over_pairs(matched, atoms)
    m, p = atoms.shape[1:]
    # One pair has an error of about 2 / m in above_chance: the fewer atoms, the more pairs.
    shape = 2, max(4, 2048 // m), m, p
    a, b = jax.random.normal(jax.random.key(0), shape, atoms.dtype)
    chance = jnp.mean(jax.vmap(matched)(a, b))
    return {"pw_mcc": mean, "above_chance": (mean - chance) / (1 - chance)}
