"""Random features of the Gaussian kernel and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from crl.dynamics.stationary_diffusion import fourier_equations
from crl.numerics.kernels import Fourier, gaussian_features, values

X = np.random.default_rng(0).normal(size=(6, 2))


def test_products_of_features_average_to_the_gaussian_kernel():
    features = gaussian_features(jax.random.key(0), 20_000, 2, 1.5)
    h = np.asarray(values(features, X.astype("float32")))
    distance = ((X[:, None] - X) ** 2).sum(-1)
    # Standard error at most 1 / sqrt(20,000).
    np.testing.assert_allclose(h @ h.T / 20_000, np.exp(-distance / 4.5), atol=0.035)


def test_equations_are_the_kernel_deviation_from_stationarity_by_autodiff():
    """E_x E_y A_x A_y k(x, y) for k(x, y) = mean_j h_j(x) h_j(y), all derivatives by jax."""
    rng = np.random.default_rng(1)
    matrix, noise, leak = rng.normal(size=(2, 2)), np.array([0.5, 2.0]), 1.3
    features = Fourier(rng.normal(size=(4, 2)), rng.uniform(0, 6, 4))
    with jax.enable_x64(True):
        features, x = jax.tree.map(jnp.asarray, (features, X))

        def generated(x):
            """A h_j (4,) at one point."""
            drift = matrix @ jnp.tanh(x) - leak * x + 0.4
            slope = jax.jacfwd(h)
            second = jnp.diagonal(jax.jacfwd(slope)(x), axis1=1, axis2=2)  # (4, d)
            return slope(x) @ drift + 0.5 * second @ noise

        def h(x):
            return values(features, x[None])[0]

        a = np.asarray(jax.jit(jax.vmap(generated))(x))  # (n, 4)
        share = jnp.ones((6, 1)) / 6
        found = jax.jit(fourier_equations)(features, x, jnp.tanh(x), share, leak)
    brute = np.mean([a[i] * a[k] for i in range(6) for k in range(6)])
    on_drift, on_bias, on_noise, constant = (np.asarray(a[0]) for a in found)
    mean = np.einsum("mil,il->m", on_drift, matrix) + on_noise @ noise + constant
    mean += on_bias @ np.full(2, 0.4)
    np.testing.assert_allclose(np.mean(mean**2), brute, rtol=1e-10)
