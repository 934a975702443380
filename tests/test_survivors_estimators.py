"""What estimators claim in the units of x, where x is far from unit scale."""

import jax
import jax.numpy as jnp
import numpy as np

import crl
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.sae.topk_sae import topk_sae

KEY = jax.random.key(0)


def test_the_jacobian_of_the_isometric_autoencoder_is_per_unit_of_its_codes():
    """x(z) along the data: differences of the reconstruction over differences of the codes."""
    angle = jax.random.uniform(jax.random.key(1), (256,), minval=-1.5, maxval=1.5)
    arc = 20 * jnp.stack([jnp.sin(angle), jnp.cos(angle)], 1) + 3  # far from unit scale
    data = crl.as_data(arc)
    estimator = isometric_autoencoder(1, width=16, depth=1, num_steps=150)
    fitted = crl.fit(estimator, KEY, data).state
    near = data._replace(x=data.x + 0.2 * jnp.stack([jnp.cos(angle), -jnp.sin(angle)], 1))
    here, there = (crl.readout(estimator, fitted, d) for d in (data, near))
    m = len(here.jacobian)
    step = np.asarray(there.z - here.z, float)[:m]  # (m, 1)
    moved = np.asarray(there.x - here.x, float)[:m]  # (m, 2)
    slope = np.asarray(here.jacobian + there.jacobian, float)[..., 0] / 2
    assert np.abs(step).min() > 0.05
    np.testing.assert_allclose(slope, moved / step, atol=0.02)


def test_codes_of_the_topk_sae_times_its_dictionary_are_x_in_the_units_of_x():
    x = 50 * jax.random.laplace(jax.random.key(1), (128, 6))
    data = crl.as_data(x)
    estimator = topk_sae(8, 2, num_steps=20, batch_size=64)
    claims = crl.readout(estimator, crl.fit(estimator, KEY, data).state, data)
    offset = np.asarray(claims.x - claims.codes @ claims.dictionary)  # the bias, in each row
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=1e-3)
