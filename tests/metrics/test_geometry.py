import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from crl.core import Readout, Sample, Truth, grouped
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
        expected = [np.mean(np.power(d, order)) ** (1 / order) for d in (forward, inverse)]
        got = [f(jnp.asarray(J), order) for f in (geometry.theta, geometry.theta_inverse)]
        np.testing.assert_allclose(got, expected, rtol=1e-5)


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
    with pytest.raises(ValueError, match=r"with p >= d, got \(40, 2, 3\)"):
        geometry.theta(jnp.asarray(J[:, :2]))


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
    isometry = jnp.asarray(np.linalg.qr(J)[0], jnp.float32)
    readout = Readout(jacobian=jnp.asarray(J))
    sample = Sample(grouped(jnp.zeros((40, 6))), Truth(jacobian=isometry))
    for name, measure in {
        "theta": geometry.theta,
        "bilipschitz_excess": geometry.bilipschitz_excess,
        "distortion": geometry.scaled_distortion,
        "c_ima": geometry.c_ima,
    }.items():
        learned = getattr(geometry, f"decoder_{name}")
        true = getattr(geometry, f"mixing_{name}")
        assert learned(readout, sample) == measure(jnp.asarray(J)) > 0.01
        assert abs(true(readout, sample)) < 1e-5
        # The decoder is judged; the mixing is what it is.
        assert learned.best == 0 and true.best is None
