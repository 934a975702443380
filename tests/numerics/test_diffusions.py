"""Stationary laws against scipy."""

import jax
import numpy as np
from scipy.linalg import solve_continuous_lyapunov

from crl.numerics.diffusions import lyapunov, simulate, spectral_abscissa

A = (np.random.default_rng(0).normal(size=(4, 4)) - 3 * np.eye(4)).astype("float32")
NOISE = np.array([0.5, 1, 2, 1], "float32")


def test_spectral_abscissa_is_the_largest_real_part():
    rotation = np.array([[0.3, 5], [-5, 0.3]], "float32")
    shear = np.array([[0.5, 4], [0, 0.5]], "float32")
    for a in (A[:2, :2], rotation, shear, np.zeros((2, 2), "float32")):
        found = jax.jit(spectral_abscissa)(a)
        np.testing.assert_allclose(found, np.linalg.eigvals(a).real.max(), atol=1e-4)


def test_spectral_abscissa_of_an_acyclic_graph_is_zero():
    # Its exponential grows by powers of t, next to which the identity underflows.
    rng = np.random.default_rng(0)
    chain = np.diag(rng.uniform(1, 3, 9), 1).astype("float32")
    order = rng.permutation(10)
    for a in (chain, chain[order][:, order], np.triu(rng.normal(size=(10, 10)), 1)):
        a = a.astype("float32")
        found = jax.jit(spectral_abscissa)(a)
        np.testing.assert_allclose(found, 0, atol=5e-3 * np.linalg.norm(a))


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
