"""How far a map is from an isometry, from its Jacobian at sampled points.

``jacobian``: (m, p, d), p >= d, at m points drawn from the law of the latents, so that means
are expectations under it; one point will do for a linear map. ``decoder_*`` metrics judge
``claims.jacobian``, the learned decoder; ``mixing_*`` measure the assumption itself on
``truth.jacobian``, the mixing (see ``crl.dgp.combinators.with_jacobian``). Theta is the
distance of Buchholz & Schoelkopf (ICML 2024, "Robustness of nonlinear representation
learning"), the ratio after Friesecke, James & Mueller (2002), L the bi-Lipschitz constant of
Nelson et al. (ICLR 2026), C_IMA that of Gresele et al. (NeurIPS 2021).
"""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.numerics.linalg import dot


def singular_values(jacobian: Array) -> Array:
    """(m, p, d) -> (m, d), decreasing. Raises ValueError where p < d."""
    m, p, d = jacobian.shape
    if p < d:
        raise ValueError(
            f"expected a Jacobian (m, p, d) with p >= d, got ({m}, {p}, {d}): a map into "
            "fewer dimensions is nowhere near an isometry, so leave this metric out"
        )
    return jnp.linalg.svd(jacobian, compute_uv=False)


def theta(jacobian: Array, order: float = 2.0) -> Array:
    """Theta_p of a map: its L^p distance to the local isometries, 0 if and only if it is one.

    With singular values sigma_i at a point, the Frobenius distance of the Jacobian to the
    isometries is dist = (sum_i (sigma_i - 1)^2)^(1/2); returns (E dist^p)^(1/p).
    """
    return _mean_distance(singular_values(jacobian), order)


def theta_inverse(jacobian: Array, order: float = 2.0) -> Array:
    """Theta_p of the inverse, whose singular values are 1 / sigma_i; inf where singular."""
    return _mean_distance(1 / singular_values(jacobian), order)


def _mean_distance(s: Array, order: float) -> Array:
    return jnp.mean(jnp.linalg.norm(s - 1, axis=1) ** order) ** (1 / order)


def bilipschitz_excess(jacobian: Array) -> Array:
    """L, the smallest with all singular values in [1 / (1 + L), 1 + L]."""
    s = singular_values(jacobian)
    return jnp.maximum(jnp.max(s) - 1, jnp.max(1 / s) - 1)


def rigidity_ratio(jacobian: Array) -> Array:
    """(E ||J - R||^2)^(1/2) / Theta_2, R the isometry nearest to E J; at least 1.

    jacobian: (m, d, d). Friesecke-James-Mueller rigidity bounds it by a constant of the
    domain, for maps that keep orientation. There is no such bound into p > d dimensions: a
    sheet bends without strain, so that raises ValueError. NaN for a local isometry to
    rounding, where it is 0 / 0.
    """
    m, p, d = jacobian.shape
    if p != d:
        raise ValueError(
            f"expected a Jacobian (m, d, d), got ({m}, {p}, {d}): into more dimensions a map "
            "bends without strain and no constant bounds the ratio, so use theta"
        )
    u, _, vt = jnp.linalg.svd(jnp.mean(jacobian, 0))
    distance = jnp.sqrt(jnp.mean(jnp.sum((jacobian - dot(u, vt)) ** 2, (1, 2))))
    strain = theta(jacobian)
    is_isometry = strain <= 4 * d * jnp.finfo(jacobian.dtype).eps  # rounding of the SVD
    return distance / jnp.where(is_isometry, jnp.nan, strain)


def scaled_distortion(jacobian: Array) -> Array:
    """d E tr(G^2) / (E tr G)^2 - 1 with G = J'J: 0 exactly for isometries up to one scale.

    The relaxed distortion of IRVAE (Lee et al. 2022), shifted and free of d.
    """
    square = singular_values(jacobian) ** 2
    d = square.shape[1]
    return d * jnp.mean(jnp.sum(square**2, 1)) / jnp.mean(jnp.sum(square, 1)) ** 2 - 1


def c_ima(jacobian: Array) -> Array:
    """E[sum_i log ||J e_i|| - (1/2) log det J'J] in nats; 0 for orthogonal columns, else > 0.

    Invariant under permutation and smooth componentwise maps of the latents.
    """
    columns = jnp.sum(jnp.log(jnp.linalg.norm(jacobian, axis=1)), 1)
    return jnp.mean(columns - jnp.sum(jnp.log(singular_values(jacobian)), 1))


@metric(best=0.0)
def decoder_theta(claims: Readout, sample: Sample) -> Array:
    """``theta`` of the learned decoder."""
    del sample
    return theta(need(claims, "jacobian", "decoder_theta"))


@metric(best=0.0)
def decoder_bilipschitz_excess(claims: Readout, sample: Sample) -> Array:
    """``bilipschitz_excess`` of the learned decoder."""
    del sample
    return bilipschitz_excess(need(claims, "jacobian", "decoder_bilipschitz_excess"))


@metric(best=0.0)
def decoder_distortion(claims: Readout, sample: Sample) -> Array:
    """``scaled_distortion`` of the learned decoder."""
    del sample
    return scaled_distortion(need(claims, "jacobian", "decoder_distortion"))


@metric(best=0.0)
def decoder_c_ima(claims: Readout, sample: Sample) -> Array:
    """``c_ima`` of the learned decoder."""
    del sample
    return c_ima(need(claims, "jacobian", "decoder_c_ima"))


@metric(best=None)
def mixing_theta(claims: Readout, sample: Sample) -> Array:
    """``theta`` of the true mixing."""
    del claims
    return theta(need(sample.truth, "jacobian", "mixing_theta"))


@metric(best=None)
def mixing_bilipschitz_excess(claims: Readout, sample: Sample) -> Array:
    """``bilipschitz_excess`` of the true mixing."""
    del claims
    return bilipschitz_excess(need(sample.truth, "jacobian", "mixing_bilipschitz_excess"))


@metric(best=None)
def mixing_distortion(claims: Readout, sample: Sample) -> Array:
    """``scaled_distortion`` of the true mixing."""
    del claims
    return scaled_distortion(need(sample.truth, "jacobian", "mixing_distortion"))


@metric(best=None)
def mixing_c_ima(claims: Readout, sample: Sample) -> Array:
    """``c_ima`` of the true mixing."""
    del claims
    return c_ima(need(sample.truth, "jacobian", "mixing_c_ima"))
