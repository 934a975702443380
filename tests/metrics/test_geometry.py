import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from crl.core import Readout, Truth
from crl.metrics import geometry

J = np.random.default_rng(0).standard_normal((40, 6, 3)) * 0.2 + np.eye(6, 3)


def test_theta_is_the_distance_to_the_nearest_isometry():
    """Against the polar factor and the pseudo-inverse, point by point."""
    forward, inverse = [], []
    for j in J:
        q = scipy.linalg.polar(j)[0]
        forward.append(np.linalg.norm(j - q))
        inverse.append(np.linalg.norm(np.linalg.pinv(j) - q.T))
    for order in (2.0, 3.0):
        got = geometry.theta(jnp.asarray(J), order)
        expected = np.mean(np.power(forward, order)), np.mean(np.power(inverse, order))
        assert got["forward"] == pytest.approx(expected[0] ** (1 / order), rel=1e-5)
        assert got["inverse"] == pytest.approx(expected[1] ** (1 / order), rel=1e-5)
        assert got["both"] == pytest.approx(sum(expected) ** (1 / order), rel=1e-5)


def test_rigidity_ratio_by_brute_force_and_undefined_for_isometries():
    square = J[:, :3]
    polar = [scipy.linalg.polar(j)[0] for j in square]
    rigid = scipy.linalg.polar(square.mean(0))[0]
    expected = np.linalg.norm(square - rigid) / np.linalg.norm(square - np.stack(polar))
    assert geometry.rigidity_ratio(jnp.asarray(square)) == pytest.approx(expected, rel=1e-5)
    same = np.broadcast_to(rigid, square.shape)
    assert np.isnan(geometry.rigidity_ratio(jnp.asarray(same)))


def test_maps_to_which_a_measure_does_not_apply_are_refused():
    """A curved sheet bends without strain; fewer observations than latents fold."""
    with pytest.raises(ValueError, match=r"expected a Jacobian \(m, d, d\), got \(40, 6, 3\)"):
        geometry.rigidity_ratio(jnp.asarray(J))
    wide = Truth(jacobian=jnp.asarray(J[:, :2]))
    with pytest.raises(ValueError, match=r"with p >= d, got \(40, 2, 3\)"):
        geometry.mixing_isometry(Readout(), wide)


def test_bilipschitz_excess_by_brute_force():
    s = np.linalg.svd(J, compute_uv=False)
    expected = max(s.max() - 1, 1 / s.min() - 1)
    assert geometry.bilipschitz_excess(jnp.asarray(J)) == pytest.approx(expected, rel=1e-4)


def test_distortions_vanish_on_the_maps_they_ask_for():
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 6, 3)))[0]
    assert geometry.scaled_distortion(jnp.asarray(7 * q)) == pytest.approx(0, abs=1e-5)
    assert geometry.scaled_distortion(jnp.asarray(J)) > 0.01
    orthogonal = q * np.random.default_rng(2).uniform(0.5, 2, (40, 1, 3))
    assert geometry.c_ima(jnp.asarray(orthogonal)) == pytest.approx(0, abs=1e-5)
    log_det = np.mean([np.linalg.slogdet(j.T @ j)[1] / 2 for j in J])
    expected = np.log(np.linalg.norm(J, axis=1)).sum(1).mean() - log_det
    assert geometry.c_ima(jnp.asarray(J)) == pytest.approx(expected, rel=1e-4)


def test_metrics_read_the_decoder_or_the_mixing():
    isometry = jnp.asarray(np.linalg.qr(J)[0])
    readout, truth = Readout(jacobian=jnp.asarray(J)), Truth(jacobian=isometry)
    learned = jax.jit(geometry.decoder_isometry)(readout, truth)
    true = geometry.mixing_isometry(readout, truth)
    assert learned["theta"] > 0.3
    np.testing.assert_allclose(list(true.values()), 0, atol=1e-5)
