"""How well latents are recovered, up to the ambiguity that a theorem leaves.

A metric is the residual after the best element of an ambiguity group. Estimates may have
more or fewer latents than the truth: an unmatched true latent counts as correlation 0, and
so does a dead estimate (a constant column, as a collapsed code is). Undefined, NaN, are all
metrics of a truth with a constant column, and of estimates that hold NaN.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import rankdata

from crl.core import Readout, Sample, metric, need
from crl.numerics.assignment import assign
from crl.numerics.linalg import column_norms, dot

GROUPS = ("signed_permutation", "scaled_permutation", "componentwise", "rigid", "affine")


def _centred(a: Array) -> Array:
    return a - jnp.mean(a, 0)


def _unit_columns(a: Array) -> Array:
    """Columns centred and of norm 1; 0 where they are constant to rounding."""
    norm, is_constant = column_norms(a)
    return jnp.where(is_constant, 0, _centred(a) / jnp.where(is_constant, 1, norm))


def correlations(z_est: Array, z: Array, rank: bool = False) -> Array:
    """Correlation of each estimate with each true latent, (k, d) in [-1, 1].

    z_est: (n, k), z: (n, d). ``rank``: Spearman's, with ties at their mean rank, instead of
    Pearson's. Dead estimates have correlation 0; a constant true latent gives NaN.
    """
    if rank:
        z_est, z = (rankdata(a, axis=0).astype(a.dtype) for a in (z_est, z))
    corr = dot(_unit_columns(z_est).T, _unit_columns(z))
    return jnp.where(column_norms(z)[1], jnp.nan, jnp.clip(corr, -1, 1))


def _best(score: Array) -> tuple[Array, Array]:
    """The assignment of largest score, also where the score is undefined."""
    return assign(jnp.nan_to_num(score))


def mean_correlation(z_est: Array, z: Array, rank: bool = False) -> Array:
    """The mean correlation coefficient (MCC) of two sets of latents, in [0, 1].

    z_est: (n, k), z: (n, d). The absolute correlations of matched pairs under the best
    one-to-one assignment, averaged over the d true latents.
    """
    return mean_matched(jnp.abs(correlations(z_est, z, rank)))


def mean_matched(corr: Array) -> Array:
    """The mean of corr (k, d) over columns after the best assignment; NaN if it holds any."""
    return jnp.sum(corr[_best(corr)]) / corr.shape[1] + 0 * jnp.sum(corr)


def _latents(claims: Readout, sample: Sample, who: str) -> tuple[Array, Array]:
    return need(claims, "z", who), need(sample.truth, "z", who)


@metric(best=1.0)
def mcc(claims: Readout, sample: Sample) -> Array:
    """Mean correlation coefficient, Pearson, in [0, 1]: recovery up to scale and order.

    The assignment is chosen on the same rows, which lifts the level of chance to about
    sqrt(2 log(d) / n); ``mcc_held_out`` does without. Invariant under permutation, sign and
    scale, blind to other componentwise maps only so far as those are linear.
    Source: Hyvarinen & Morioka (2016), with a rectangular assignment.
    """
    return mean_correlation(*_latents(claims, sample, "mcc"))


@metric(best=1.0)
def mcc_spearman(claims: Readout, sample: Sample) -> Array:
    """MCC with rank correlations: recovery up to order and monotone maps, in [0, 1].

    Ties in discrete latents lower it: a perfect code of 5-valued factors scores .98.
    """
    return mean_correlation(*_latents(claims, sample, "mcc_spearman"), rank=True)


@metric(best=1.0)
def mcc_held_out(claims: Readout, sample: Sample) -> Array:
    """MCC with assignment and signs from the even rows, value from the odd ones.

    In [-1, 1] and without the bias of a matching chosen in sample: noise scores 0 on
    average. Rows come grouped by environment, so halves would be of different laws.
    """
    z_est, z = _latents(claims, sample, "mcc_held_out")
    chosen = correlations(z_est[::2], z[::2])
    corr = correlations(z_est[1::2], z[1::2]) * jnp.sign(chosen)
    return jnp.sum(corr[_best(jnp.abs(chosen))]) / z.shape[1] + 0 * jnp.sum(corr)


@metric(best=1.0)
def mcc_worst(claims: Readout, sample: Sample) -> Array:
    """The smallest of the correlations that ``mcc`` averages, in [0, 1].

    For claims in which theory leaves single latents open; a latent without a match counts 0.
    """
    corr = jnp.abs(correlations(*_latents(claims, sample, "mcc_worst")))
    row, column = _best(corr)
    matched = jnp.zeros(corr.shape[1], corr.dtype).at[column].set(corr[row, column])
    return jnp.min(matched) + 0 * jnp.sum(corr)


@metric(best=0.0)
def num_dead(claims: Readout, sample: Sample) -> Array:
    """How many estimated latents are constant to rounding; MCC counts them as 0."""
    del sample
    return jnp.sum(column_norms(need(claims, "z", "num_dead"))[1])


def _affine(source: Array, target: Array) -> tuple[Array, Array]:
    """Least squares target = source @ a + b, of minimum norm; returns a and b."""
    mean_source, mean_target = jnp.mean(source, 0), jnp.mean(target, 0)
    q, r = jnp.linalg.qr(source - mean_source)
    # Dead or duplicated latents make r singular: those directions are left out.
    rtol = 10 * jnp.finfo(source.dtype).eps * max(r.shape)
    a = jnp.linalg.pinv(r, rtol=rtol)
    a = dot(a, dot(q.T, target - mean_target))
    return a, mean_target - dot(mean_source, a)


def linear_r2(source: Array, target: Array) -> Array:
    """R^2 of the affine prediction of ``target`` (n, d) from ``source`` (n, k), <= 1.

    Fitted by least squares on the even rows and judged on the odd ones, so that both see
    the same environments: rows come grouped by them. The uniform mean over columns of
    1 - residual / variance. Noise scores about -(k + 2) / (n / 2 - k - 2) for n / 2 > k + 2.
    NaN where a column of target is constant.
    """
    r2, is_constant = _held_out_r2(source, target)
    return jnp.mean(jnp.where(is_constant, jnp.nan, r2))


def _held_out_r2(source: Array, target: Array) -> tuple[Array, Array]:
    """R^2 of each column (d,), and which columns are constant and have none."""
    a, b = _affine(source[::2], target[::2])
    residual = jnp.sum((target[1::2] - dot(source[1::2], a) - b) ** 2, 0)
    norm, is_constant = column_norms(target[1::2])
    return 1 - residual / jnp.where(is_constant, 1, norm) ** 2, is_constant


@metric(best=1.0)
def affine_r2(claims: Readout, sample: Sample) -> Array:
    """Recovery up to an affine map: R^2 of the truth predicted from the estimate.

    Held out as in ``linear_r2``. It is 1 also where the estimate holds the truth twice, or
    more than the truth; see ``affine_r2_explained``.
    """
    return linear_r2(*_latents(claims, sample, "affine_r2"))


@metric(best=1.0)
def affine_r2_explained(claims: Readout, sample: Sample) -> Array:
    """R^2 of the live estimates predicted from the truth: is there nothing else in them?

    Held out as in ``linear_r2``; dead estimates count as 0.
    """
    z_est, z = _latents(claims, sample, "affine_r2_explained")
    r2, is_dead = _held_out_r2(z, z_est)
    is_undefined = jnp.any(column_norms(z)[1])
    return jnp.mean(jnp.where(is_undefined, jnp.nan, jnp.where(is_dead, 0, r2)))


def amari_distance(product: Array, power: int = 1, norm: str = "unit") -> Array:
    """How far the square matrix ``product`` = B A is from a scaled permutation; 0 if it is.

    With c = |B A|^power: sum_i (sum_j c_ij / max_j c_ij - 1), the same for columns, and the
    total over N: norm "unit", N = 2 d (d - 1), range [0, 1]; norm "acy", N = 2 d, range
    [0, d - 1]. Amari, Cichocki & Yang (1996) and R's ica::acy are power 1, "acy"; picard and
    IMA are power 2, "acy". NaN where a row or column is zero.
    """
    d = product.shape[0]
    if product.shape != (d, d) or norm not in ("unit", "acy"):
        raise ValueError(
            "amari_distance needs a square product and norm 'unit' or 'acy', got shape "
            f"{product.shape} and norm {norm!r}"
        )
    c = jnp.abs(product) ** power
    rows = jnp.sum(c, 1) / jnp.max(c, 1) - 1
    columns = jnp.sum(c, 0) / jnp.max(c, 0) - 1
    total = (jnp.sum(rows) + jnp.sum(columns)) / (2 * d)
    return total / max(d - 1, 1) if norm == "unit" else total


@metric(best=0.0)
def amari(claims: Readout, sample: Sample) -> Array:
    """``amari_distance`` of unmixing times mixing: power 1, norm "unit", in [0, 1].

    Free of the sampling of test rows. Needs as many estimates as latents.
    """
    b, a = need(claims, "unmixing", "amari"), need(sample.truth, "mixing", "amari")
    return amari_distance(dot(b, a))


def align(group: str, z_est: Array, z: Array) -> tuple[Array, Array]:
    """The image of ``z_est`` nearest to ``z`` under an ambiguity group, and what remains.

    z_est: (n, k), z: (n, d). Returns aligned (n, d), and the residual
    ||aligned - z|| / ||z - mean z|| (Frobenius): 0 is perfect, 1 no better than the mean.
    NaN where a column of z is constant, and for estimates that hold NaN.
    All groups contain the translations. Each least-squares best in its group:

    signed_permutation  each latent is one estimate or its negative
    scaled_permutation  each latent is an affine function of one estimate
    componentwise       each latent is a function of one estimate: continuous, piecewise
                        linear between 32 quantiles, so that affine maps are exact and the
                        residual of smooth ones vanishes with the square of their number
    rigid               z = Q z_est + b, Q orthogonal (Procrustes). The smaller of the two
                        is padded with zeros: estimates beyond the d-th should be 0, and
                        the residual counts what remains in them, so it may exceed 1
    affine              z = A z_est + b
    """
    if group not in GROUPS:
        raise ValueError(f"align knows the groups {', '.join(GROUPS)}, got {group!r}")
    a, target, d = _centred(z_est), _centred(z), z.shape[1]
    if group == "rigid":
        target = jnp.pad(target, ((0, 0), (0, max(0, a.shape[1] - d))))
    aligned = _ALIGN[group](a, target)
    residual = jnp.linalg.norm(aligned - target) / jnp.linalg.norm(target)
    is_undefined = jnp.any(column_norms(z)[1]) | jnp.any(jnp.isnan(a))
    return aligned[:, :d] + jnp.mean(z, 0), jnp.where(is_undefined, jnp.nan, residual)


def _align_signed(a, z):
    inner = dot(a.T, z)  # (k, d)
    # |z_j -+ a_i|^2 against |z_j|^2, the cost of leaving z_j unmatched.
    gain = 2 * jnp.abs(inner) - jnp.sum(a**2, 0)[:, None]
    rows, columns = _best(gain)
    sign = jnp.where(inner[rows, columns] < 0, -1, 1).astype(a.dtype)
    return jnp.zeros_like(z).at[:, columns].set(a[:, rows] * sign)


def _align_scaled(a, z):
    inner, square = dot(a.T, z), jnp.sum(a**2, 0)
    slope = inner / jnp.where(square > 0, square, 1)[:, None]
    rows, columns = _best(inner * slope)  # the sum of squares explained
    return jnp.zeros_like(z).at[:, columns].set(a[:, rows] * slope[rows, columns])


def _align_componentwise(a, z, num_knots=32):
    def fit(column):
        """All latents as functions of one estimate: (n, d)."""
        knots = jnp.quantile(column, jnp.linspace(0, 1, num_knots, dtype=a.dtype))
        basis = jax.vmap(lambda hat: jnp.interp(column, knots, hat), out_axes=1)(
            jnp.eye(num_knots, dtype=a.dtype)
        )  # (n, knots)
        gram = dot(basis.T, basis)
        # Knots that coincide (discrete estimates) have empty hats.
        ridge = 10 * jnp.finfo(a.dtype).eps * jnp.trace(gram) + jnp.finfo(a.dtype).tiny
        gram = gram + ridge * jnp.eye(num_knots, dtype=a.dtype)
        weights = jnp.linalg.solve(gram, dot(basis.T, z))
        fitted = dot(basis, weights)
        return fitted, jnp.sum(z**2, 0) - jnp.sum((z - fitted) ** 2, 0)

    fitted, gain = jax.lax.map(fit, a.T)  # (k, n, d), (k, d)
    rows, columns = _best(gain)
    return jnp.zeros_like(z).at[:, columns].set(fitted[rows, :, columns].T)


def _align_rigid(a, z):
    u, _, vt = jnp.linalg.svd(dot(a.T, z), full_matrices=False)
    return dot(a, dot(u, vt))


def _align_affine(a, z):
    return dot(a, _affine(a, z)[0])


_ALIGN = {
    "signed_permutation": _align_signed,
    "scaled_permutation": _align_scaled,
    "componentwise": _align_componentwise,
    "rigid": _align_rigid,
    "affine": _align_affine,
}


@metric(best=0.0)
def procrustes(claims: Readout, sample: Sample) -> Array:
    """The residual of ``align("rigid", ...)``: recovery up to rotation and translation."""
    return align("rigid", *_latents(claims, sample, "procrustes"))[1]
