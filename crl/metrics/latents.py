"""How well latents are recovered, up to the ambiguity that a theorem leaves.

A metric is the residual after the best element of an ambiguity group. Estimates may have
more or fewer latents than the truth: an unmatched true latent counts as correlation 0, and
so does a dead estimate (a constant column, as a collapsed code is). Undefined, NaN, are all
metrics of a truth with a constant column, and of estimates that hold NaN.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import rankdata

from crl.core import Readout, Truth, need
from crl.numerics.assignment import assign
from crl.numerics.linalg import dot

GROUPS = ("signed_permutation", "scaled_permutation", "componentwise", "rigid", "affine")


def _centred(a: Array) -> Array:
    return a - jnp.mean(a, 0)


def _norms(a: Array) -> tuple[Array, Array]:
    """Norms of centred columns, and which of them are constant to rounding."""
    scale = jnp.max(jnp.abs(a), 0)
    a = _centred(a)
    norms = jnp.linalg.norm(a, axis=0)
    # Rounding alone leaves a constant column an rms of about eps times its level.
    rms = norms / jnp.sqrt(jnp.asarray(a.shape[0], a.dtype))
    return norms, rms <= 4 * jnp.finfo(a.dtype).eps * scale


def correlations(z_est: Array, z: Array, rank: bool = False) -> Array:
    """Correlation of each estimate with each true latent, (k, d) in [-1, 1].

    z_est: (n, k), z: (n, d). ``rank``: Spearman's, with ties at their mean rank, instead of
    Pearson's. Dead estimates have correlation 0; a constant true latent gives NaN.
    """
    if rank:
        z_est, z = (rankdata(a, axis=0).astype(a.dtype) for a in (z_est, z))
    norm_est, is_dead = _norms(z_est)
    norm, is_constant = _norms(z)
    unit_est = _centred(z_est) / jnp.where(is_dead, 1, norm_est)
    unit = _centred(z) / jnp.where(is_constant, jnp.nan, norm)
    corr = jnp.where(is_dead[:, None], 0 * unit[0], dot(unit_est.T, unit))
    return jnp.clip(corr, -1, 1)


def _best(score: Array) -> tuple[Array, Array]:
    """The assignment of largest score, also where the score is undefined."""
    return assign(jnp.nan_to_num(score))


def mean_correlation(z_est: Array, z: Array, rank: bool = False) -> Array:
    """The mean correlation coefficient (MCC) of two sets of latents, in [0, 1].

    z_est: (n, k), z: (n, d). The absolute correlations of matched pairs under the best
    one-to-one assignment, averaged over the d true latents.
    """
    corr = jnp.abs(correlations(z_est, z, rank))
    return jnp.sum(corr[_best(corr)]) / z.shape[1] + 0 * jnp.sum(corr)


def mcc(readout: Readout, truth: Truth) -> Array:
    """Mean correlation coefficient, Pearson, in [0, 1]: recovery up to scale and order.

    The assignment is chosen on the same rows, which lifts the level of chance to about
    sqrt(2 log(d) / n); ``mcc_held_out`` does without. Invariant under permutation, sign and
    scale, blind to other componentwise maps only so far as those are linear.
    Source: Hyvarinen & Morioka (2016), with a rectangular assignment.
    """
    return mean_correlation(need(readout, "z", "mcc"), need(truth, "z", "mcc"))


def mcc_spearman(readout: Readout, truth: Truth) -> Array:
    """MCC with rank correlations: recovery up to order and monotone maps, in [0, 1].

    Ties in discrete latents lower it: a perfect code of 5-valued factors scores .98.
    """
    z_est, z = need(readout, "z", "mcc_spearman"), need(truth, "z", "mcc_spearman")
    return mean_correlation(z_est, z, rank=True)


def mcc_held_out(readout: Readout, truth: Truth) -> Array:
    """MCC with assignment and signs from the first half of the rows, value from the second.

    In [-1, 1] and without the bias of a matching chosen in sample: noise scores 0 on
    average.
    """
    z_est, z = need(readout, "z", "mcc_held_out"), need(truth, "z", "mcc_held_out")
    half = z.shape[0] // 2
    chosen = correlations(z_est[:half], z[:half])
    corr = correlations(z_est[half:], z[half:]) * jnp.sign(chosen)
    return jnp.sum(corr[_best(jnp.abs(chosen))]) / z.shape[1] + 0 * jnp.sum(corr)


def num_dead(readout: Readout, truth: Truth) -> Array:
    """How many estimated latents are constant to rounding; MCC counts them as 0."""
    del truth
    return jnp.sum(_norms(need(readout, "z", "num_dead"))[1])


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

    Fitted by least squares on the first half of the rows and judged on the second; the
    uniform mean over columns of 1 - residual / variance. Noise scores about -k / n.
    NaN where a column of target is constant.
    """
    half = source.shape[0] // 2
    a, b = _affine(source[:half], target[:half])
    target = target[half:]
    residual = jnp.sum((target - dot(source[half:], a) - b) ** 2, 0)
    norm, is_constant = _norms(target)
    return jnp.mean(1 - residual / jnp.where(is_constant, jnp.nan, norm) ** 2)


def affine_r2(readout: Readout, truth: Truth) -> dict[str, Array]:
    """Recovery up to an affine map, held out, in both directions.

    ``recovered``: the truth predicted from the estimate, 1 also where the estimate holds
    the truth twice, or more than the truth. ``explained``: the live estimates predicted
    from the truth, which such an estimate fails; dead ones count as 0.
    """
    z_est, z = need(readout, "z", "affine_r2"), need(truth, "z", "affine_r2")
    half = z.shape[0] // 2
    a, b = _affine(z[:half], z_est[:half])
    norm, is_dead = _norms(z_est[half:])
    residual = jnp.sum((z_est[half:] - dot(z[half:], a) - b) ** 2, 0)
    explained = jnp.where(is_dead, 0 * norm, 1 - residual / jnp.where(is_dead, 1, norm) ** 2)
    return {"recovered": linear_r2(z_est, z), "explained": jnp.mean(explained)}


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


def amari(readout: Readout, truth: Truth) -> Array:
    """``amari_distance`` of unmixing times mixing: power 1, norm "unit", in [0, 1].

    Free of the sampling of test rows. Needs as many estimates as latents.
    """
    b, a = need(readout, "unmixing", "amari"), need(truth, "mixing", "amari")
    return amari_distance(dot(b, a))


def align(group: str, z_est: Array, z: Array) -> tuple[Array, Array]:
    """The image of ``z_est`` nearest to ``z`` under an ambiguity group, and what remains.

    z_est: (n, k), z: (n, d). Returns aligned (n, d), and the residual
    ||aligned - z|| / ||z - mean z|| (Frobenius): 0 is perfect, 1 no better than the mean.
    All groups contain the translations. Each least-squares best in its group:

    signed_permutation  each latent is one estimate or its negative
    scaled_permutation  each latent is an affine function of one estimate
    componentwise       each latent is a function of one estimate: continuous, piecewise
                        linear between 32 quantiles, so that affine maps are exact and the
                        residual of smooth ones vanishes with the square of their number
    rigid               z = Q z_est + b, Q with orthonormal rows or columns (Procrustes)
    affine              z = A z_est + b
    """
    if group not in GROUPS:
        raise ValueError(f"align knows the groups {', '.join(GROUPS)}, got {group!r}")
    aligned = _ALIGN[group](_centred(z_est), _centred(z)) + jnp.mean(z, 0)
    return aligned, jnp.linalg.norm(aligned - z) / jnp.linalg.norm(_centred(z))


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


def procrustes(readout: Readout, truth: Truth) -> Array:
    """The residual of ``align("rigid", ...)``: recovery up to rotation and translation."""
    z_est, z = need(readout, "z", "procrustes"), need(truth, "z", "procrustes")
    return align("rigid", z_est, z)[1]


def pairwise_mcc(readouts: Readout) -> Array:
    """Stability: the mean MCC over all pairs of fits on one world, in [0, 1].

    readouts.z: (fits, n, k). NaN for a single fit.
    """
    z = need(readouts, "z", "pairwise_mcc")
    return over_pairs(mean_correlation, z)


def pairwise_rigid(readouts: Readout) -> Array:
    """Instability: the mean residual of rigid alignment over all pairs of fits.

    readouts.z: (fits, n, k). The first fit of a pair is aligned to the second. NaN for a
    single fit.
    """
    z = need(readouts, "z", "pairwise_rigid")
    return over_pairs(lambda a, b: align("rigid", a, b)[1], z)


def over_pairs(value: Callable, z: Array) -> Array:
    """The mean of value(z[i], z[j]) over all i < j; NaN when there is only one."""
    z = jnp.asarray(z)  # traced indices need it
    pairs = jnp.asarray(list(itertools.combinations(range(z.shape[0]), 2)), jnp.int32)
    if not pairs.size:
        return jnp.full((), jnp.nan, z.dtype)
    return jnp.mean(jax.lax.map(lambda pair: value(z[pair[0]], z[pair[1]]), pairs))
