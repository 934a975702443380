"""Against the eigenvalues of numpy."""

import jax
import numpy as np

from crl.numerics.spectra import spectral_abscissa, spectral_radius

A = (np.random.default_rng(0).normal(size=(4, 4)) - 3 * np.eye(4)).astype("float32")


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


def test_spectral_radius_is_the_largest_absolute_eigenvalue():
    rotation = np.array([[0.3, 5], [-5, 0.3]], "float32")
    shear = np.array([[0.5, 4], [0, 0.5]], "float32")
    for a in (A, A[:2, :2], rotation, shear):
        found = jax.jit(spectral_radius)(a)
        np.testing.assert_allclose(found, np.abs(np.linalg.eigvals(a)).max(), rtol=1e-4)
