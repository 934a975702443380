import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.nets.flows import spline_flow


def a_flow(d, dtype=jnp.float32, **options):
    """A flow of two layers, its parameters some way from where they start, and rows."""
    flow = spline_flow(num_layers=2, width=8, depth=1, num_bins=4, **options)
    key_x, key_init, key_noise = jax.random.split(jax.random.key(0), 3)
    x = 1.5 * jax.random.normal(key_x, (50, d), dtype)
    start = flow.init(key_init, x)
    leaves, form = jax.tree.flatten(start)
    keys = jax.random.split(key_noise, len(leaves))
    moved = [a + 0.2 * jax.random.normal(k, a.shape, dtype) for a, k in zip(leaves, keys)]
    return flow, start, jax.tree.unflatten(form, moved), x


@pytest.mark.parametrize("d", [1, 3])
def test_flows_start_as_the_identity(d):
    flow, start, _, x = a_flow(d)
    z, log_det = jax.jit(flow.apply)(start, x)
    np.testing.assert_allclose(z, x, atol=2e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def test_the_inverse_of_a_flow_inverts_it():
    flow, _, params, x = a_flow(3)
    z, _ = jax.jit(flow.apply)(params, x)
    assert jnp.max(jnp.abs(z - x)) > 0.5
    np.testing.assert_allclose(jax.jit(flow.inverse)(params, z), x, atol=1e-5)


def test_log_det_is_that_of_the_jacobian():
    with jax.enable_x64(True):
        flow, _, params, x = a_flow(3, jnp.float64)

        def one(x):
            return flow.apply(params, x[None])[0][0]

        _, expected = jnp.linalg.slogdet(jax.jit(jax.vmap(jax.jacfwd(one)))(x))
        np.testing.assert_allclose(flow.apply(params, x)[1], expected, atol=1e-10)
