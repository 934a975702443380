import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from crl.numerics.decorrelation import polar
from crl.numerics.whitening import whiten

_whiten = jax.jit(whiten, static_argnums=1)


def conditioned(condition, n=5000, p=8):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((p, p)))[0] for _ in range(2))
    s = np.logspace(0, -np.log10(condition), p)
    return (rng.laplace(size=(n, p)) @ (u * s @ v).T + 3).astype(np.float32)


@pytest.mark.parametrize("condition, bound", [(1e1, 1e-5), (1e3, 1e-3), (1e4, 5e-3)])
def test_float32_whitening_survives_condition_number(condition, bound):
    """|cov(z) - I| at most eps * condition: the rounding that the data came with.

    Seen 2e-6, 3e-5, 4e-4; a single Gram matrix gives .08 at 1e3 and NaN at 1e4.
    """
    x = conditioned(condition)
    white = _whiten(jnp.asarray(x), 8)
    z = (x.astype(float) - np.asarray(white.mean, float)) @ np.asarray(white.whitener, float).T
    assert np.abs(np.cov(z.T, bias=True) - np.eye(8)).max() < bound
    assert white.effective_rank == 8
    np.testing.assert_allclose(white.dewhitener @ white.whitener, np.eye(8), atol=1e-4)


def test_whitening_keeps_the_leading_principal_components():
    x = conditioned(100.0).astype(float)
    white = _whiten(jnp.asarray(x, jnp.float32), 3)
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(white.scales, s / np.sqrt(len(x)), rtol=1e-3)
    projector = white.dewhitener @ white.whitener
    np.testing.assert_allclose(projector, vt[:3].T @ vt[:3], atol=1e-3)


def test_effective_rank_counts_what_stands_above_rounding():
    rng = np.random.default_rng(1)
    low = rng.standard_normal((5000, 5)) @ rng.standard_normal((5, 8)) + 10
    white = _whiten(jnp.asarray(low, jnp.float32), 8)
    assert white.effective_rank == 5 and np.isfinite(white.whitener).all()
    constant = _whiten(jnp.full((5000, 8), 7.0), 8)
    assert constant.effective_rank == 0 and np.isfinite(constant.whitener).all()


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e4])
def test_polar_factor_equals_scipy(condition):
    rng = np.random.default_rng(2)
    u, v = (np.linalg.qr(rng.standard_normal((9, 9)))[0] for _ in range(2))
    w = 3 * u * np.logspace(0, -np.log10(condition), 9) @ v
    got = jax.jit(polar)(jnp.asarray(w, jnp.float32))
    expected = scipy.linalg.polar(w)[0]
    # A perturbation of eps moves the polar factor by eps * condition.
    np.testing.assert_allclose(got, expected, atol=1e-6 + 2e-7 * condition)
    np.testing.assert_allclose(got @ got.T, np.eye(9), atol=3e-6)
