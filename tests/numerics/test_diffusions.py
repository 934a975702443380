"""Stationary laws against scipy."""

import jax
import numpy as np
from scipy.linalg import solve_continuous_lyapunov

from crl.numerics.diffusions import lyapunov, simulate

A = (np.random.default_rng(0).normal(size=(4, 4)) - 3 * np.eye(4)).astype("float32")
NOISE = np.array([0.5, 1, 2, 1], "float32")


def test_lyapunov_equals_scipy_and_is_not_finite_without_stability():
    solve = jax.jit(lyapunov)
    want = solve_continuous_lyapunov(A.astype(float), -np.diag(NOISE.astype(float)))
    np.testing.assert_allclose(solve(A, np.diag(NOISE)), want, rtol=1e-4, atol=1e-5)
    assert not np.isfinite(solve(A + 6 * np.eye(4, dtype="float32"), np.diag(NOISE))).all()


def test_simulated_paths_reach_the_law_of_the_lyapunov_equation():
    weights = np.array([[0, 0.8, 0, 0], [0, 0, -0.9, 0], [0.7, 0, 0, 0.5], [0] * 4], "float32")
    start = np.full((20_000, 4), 3, "float32")

    def force(x):
        return x @ weights.T + 1

    x = jax.jit(lambda key: simulate(key, force, 1.0, NOISE, start, 80, 0.2))(
        jax.random.key(0)
    )
    x = np.asarray(x)
    drift = (weights - np.eye(4)).astype(float)
    covariance = solve_continuous_lyapunov(drift, -np.diag(NOISE.astype(float)))
    np.testing.assert_allclose(x.mean(0), -np.linalg.solve(drift, np.ones(4)), atol=0.04)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.05)
