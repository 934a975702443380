"""Modulated sources are standardised, and their modulation has the rank that was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import num_envs
from crl.dgp.mixings import linear, xtanh_mlp
from crl.dgp.segments import modulated_sources
from crl.dgp.sources import gaussian, laplace


def sampled(dgp, n):
    return jax.jit(lambda key: dgp.sample(key, dgp.init(key), n))(jax.random.key(0))


def test_sources_are_standardised_over_all_segments():
    sample = sampled(modulated_sources(laplace(), linear(), 3, 10, max_mean=5.0), 4000)
    z, env = np.asarray(sample.truth.z), np.asarray(sample.data.env)
    assert num_envs(sample.data) == 10 and (sample.data.given["count"] == 4000).all()
    np.testing.assert_allclose(z.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(z.std(0), 1, atol=0.02)
    for e in range(10):  # four standard errors, of a law with kurtosis 6
        scale, mean = (np.asarray(sample.truth.other[k][e]) for k in ("scale", "mean"))
        assert (np.abs(z[env == e].mean(0) - mean) < 4 * scale / 4000**0.5).all()
        np.testing.assert_allclose(z[env == e].std(0), scale, rtol=4 * (5 / 4000) ** 0.5 / 2)
    np.testing.assert_allclose(sample.data.x, z @ np.asarray(sample.truth.mixing).T, atol=1e-5)


@pytest.mark.parametrize("rank", [2, 4])
def test_modulation_has_its_rank(rank):
    """Of the natural parameters of Laplace sources, as differences to segment 0."""
    dgp = modulated_sources(laplace(), linear(), 4, 12, rank=rank)
    parameters = -np.sqrt(2) / np.asarray(dgp.init(jax.random.key(0)).scale)
    assert np.linalg.matrix_rank(parameters[1:] - parameters[0], tol=1e-3) == rank


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_segments": 5}, "num_segments > rank"),
        ({"rank": 6}, "rank <= num_latents"),
        ({"min_scale": 4.0}, "min_scale <= max_scale"),
        ({"max_mean": -1.0}, "max_mean >= 0"),
    ],
)
def test_refuses_a_modulation_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        modulated_sources(gaussian(), linear(), 5, **options)


def test_xtanh_inverts():
    mixing = xtanh_mlp()
    w = mixing.init(jax.random.key(0), 4, jnp.float32)
    z = 3 * jax.random.normal(jax.random.key(1), (200, 4))

    @jax.jit
    def there_and_back(z):
        return jax.vmap(lambda z: mixing.inverse(w, mixing.forward(w, z)))(z)

    np.testing.assert_allclose(there_and_back(z), z, atol=2e-3)  # condition number in float32
