import jax
import jax.numpy as jnp
import numpy as np

from crl.sae.autoencoder import Params, encode, top_codes
from crl.sae.topk_sae import autoencode


def test_sparse_gradient_is_the_dense_one():
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(12, 5), (12,), (12, 5), (5,), (40, 5)]
    *params, x = (jax.random.normal(k, s) for k, s in zip(keys, shapes))
    params = Params(*params)
    weight = jnp.cos(jnp.arange(200.0)).reshape(40, 5)

    def dense(params):
        codes = top_codes(encode(params, x), 4)
        return jnp.sum(weight * (codes @ params.w_dec + params.b_dec) ** 2)

    def sparse(params):
        return jnp.sum(weight * autoencode(params, x, 4)[0] ** 2)

    value, gradient = jax.jit(jax.value_and_grad(sparse))(params)
    expected_value, expected = jax.jit(jax.value_and_grad(dense))(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    for a, b in zip(gradient, expected):
        np.testing.assert_allclose(a, b, atol=1e-4 * jnp.abs(b).max())
    fired = (top_codes(encode(params, x), 4) > 0).any(0)
    np.testing.assert_array_equal(autoencode(params, x, 4)[1], fired)
