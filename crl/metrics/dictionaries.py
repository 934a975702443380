"""How well a dictionary and its codes are recovered.

Atoms are compared by signed cosine: with nonnegative codes the sign of an atom is not free.
Atoms of norm 0 have cosine 0 with everything. Metrics that match atoms solve an assignment
problem, O(m^3) for m atoms, on the device: made for m up to a few thousand.
"""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
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


def _matched_cosines(claims: Readout, sample: Sample, who: str) -> tuple[Array, int]:
    """Cosines of matched atoms, and the number of true atoms."""
    atoms, truth = (need(r, "dictionary", who) for r in (claims, sample.truth))
    return match_atoms(atoms, truth)[2], len(truth)


@metric(best=1.0)
def dictionary_mcc(claims: Readout, sample: Sample) -> Array:
    """Mean cosine of matched atoms, <= 1: recovery up to the order of the atoms.

    A true atom without a match counts as 0.
    """
    cosine, m = _matched_cosines(claims, sample, "dictionary_mcc")
    return jnp.sum(cosine) / m


@metric(best=1.0)
def share_above_95(claims: Readout, sample: Sample) -> Array:
    """The share of true atoms matched with a cosine above 0.95, in [0, 1]."""
    cosine, m = _matched_cosines(claims, sample, "share_above_95")
    return jnp.sum(jnp.where(jnp.isnan(cosine), jnp.nan, cosine > 0.95)) / m


def _support_counts(claims: Readout, sample: Sample, who: str) -> tuple[Array, Array, Array]:
    """Hits, claimed and true activities over all rows and atoms, atoms matched by cosine.

    An active code of an atom without a match is a false positive. Active: other than 0.
    """
    both = claims, sample.truth
    atoms, true_atoms = (need(r, "dictionary", who) for r in both)
    claimed, active = (need(r, "codes", who) != 0 for r in both)
    rows, columns, _ = match_atoms(atoms, true_atoms)
    dtype = true_atoms.dtype
    hits = jnp.sum(claimed[:, rows] & active[:, columns], dtype=dtype)
    return hits, jnp.sum(claimed, dtype=dtype), jnp.sum(active, dtype=dtype)


@metric(best=1.0)
def support_f1(claims: Readout, sample: Sample) -> Array:
    """F1 of which atoms are active in which row, pooled, atoms matched by cosine; in [0, 1].

    An active code of an atom without a match is a false positive. NaN where no code is
    active on either side.
    """
    hits, claimed, active = _support_counts(claims, sample, "support_f1")
    return 2 * hits / (claimed + active)


@metric(best=1.0)
def support_precision(claims: Readout, sample: Sample) -> Array:
    """The share of claimed activities that are true, see ``support_f1``; NaN without any."""
    hits, claimed, _ = _support_counts(claims, sample, "support_precision")
    return hits / claimed


@metric(best=1.0)
def support_recall(claims: Readout, sample: Sample) -> Array:
    """The share of true activities that are claimed, see ``support_f1``; NaN without any."""
    hits, _, active = _support_counts(claims, sample, "support_recall")
    return hits / active


@metric(best=0.0)
def fvu(claims: Readout, sample: Sample) -> Array:
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2, >= 0.

    The mean is that of the rows judged. A good score says nothing about recovery: a wrong
    dictionary can reconstruct better than the true one. NaN where all columns of x are
    constant to rounding.
    """
    x = sample.data.x
    return jnp.sum((x - need(claims, "x", "fvu")) ** 2) / sum_of_squares(x)


@metric(best=None)
def l0(claims: Readout, sample: Sample) -> Array:
    """Mean number of active (nonzero) codes in a row."""
    del sample
    codes = need(claims, "codes", "l0")
    return jnp.mean(jnp.sum(codes != 0, axis=1), dtype=codes.dtype)


@metric(best=0.0)
def dead_fraction(claims: Readout, sample: Sample) -> Array:
    """Share of atoms that are active in none of the rows, in [0, 1].

    An atom that should fire at rate r is silent in n rows with probability (1 - r)^n.
    """
    del sample
    codes = need(claims, "codes", "dead_fraction")
    return jnp.mean(jnp.all(codes == 0, axis=0), dtype=codes.dtype)


def _overlaps(claims: Readout, who: str) -> tuple[Array, int]:
    """Cosines of different atoms in absolute value, (m, m) with 0 on the diagonal, and p.

    NaN for a single atom.
    """
    atoms = need(claims, "dictionary", who)
    m, p = atoms.shape
    off = 1 - jnp.eye(m, dtype=atoms.dtype)
    return jnp.abs(cosines(atoms, atoms)) * (off if m > 1 else jnp.nan), p


def _mean_over_pairs(a: Array) -> Array:
    m = len(a)
    return jnp.sum(a) / max(1, m * (m - 1))


@metric(best=None)
def max_coherence(claims: Readout, sample: Sample) -> Array:
    """The largest |cosine| of two atoms of the dictionary: its mutual coherence.

    NaN for a single atom, as for ``mean_coherence`` and ``welch_excess``.
    """
    del sample
    return jnp.max(_overlaps(claims, "max_coherence")[0])


@metric(best=None)
def mean_coherence(claims: Readout, sample: Sample) -> Array:
    """The mean |cosine| of two atoms of the dictionary."""
    del sample
    return _mean_over_pairs(_overlaps(claims, "mean_coherence")[0])


@metric(best=None)
def welch_excess(claims: Readout, sample: Sample) -> Array:
    """The mean squared cosine of two atoms above the least that it can be, >= 0.

    The least value for m unit vectors in p dimensions is (m - p) / (p (m - 1)), or 0 for
    m <= p (Welch 1974); it is attained by unit-norm tight frames.
    """
    del sample
    overlaps, p = _overlaps(claims, "welch_excess")
    m = len(overlaps)
    return _mean_over_pairs(overlaps**2) - max(0, m - p) / (p * max(1, m - 1))
